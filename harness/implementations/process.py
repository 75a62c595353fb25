"""Run an engine in a process of its own: newline-delimited JSON over stdin and stdout; stderr is stored for error messages."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from eagle2_ref.errors import BadInput
from harness.implementations import protocol
from harness.implementations.engine import AdapterError
from harness.tracebacks import place

SERVE = Path(__file__).with_name("serve.py")
ADAPTERS = Path(__file__).with_name("adapters")

STDERR_LINES = 12
"""Number of lines of stderr that an error message quotes."""

FOLDERS = re.compile(r"""(?<![\w.:/])/(?:[^\s"':]*?(?=site-packages/)|[^\s"':]+/(?=[^\s/"':]+/[^\s/"':]+))""")
"""The folders of an absolute path, except what is below site-packages or the last two parts."""

R = TypeVar("R")


class EngineProcess:
    """A running command that answers every request line with one reply line."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process runs
        try:
            self._running = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True
            )
        except OSError as error:
            raise BadInput(f"{shlex.join(self.command)} cannot be run: {error.strerror}", "give the path of a program") from None
        self._finalizer = weakref.finalize(self, _kill, self._running)
        weakref.finalize(self, self._stderr.close)

    def request(self, message: protocol.Message, reply: type[R]) -> R:
        """Send a message and return its reply.

        An interruption, such as a time limit, ends the process: its answer would be read as the reply to the next request.

        Raises:
            AdapterError: the process ended, wrote something else, or reported an error.
            NotImplementedError: the engine refuses the request.
        """
        assert self._running.stdin is not None and self._running.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # the process has ended; its stdout may still hold a reply
                self._running.stdin.write(message.model_dump_json().encode() + b"\n")
                self._running.stdin.flush()
            line = self._running.stdout.readline()
        except BaseException:
            self.close()
            raise
        if not line:
            code = self._running.wait()
            self.close()
            raise AdapterError(f"{self._name()} ended with exit code {code}{self.quote_stderr()}")
        found = self._parse(line)
        if not isinstance(found, reply):
            raise AdapterError(f"the reply is of the wrong kind: {type(found).__name__}, not {reply.__name__}")
        return found

    def quote_stderr(self) -> str:
        """The last lines that the process wrote to stderr."""
        self._stderr.seek(0)
        return _quote(self._stderr.read().decode(errors="replace"))

    def close(self) -> None:
        self._finalizer()

    def _parse(self, line: bytes) -> protocol.Reply:
        try:
            reply = protocol.REPLY.validate_json(line)
        except ValidationError as error:
            shown = line[:160].decode(errors="replace").strip()
            why = error.errors()[0]["msg"] if line.lstrip().startswith(b"{") else "stdout is for replies only: print to stderr"
            raise AdapterError(f"{self._name()} wrote {shown!r}, which is no reply: {why}") from None
        if isinstance(reply, protocol.Refusal):
            raise NotImplementedError(reply.refused)
        if isinstance(reply, protocol.Failure):
            where = f" ({place(reply.traceback)})" if place(reply.traceback) else ""
            raise AdapterError(f"{FOLDERS.sub('', reply.error)}{where}", reply.traceback)
        return reply

    def _name(self) -> str:
        return Path(self.command[0]).name


class RemoteEngine:
    """An implementation that forwards every call to an engine process."""

    def __init__(self, command: Sequence[str], target: str, draft: str | None = None, **options: Any) -> None:
        self._process = EngineProcess(command)
        self._process.request(protocol.OpenRequest(target=target, draft=draft, options=options), protocol.OpenReply)

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Any]:
        request = protocol.GenerateRequest(prompts=prompts, params=params, seeds=seeds)
        return self._process.request(request, protocol.GenerateReply).outputs

    def counters(self) -> dict[str, Any]:
        return self._process.request(protocol.CountersRequest(), protocol.CountersReply).counters

    def close(self) -> None:
        self._process.close()


def describe_process(command: Sequence[str], options: dict[str, Any], seconds: float) -> protocol.Description:
    """Start the engine, ask for its description, and end it. The limit is a timer, since signals reach only the main thread."""
    process, start = EngineProcess(command), time.monotonic()
    timer = threading.Timer(seconds, process.close)
    timer.start()
    try:
        return process.request(protocol.DescribeRequest(options=options), protocol.Description)
    except AdapterError as error:
        if time.monotonic() - start < seconds:
            raise
        stderr = process.quote_stderr()
        raise AdapterError(f"{shlex.join(command)} did not describe itself within {seconds:g} s{stderr}") from error
    finally:
        timer.cancel()
        process.close()


def serve_command(python: Path, adapter: str) -> list[str]:
    """The command that serves a ready-made adapter under another Python."""
    return [str(python), str(SERVE), f"{ADAPTERS / adapter}.py:Engine"]


def _quote(text: str) -> str:
    """The last lines, indented, without the machine's folders: quotes are stored in records, which travel to other machines."""
    lines = [FOLDERS.sub("", line.rstrip()) for line in text.splitlines() if line.strip()]
    return "".join("\n  | " + line for line in lines[-STDERR_LINES:])


def _kill(running: subprocess.Popen[bytes]) -> None:
    """End the process and its children: they are one process group, and workers of an engine may hold its memory."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty
        os.killpg(running.pid, signal.SIGKILL)
    assert running.stdin is not None and running.stdout is not None
    for pipe in (running.stdin, running.stdout):
        with contextlib.suppress(OSError):  # flushing an unsent request fails
            pipe.close()
    running.wait()
