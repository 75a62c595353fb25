"""A pytest plugin that shows on a terminal which chapter is running, and how much time is left. Dots remain elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text


class Progress:
    """One line on stderr: the chapter with its cases, all cases, and the time left by the durations so far.

    It is made before pytest captures stderr, of which it writes to a copy. Nothing here may stop a run: a terminal that cannot be
    written to is given up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, 0.0
        self._total, self._done = Counter[str](), Counter[str]()
        self._seconds: dict[str, float] = defaultdict(float)
        self._chapter = ""
        self._live: Live | None = None
        if sys.stderr.isatty():
            console = Console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace"))
            if not console.is_dumb_terminal:
                self._live = Live(
                    console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
                )
        self._dots = self._live is None or not sys.stdout.isatty()

    def line(self) -> str:
        """'LAW 12/37   48 of 120 cases   about 80 s left'. Without a time before the first case has ended."""
        done, total = self._done.total(), self._total.total()
        shown = f"{self._chapter} {self._done[self._chapter]}/{self._total[self._chapter]}   {done} of {total} cases"
        return f"{shown}   about {_duration(self._time_left())} left" if done else shown

    def _time_left(self) -> float:
        """Cases to come take as long as those of their chapter so far, or of all; as many run at once as until now."""
        spent, done = sum(self._seconds.values()), self._done.total()
        mean = {name: self._seconds[name] / self._done[name] if self._done[name] else spent / done for name in self._total}
        left = sum(mean[name] * max(0, n - self._done[name]) for name, n in self._total.items())
        return left * (self._clock() - self._started) / spent if spent else 0.0

    def _show(self) -> None:
        if self._live:
            try:
                self._live.start()
                self._live.console.show_cursor()  # a run that is killed must not leave it hidden
                self._live.update(Text(self.line(), style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)
            except (OSError, ValueError):  # an engine may have closed the descriptor
                self._live = None

    # --- hooks ----------------------------------------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without pytest-xdist: what will be run."""
        if session.items:
            self._total = Counter(map(_chapter, (item.nodeid for item in session.items)))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """With pytest-xdist: all workers collect the same."""
        self._total = Counter(map(_chapter, ids))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._started = self._started or self._clock()
        self._chapter = _chapter(nodeid)
        self._show()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._done[_chapter(report.nodeid)] += 1
            self._seconds[_chapter(report.nodeid)] += report.duration
            self._show()

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """No dots next to the line."""
        category, letter, word = yield
        return (category, letter, word) if self._dots else (category, "", "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        if self._live:
            with contextlib.suppress(OSError, ValueError):
                self._live.stop()


def _chapter(nodeid: str) -> str:
    return nodeid.partition("::")[2].partition("-")[0]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
