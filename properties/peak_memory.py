"""Peak memory of a test run: all of its processes together, sampled a few times a second."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INTERVAL = 0.25
"""Seconds between two samples."""


class PeakMemory:
    """pytest plugin of the first process of a run; the workers of pytest-xdist and what tests start descend from it.

    Pages that processes share are counted in each of them, so that the sum is an upper bound. It reads /proc, and reports
    nothing on systems without it.
    """

    def __init__(self) -> None:
        self.total = self.largest = 0
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def pytest_sessionstart(self) -> None:
        self._thread.start()

    def pytest_sessionfinish(self) -> None:
        self._finished.set()
        if self._thread.is_alive():  # it was never started if the session failed to start
            self._thread.join()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.total and not terminalreporter.no_summary:
            sizes = f"{self.total >> 20:,} MiB in all processes together, {self.largest >> 20:,} MiB in the largest"
            terminalreporter.write_line(f"peak memory: {sizes}")

    def _sample(self) -> None:
        while not self._finished.wait(INTERVAL):
            sizes = [resident_bytes(process) for process in process_tree(os.getpid())]
            self.total, self.largest = max(self.total, sum(sizes)), max(self.largest, *sizes)


def process_tree(process: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield process
    for thread in _entries(Path(f"/proc/{process}/task")):
        for child in _read(thread / "children").split():
            yield from process_tree(int(child))


def resident_bytes(process: int) -> int:
    """Resident memory of a process; 0 if it has ended."""
    fields = _read(Path(f"/proc/{process}/statm")).split()
    return int(fields[1]) * resource.getpagesize() if fields else 0


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process has ended
        return []


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
