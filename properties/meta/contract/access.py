"""How the contract tests reach the code. Everything that a change of layout can touch is imported here, in functions.

Whoever moves a module edits one line of this file. The tests themselves use the command line, public ids and committed files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from typer.main import get_command
from typer.testing import CliRunner, Result

from properties.meta.helpers.command import eagle2, fork

ROOT = Path(__file__).resolve().parents[3]
REPORTS = ROOT / "reports"
WIDTH = 80

# Rich and typer read these when they print.
TERMINAL = {"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}


# --- imports of modules that may move: one line each --------------------------------------------------------------------


def root_command() -> Any:
    """The click command of `eagle2`, with its subcommands."""
    from harness.cli import app

    return get_command(app)


def open_engine(connectable: str, pair: str, **options: Any) -> Any:
    """An engine opened on a shipped pair, with `generate(prompts, params, seeds)`."""
    from harness.implementations import connect
    from harness.pairs import shipped

    return connect(connectable).open(shipped(pair), **options)


def connectable_prefixes() -> list[str]:
    """The words that may stand before the first colon of a connectable string."""
    from harness.implementations import CONNECTORS

    return [*CONNECTORS]


def methods() -> dict[str, Any]:
    """The methods of the reference by name, each with `rules` and `checkpoint`."""
    from eagle2_ref.methods import METHODS

    return dict(METHODS)


def gallery() -> dict[str, Any]:
    """All mutants and controls by id, each with `control` and `killers` (property -> case)."""
    from harness.mutants import GALLERY

    return dict(GALLERY)


def read_any_record(path: Path) -> Any:
    """Read a committed record by the reader of its format; BadInput or ValidationError if it is not whole."""
    from harness.benchmark.acceptance_record import read_acceptance
    from harness.benchmark.record import read_bench, read_comparison
    from harness.calibration.figures import Calibration
    from harness.record.model import Trial, read_record

    if path.name == "trials.jsonl":
        return [Trial.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name == "calibration.jsonl":
        return Calibration.read(path)
    readers: dict[str, Any] = {"acceptance": read_acceptance, "bench": read_bench, "compare": read_comparison}
    for folder, read in readers.items():
        if folder in path.relative_to(REPORTS).parts:
            return read(path, whole=True)
    return read_record(path)


def render_calibration(record: Path, out: Path) -> None:
    """Write index.html and summary.md of a calibration."""
    from harness.calibration.report import render

    out.mkdir(parents=True, exist_ok=True)
    render(record, out)


def render_kill_matrix(trials: Path, mutants: Sequence[str], out: Path) -> None:
    """Write index.html and summary.md of the trials of some mutants."""
    from harness.report.matrix import render_matrix

    chosen = [trial for trial in read_any_record(trials) if trial.mutant in mutants]
    render_matrix(chosen, {name: gallery()[name] for name in mutants}, 60.0, out)


def show_verdicts(record: Path, report: Path) -> None:
    """Print what `eagle2 verify` prints after a run."""
    from harness.record.model import read_record
    from harness.terminal import show_record

    show_record(read_record(record), report)


# --- the command line -----------------------------------------------------------------------------------------------------


def invoke(words: Sequence[str], stdin: str | None = None) -> Result:
    """Run `eagle2 WORDS` in this process, at 80 columns and without colour. Not for commands that start pytest."""
    from harness.cli import app

    return CliRunner().invoke(app, list(words), input=stdin, env=TERMINAL, prog_name="eagle2")


def print_at_80_columns(function: Any, *arguments: Any) -> str:
    """What a function prints on a terminal of 80 columns without colour."""
    import contextlib
    import io

    with patch.dict(os.environ, TERMINAL), contextlib.redirect_stdout(io.StringIO()) as output:
        function(*arguments)
    return output.getvalue()


def run(words: Sequence[str], folder: Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `eagle2 WORDS` in a folder, in a process of its own, forked after the imports. For commands that start pytest."""
    return eagle2(list(words), folder, timeout, TERMINAL)


def collect(folder: Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Collect the chapters of `properties`, and print property id -> [[case id, whether only tier full has it]] as JSON."""
    return fork(_run_collection, [], folder, timeout, TERMINAL)


def normalise(text: str, *folders: Path) -> str:
    """Remove terminal codes and trailing spaces, and replace folders, which differ from machine to machine."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    for folder in folders:
        text = text.replace(f"{folder}", "FOLDER")
    text = text.replace(f"{ROOT}", "ROOT")
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def _run_collection(_words: list[str]) -> None:
    import json

    import pytest

    from harness.pytest_plugin import CheckItem

    found: dict[str, list[tuple[str, bool]]] = {}

    class Collection:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            for item in session.items:
                assert isinstance(item, CheckItem), f"{item.nodeid} is not a check"
                found.setdefault(item.check.id, []).append((item.case, item.get_closest_marker("full") is not None))

    chapters = str(ROOT / "properties")
    quiet = ["--collect-only", "-p", "no:cacheprovider", "-p", "no:terminal", f"--rootdir={ROOT}", "-c", os.devnull]
    code = pytest.main([*quiet, chapters, f"--ignore={chapters}/meta", "--judge", "tier=full"], plugins=[Collection()])
    print(json.dumps(found))
    sys.exit(int(code))
