"""An engine in a process of its own: newline JSON over its stdin and stdout, its stderr kept for the day it is needed."""

from __future__ import annotations

import contextlib
import json
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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from eagle2_ref.errors import BadInput
from harness.implementations.engine import AdapterError

SERVE = Path(__file__).with_name("serve.py")
ADAPTERS = Path(__file__).with_name("adapters")

LAST_WORDS = 12
"""Lines of stderr that an error quotes."""


class Message(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Describe(Message):
    """What are you? Asked first, in a process of its own; nothing is to be loaded for it."""

    do: Literal["describe"] = "describe"
    options: dict[str, Any] = Field({}, description="what the connectable gave behind commas")


class Open(Message):
    """Load the checkpoints. `draft` null: speculation off."""

    do: Literal["open"] = "open"
    target: str
    draft: str | None
    options: dict[str, Any]


class Generate(Message):
    """Continue prompts: three lists of one length."""

    do: Literal["generate"] = "generate"
    prompts: list[list[int]]
    params: list[dict[str, Any]]
    seeds: list[int]


class AskCounters(Message):
    """Only of an engine with the capability `counters`."""

    do: Literal["counters"] = "counters"


class Described(Message):
    """parameters: names of options, null if any is taken. checkpoint: which drafter of a pair is wanted. logprobs: the law that
    told log-probabilities are of. lossy: what the engine's own documentation says of a lossy mode. method: how it drafts, by the
    reference's name for it. budget: shape of its trees."""

    capabilities: list[str]
    version: str = ""
    parameters: list[str] | None = None
    checkpoint: str = "draft"
    logprobs: Literal["processed", "raw"] = "processed"
    lossy: str = ""
    method: str = ""
    budget: dict[str, int] | None = None


class Opened(Message):
    """The checkpoints are loaded."""

    opened: Literal[True]


class Outputs(Message):
    """An output is a list of new token ids, or a dict with `tokens` and what else is told."""

    outputs: list[list[int] | dict[str, Any]]


class CountersTold(Message):
    """passes, drafted, accepted: cumulative since opening."""

    counters: dict[str, Any]


class Refused(Message):
    """The engine says that it cannot do this: n/a, with these words."""

    refused: str


class Failed(Message):
    """It raised."""

    error: str
    traceback: str = ""


Request = Annotated[Describe | Open | Generate | AskCounters, Field(discriminator="do")]
Reply = Described | Opened | Outputs | CountersTold | Refused | Failed
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
R = TypeVar("R")


class Process:
    """A running command. What goes wrong is told with the last words of its stderr."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        try:
            self._running = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, start_new_session=True
            )
        except OSError as error:
            raise BadInput(f"{shlex.join(self.command)} cannot be run: {error.strerror}", "give the path of a program") from None
        self._end = weakref.finalize(self, _kill, self._running)

    def ask(self, request: Message) -> Reply:
        """Send a line, wait for a line. Whatever interrupts the waiting ends the process: its answer would come out of turn."""
        assert self._running.stdin is not None and self._running.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended; it may have said why
                self._running.stdin.write(request.model_dump_json().encode() + b"\n")
                self._running.stdin.flush()
            line = self._running.stdout.readline()
        except BaseException:
            self.close()
            raise
        if not line:
            code = self._running.wait()
            self.close()
            raise AdapterError(f"{self._name()} ended with exit code {code}{self.last_words()}")
        return self._read(line)

    def _read(self, line: bytes) -> Reply:
        try:
            reply = REPLY.validate_json(line)
        except ValidationError as error:
            shown = line[:160].decode(errors="replace").strip()
            why = error.errors()[0]["msg"] if line.lstrip().startswith(b"{") else "stdout is for replies alone: print to stderr"
            raise AdapterError(f"{self._name()} wrote {shown!r}, which is no reply: {why}") from None
        if isinstance(reply, Refused):
            raise NotImplementedError(reply.refused)
        if isinstance(reply, Failed):
            raise AdapterError(f"{FOLDERS.sub('', reply.error)}{_indented(reply.traceback)}")
        return reply

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        self._stderr.seek(0)
        return _indented(self._stderr.read().decode(errors="replace"))

    def close(self) -> None:
        self._end()

    def _name(self) -> str:
        return Path(self.command[0]).name


FOLDERS = re.compile(r"""(?<![\w.:/])/(?:[^\s"':]*?(?=site-packages/)|[^\s"':]+/(?=[^\s/"':]+/[^\s/"':]+))""")
"""Of a path all but what is below site-packages, or its last two parts."""


def _indented(text: str) -> str:
    """The last lines, without the folders of a machine: they mean nothing on another, and what is told here is kept."""
    lines = [FOLDERS.sub("", line.rstrip()) for line in text.splitlines() if line.strip()]
    return "".join("\n  | " + line for line in lines[-LAST_WORDS:])


def _kill(running: subprocess.Popen[bytes]) -> None:
    """End a process, and whatever it started and may have left behind: they are a group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(running.pid, signal.SIGKILL)
    assert running.stdin is not None and running.stdout is not None
    for pipe in (running.stdin, running.stdout):
        with contextlib.suppress(OSError):  # what was not sent is not missed
            pipe.close()
    running.wait()


class Remote:
    """The protocol of DESIGN's outsider, in front of a process."""

    def __init__(self, command: Sequence[str], target: str, draft: str | None = None, **options: Any) -> None:
        self._process = Process(command)
        self._ask(Open(target=target, draft=draft, options=options), Opened)

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Any]:
        return self._ask(Generate(prompts=prompts, params=params, seeds=seeds), Outputs).outputs

    def counters(self) -> dict[str, Any]:
        return self._ask(AskCounters(), CountersTold).counters

    def close(self) -> None:
        self._process.close()

    def _ask(self, request: Message, due: type[R]) -> R:
        return expected(self._process.ask(request), due)


def described(command: Sequence[str], options: dict[str, Any], seconds: float) -> Described:
    """What the engine behind a command says of itself, if it says so in time: from any thread, so not by a signal."""
    process, begun = Process(command), time.monotonic()
    late = threading.Timer(seconds, process.close)
    late.start()
    try:
        return expected(process.ask(Describe(options=options)), Described)
    except AdapterError as error:
        if time.monotonic() - begun < seconds:
            raise
        raise AdapterError(f"{shlex.join(command)} did not say what it is within {seconds:g} s{process.last_words()}") from error
    finally:
        late.cancel()
        process.close()


def expected(reply: Reply, due: type[R]) -> R:
    if not isinstance(reply, due):
        raise AdapterError(f"the reply is of the wrong kind: {type(reply).__name__}, not {due.__name__}")
    return reply


def serving(python: Path, adapter: str) -> list[str]:
    """The command that serves a ready-made adapter under another Python."""
    return [str(python), str(SERVE), f"{ADAPTERS / adapter}.py:Engine"]


def schema() -> str:
    """JSON Schema of the protocol's lines, as committed under reports/schema/."""
    both = {"requests": TypeAdapter(Request).json_schema(), "replies": REPLY.json_schema()}
    return json.dumps(both, indent=2, sort_keys=True) + "\n"
