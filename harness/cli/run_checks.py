"""Run the checks by pytest, for the commands that judge an implementation.

They run in a child process. This process imports nothing of the implementation, and accepts no verdict but that of a record
with its footer.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from harness import activity, tracebacks
from harness.cli.options import check_jobs
from harness.settings import Settings
from harness.supervisor import ProcessEnded, supervise
from harness.verdict import BROKEN, HARNESS_ERROR, USAGE

if TYPE_CHECKING:
    import pytest

    from harness.implementations import Implementation
    from harness.pairs import Pair
    from harness.record.model import Record

First = Callable[["Implementation", "Pair"], None]
Identity = tuple[int, int] | None


def run_checks(settings: Settings, jobs: str, report: bool = True, brief: bool = False, first: First | None = None) -> int:
    """Run the checks, show the verdicts, and return the exit code.

    Args:
        settings: relative paths are resolved here.
        jobs: number of processes, or auto for one per core.
        report: name the report's folder; without, the exit code is 0 or 4, whether the adapter works.
        brief: show the results only, for a check that `eagle2 replay` repeats.
        first: is called with the implementation before the checks.

    Raises:
        BadInput: an option is wrong. Nothing has been written then.
    """
    check_jobs(jobs)
    settings, tape = settings.absolute(), settings.tape
    path = Path(settings.out) / "record.jsonl"
    before = _identity(path)
    show = partial(_show, settings=settings, path=path, report=report, brief=brief, tape=tape)
    try:
        return supervise(lambda: show(_judge(settings, jobs, first, before)))
    except ProcessEnded as end:
        begun = _identity(path) != before
        if end.by_user:
            kept = f"the results so far are in {path}" if begun and report else "no results are kept"
            typer.echo(f"eagle2: stopped by a signal; {kept}", err=True)
            return 128 + end.by_user
        typer.echo(f"eagle2: {end}", err=True)
        code = BROKEN
        if begun:
            complete = partial(_complete, settings, str(end), end.check, end.by_implementation)
            code = supervise(lambda: show(complete()))
        return code if end.by_implementation else HARNESS_ERROR


def run_smoke(settings: Settings, first: First | None = None) -> int:
    """Run the chapter SMOKE alone, without storing a record."""
    with tempfile.TemporaryDirectory() as out:
        code = run_checks(replace(settings, out=out, only="SMOKE", draw=False), "0", report=False, first=first)
        if code == BROKEN:
            typer.echo("broken adapter, exit code 4: make it pass before `eagle2 verify`")
        if kept := tracebacks.move(Path(out), Path(settings.out)):
            typer.echo(f"tracebacks: {kept}")
        return code


class InternalErrors:
    """A pytest plugin that keeps the first exception of the harness itself, which pytest would print and forget."""

    def __init__(self) -> None:
        self.first: BaseException | None = None

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        self.first = self.first or excinfo.value
        return True


def _judge(settings: Settings, jobs: str, first: First | None, before: Identity) -> int:
    """Run the checks in this process and its workers; returns 0 if they ran and were recorded."""
    gc.disable()  # imports create a million objects that are never freed: see properties/conftest.py
    import pytest

    from harness import known
    from harness.catalogue import check_selectors, folders

    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        os.environ.pop(name, None)  # options of the user's own tests, such as --collect-only
    chapters = folders()  # before the implementation: its folder may hold packages of these names
    from eagle2_ref.model.target import AUTO, torch_device
    from harness.implementations import connect
    from harness.implementations.trace import differences, write_head
    from harness.progress import Progress

    gc.freeze()
    gc.enable()
    # Wrong options are reported before pytest starts.
    if settings.device != AUTO:
        torch_device(settings.device)
    implementation = connect(settings.impl, settings.time_limit)
    pair = implementation.find_pair(settings)
    if first:
        first(implementation, pair)
    implementation.check(pair, settings.dtype, settings.device)
    known.read(settings.known)
    if settings.only:
        check_selectors(settings.only, settings.tier == "full")
    if settings.tape:
        write_head(Path(settings.tape), implementation, settings)
    if changed := differences(implementation.recorded, settings):
        typer.echo(f"eagle2: {changed}", err=True)
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    quiet += ["-o", "console_output_style=progress", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    # The current folder may be another project, whose pytest settings and conftest must not be read.
    if folder := activity.folder():
        quiet.append(f"--basetemp={folder / 'pytest'}")  # it goes with the folder
    alone = ["-c", os.devnull, f"--rootdir={chapters[0].parent}", f"--confcutdir={chapters[0]}"]
    errors = InternalErrors()
    status = pytest.main([*map(str, chapters), *alone, *quiet, "-n", jobs, *settings.unparse()], plugins=[errors, Progress()])
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if errors.first:
        raise errors.first
    if status == pytest.ExitCode.USAGE_ERROR:
        return USAGE
    if _identity(Path(settings.out) / "record.jsonl") == before:
        raise RuntimeError("pytest ended without a record")
    return 0


def _complete(settings: Settings, reason: str, check: str, broken: bool) -> int:
    """Close the record of a run whose process has ended: the check that it was running is inconclusive."""
    from harness.recorder import Recorder

    recorder = Recorder.reopen(settings)
    recorder.cut_off(reason, check, broken)
    recorder.finish()
    return 0


def _show(status: int, settings: Settings, path: Path, report: bool, brief: bool, tape: str) -> int:
    """Show the record of a run, and return the exit code that its footer states."""
    from harness.record.model import read_record
    from harness.terminal import show_record, show_repeated

    if status:
        return status
    record: Record = read_record(path)
    if brief:
        show_repeated(record)
    else:
        show_record(record, path.parent if report else None, settings)
    if tape:
        typer.echo(f"trace: {tape}")
    return record.footer.exit_code if report else (BROKEN if record.footer.exit_code else 0)


def _identity(path: Path) -> Identity:
    """What changes when a file is written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
