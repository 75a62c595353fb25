"""Memory: the peak that a run of the tests tells, of all its processes; and what the garbage collector leaves alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from harness.lasting import lasting
from properties.memory import EVERY, Peak, family, resident

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
    alone = sum(map(resident, family(os.getpid())))
    with started(PASS_ON) as child:
        both = [*family(child.pid)]
        together = sum(map(resident, family(os.getpid())))
        child.communicate("\n")
    assert both[0] == child.pid and len(both) == 2
    assert together - alone > HELD > resident(both[0])
    assert [resident(process) for process in both] == [0, 0] and [*family(both[1])] == both[1:], "they are gone"


def test_the_peak_stays_when_it_is_over() -> None:
    def told(program: str) -> tuple[int, int]:
        peak = Peak()
        peak.pytest_sessionstart()
        with started(program) as child:
            time.sleep(3 * EVERY)
            child.communicate("\n")
        time.sleep(3 * EVERY)
        peak.pytest_sessionfinish()
        return peak.together, peak.largest

    (little, _), (much, largest) = told("print('held', flush=True); input()"), told(HOLD)
    assert much - little > HELD // 2 and HELD < largest < much


def test_it_is_told_in_one_line() -> None:
    lines: list[str] = []
    reporter: Any = SimpleNamespace(no_summary=False, write_line=lines.append)
    peak = Peak()
    peak.pytest_sessionfinish()  # a run that ended before it began
    peak.pytest_terminal_summary(reporter)
    peak.together, peak.largest = 3 << 30, 1 << 30
    peak.pytest_terminal_summary(reporter)
    peak.pytest_terminal_summary(SimpleNamespace(no_summary=True))
    assert lines == ["peak memory: 3,072 MiB in all processes together, 1,024 MiB in the largest"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_lasts_is_not_looked_through_again(fails: bool) -> None:
    """And what comes after is, even if an import has failed."""
    before, kept, inside = gc.get_freeze_count(), list[list[int]](), True
    try:
        with lasting():
            inside = gc.isenabled()
            kept += [[i] for i in range(1000)]
            if fails:
                raise ImportError
    except ImportError:
        pass
    later = [[0]]
    assert not inside and gc.isenabled() and gc.get_freeze_count() >= before + 1000
    found = {id(one) for one in gc.get_objects()}
    assert id(later) in found and id(kept[0]) not in found
