"""An opened implementation: every call has a time limit, and every answer is checked before anybody believes it."""

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
from harness.enumeration.coins import Unrepeatable, undecided
from harness.pairs import Pair

if TYPE_CHECKING:
    from harness.implementations import Implementation


class AdapterError(Exception):
    """The implementation raised, hung, or answered what cannot be an answer. Never a pass."""


class NotApplicable(Exception):
    """The implementation says that it cannot do this; the message is the reason."""


class Missing(Exception):
    """A trace does not hold what a check needs. Missing data is never a pass."""


@dataclass(frozen=True)
class BlockTrace:
    """One target pass as an implementation tells it: its draft tree (root first, parent -1), and how many tokens it accepted.

    The block emitted accepted + 1 tokens, the last one cut where the text ends. The prompt's pass has an empty tree.
    """

    accepted: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """The continuation of one prompt; logprobs are the natural logarithms of what it says its tokens' probabilities were."""

    tokens: tuple[int, ...]
    blocks: tuple[BlockTrace, ...] | None = None
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Counters:
    """What an implementation has counted since it was opened: target passes over drafts, tokens drafted, and accepted of them."""

    passes: int
    drafted: int
    accepted: int

    def __sub__(self, before: Counters) -> Counters:
        return Counters(self.passes - before.passes, self.drafted - before.drafted, self.accepted - before.accepted)


