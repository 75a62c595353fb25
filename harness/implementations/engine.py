"""An implementation opened on a pair: every call has a time limit, and every answer is validated before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import operator
import reprlib
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from eagle2_ref.coins import Coins
from eagle2_ref.errors import BadInput
from harness import activity, tracebacks
from harness.pairs import Pair

if TYPE_CHECKING:
    from harness.implementations import Implementation

R = TypeVar("R")

COUNTERS = ("passes", "drafted", "accepted")

Params = dict[str, Any]
"""Sampling parameters of one request: temperature, max_new_tokens, and optional ones; a parameter that is absent is off."""


class HarnessError(Exception):
    """An error of the harness itself, also where it is raised inside the implementation, for example by enumerating coins."""


class AdapterError(HarnessError):
    """The implementation raised, hung or returned an invalid answer. Never a pass.

    traceback: of an engine in another process; in this one it is that of the cause.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class Hung(AdapterError):
    """A call took longer than its time limit."""


class NotApplicable(HarnessError):
    """The implementation says that it does not support this; the message is the reason."""


class Missing(HarnessError):
    """A trace lacks an answer that a check needs. Missing data is never a pass."""


@dataclass(frozen=True)
class BlockTrace:
    """One target pass as the implementation reports it: its draft tree and the number of accepted tokens.

    The tree is given by the tokens and the parent of every node, root first; the root's parent is -1. The block emits
    accepted + 1 tokens; the last block is cut where the text ends. The prompt's pass has an empty tree.
    """

    accepted: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """Continuation of one prompt. `logprobs` are the log-probabilities that the implementation reports for its tokens."""

    tokens: tuple[int, ...]
    blocks: tuple[BlockTrace, ...] | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Counters:
    """Cumulative counts since opening: target passes over drafts, drafted tokens, accepted tokens."""

    passes: int
    drafted: int
    accepted: int

    def __sub__(self, before: Counters) -> Counters:
        return Counters(self.passes - before.passes, self.drafted - before.drafted, self.accepted - before.accepted)


