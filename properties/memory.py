"""The memory that a run of the tests takes: all of its processes together, looked at a few times a second."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVERY = 0.25
"""Seconds from one look to the next."""


class Peak:
    """The plugin of the process that a run begins with: pytest-xdist's workers, and what tests start, descend from it.

    Pages that processes share count in each of them: what is told is too much rather than too little. Where the system does
    not tell, neither does this.
    """

    def __init__(self) -> None:
        self.together = self.largest = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def pytest_sessionstart(self) -> None:
        self._watch.start()

    def pytest_sessionfinish(self) -> None:
        self._over.set()
        if self._watch.is_alive():  # not where a run ended before it began
            self._watch.join()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.together and not terminalreporter.no_summary:
            told = f"{self.together >> 20:,} MiB in all processes together, {self.largest >> 20:,} MiB in the largest"
            terminalreporter.write_line(f"peak memory: {told}")

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            sizes = [resident(process) for process in family(os.getpid())]
            self.together, self.largest = max(self.together, sum(sizes)), max(self.largest, *sizes)


def family(process: int) -> Iterator[int]:
    """A process, and all that it started and they did."""
    yield process
    for thread in _listed(Path(f"/proc/{process}/task")):
        for child in _read(thread / "children").split():
            yield from family(int(child))


def resident(process: int) -> int:
    """Bytes of a process that are in memory; 0 of one that is gone."""
    told = _read(Path(f"/proc/{process}/statm")).split()
    return int(told[1]) * resource.getpagesize() if told else 0


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # gone since it was named
        return []


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
