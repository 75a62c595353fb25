"""Memory: the peak that a run of the tests tells, of all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

from properties.peak_memory import INTERVAL, PeakMemory, process_tree, resident_bytes

HELD = 96 << 20
HOLD = f"held = bytearray({HELD}); print('held', flush=True); input()"
"""A process that holds some memory until it is told to go."""
PASS_ON = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
"""One that starts such a process, and waits for it."""


def started(program: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "held\n"
    return child


def test_what_descends_from_a_process_is_seen() -> None:
    alone = sum(map(resident_bytes, process_tree(os.getpid())))
    with started(PASS_ON) as child:
        both = [*process_tree(child.pid)]
        together = sum(map(resident_bytes, process_tree(os.getpid())))
        child.communicate("\n")
    assert both[0] == child.pid and len(both) == 2
    assert together - alone > HELD > resident_bytes(both[0])
    assert [resident_bytes(process) for process in both] == [0, 0] and [*process_tree(both[1])] == both[1:], "they are gone"


def test_the_peak_stays_when_it_is_over() -> None:
    def told(program: str) -> tuple[int, int]:
        peak = PeakMemory()
        peak.pytest_sessionstart()
        with started(program) as child:
            time.sleep(3 * INTERVAL)
            child.communicate("\n")
        time.sleep(3 * INTERVAL)
        peak.pytest_sessionfinish()
        return peak.total, peak.largest

    (little, _), (much, largest) = told("print('held', flush=True); input()"), told(HOLD)
    assert much - little > HELD // 2 and HELD < largest < much


def test_it_is_told_in_one_line() -> None:
    lines: list[str] = []
    reporter: Any = SimpleNamespace(no_summary=False, write_line=lines.append)
    peak = PeakMemory()
    peak.pytest_sessionfinish()  # a run that ended before it began
    peak.pytest_terminal_summary(reporter)
    peak.total, peak.largest = 3 << 30, 1 << 30
    peak.pytest_terminal_summary(reporter)
    peak.pytest_terminal_summary(SimpleNamespace(no_summary=True))
    assert lines == ["peak memory: 3,072 MiB in all processes together, 1,024 MiB in the largest"]