class Engine:
    """An implementation on a pair. It is opened at first use, since opening may take minutes and a check may not need it."""

    def __init__(
        self, implementation: Implementation, pair: Pair, make: Callable[[], Any], speculate: bool, options: dict[str, Any]
    ) -> None:
        self.implementation, self.pair, self.speculate, self.options = implementation, pair, speculate, options
        self._make = make
        self._raw: Any = None
        self._hung = ""  # why no further call is made, once a call has exceeded the time limit

    @property
    def raw(self) -> Any:
        """The object that the author's constructor returned."""
        if self._raw is None:
            kind = self.implementation.checkpoint if self.speculate else "none"
            drafter = "" if kind == "none" else f" with the checkpoint {kind!r}"
            self._raw = self._call(f"opening it{drafter}", self._make)
        return self._raw

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Params], seeds: Sequence[int]) -> list[Output]:
        """Continue prompts (token ids), each with its own sampling parameters and seed.

        Raises:
            AdapterError: the implementation raised, hung or returned an invalid answer.
            NotApplicable: the implementation refuses this request.
        """
        raw = self.raw
        before = self.counters() if self.implementation.tape else None
        requests = [list(prompt) for prompt in prompts], [dict(param) for param in params], list(seeds)
        action = f"generate() of {len(prompts)} prompts"
        outputs = self._call(action, lambda: self._validate_all(prompts, params, raw.generate(*requests)))
        if "blocks" in self.implementation.capabilities and self.speculate and not all(output.blocks for output in outputs):
            raise AdapterError("an answer has no blocks, although the implementation declares the capability 'blocks'")
        if self.implementation.tape:
            self._record(prompts, params, seeds, outputs, before)
        return outputs

    def decode(self, prompt: Sequence[int], params: Params, coins: Coins) -> Output:
        """Continue one prompt with coins of the harness; needs the capability `coins`."""
        raw = self.raw
        return self._call("decode()", lambda: self._validate(prompt, params, raw.decode(list(prompt), dict(params), coins)))

    def decode_all(self, prompts: Sequence[Sequence[int]], params: Params, coins: Sequence[Coins]) -> list[Output]:
        """Continue several prompts, each with its own coins; they share target passes if the implementation can batch."""
        if "batch" not in self.implementation.capabilities:
            return [self.decode(prompt, params, own) for prompt, own in zip(prompts, coins, strict=True)]
        raw, requests = self.raw, ([list(prompt) for prompt in prompts], [dict(params) for _ in prompts], list(coins))
        every = [params] * len(prompts)
        return self._call("decode_all()", lambda: self._validate_all(prompts, every, raw.decode_all(*requests)))

    def counters(self) -> Counters | None:
        """Cumulative counters of the implementation; None if it does not declare the capability `counters`."""
        if "counters" not in self.implementation.capabilities:
            return None
        raw = self.raw
        counters = self._call("counters()", lambda: _read_counters(raw.counters()))
        if min(asdict(counters).values()) < 0:
            raise AdapterError(f"counters() returned a number below 0: {counters}")
        return counters

    def close(self) -> None:
        """Close the implementation if it has a `close` method; the next call opens it again."""
        if self.closable:
            raw, self._raw = self._raw, None
            self._call("close()", raw.close)

    @property
    def closable(self) -> bool:
        """Whether the implementation is open and has a `close` method."""
        return self._raw is not None and not self._hung and self._call("close", lambda: hasattr(self._raw, "close"))

    def _call(self, action: str, function: Callable[[], R]) -> R:
        """Run code of the implementation, and read what it returns, within the time limit and with errors that name the call."""
        if self._hung:
            raise AdapterError(self._hung)
        try:
            with limited(f"{action} on {self.pair.name}", self.implementation.time_limit), self.implementation.state.in_force():
                return function()
        except Hung as error:
            self._hung = str(error)
            raise

    def _validate_all(self, prompts: Sequence[Sequence[int]], params: Sequence[Params], answers: Any) -> list[Output]:
        if not isinstance(answers, list | tuple) or len(answers) != len(prompts):
            found = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
            raise AdapterError(f"generate() returned {found} for {len(prompts)} prompts")
        return [self._validate(*row) for row in zip(prompts, params, answers, strict=True)]

    def _validate(self, prompt: Sequence[int], params: Params, answer: Any) -> Output:
        """Read an answer, which runs the engine's code if it is a generator: call this within the time limit.

        No more is read than was requested, so an endless answer cannot fill the memory.
        """
        extras = answer if isinstance(answer, dict) else {}
        requested, room = params["max_new_tokens"], max(self.pair.context - len(prompt), 0)
        limit = min(requested, room)
        given = extras.get("tokens", answer)
        tokens = _read_tokens(given, limit + 1)
        decided = [token for token in tokens if not is_unread(token)]
        if invalid := [token for token in decided if not 0 <= token < self.pair.vocab_size]:
            raise AdapterError(f"an answer has token {_shown(invalid[0])}; the vocabulary is 0 to {self.pair.vocab_size - 1}")
        if len(tokens) > limit:
            context = f"the context leaves room for {room}; " if room < requested else ""
            count = len(given) if isinstance(given, Sized) else f"more than {limit}"
            raise AdapterError(f"an answer has {count} tokens; {context}at most {requested} were requested")
        eos = params.get("eos_token_id")
        ends = set(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        if not tokens and limit:
            raise AdapterError(f"an answer has no token; {limit} were requested")
        # STOP-4 judges the length of a text that ends at the context's limit; only max_new_tokens is checked here.
        if len(tokens) < limit == requested and not ends & set(tokens):
            raise AdapterError(f"an answer has {len(tokens)} tokens, without an end-of-text token; {limit} were requested")
        return Output(tokens, _read_blocks(extras.get("blocks")), _read_logprobs(extras.get("logprobs"), len(tokens)))

    def _record(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[Params],
        seeds: Sequence[int],
        outputs: list[Output],
        before: Counters | None,
    ) -> None:
        """Append one line per request with its answer, and one line with the counts of this call.

        Every line is one unbuffered write in append mode, so that several processes can share the file.
        """
        assert self.implementation.tape is not None
        common: dict[str, Any] = {"pair": self.pair.name, "speculate": self.speculate, "options": key_options(self.options)}
        requests = [
            {**common, "prompt": list(prompt), "params": param, "seed": seed}
            for prompt, param, seed in zip(prompts, params, seeds, strict=True)
        ]
        lines = [{**request, **asdict(output)} for request, output in zip(requests, outputs, strict=True)]
        if before is not None and (after := self.counters()) is not None:
            keys = [request_key(**request) for request in requests]
            lines.append({"call": call_key(keys), "counted": asdict(after - before)})
        with self.implementation.tape.open("ab", buffering=0) as tape:
            for line in lines:
                tape.write(json.dumps(line).encode() + b"\n")


def is_unread(token: object) -> bool:
    """Whether a token of enumerating coins has no value yet. It is not validated: reading its value would branch the execution.

    Such a token has an attribute `token` that is None; harness.enumeration is not imported here, since it builds on engines.
    """
    return getattr(token, "token", 0) is None


def request_key(
    pair: str, speculate: bool, options: dict[str, Any], prompt: list[int], params: Params, seed: int, **_answer: Any
) -> str:
    """Key of a request in a trace."""
    return json.dumps([pair, speculate, options, params, seed, prompt], sort_keys=True)


def call_key(requests: Sequence[str]) -> str:
    """Key of one call of `generate`, from the keys of its requests; a trace stores the call's counters under it."""
    return hashlib.sha256("\n".join(requests).encode()).hexdigest()


def key_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are part of a request's key; device and dtype are not, so that a trace can be judged on another machine."""
    return {name: value for name, value in sorted(options.items()) if name not in ("device", "dtype")}


def _read_tokens(tokens: Any, most: int) -> tuple[int, ...]:
    """The first tokens of an answer. Tokens of enumerating coins that have no value yet are left as they are."""
    if not _is_ordered(tokens):
        raise AdapterError(f"an answer is {_shown(tokens)}, not a list of token ids or a dict with 'tokens'")
    return tuple(
        token if type(token) is int or is_unread(token) else _whole(token, f"token {i} of an answer")
        for i, token in enumerate(itertools.islice(tokens, most))
    )


def _read_counters(reported: Any) -> Counters:
    try:
        return Counters(*(operator.index(reported[name]) for name in COUNTERS))
    except (KeyError, TypeError):
        raise AdapterError(f"counters() returned {_shown(reported)}, not whole numbers passes, drafted, accepted") from None


def _read_blocks(blocks: Any) -> tuple[BlockTrace, ...] | None:
    return None if blocks is None else tuple(_read_block(block, i) for i, block in enumerate(_sized(blocks, "'blocks'")))


def _read_block(block: Any, i: int) -> BlockTrace:
    if not isinstance(block, dict) or not {"accepted", "tokens", "parents"} <= set(block):
        raise AdapterError(f"block {i} of 'blocks' is {_shown(block)}, not a dict with accepted, tokens and parents")
    tokens, parents = (
        tuple(
            value if type(value) is int else _whole(value, f"{name}[{j}] of block {i}")
            for j, value in enumerate(_sized(block[name], f"{name} of block {i}"))
        )
        for name in ("tokens", "parents")
    )
    return BlockTrace(_whole(block["accepted"], f"accepted of block {i}"), tokens, parents)


def _read_logprobs(logprobs: Any, n: int) -> tuple[float, ...] | None:
    if logprobs is None:
        return None
    if len(_sized(logprobs, "'logprobs'")) != n:
        raise AdapterError(f"'logprobs' has {len(logprobs)} numbers for {n} tokens")
    values = tuple(_logarithm(value, i) for i, value in enumerate(itertools.islice(logprobs, n + 1)))
    if len(values) != n:
        raise AdapterError(f"'logprobs' yields other than {n} numbers, its length")
    return values


def _is_ordered(values: Any) -> bool:
    """Whether values can be read one after another and are no text, dict or set."""
    try:
        iter(values)
    except TypeError:  # also an array without dimensions
        return False
    return not isinstance(values, str | dict | set | frozenset)


def _sized(values: Any, where: str) -> Any:
    """Values in order and of a known number, such as a list, a tuple or an array. A generator may be endless."""
    if not _is_ordered(values) or not isinstance(values, Sized):
        raise AdapterError(f"{where} is {_shown(values)}, not a list")
    return values


def _whole(value: Any, where: str) -> int:
    """An integer of Python, NumPy or torch. 3.0 is none: beyond 2^24 a token id that was a float may be another one."""
    try:
        if "bool" not in (type(value).__name__, str(getattr(value, "dtype", "")).removeprefix("torch.")):
            return operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # an array or a tensor of several numbers
        pass
    raise AdapterError(f"{where} is {_shown(value)}, not a whole number (int of Python, or an integer type of NumPy or torch)")


def _logarithm(value: Any, i: int) -> float:
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if math.isnan(number) or number == math.inf:
        raise AdapterError(f"logprob {i} of an answer is {_shown(value)}, not the logarithm of a probability")
    return number


class _Short(reprlib.Repr):
    """Values of an answer in few characters, also those that are too large to be printed."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_int(self, value: int, _level: int) -> str:
        return str(value) if abs(value) < 10**18 else f"a whole number of {value.bit_length()} bits"


def _shown(value: Any) -> str:
    return _Short().repr(value)[:160]


class TimeLimit(BaseException):
    """Raised into code that exceeds its time limit; a BaseException, so that `except Exception` does not swallow it."""


@contextlib.contextmanager
def limited(call: str, seconds: float) -> Iterator[None]:
    """Run code of an implementation: within a time limit. What it raises becomes an error that names the call.

    Code that catches the exception of the time limit, or never returns to the interpreter, is ended by the supervisor of the
    run together with its process: see harness/supervisor.py.

    Raises:
        Hung: it took longer.
        NotApplicable: it raised NotImplementedError.
        AdapterError: it raised something else, including SystemExit and KeyboardInterrupt.
    """
    try:
        with activity.calling(call, seconds), _alarm(seconds):
            try:
                yield
            except (TimeLimit, HarnessError, BadInput):
                raise
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and (activity.folder() is None or activity.interrupted()):
                    raise  # it is the user's
                _raise_for(error, call)
    except TimeLimit as place:
        # The stack alone: an error before it is the implementation's, and its text may hang.
        stack = "".join(traceback.format_tb(place.__traceback__))
        raise Hung(f"the implementation hung: {call} took more than {seconds:g} s", stack) from None


def _raise_for(error: BaseException, call: str) -> NoReturn:
    """Raise an error of the harness for one of the implementation. Its text is code of the implementation too."""
    try:
        said = str(error)
    except TimeLimit:
        raise
    except BaseException:
        said = "its message cannot be read"
    said = said.encode("utf-8", "backslashreplace").decode()
    if isinstance(error, NotImplementedError):
        raise NotApplicable(f"the implementation refuses: {said}") from None
    raise AdapterError(
        f"the implementation raised, {call}: {type(error).__name__}: {said}", tracebacks.format_error(error)
    ) from None


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeLimit in the main thread after `seconds`."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimit

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