class Engine:
    """An implementation on a pair. Opened at first use, since an engine may take long and a check may not need it."""

    def __init__(
        self, implementation: Implementation, pair: Pair, make: Callable[[], Any], speculate: bool, options: dict[str, Any]
    ) -> None:
        self.implementation, self.pair, self.speculate, self.options = implementation, pair, speculate, options
        self._make = make
        self._raw: Any = None
        self._dead = ""

    @property
    def raw(self) -> Any:
        """What the author's constructor returned."""
        if self._raw is None:
            with self._guard(f"opening it on {self.pair.name}"):
                self._raw = self._make()
        return self._raw

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[Output]:
        """Continue prompts (token ids), one dict of sampling parameters and one seed each."""
        raw = self.raw
        before = self.counters() if self.implementation.tape else None
        with self._guard(f"generate() of {len(prompts)} prompts on {self.pair.name}"):
            answers = raw.generate([list(prompt) for prompt in prompts], [dict(p) for p in params], list(seeds))
        if not isinstance(answers, list | tuple) or len(answers) != len(prompts):
            found = f"{len(answers)} answers" if isinstance(answers, list | tuple) else type(answers).__name__
            raise AdapterError(f"generate() returned {found} for {len(prompts)} prompts")
        outputs = [self._check(*row) for row in zip(prompts, params, answers, strict=True)]
        self._tape(prompts, params, seeds, outputs, before)
        return outputs

    def close(self) -> None:
        """Let go of what a constructor took; the next call opens it anew. Engines without a `close` stay as they are."""
        if self._raw is not None and hasattr(self._raw, "close"):
            self._raw.close()
            self._raw = None

    @property
    def closable(self) -> bool:
        """Whether it is open and can be closed."""
        return self._raw is not None and hasattr(self._raw, "close")

    def decode(self, prompt: Sequence[int], params: dict[str, Any], coins: Coins) -> Output:
        """Continue one prompt with coins of the harness's own; for implementations with the capability `coins`."""
        raw = self.raw
        with self._guard(f"decode() on {self.pair.name}"):
            answer = raw.decode(list(prompt), dict(params), coins)
        return self._check(prompt, params, answer)

    def decode_all(self, prompts: Sequence[Sequence[int]], params: dict[str, Any], coins: Sequence[Coins]) -> list[Output]:
        """As `decode`, of several prompts with coins of their own: together, where texts can share passes."""
        if "batch" not in self.implementation.capabilities:
            return [self.decode(prompt, params, own) for prompt, own in zip(prompts, coins, strict=True)]
        raw = self.raw
        with self._guard(f"decode_all() on {self.pair.name}"):
            answers = raw.decode_all([list(prompt) for prompt in prompts], [dict(params) for _ in prompts], list(coins))
        return [self._check(prompt, params, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def counters(self) -> Counters | None:
        """What it has counted since it was opened; None where it does not say that it counts."""
        if "counters" not in self.implementation.capabilities:
            return None
        raw = self.raw
        with self._guard(f"counters() on {self.pair.name}"):
            told = raw.counters()
        try:
            counted = Counters(*(operator.index(told[name]) for name in ("passes", "drafted", "accepted")))
        except (KeyError, TypeError):
            raise AdapterError(f"counters() returned {str(told)[:80]!r}, not whole numbers passes, drafted, accepted") from None
        if min(counted.passes, counted.drafted, counted.accepted) < 0:
            raise AdapterError(f"counters() returned a number below 0: {counted}")
        return counted

    @contextlib.contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Turn whatever goes wrong inside the implementation into an AdapterError that says what it was doing."""
        if self._dead:
            raise AdapterError(self._dead)
        limit = self.implementation.time_limit
        try:
            with time_limit(limit):
                yield
        except TimeLimit:
            self._dead = f"the implementation hung: {doing} took more than {limit:g} s"
            raise AdapterError(self._dead) from None
        except (AdapterError, NotApplicable, Missing, BadInput, Unrepeatable):
            raise
        except NotImplementedError as refusal:
            raise NotApplicable(f"the implementation refuses: {refusal}") from None
        except Exception as error:
            raise AdapterError(f"the implementation raised, {doing}: {type(error).__name__}: {error}") from error

    def _check(self, prompt: Sequence[int], params: dict[str, Any], answer: Any) -> Output:
        tokens = answer["tokens"] if isinstance(answer, dict) and "tokens" in answer else answer
        try:
            tokens = tuple(token if undecided(token) else int(token) for token in tokens)
        except (TypeError, ValueError):
            raise AdapterError(f"an answer is {str(answer)[:80]!r}, not a list of token ids or a dict with 'tokens'") from None
        decided = [token for token in tokens if not undecided(token)]
        if strange := [token for token in decided if not 0 <= token < self.pair.vocab_size]:
            raise AdapterError(f"an answer has token {strange[0]}; the vocabulary is 0 to {self.pair.vocab_size - 1}")
        limit = min(params["max_new_tokens"], max(self.pair.context - len(prompt), 0))
        if len(tokens) > limit:
            raise AdapterError(f"an answer has {len(tokens)} tokens; at most {limit} were asked for")
        eos = params.get("eos_token_id")
        ends = set(eos if isinstance(eos, list | tuple) else [] if eos is None else [eos])
        # Where the context cuts a text short, how short is for STOP-4 to judge.
        if len(tokens) < limit == params["max_new_tokens"] and not ends & set(tokens):
            raise AdapterError(f"an answer has {len(tokens)} tokens, without an end-of-text token; {limit} were asked for")
        return Output(tokens, _blocks(answer), _logprobs(answer, len(tokens)))

    def _tape(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[dict[str, Any]],
        seeds: Sequence[int],
        outputs: list[Output],
        before: Counters | None,
    ) -> None:
        """Append what was asked and answered to the tape, a line each, and what the call was counted as; one write a line, so
        that processes can share it."""
        if self.implementation.tape is None:
            return
        common: dict[str, Any] = {"pair": self.pair.name, "speculate": self.speculate, "options": asked_options(self.options)}
        asked = [
            {**common, "prompt": list(prompt), "params": param, "seed": seed}
            for prompt, param, seed in zip(prompts, params, seeds, strict=True)
        ]
        with self.implementation.tape.open("ab", buffering=0) as tape:
            for request, output in zip(asked, outputs, strict=True):
                tape.write(json.dumps({**request, **asdict(output)}).encode() + b"\n")
            if before is not None and (now := self.counters()) is not None:
                counted = {"call": call_key([request_key(**request) for request in asked]), "counted": asdict(now - before)}
                tape.write(json.dumps(counted).encode() + b"\n")


def request_key(
    pair: str, speculate: bool, options: dict[str, Any], prompt: list[int], params: dict[str, Any], seed: int, **_answer: Any
) -> str:
    """By which a trace finds the answer to a request."""
    return json.dumps([pair, speculate, options, params, seed, prompt], sort_keys=True)


def call_key(requests: Sequence[str]) -> str:
    """By which a trace finds what was counted over the requests of one call."""
    return hashlib.sha256("\n".join(requests).encode()).hexdigest()


def asked_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options that tell requests of a trace apart: a trace may be judged on another device than it was made on."""
    return {name: value for name, value in sorted(options.items()) if name not in ("device", "dtype")}


def _blocks(answer: Any) -> tuple[BlockTrace, ...] | None:
    blocks = answer.get("blocks") if isinstance(answer, dict) else None
    if blocks is None:
        return None
    try:
        return tuple(BlockTrace(int(b["accepted"]), tuple(map(int, b["tokens"])), tuple(map(int, b["parents"]))) for b in blocks)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(
            f"'blocks' is not a list of dicts with accepted, tokens and parents: {type(error).__name__}: {error}"
        ) from None


def _logprobs(answer: Any, n: int) -> tuple[float, ...] | None:
    told = answer.get("logprobs") if isinstance(answer, dict) else None
    if told is None:
        return None
    try:
        values = tuple(float(value) for value in told)
    except (TypeError, ValueError):
        raise AdapterError(f"'logprobs' is {str(told)[:80]!r}, not a list of numbers") from None
    if len(values) != n:
        raise AdapterError(f"'logprobs' has {len(values)} numbers for {n} tokens")
    if strange := [value for value in values if math.isnan(value) or value == math.inf]:
        raise AdapterError(f"'logprobs' has {strange[0]}, which is the logarithm of no probability")
    return values


class TimeLimit(BaseException):
    """Raised into code that ran too long; no `except Exception` of an implementation swallows it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit in the main thread after some seconds.

    Code that never returns to the interpreter cannot be raised into; 15 seconds later the worker process is ended, and the
    run goes on without it: a dead worker's check is inconclusive.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimit

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if "PYTEST_XDIST_WORKER" in os.environ:
        faulthandler.dump_traceback_later(seconds + 15, exit=True, file=sys.__stderr__ or sys.stderr)  # not a stand-in for it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if "PYTEST_XDIST_WORKER" in os.environ:
            faulthandler.cancel_dump_traceback_later()
