"""Run the command `eagle2` in a new process, forked from one that has imported torch, which saves seconds for each call."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

WIDE = {"COLUMNS": "200"}

STARTED = "started"
"""Name of a file that shows that the forked process is about to call the function."""


def eagle2(
    words: list[str],
    folder: Path,
    timeout: float = 120.0,
    terminal: Mapping[str, str] = WIDE,
    at_end: signal.Signals | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `eagle2 WORDS` in a folder, with the environment of a terminal, and return its exit code and output."""
    return fork(_main, words, folder, timeout, terminal, at_end)


def fork(
    function: Callable[[list[str]], None],
    words: list[str],
    folder: Path,
    timeout: float,
    terminal: Mapping[str, str],
    at_end: signal.Signals | None = None,
) -> subprocess.CompletedProcess[str]:
    """Call `function(words)` in a forked process, and return its exit code and output.

    Args:
        at_end: signal that the process gets at the end of `timeout`, counted from the call, after which it has a minute to end.

    Raises:
        subprocess.TimeoutExpired: the process did not end in time; it was killed.
    """
    with tempfile.TemporaryDirectory() as streams:
        process = _server().Process(target=_run, args=(function, words, str(folder), streams, dict(terminal)))
        process.start()
        while at_end is not None and process.is_alive() and not Path(streams, STARTED).exists():
            time.sleep(0.01)
        process.join(timeout)
        if process.exitcode is None and at_end is not None:
            assert process.pid is not None
            os.kill(process.pid, at_end)
            process.join(60)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["eagle2", *words], timeout)
        stdout, stderr = (Path(streams, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["eagle2", *words], process.exitcode, stdout, stderr)


@cache
def _server() -> ForkServerContext:
    """A process that only imports, and from which others are forked. No pytest and no thread runs in it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers", "transformers.generation", "hypothesis", "harness.cli", "eagle2_ref.decode"]
    )
    return context


def _run(function: Callable[[list[str]], None], words: list[str], folder: str, streams: str, terminal: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        del os.environ[name]  # otherwise pytest would take itself for a worker of the pytest that started it
    os.environ.update(terminal)
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(streams, name), os.O_WRONLY | os.O_CREAT), number)
    Path(streams, STARTED).touch()
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    function(words)


def _main(words: list[str]) -> None:
    from harness.cli import main

    sys.argv = ["eagle2", *words]
    main()
