"""Run code that may end, hang or damage its process in a child process. Only the report that the child writes at its end counts.

The parent imports nothing of the implementation, and no torch. An outcome exists only if the child reported one at its very end:
an implementation that ends the process leaves none, whichever exit code it uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import psutil

from eagle2_ref.errors import BadInput
from harness import activity
from harness.activity import INTERRUPTED

GRACE = 10.0
"""Seconds between the end of a call's time limit and the end of its process, and between an outcome and the end of the child."""

POLL = 0.1
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class ProcessEnded(Exception):
    """The child ended without an outcome; the message says how, and during what.

    check: what it was checking, or empty. by_implementation: whether a call of the implementation ended it, or had to be ended.
    by_user: signal that the user sent to the run, or 0.
    """

    def __init__(self, reason: str, check: str, by_implementation: bool, by_user: int) -> None:
        super().__init__(reason)
        self.check, self.by_implementation, self.by_user = check, by_implementation, by_user


class InternalError(Exception):
    """An exception of the harness itself in the child. trace: its traceback."""

    def __init__(self, what: str, trace: str) -> None:
        super().__init__(what)
        self.trace = trace


def supported() -> bool:
    """Whether this system can fork; without, code runs in the process itself."""
    return "fork" in multiprocessing.get_all_start_methods()


def supervise(run: Callable[[], int]) -> int:
    """Call `run` in a child process, and return what it returns.

    The child and everything that it started have ended when this returns. Inside a supervised process, `run` is called directly.

    Raises:
        ProcessEnded: the child ended without a result, or was killed because a call exceeded its time limit.
        InternalError: `run` raised an exception that is no error of the user or of an implementation.
        BadInput, HarnessError, OSError, KeyboardInterrupt: as `run` raised them.
    """
    if activity.folder() is not None or not supported():
        return run()
    folder, others = Path(tempfile.mkdtemp(prefix="eagle2-run-")), set(_descendants())
    try:
        child = multiprocessing.get_context("fork").Process(target=_child, args=(run, folder, os.getpid()))
        sys.stdout.flush()
        sys.stderr.flush()
        with _adopting(), _Signals() as signals:
            child.start()
            signals.forward_to(child.pid, folder)
            _wait(child, folder, signals)
            _end(child, set(_descendants()) - others)
        return _result(child, folder, signals.last)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def death(folder: Path, pid: int, code: int | None) -> str:
    """One sentence on a process of a run that has ended: how, and during what."""
    note = folder / f"killed.{pid}"
    if note.exists():
        return note.read_text()
    found = next((one for one in _activities(folder) if one.pid == pid), None)
    how = _how(code) + (f" at {site}" if (site := activity.crash_site(folder, pid)) else "")
    if found and found.call:
        return f"the implementation ended the process{how}, in {found.call}"
    return f"the process ended{how}, {f'while it ran {found.check}' if found and found.check else 'outside of a check'}"


def _child(run: Callable[[], int], folder: Path, parent: int) -> None:
    """Report the outcome of `run`, and end at once: threads of an implementation must not keep the process alive."""
    os.setpgid(0, 0)
    for number in _Signals.NUMBERS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    process, outcome = os.getpid(), dict[str, Any]()
    try:
        try:
            activity.join(folder)
            outcome = {"code": run()}
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException as error:
            outcome = {"error": type(error).__name__, **_described(error)}
        if os.getpid() == process:  # not a copy that the implementation made
            partial = folder / "outcome.partial"
            partial.write_text(json.dumps(outcome), encoding="utf-8")
            partial.replace(folder / "outcome")
    finally:
        os._exit(0)


def _described(error: BaseException) -> dict[str, Any]:
    if isinstance(error, BadInput):
        return {"what": error.what, "hint": error.hint}
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):  # as rich ends a process
        error = error.__context__
    if isinstance(error, OSError) and error.errno:
        return {"error": OSError.__name__, "what": [error.errno, error.strerror, error.filename]}
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f" ({Path(frame.filename).name}:{frame.lineno})"
    ours = type(error).__module__ == "harness.implementations.engine"
    return {"what": str(error), "where": where, "trace": traceback.format_exc(), "ours": ours}


def _result(child: Any, folder: Path, signalled: int) -> int:
    killed = (folder / f"killed.{child.pid}").exists()
    try:
        outcome = json.loads((folder / "outcome").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        outcome = None
    if killed or outcome is None:
        during = next((one for one in _activities(folder) if one.pid == child.pid), None)
        called = bool(during and during.call) or killed
        reason = death(folder, child.pid, child.exitcode)
        raise ProcessEnded(reason, during.check if during else "", called, signalled)
    if "code" in outcome:
        return int(outcome["code"])
    if outcome["error"] == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if outcome["error"] == BadInput.__name__:
        raise BadInput(outcome["what"], outcome["hint"])
    if outcome["error"] == OSError.__name__:
        raise OSError(*outcome["what"])
    if outcome["ours"]:
        from harness.implementations import engine

        raise getattr(engine, outcome["error"])(outcome["what"])
    raise InternalError(f"{outcome['error']}: {outcome['what']}{outcome['where']}", outcome["trace"])


def _wait(child: Any, folder: Path, signals: _Signals) -> None:
    """Wait for the end of the child. Processes that exceed a time limit are killed, with a note why."""
    ending = 0.0
    while child.exitcode is None:
        child.join(POLL)
        now = monotonic()
        for one in _activities(folder):
            note = folder / f"killed.{one.pid}"
            if one.deadline and now > one.deadline + GRACE and not note.exists():
                note.write_text(f"the implementation hung: {one.call} did not return, and its process was killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
        # An interpreter may hang at its end, and so may a run that the user stops.
        if not ending and (signals.last or (folder / "outcome").exists()):
            ending = now
        if ending and now > ending + GRACE:
            child.kill()


def _activities(folder: Path) -> list[activity.Activity]:
    try:
        return activity.read(folder)
    except OSError:  # the implementation has removed the folder
        return []


def _end(child: Any, left: set[psutil.Process]) -> None:
    """Kill what the child left running, in its process group and outside of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=1.0)


def _descendants() -> list[psutil.Process]:
    return list(psutil.Process().children(recursive=True))


def _how(code: int | None) -> str:
    if code is None:
        return ""
    if code < 0:
        memory = " (as the system does when memory runs out)" if code == -signal.SIGKILL else ""
        with contextlib.suppress(ValueError):
            return f" by signal {signal.Signals(-code).name}{memory}"
    return f" with exit code {code}"


class _Signals:
    """Forwards the signals that end a run to the child, which is not in the foreground group of the terminal."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    def __init__(self) -> None:
        self.last = 0
        self._pid: int | None = None
        self._folder: Path | None = None
        self._previous: dict[int, Any] = {}

    def forward_to(self, pid: int | None, folder: Path) -> None:
        self._pid, self._folder = pid, folder
        if self.last:
            self._forward(self.last)

    def __enter__(self) -> _Signals:
        with contextlib.suppress(ValueError):  # not the main thread
            self._previous = {number: signal.signal(number, self._handle) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.last = number
        self._forward(number)

    def _forward(self, number: int) -> None:
        if self._pid is not None and self._folder is not None:
            (self._folder / INTERRUPTED).touch()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of orphans below this process, so that they can be found and ended. Linux alone has this."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(PR_SET_CHILD_SUBREAPER, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
