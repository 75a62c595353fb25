"""Coins that enumerate every execution of a decoder, each with its exact probability. See README.md in this folder.

A random decision branches on a `ChoiceTrail`, as late as possible: a `SymbolicUniform` is an interval until it is compared, a
`SymbolicToken` is a distribution until its value is needed. `executions` runs the code once for every branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeVar, cast

from torch import Tensor

from eagle2_ref.coins import Coins
from harness.implementations.engine import HarnessError

T = TypeVar("T")

Weights = Sequence[Any]
"""Probabilities of the branches of a choice: floats, or Fractions for an exact result."""

Script = Sequence[tuple[int, Weights | None]]
"""The branch to take at each choice, and its weights when the choice was first met, if known."""


class Unrepeatable(HarnessError):
    """The same branches led to other choices: state is left over from an earlier execution, or there is other randomness."""


class ChoiceTrail:
    """One path through the tree of all choices: it replays a script, then takes first branches.

    Attributes:
        taken: branch and weights of every choice so far.
        weight: probability of the execution so far, the product of the weights taken.
    """

    def __init__(self, script: Script = ()) -> None:
        self._script = list(script)
        self.taken: list[tuple[int, Weights]] = []
        self.weight: Any = 1

    def choose(self, weights: Weights) -> int:
        """Take a branch of positive weight and return its index.

        Raises:
            Unrepeatable: if the choice has other weights than when it was first met.
        """
        step = len(self.taken)
        if step < len(self._script):
            index, before = self._script[step]
            if before is not None and not _close(weights, before):
                raise Unrepeatable(f"choice {step + 1} of an execution had other probabilities when it was replayed")
        else:
            first = _next_positive(weights, 0)
            assert first is not None, "a choice needs a branch of positive weight"
            index = first
        self.taken.append((index, weights))
        self.weight *= weights[index]
        return index

    def next_script(self) -> list[tuple[int, Weights | None]] | None:
        """The script of the next execution, depth first; None after the last."""
        for step in reversed(range(len(self.taken))):
            index, weights = self.taken[step]
            following = _next_positive(weights, index + 1)
            if following is not None:
                return [*self.taken[:step], (following, weights)]
        return None


class SymbolicUniform:
    """A uniform number, known to lie in the interval from `low` to `high`. A comparison inside it branches and narrows it."""

    def __init__(self, trail: ChoiceTrail) -> None:
        self._trail = trail
        self.low: Any = 0
        self.high: Any = 1

    def __lt__(self, threshold: Any) -> bool:
        x = _number(threshold)
        if x <= self.low or x >= self.high:
            return bool(x >= self.high)
        width = self.high - self.low
        below = self._trail.choose([(x - self.low) / width, (self.high - x) / width]) == 0
        self.low, self.high = (self.low, x) if below else (x, self.high)
        return below

    def __gt__(self, threshold: Any) -> bool:
        return not self < threshold

    __le__, __ge__ = __lt__, __gt__  # the boundary has probability zero


class SymbolicToken:
    """A token of which only the distribution `law` [V] is known.

    Equality branches two ways, use as a number over all values. A token that is never read stays symbolic: one execution then
    stands for every value.
    """

    def __init__(self, trail: ChoiceTrail, law: Tensor) -> None:
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
        return "a symbolic token" if self.token is None else str(self.token)


class EnumeratedCoins(Coins):
    """Coins whose numbers and tokens branch on a trail. `executions` passes them to the code under test."""

    def __init__(self, trail: ChoiceTrail) -> None:
        self.trail = trail

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> SymbolicUniform:
        return SymbolicUniform(self.trail)

    def categorical(self, p: Tensor) -> int:
        return cast(int, SymbolicToken(self.trail, p))

    @property
    def choices(self) -> tuple[int, ...]:
        """The branch of each choice so far. A trail with this script repeats the execution."""
        return tuple(index for index, _ in self.trail.taken)


def is_symbolic(token: object) -> bool:
    """Whether a token is symbolic and has no value yet."""
    return isinstance(token, SymbolicToken) and token.token is None


def unfold(tokens: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """All texts for which an execution stands if its last token is symbolic, with their probabilities given the execution."""
    *before, last = tokens
    prefix = tuple(int(token) for token in before)
    if not isinstance(last, SymbolicToken) or last.token is not None:
        yield (*prefix, int(last)), 1
        return
    yield from (((*prefix, token), weight) for token, weight in enumerate(last.law.tolist()) if weight > 0)


def executions(run: Callable[[EnumeratedCoins], T]) -> Iterator[tuple[T, Any]]:
    """Every execution of `run`, as pairs of its result and its probability.

    Args:
        run: a function that takes all of its randomness from the coins it is given.

    Raises:
        Unrepeatable: if `run` has other randomness, or an execution leaves state behind for the next.
    """
    script: Script | None = []
    while script is not None:
        trail = ChoiceTrail(script)
        yield run(EnumeratedCoins(trail)), trail.weight
        script = trail.next_script()


def _next_positive(weights: Weights, start: int) -> int | None:
    return next((index for index in range(start, len(weights)) if weights[index] > 0), None)


def _close(weights: Weights, before: Weights) -> bool:
    return len(weights) == len(before) and all(abs(a - b) <= 1e-6 for a, b in zip(weights, before, strict=True))


def _number(x: Any) -> Any:
    """A float, or the Fraction that x is."""
    return x if isinstance(x, Fraction) else float(x)
