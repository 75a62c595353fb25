"""What each process of a run is doing, written to memory that its supervisor can read: also after the process hangs or has died.

A process has a file of a few hundred bytes in the run's folder, which it maps into its memory. Writing takes a microsecond, and
still works after an implementation has closed all file descriptors.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic  # bound now: an implementation may replace time.monotonic

HEAD = struct.Struct("<dHH")  # deadline of the call, lengths of the two texts
SIZE = 1024
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Activity:
    """What a process is doing, or was doing when it ended.

    worker: name that pytest-xdist gives the process, such as gw0; empty for the first process of a run. check: the check that
    it runs. call: the call of the implementation within it; empty while the harness computes. deadline: end of the call's time
    limit, by `time.monotonic`.
    """

    pid: int
    worker: str
    check: str
    call: str
    deadline: float


class _Own:
    """The file of this process."""

    def __init__(self, folder: Path, worker: str) -> None:
        self.folder, self.pid = folder, os.getpid()
        file = folder / f"{self.pid}.{worker}"
        file.write_bytes(bytes(SIZE))
        with file.open("r+b") as opened:
            self.memory = mmap.mmap(opened.fileno(), SIZE)
        self.check = ""
        self.crash = os.open(folder / f"crash.{self.pid}", os.O_WRONLY | os.O_CREAT)
        faulthandler.enable(self.crash)

    def intact(self) -> bool:
        """Whether the process still has its files: those that were open at its start stand for all."""
        try:
            for number in (1, 2, self.crash):
                os.fstat(number)
        except OSError:
            return False
        return not any(getattr(stream, "closed", False) for stream in (sys.stdout, sys.stderr))

    def write(self, call: str = "", deadline: float = 0.0) -> None:
        check, name = (text.encode(errors="replace")[: SIZE // 2 - HEAD.size] for text in (self.check, call))
        self.memory[: HEAD.size + len(check) + len(name)] = HEAD.pack(deadline, len(check), len(name)) + check + name


_own: _Own | None = None


def join(folder: Path | None, worker: str = "") -> None:
    """Let this process write what it does to the folder of a run; None: write nothing."""
    global _own
    _own = None if folder is None else _Own(folder, worker)


def folder() -> Path | None:
    """The folder of the run that this process belongs to; None if no supervisor watches it."""
    return _own.folder if _own and _own.pid == os.getpid() else None


@contextlib.contextmanager
def checking(check: str) -> Iterator[None]:
    """State which check this process runs."""
    if folder() is None or _own is None:
        yield
        return
    _own.check = check
    _own.write()
    try:
        yield
    finally:
        _own.check = ""
        _own.write()


@contextlib.contextmanager
def calling(call: str, seconds: float) -> Iterator[None]:
    """State which call of the implementation this process makes, and its time limit.

    A call that closes files of the process ends it: the harness could not write what it finds. Where the implementation has
    copied the process, the copy ends here: there is one judge.
    """
    process = os.getpid()
    if folder() is None or _own is None:
        try:
            yield
        finally:
            if os.getpid() != process:
                os._exit(1)
        return
    _own.write(call, monotonic() + seconds)
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(1)
        if not _own.intact():
            end_process(f"the implementation closed files of the harness, in {call}")
        _own.write()


def end_process(reason: str) -> None:
    """End a process in which nothing further can be judged; its supervisor reports the reason. Without one, do nothing."""
    if found := folder():
        (found / f"killed.{os.getpid()}").write_text(reason)
        os._exit(1)


def interrupted() -> bool:
    """Whether the user has stopped the run."""
    found = folder()
    return found is not None and (found / INTERRUPTED).exists()


def crash_site(folder: Path, pid: int) -> str:
    """Where Python code was when its process crashed, such as "engine.py:16"; empty if it did not crash."""
    with contextlib.suppress(OSError):
        dump = (folder / f"crash.{pid}").read_text(errors="replace")
        if found := re.search(r'Current thread .*\n +File "(.*)", line (\d+)', dump):
            return f"{Path(found[1]).name}:{found[2]}"
    return ""


def read(folder: Path) -> list[Activity]:
    """What the processes of a run do, or did when they ended."""
    found = []
    for file in folder.iterdir():
        pid, _, worker = file.name.partition(".")
        if not pid.isdecimal() or not file.is_file():
            continue
        memory = file.read_bytes()
        if len(memory) < SIZE:
            continue
        deadline, check, call = HEAD.unpack_from(memory)
        running, called = memory[HEAD.size :][:check], memory[HEAD.size + check :][:call]
        found.append(Activity(int(pid), worker, running.decode(errors="replace"), called.decode(errors="replace"), deadline))
    return found
