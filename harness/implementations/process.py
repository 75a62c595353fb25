"""Run an engine in a process of its own: newline-delimited JSON over stdin and stdout; stderr is stored for error messages."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from eagle2_ref.errors import BadInput
from harness.implementations import protocol
from harness.implementations.engine import AdapterError, TimeLimit
from harness.tracebacks import place

SERVE = Path(__file__).with_name("serve.py")
ADAPTERS = Path(__file__).with_name("adapters")

LARGEST_REPLY = 64 * 2**20
"""Bytes of the longest line that is read. Parsing it takes seconds, which no time limit can interrupt."""

CHUNK = 2**20
"""Bytes that are read at once."""

POLL = 0.1
"""Seconds between two looks at whether the process has ended: a child that it leaves behind keeps its stdout open."""

EXIT = 5.0
"""Seconds in which a process exits after it has closed its stdout."""

STDERR_LINES = 12
"""Number of lines of stderr that an error message quotes."""

STDERR_BYTES = 2**16
"""Number of bytes of stderr that these lines are taken from."""

QUOTED = 1000
"""Characters of an engine's message, or of a line of its stderr, that an error quotes."""

FOLDERS = re.compile(r"""(?<![\w.:/])/(?:[^\s"':]*?(?=site-packages/)|[^\s"':]+/(?=[^\s/"':]+/[^\s/"':]+))""")
"""The folders of an absolute path, except what is below site-packages or the last two parts."""

ONE_LINE = "write one line for each request, and print to stderr"

NO_ANSWER: dict[str, type[protocol.Refusal | protocol.Failure]] = {"refused": protocol.Refusal, "error": protocol.Failure}
"""Replies that any request may have, by the field that they are recognised by."""

R = TypeVar("R", bound=protocol.Message)


class EngineProcess:
    """A running command that answers every request line with one reply line.

    Args:
        command: the program and its arguments.
        time_limit: seconds from a request to the end of its reply.
        numbered: requests are sent with a number, which the reply must repeat.
        paths: errors quote whole paths. Without, they omit the machine's folders, since records travel to other machines.
    """

    def __init__(self, command: Sequence[str], time_limit: float = 120.0, *, numbered: bool = False, paths: bool = False) -> None:
        self.command, self.time_limit, self.numbered, self.paths = list(command), time_limit, numbered, paths
        self._requests, self._said = 0, ""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process runs
        try:
            self._running = subprocess.Popen(
                self.command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise BadInput(f"{shlex.join(self.command)} cannot be run: {error.strerror}", _hint(self.command[0], error)) from None
        assert self._running.stdin is not None and self._running.stdout is not None
        self._stdin, self._stdout = self._running.stdin, self._running.stdout
        for pipe in (self._stdin, self._stdout):
            os.set_blocking(pipe.fileno(), False)
        self._finalizer = weakref.finalize(self, _end, self._running, self._stderr)

    def request(self, message: protocol.Message, reply: type[R]) -> R:
        """Send a message and return its reply.

        Anything but a reply, and an interruption such as a time limit, ends the process: what it writes later would be
        read as the reply to the next request.

        Raises:
            AdapterError: the process ended, wrote something else, or reported an error.
            NotImplementedError: the engine refuses the request.
            TimeLimit: the reply was not complete within the time limit.
        """
        self._requests += 1
        message = message.model_copy(update={"id": self._requests if self.numbered else None})
        try:
            found = self._exchange(message, reply)
        except BaseException:
            self.close()
            raise
        if isinstance(found, protocol.Refusal):
            raise NotImplementedError(found.refused[:QUOTED])
        if isinstance(found, protocol.Failure):
            where = f" ({place(found.traceback)})" if place(found.traceback) else ""
            raise AdapterError(self._shorten(found.error[:QUOTED]) + where, found.traceback)
        return found

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        """End the process and its children."""
        if not self.closed:
            self._said = self._read_stderr()
            self._finalizer()

    def quote_stderr(self) -> str:
        """The last lines that the process wrote to stderr."""
        return self._quote(self._said if self.closed else self._read_stderr())

    def _exchange(self, message: protocol.Message, reply: type[R]) -> R | protocol.Refusal | protocol.Failure:
        """Write one line and read one, in steps that a deadline can end. Nothing may be left in the pipes."""
        if self._requests > 1 and (early := self._stdout.read(CHUNK)):
            raise self._error(f"wrote {_shown(early)} after its reply: {ONE_LINE}")
        deadline = time.monotonic() + self.time_limit
        line = message.model_dump_json(exclude={"id"} if message.id is None else None)
        unsent, received = memoryview(line.encode() + b"\n"), bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(self._stdout, selectors.EVENT_READ)
            ready.register(self._stdin, selectors.EVENT_WRITE)
            chunk: bytes | None = b""
            while b"\n" not in (chunk or b""):
                if len(received) > LARGEST_REPLY:
                    raise self._error(f"wrote a line of more than {LARGEST_REPLY >> 20} MiB: {_shown(received)}")
                if (left := deadline - time.monotonic()) <= 0:
                    raise TimeLimit
                ended = self._running.poll() is not None  # looked up first: what it wrote before its end is read below
                ready.select(0 if ended else min(left, POLL))
                if unsent:
                    unsent = self._send(unsent)
                    if not unsent:
                        ready.unregister(self._stdin)
                chunk = self._stdout.read(CHUNK)  # None: nothing to read
                received += chunk or b""
                if chunk == b"" or (ended and chunk is None):
                    raise self._error(self._how_it_ended(bytes(received), min(left, EXIT)) + self.quote_stderr())
        answer, _, rest = bytes(received).partition(b"\n")
        found = self._parse(answer, reply, message.id)
        if rest or unsent:
            after = f"wrote {_shown(rest)} after its reply" if rest else "replied before it had read the whole request"
            raise self._error(f"{after}: {ONE_LINE}")
        return found

    def _send(self, unsent: memoryview) -> memoryview:
        """Write as much as the pipe takes, and return the rest; nothing is left if the process does not read any more."""
        try:
            return unsent[self._stdin.write(unsent) or 0 :]
        except BrokenPipeError:  # its stdout may still hold a reply, or its stderr a reason
            return unsent[:0]

    def _how_it_ended(self, unfinished: bytes, seconds: float) -> str:
        try:
            code = self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"closed its stdout without a reply{_cut(unfinished)}"
        how = f"with exit code {code}" if code >= 0 else f"by signal {-code} ({signal.strsignal(-code)})"
        return f"ended {how}{_cut(unfinished)}"

    def _parse(self, line: bytes, reply: type[R], number: int | None) -> R | protocol.Refusal | protocol.Failure:
        try:
            found = from_json(line)
            kind = next((kind for name, kind in NO_ANSWER.items() if isinstance(found, dict) and name in found), reply)
            parsed = kind.model_validate(found, strict=True)
        except ValueError as error:
            raise self._error(f"wrote {_shown(line)}, which is no reply: {_why(line, error)}") from None
        if parsed.id != number:
            raise self._error(f"wrote {_shown(line)}, the reply to request {parsed.id}; request {number} is open")
        return parsed

    def _error(self, what: str) -> AdapterError:
        return AdapterError(f"{Path(self.command[0]).name} {what}")

    def _read_stderr(self) -> str:
        self._stderr.seek(-min(self._stderr.seek(0, os.SEEK_END), STDERR_BYTES), os.SEEK_END)
        return self._stderr.read().decode(errors="replace")

    def _shorten(self, text: str) -> str:
        return text if self.paths else FOLDERS.sub("", text)

    def _quote(self, text: str) -> str:
        """The last lines, indented."""
        lines = [self._shorten(line.rstrip())[:QUOTED] for line in text.splitlines() if line.strip()]
        return "".join("\n  | " + line for line in lines[-STDERR_LINES:])


class RemoteEngine:
    """An implementation that forwards every call to an engine process. After that has ended, the next call starts another."""

    def __init__(self, start: Callable[[], EngineProcess], target: str, draft: str | None = None, /, **options: Any) -> None:
        self._start, self._opening = start, protocol.OpenRequest(target=target, draft=draft, options=options)
        self._process = self._open()

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Any]:
        request = protocol.GenerateRequest(prompts=prompts, params=params, seeds=seeds)
        return self._request(request, protocol.GenerateReply).outputs

    def counters(self) -> dict[str, Any]:
        return self._request(protocol.CountersRequest(), protocol.CountersReply).counters

    def close(self) -> None:
        self._process.close()

    def _request(self, message: protocol.Message, reply: type[R]) -> R:
        if self._process.closed:
            self._process = self._open()
        return self._process.request(message, reply)

    def _open(self) -> EngineProcess:
        process = self._start()
        try:
            process.request(self._opening, protocol.OpenReply)
        except BaseException:
            process.close()
            raise
        return process


