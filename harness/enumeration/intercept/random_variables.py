"""What is drawn while code is enumerated: numbers and whole numbers that stay open until the code looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.coins import LazyToken, Trail

MOST = 1 << 16
"""Whole numbers out of more than this are not decided one by one: they can only be seeds."""


class NotEnumerable(Exception):
    """The code draws, or looks at what it drew, in a way that cannot be followed. The message names the call.

    Those of the present execution are kept: what the code, or a layer of torch, swallows or wraps is raised at its end.
    """

    raised: ClassVar[list[NotEnumerable]] = []

    def __init__(self, why: str) -> None:
        super().__init__(why)
        NotEnumerable.raised.append(self)


class Cell:
    """A uniform number U of [0, 1) of which an interval is known; or exponential noise -log U that has won a race.

    A race leaves of its winner only the rate at which it is now distributed; it can race on, and nothing else.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self.low, self.high, self.rate = 0.0, 1.0, 1.0

    def place(self, edges: Tensor) -> int:
        """How many of the ascending edges [n] are at or below U: a choice among the intervals between them.

        An edge itself has probability zero.
        """
        if self.rate != 1.0:
            raise NotEnumerable("the winner of a race of noises is compared with a number")
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        bounds = torch.cat([ends[:1], edges.clamp(self.low, self.high), ends[1:]])
        widths = bounds.diff()
        possible = widths.nonzero()[:, 0]
        certain = len(possible) == 1
        index = int(possible[0]) if certain else self._trail.choose((widths / (self.high - self.low)).tolist())
        self.low, self.high = float(bounds[index]), float(bounds[index + 1])
        return index

    def above(self, edge: float) -> bool:
        """Whether U lies above one edge; `place`, for the commonest case."""
        if self.rate != 1.0:
            raise NotEnumerable("the winner of a race of noises is compared with a number")
        if edge <= self.low or edge >= self.high:
            return edge <= self.low
        width = self.high - self.low
        above = self._trail.choose([(edge - self.low) / width, (self.high - edge) / width]) == 1
        self.low, self.high = (edge, self.high) if above else (self.low, edge)
        return above

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


class Chance:
    """All numbers drawn in one execution, by their ids 0, 1, …; most are never looked at and cost one byte."""

    FRESH, OPEN, SPENT = 0, 1, 2

    def __init__(self, trail: Trail) -> None:
        self.trail = trail
        self._states = np.zeros(1024, dtype=np.uint8)
        self._drawn = 0
        self._cells: dict[int, Cell] = {}
        self._wholes: dict[int, Whole | Seed] = {}
        self._seeds: dict[tuple[str, int], int] = {}

    def seed(self, generator: str, seed: object) -> None:
        """A seed is taken as the name of numbers that are enumerated; the same name twice would be the same numbers twice."""
        if isinstance(seed, int | np.integer) and self._seeds.setdefault((generator, int(seed)), self._drawn) < self._drawn:
            raise NotEnumerable(f"the seed {seed} is given to {generator} again, after numbers were drawn")

    def draw(self, n: int) -> Tensor:
        """The ids [n] of n fresh numbers."""
        first, self._drawn = self._drawn, self._drawn + n
        while self._drawn > len(self._states):
            self._states = np.concatenate([self._states, np.zeros_like(self._states)])
        return torch.arange(first, self._drawn)

    def token(self, law: Tensor) -> Whole:
        """A whole number distributed as law [n], undecided."""
        self.draw(1)
        return Whole(self.trail, law)

    def below(self, low: int, high: int) -> Whole | Seed:
        """A whole number, uniform from low to high - 1, undecided; 0 <= low."""
        self.draw(1)
        if low >= high:
            raise ValueError(f"empty range for a whole number: from {low} to {high - 1}")
        if high - low > MOST:
            return Seed(high - low)
        if low < 0 or high > MOST:
            raise NotEnumerable(f"a whole number from {low} to {high - 1}")
        law = torch.zeros(high, dtype=torch.float64)
        law[low:] = 1 / (high - low)
        return Whole(self.trail, law)

    def cell(self, number: int) -> Cell:
        """The number behind an id, to be looked at."""
        if self._states[number] == self.SPENT:
            raise NotEnumerable("the noise of a race is used a second time")
        self._states[number] = self.OPEN
        return self._cells.setdefault(number, Cell(self.trail))

    def keep(self, number: Whole | Seed) -> int:
        """An id for an undecided whole number that a tensor is to hold."""
        (name,) = self.draw(1).tolist()
        self._wholes[name] = number
        return int(name)

    def whole(self, number: int) -> Whole | Seed:
        return self._wholes[number]

    def spend(self, numbers: Tensor) -> None:
        """Mark ids as used up by a race; each must be fresh and there once, or the race would not be one of independents."""
        ids = numbers.numpy()
        if self._states[ids].any() or len(np.unique(ids)) != len(ids):
            raise NotEnumerable("the noise of a race is used a second time")
        self._states[ids] = self.SPENT

    def duel(self, mine: int, my_rate: float, other: int, other_rate: float) -> bool:
        """Whether exponential number `mine`, divided by my_rate, is the smaller one. The smaller is then exponential, faster."""
        a, b = self.cell(mine), self.cell(other)
        if mine == other or (a.low, a.high, b.low, b.high) != (0.0, 1.0, 0.0, 1.0):
            raise NotEnumerable("a number is compared with another one that was looked at before")
        rates = [my_rate * a.rate, other_rate * b.rate]
        first = self.trail.choose([rate / sum(rates) for rate in rates]) == 0
        winner, rate, loser = (a, my_rate, other) if first else (b, other_rate, mine)
        winner.rate = sum(rates) / rate
        self._states[loser] = self.SPENT
        return first


