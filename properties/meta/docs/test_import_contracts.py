"""The import contracts of pyproject.toml hold, and would fail if a lower layer imported a higher one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.pairs import FIXTURES

pytest.importorskip("importlinter")

ROOT = FIXTURES.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the pyproject.toml in `folder` against the packages in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_import_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("eagle2_ref/tree.py", "import harness.files", "eagle2_ref is not allowed to import harness"),
        ("harness/files.py", "import properties.subject", "harness is not allowed to import properties"),
        ("harness/statistics/pit.py", "import torch", "harness.statistics is not allowed to import torch"),
        ("harness/report/text.py", "import harness.mutants", "harness.report is not allowed to import harness.mutants"),
    ],
)
def test_import_contracts_reject_an_upward_import(file: str, line: str, broken: str, tmp_path: Path) -> None:
    """Copies of the packages with one planted import; only the import statements of the copies matter."""
    for package in ("eagle2_ref", "harness", "properties", "fixtures"):
        for source in (ROOT / package).rglob("*.py"):
            copy = tmp_path / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    planted = tmp_path / file
    planted.write_text(planted.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode == 1 and broken in done.stdout, done.stdout + done.stderr
