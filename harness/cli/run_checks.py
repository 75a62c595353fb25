"""Run the checks by pytest, for the commands that judge an implementation."""

from __future__ import annotations

import gc
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import typer

from eagle2_ref.errors import BadInput
from harness import tracebacks
from harness.settings import Settings
from harness.verdict import BROKEN, INCONCLUSIVE, USAGE


def run_checks(settings: Settings, jobs: str, report: bool = True, brief: bool = False) -> int:
    """Run the checks, show the verdicts, and return the exit code.

    Args:
        settings: relative paths are resolved here.
        jobs: number of processes, or auto for one per core.
        report: name the report's folder; without, the exit code is 0 or 4, whether the adapter works.
        brief: show the results only, for a check that `eagle2 replay` repeats.

    Raises:
        BadInput: an option is wrong. Nothing has been written then.
    """
    if jobs != "auto" and not jobs.isdecimal():
        raise BadInput(f"invalid value for --jobs: {jobs}", "give a whole number of 0 or more, or auto for one process per core")
    gc.disable()  # imports create a million objects that are never freed: see properties/conftest.py
    import pytest

    from harness import known
    from harness.catalogue import check_selector, folders

    tape = settings.tape
    settings, chapters = settings.absolute(), folders()  # before the implementation: its folder may hold packages of these names
    from harness.implementations import connect
    from harness.implementations.trace import write_head
    from harness.pairs import find_pair
    from harness.progress import Progress
    from harness.record.model import read_record
    from harness.terminal import show_record, show_repeated

    gc.freeze()
    gc.enable()
    # Wrong options are reported before pytest starts.
    pair = find_pair(settings.pair, settings.target or None, settings.draft or None)
    implementation = connect(settings.impl, settings.time_limit)
    implementation.check(pair, settings.dtype, settings.device)
    known.read(settings.known)
    try:
        if settings.only:
            check_selector(settings.only)
    except BadInput as error:  # not exit code 2: nothing was judged, which has been inconclusive since the first version
        typer.echo(f"eagle2: {error}", err=True)
        return INCONCLUSIVE
    if settings.tape:
        write_head(Path(settings.tape), implementation)
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-o", "console_output_style=progress"]
    # The current folder may be another project, whose pytest settings and conftest must not be read.
    alone = ["-c", os.devnull, f"--rootdir={chapters[0].parent}", f"--confcutdir={chapters[0]}"]
    status = pytest.main([*map(str, chapters), *alone, *quiet, "-n", jobs, *settings.unparse()], plugins=[Progress()])
    path = Path(settings.out) / "record.jsonl"
    if status == pytest.ExitCode.USAGE_ERROR:
        return USAGE
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) or not path.exists():
        typer.echo(f"eagle2: the run was interrupted; its results so far are in {path}", err=True)
        return INCONCLUSIVE
    record = read_record(path)
    if brief:
        show_repeated(record)
    else:
        show_record(record, path.parent if report else None)
    if tape:
        typer.echo(f"trace: {tape}")
    return record.footer.exit_code if report else (BROKEN if record.footer.exit_code else 0)


def run_smoke(settings: Settings) -> int:
    """Run the chapter SMOKE alone, without storing a record."""
    with tempfile.TemporaryDirectory() as out:
        code = run_checks(replace(settings, out=out, only="SMOKE"), "0", report=False)
        if code == BROKEN:
            typer.echo("broken adapter, exit code 4: make it pass before `eagle2 verify`")
        if kept := tracebacks.move(Path(out), Path(settings.out)):
            typer.echo(f"tracebacks: {kept}")
        return code