class Whole(LazyToken):
    """A whole number of which only the law is known; arithmetic and order decide it, equality with a number asks for less."""

    def item(self) -> Whole:
        return self

    def __bool__(self) -> bool:
        return int(self) != 0

    def __float__(self) -> float:
        return float(int(self))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, LazyToken):
            return int(self) == int(other)
        if self.token is None and isinstance(other, int | np.integer):
            value = int(other)
            return 0 <= value < len(self.law) and float(self.law[value]) > 0 and super().__eq__(value)
        return bool(int(self) == other)

    def __hash__(self) -> int:
        return hash(int(self))

    def __getattr__(self, name: str) -> Any:
        """What else an int can do is done by the decided int. Whether it has a special method is asked of no number."""
        if name.startswith("__") or not hasattr(int, name):
            raise AttributeError(name)
        return getattr(int(self), name)

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], *_: object) -> Any:
        raise NotEnumerable(f"torch.{func.__name__} of an undecided whole number")


class Seed:
    """A whole number out of so many that nothing but a seed is made of it: it may be computed with, never looked at."""

    def __init__(self, count: int) -> None:
        self._count = count

    def item(self) -> Seed:
        return self

    def _look(self, *_: object) -> Any:
        raise NotEnumerable(f"a whole number drawn out of {self._count} is looked at")

    __int__ = __index__ = __float__ = __bool__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __hash__ = _look


def _decided(name: str) -> Callable[..., Any]:
    def operate(self: Whole, *others: Any) -> Any:
        return getattr(int(self), name)(*(int(other) if isinstance(other, LazyToken) else other for other in others))

    return operate


def _kept(self: Seed, *_: object) -> Seed:
    return self


_ARITHMETIC = ["add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift", "truediv", "pow", "divmod"]
for _name in [f"__{side}{name}__" for name in _ARITHMETIC for side in ("", "r")] + ["__neg__", "__abs__", "__pos__"]:
    setattr(Whole, _name, _decided(_name))
    setattr(Seed, _name, _kept)
for _name in ["__lt__", "__le__", "__gt__", "__ge__", "__round__", "__floor__", "__trunc__"]:
    setattr(Whole, _name, _decided(_name))
