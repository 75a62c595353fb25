"""Peak memory that a test run reports, over all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

from properties.peak_memory import INTERVAL, PeakMemory, process_tree, resident_bytes

SIZE = 96 << 20
HOLD = f"held = bytearray({SIZE}); print('ready', flush=True); input()"
"""A process that holds SIZE bytes until it reads a line."""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
"""A process that starts such a process and waits for it."""
EMPTY = "print('ready', flush=True); input()"


def start(program: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "ready\n"
    return child


def test_process_tree_contains_descendants_of_a_process() -> None:
    alone = sum(map(resident_bytes, process_tree(os.getpid())))
    with start(PARENT) as child:
        both = [*process_tree(child.pid)]
        together = sum(map(resident_bytes, process_tree(os.getpid())))
        child.communicate("\n")
    assert both[0] == child.pid and len(both) == 2
    assert together - alone > SIZE > resident_bytes(both[0])
    assert [resident_bytes(process) for process in both] == [0, 0] and [*process_tree(both[1])] == both[1:], "both have ended"


def test_peak_includes_processes_that_have_ended() -> None:
    def measure(program: str) -> tuple[int, int]:
        peak = PeakMemory()
        peak.pytest_sessionstart()
        with start(program) as child:
            time.sleep(3 * INTERVAL)
            child.communicate("\n")
        time.sleep(3 * INTERVAL)
        peak.pytest_sessionfinish()
        return peak.total, peak.largest

    (small, _), (large, largest) = measure(EMPTY), measure(HOLD)
    assert large - small > SIZE // 2 and SIZE < largest < large


def test_peak_is_reported_in_one_line() -> None:
    lines: list[str] = []
    reporter: Any = SimpleNamespace(no_summary=False, write_line=lines.append)
    peak = PeakMemory()
    peak.pytest_sessionfinish()  # of a run that ended before its start
    peak.pytest_terminal_summary(reporter)
    peak.total, peak.largest = 3 << 30, 1 << 30
    peak.pytest_terminal_summary(reporter)
    peak.pytest_terminal_summary(SimpleNamespace(no_summary=True))
    assert len(lines) == 1 and "3,072 MiB" in lines[0] and "1,024 MiB" in lines[0]
