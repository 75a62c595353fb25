"""An implementation opened on a pair: every call has a time limit, and every answer is validated before it is used."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import math
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from eagle2_ref.coins import Coins
from eagle2_ref.errors import BadInput
from harness.pairs import Pair

if TYPE_CHECKING:
    from harness.implementations import Implementation

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
        answers = self._call(f"generate() of {len(prompts)} prompts", lambda: raw.generate(*requests))
        if not isinstance(answers, list | tuple) or len(answers) != len(prompts):
            found = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
            raise AdapterError(f"generate() returned {found} for {len(prompts)} prompts")
        outputs = [self._validate(*row) for row in zip(prompts, params, answers, strict=True)]
        if self.implementation.tape:
            self._record(prompts, params, seeds, outputs, before)
        return outputs

    def decode(self, prompt: Sequence[int], params: Params, coins: Coins) -> Output:
        """Continue one prompt with coins of the harness; needs the capability `coins`."""
        raw = self.raw
        return self._validate(prompt, params, self._call("decode()", lambda: raw.decode(list(prompt), dict(params), coins)))

    def decode_all(self, prompts: Sequence[Sequence[int]], params: Params, coins: Sequence[Coins]) -> list[Output]:
        """Continue several prompts, each with its own coins; they share target passes if the implementation can batch."""
        if "batch" not in self.implementation.capabilities:
            return [self.decode(prompt, params, own) for prompt, own in zip(prompts, coins, strict=True)]
        raw, requests = self.raw, ([list(prompt) for prompt in prompts], [dict(params) for _ in prompts], list(coins))
        answers = self._call("decode_all()", lambda: raw.decode_all(*requests))
        return [self._validate(prompt, params, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def counters(self) -> Counters | None:
        """Cumulative counters of the implementation; None if it does not declare the capability `counters`."""
        if "counters" not in self.implementation.capabilities:
            return None
        raw = self.raw
        reported = self._call("counters()", lambda: raw.counters())
        try:
            counters = Counters(*(operator.index(reported[name]) for name in COUNTERS))
        except (KeyError, TypeError):
            shown = str(reported)[:80]
            raise AdapterError(f"counters() returned {shown!r}, not whole numbers passes, drafted, accepted") from None
        if min(asdict(counters).values()) < 0:
            raise AdapterError(f"counters() returned a number below 0: {counters}")
        return counters

    def close(self) -> None:
        """Close the implementation if it has a `close` method; the next call opens it again."""
        if self.closable:
            self._raw.close()
            self._raw = None

    @property
    def closable(self) -> bool:
        """Whether the implementation is open and has a `close` method."""
        return self._raw is not None and hasattr(self._raw, "close")

    def _call(self, action: str, function: Callable[[], Any]) -> Any:
        """Run code of the implementation within the time limit; errors become an AdapterError that names the action."""
        if self._hung:
            raise AdapterError(self._hung)
        action, limit = f"{action} on {self.pair.name}", self.implementation.time_limit
        try:
            with time_limit(limit):
                return function()
        except TimeLimit:
            self._hung = f"the implementation hung: {action} took more than {limit:g} s"
            raise AdapterError(self._hung) from None
        except (HarnessError, BadInput):
            raise
        except NotImplementedError as refusal:
            raise NotApplicable(f"the implementation refuses: {refusal}") from None
        except Exception as error:
            raise AdapterError(f"the implementation raised, {action}: {type(error).__name__}: {error}") from error

    def _validate(self, prompt: Sequence[int], params: Params, answer: Any) -> Output:
        tokens = answer["tokens"] if isinstance(answer, dict) and "tokens" in answer else answer
        try:
            tokens = tuple(token if is_unread(token) else int(token) for token in tokens)
        except (TypeError, ValueError):
            raise AdapterError(f"an answer is {str(answer)[:80]!r}, not a list of token ids or a dict with 'tokens'") from None
        decided = [token for token in tokens if not is_unread(token)]
        if invalid := [token for token in decided if not 0 <= token < self.pair.vocab_size]:
            raise AdapterError(f"an answer has token {invalid[0]}; the vocabulary is 0 to {self.pair.vocab_size - 1}")
        requested, room = params["max_new_tokens"], max(self.pair.context - len(prompt), 0)
        if len(tokens) > (limit := min(requested, room)):
            context = f"the context leaves room for {room}; " if room < requested else ""
            raise AdapterError(f"an answer has {len(tokens)} tokens; {context}at most {requested} were requested")
        eos = params.get("eos_token_id")
        ends = set(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        # STOP-4 judges the length of a text that ends at the context's limit; only max_new_tokens is checked here.
        if len(tokens) < limit == requested and not ends & set(tokens):
            raise AdapterError(f"an answer has {len(tokens)} tokens, without an end-of-text token; {limit} were requested")
        extras = answer if isinstance(answer, dict) else {}
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


def _read_blocks(blocks: Any) -> tuple[BlockTrace, ...] | None:
    if blocks is None:
        return None
    try:
        return tuple(BlockTrace(int(b["accepted"]), tuple(map(int, b["tokens"])), tuple(map(int, b["parents"]))) for b in blocks)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            f"'blocks' is not a list of dicts with accepted, tokens and parents: {type(error).__name__}: {error}"
        ) from None


def _read_logprobs(logprobs: Any, n: int) -> tuple[float, ...] | None:
    if logprobs is None:
        return None
    try:
        values = tuple(float(value) for value in logprobs)
    except (TypeError, ValueError):
        raise AdapterError(f"'logprobs' is {str(logprobs)[:80]!r}, not a list of numbers") from None
    if len(values) != n:
        raise AdapterError(f"'logprobs' has {len(values)} numbers for {n} tokens")
    if invalid := [value for value in values if math.isnan(value) or value == math.inf]:
        raise AdapterError(f"'logprobs' has {invalid[0]}, which is not the logarithm of a probability")
    return values


class TimeLimit(BaseException):
    """Raised into code that exceeds its time limit; a BaseException, so that `except Exception` does not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit in the main thread after `seconds`.

    Native code that never returns to the interpreter cannot be interrupted. Under pytest-xdist the worker process is
    therefore ended 15 seconds later; the run continues without it, and the check of a dead worker is inconclusive.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimit

    in_worker = "PYTEST_XDIST_WORKER" in os.environ
    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if in_worker:  # sys.__stderr__: pytest's capture replaces sys.stderr by an object without a file descriptor
        faulthandler.dump_traceback_later(seconds + 15, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if in_worker:
            faulthandler.cancel_dump_traceback_later()
