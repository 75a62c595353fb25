"""Coins that enumerate every execution of a decoder, each with its exact probability.

Each random decision branches on a `Trail`; `executions` runs the code once for every branch. Decisions are taken as late as
possible: a `LazyUniform` is only an interval until it is compared, and a `LazyToken` is only a distribution until its value is
needed. A token that is never read costs no further execution, whatever the size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeVar, cast

from torch import Tensor

from eagle2_ref.coins import Coins

T = TypeVar("T")

Weights = Sequence[Any]
"""Probabilities of the branches of a decision: floats, or Fractions for an exact result."""


class Unrepeatable(Exception):
    """The same decisions led to different ones: state is left over from an earlier execution, or there is other randomness."""


class Trail:
    """One path through the tree of all decisions: it replays a script, then takes first branches and notes the others.

    A script gives the branch of each decision and, if known, the weights that the decision had when it was first met.
    """

    def __init__(self, script: Sequence[tuple[int, Weights | None]] = ()) -> None:
        self._script = list(script)
        self.taken: list[tuple[int, Weights]] = []
        self.weight: Any = 1

    def choose(self, weights: Weights) -> int:
        """Take a branch of positive weight and return its index. `weight` is the product over the execution.

        Raises:
            Unrepeatable: the decision has other weights than when it was first met.
        """
        step = len(self.taken)
        if step < len(self._script):
            index, before = self._script[step]
            if before is not None and not _alike(weights, before):
                raise Unrepeatable(f"choice {step + 1} of an execution had other odds when its beginning was run again")
        else:
            first = _next_positive(weights, 0)
            assert first is not None, "a choice needs a branch of positive weight"
            index = first
        self.taken.append((index, weights))
        self.weight *= weights[index]
        return index

    def next_script(self) -> list[tuple[int, Weights | None]] | None:
        """The decisions that lead to the next execution, depth first; None after the last."""
        for step in reversed(range(len(self.taken))):
            index, weights = self.taken[step]
            following = _next_positive(weights, index + 1)
            if following is not None:
                return [*self.taken[:step], (following, weights)]
        return None


class LazyUniform:
    """A uniform number of which only an interval is known. A comparison branches, and halves the interval.

    The interval is remembered, so that a number can be compared more than once.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._low: Any = 0
        self._high: Any = 1

    def __lt__(self, threshold: Any) -> bool:
        x = _number(threshold)
        if x >= self._high or x <= self._low:
            return bool(x >= self._high)
        width = self._high - self._low
        below = self._trail.choose([(x - self._low) / width, (self._high - x) / width]) == 0
        self._low, self._high = (self._low, x) if below else (x, self._high)
        return below

    def __gt__(self, threshold: Any) -> bool:
        return not self < threshold

    __le__, __ge__ = __lt__, __gt__  # the boundary has probability zero


class LazyToken:
    """A token of which only the distribution is known. A comparison branches in two; conversion to int, into all values.

    A token that is never read stays undecided: one execution then stands for every value, with the probabilities `law` [V].
    """

    def __init__(self, trail: Trail, law: Tensor) -> None:
        self._trail, self.law = trail, law
        self.token: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int):
            return NotImplemented
        if self.token is None:
            rest = self.law.clone()
            rest[other] = 0
            remaining = rest.sum()
            if self._trail.choose([_number(self.law[other]), _number(remaining)]) == 0:
                self.token = other
            else:
                self.law = rest / remaining
        return self.token == other

    def __index__(self) -> int:
        if self.token is None:
            self.token = self._trail.choose(self.law.tolist())
        return self.token

    __int__ = __index__

    def __hash__(self) -> int:
        return hash(int(self))

    def __repr__(self) -> str:
        return "an undecided token" if self.token is None else str(self.token)


class EnumeratedCoins(Coins):
    """Coins whose numbers and tokens branch on a Trail. `executions` passes them to the code under test."""

    def __init__(self, trail: Trail) -> None:
        self.trail = trail

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> LazyUniform:
        return LazyUniform(self.trail)

    def categorical(self, p: Tensor) -> int:
        return cast(int, LazyToken(self.trail, p))

    @property
    def choices(self) -> tuple[int, ...]:
        """The branch of each decision so far. A Trail with this script repeats the execution."""
        return tuple(index for index, _ in self.trail.taken)


def undecided(token: object) -> bool:
    """Whether a token is lazy and has no value yet."""
    return isinstance(token, LazyToken) and token.token is None


def unfold(tokens: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """All texts that an execution stands for, if its last token is undecided, with their probabilities given the execution."""
    *before, last = tokens
    begun = tuple(int(token) for token in before)
    if not isinstance(last, LazyToken) or last.token is not None:
        yield (*begun, int(last)), 1
        return
    yield from (((*begun, token), weight) for token, weight in enumerate(last.law.tolist()) if weight > 0)


def executions(run: Callable[[EnumeratedCoins], T]) -> Iterator[tuple[T, Any]]:
    """Every execution of `run`, as pairs of its result and its probability.

    Args:
        run: a function that takes all of its randomness from the coins it is given.

    Raises:
        Unrepeatable: `run` has other randomness, or an execution leaves state behind for the next.
    """
    script: list[tuple[int, Weights | None]] | None = []
    while script is not None:
        trail = Trail(script)
        outcome = run(EnumeratedCoins(trail))
        yield outcome, trail.weight
        script = trail.next_script()


def _next_positive(weights: Weights, start: int) -> int | None:
    return next((index for index in range(start, len(weights)) if weights[index] > 0), None)


def _alike(weights: Weights, before: Weights) -> bool:
    return len(weights) == len(before) and all(abs(a - b) <= 1e-6 for a, b in zip(weights, before, strict=True))


def _number(x: Any) -> Any:
    """A plain number of a tensor's element; a Fraction stays one."""
    return x if isinstance(x, Fraction) else float(x)