def describe_process(command: Sequence[str], options: dict[str, Any], seconds: float) -> protocol.Description:
    """Start the engine, ask for its description, and end it."""
    process = EngineProcess(command, seconds, paths=True)
    try:
        return process.request(protocol.DescribeRequest(options=options), protocol.Description)
    except TimeLimit:
        late = f"{shlex.join(command)} did not describe itself within {seconds:g} s{process.quote_stderr()}"
        raise AdapterError(late) from None
    finally:
        process.close()


def serve_command(python: Path, adapter: str) -> list[str]:
    """The command that serves a ready-made adapter under another Python."""
    return [str(python), str(SERVE), f"{ADAPTERS / adapter}.py:Engine"]


def _hint(program: str, error: OSError) -> str:
    """What to do about a program that cannot be run."""
    file = Path(program)
    if file.is_dir():
        return "this is a folder: give the path of a program"
    if file.is_file() and isinstance(error, PermissionError):
        return f"`chmod +x {shlex.quote(program)}`, or write its interpreter in front, such as cmd:python {program}"
    if file.is_file() and error.errno == errno.ENOEXEC:
        return f"its first line must be #! and an interpreter; or write that in front, such as cmd:python {program}"
    if file.is_file() and isinstance(error, FileNotFoundError):
        return "its first line names an interpreter that is missing" if "/" in program else f"write cmd:./{program}"
    return "give the path of a program"


def _why(line: bytes, error: ValueError) -> str:
    """Why a line is no reply."""
    if not line.strip():
        return "the line is blank"
    if line.startswith(codecs.BOM_UTF8):
        return "it begins with a byte-order mark; write UTF-8 without one"
    if b"\0" in line[:4]:
        return "it is UTF-16 or UTF-32; write UTF-8"
    if not line.lstrip().startswith(b"{"):
        return "stdout is for replies only: print to stderr"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _shown(line: bytes | bytearray) -> str:
    return repr(bytes(line[:160]).decode(errors="replace").strip()) + ("…" if len(line) > 160 else "")


def _cut(unfinished: bytes) -> str:
    return f" within a line: {_shown(unfinished)}" if unfinished else ""


def _end(running: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """End the process and its children: they are one process group, and workers of an engine may hold its memory."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty
        os.killpg(running.pid, signal.SIGKILL)
    for file in (running.stdin, running.stdout, stderr):
        if file is not None:
            file.close()
    with contextlib.suppress(subprocess.TimeoutExpired):  # it belongs to another user
        running.wait(EXIT)
