"""The real command in a process of its own, forked from one that has imported torch already: seconds saved on every call."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path


def eagle2(words: list[str], folder: Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run `eagle2 WORDS` in a folder, as a shell would: its exit code and what it printed."""
    with tempfile.TemporaryDirectory() as told:
        process = _server().Process(target=_run, args=(words, str(folder), told))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["eagle2", *words], timeout)
        stdout, stderr = (Path(told, name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["eagle2", *words], process.exitcode, stdout, stderr)


@cache
def _server() -> ForkServerContext:
    """Children are forked from a process that has done nothing but import; no pytest runs in it, and no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers", "transformers.generation", "hypothesis", "harness.cli", "eagle2_ref.decode"]
    )
    return context


def _run(words: list[str], folder: str, told: str) -> None:
    from harness.cli import main

    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        del os.environ[name]  # or pytest would take itself for a worker of ours
    os.environ["COLUMNS"] = "200"
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(told, name), os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = ["eagle2", *words]
    main()
