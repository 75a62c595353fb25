"""Random variables of one execution, and the symbolic integers that are sampled from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.coins import ChoiceTrail, SymbolicToken, SymbolicUniform

MAX_BRANCHES = 1 << 16
"""Integers with more values than this are not branched on: they can only serve as seeds."""


class NotEnumerable(Exception):
    """The code draws random numbers, or uses them, in a way that cannot be followed. The message names the call.

    Refusals of the present execution are collected in `raised`: if the code or a layer of torch swallows or wraps one, it is
    raised again when the execution ends.
    """

    raised: ClassVar[list[NotEnumerable]] = []

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        NotEnumerable.raised.append(self)


class UniformVariable(SymbolicUniform):
    """A uniform number U in [0, 1), known to lie in an interval; or exponential noise -log U that has won a race.

    After a race only the rate is known at which the winner is now distributed. It can race again, and nothing else.
    """

    def __init__(self, trail: ChoiceTrail) -> None:
        super().__init__(trail)
        self.rate = 1.0

    def locate(self, edges: Tensor) -> int:
        """How many of the ascending edges [n] are at or below U. Branches over the intervals between them."""
        self._require_unraced()
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        bounds = torch.cat([ends[:1], edges.clamp(self.low, self.high), ends[1:]])
        widths = bounds.diff()
        possible = widths.nonzero()[:, 0]
        certain = len(possible) == 1
        index = int(possible[0]) if certain else self._trail.choose((widths / (self.high - self.low)).tolist())
        self.low, self.high = float(bounds[index]), float(bounds[index + 1])
        return index

    def is_above(self, edge: float) -> bool:
        """Whether U is above one edge: `locate` for the most common case."""
        self._require_unraced()
        return self > edge

    def _require_unraced(self) -> None:
        if self.rate != 1.0:
            raise NotEnumerable("the winner of a race of noises is compared with a number")

    @property
    def midpoint(self) -> float:
        return float(self.low + self.high) / 2


class RandomVariables:
    """All random variables of one execution, numbered 0, 1, … Most are never looked at and cost one byte."""

    FRESH, OPEN, CONSUMED = 0, 1, 2

    def __init__(self, trail: ChoiceTrail) -> None:
        self.trail = trail
        self._states = np.zeros(1024, dtype=np.uint8)
        self._count = 0
        self._uniforms: dict[int, UniformVariable] = {}
        self._integers: dict[int, SymbolicInt | SymbolicSeed] = {}
        self._seeds: dict[tuple[str, int], int] = {}

    def check_seed(self, generator: str, seed: object) -> None:
        """Refuse a seed that was given to this kind of generator before: the same numbers would be drawn twice."""
        if isinstance(seed, int | np.integer) and self._seeds.setdefault((generator, int(seed)), self._count) < self._count:
            raise NotEnumerable(f"the seed {seed} is given to {generator} again, after numbers were drawn")

    def new_ids(self, n: int) -> Tensor:
        """Ids [n] of n new random variables."""
        first, self._count = self._count, self._count + n
        while self._count > len(self._states):
            self._states = np.concatenate([self._states, np.zeros_like(self._states)])
        return torch.arange(first, self._count)

    def sample_integer(self, law: Tensor) -> SymbolicInt:
        """A symbolic integer with distribution `law` [n]."""
        self.new_ids(1)
        return SymbolicInt(self.trail, law)

    def sample_below(self, low: int, high: int) -> SymbolicInt | SymbolicSeed:
        """A symbolic integer, uniform from low to high - 1, with 0 <= low; a seed if that is too many values."""
        self.new_ids(1)
        if low >= high:
            raise ValueError(f"empty range for an integer: from {low} to {high - 1}")
        if high - low > MAX_BRANCHES:
            return SymbolicSeed(high - low)
        if low < 0 or high > MAX_BRANCHES:
            raise NotEnumerable(f"an integer from {low} to {high - 1}")
        law = torch.zeros(high, dtype=torch.float64)
        law[low:] = 1 / (high - low)
        return SymbolicInt(self.trail, law)

    def uniform(self, number: int) -> UniformVariable:
        """The uniform variable of an id, to be compared."""
        if self._states[number] == self.CONSUMED:
            raise NotEnumerable("a random number is used in a race and again elsewhere")
        self._states[number] = self.OPEN
        return self._uniforms.setdefault(number, UniformVariable(self.trail))

    def register(self, number: SymbolicInt | SymbolicSeed) -> int:
        """Assign an id to a symbolic integer, so that a tensor can hold it."""
        (name,) = self.new_ids(1).tolist()
        self._integers[name] = number
        return int(name)

    def integer(self, number: int) -> SymbolicInt | SymbolicSeed:
        """The symbolic integer of an id."""
        return self._integers[number]

    def consume(self, numbers: Tensor) -> None:
        """Mark ids as used up by a race. Each must be unused and occur once, or the racers would not be independent."""
        ids = numbers.numpy()
        if self._states[ids].any() or len(np.unique(ids)) != len(ids):
            raise NotEnumerable("a random number is used in a race and again elsewhere")
        self._states[ids] = self.CONSUMED

    def race_pair(self, mine: int, my_rate: float, other: int, other_rate: float) -> bool:
        """Whether exponential noise `mine` / my_rate is smaller than `other` / other_rate.

        Branches, and gives the winner its new rate: the minimum of two exponentials is exponential with the sum of their rates.
        """
        a, b = self.uniform(mine), self.uniform(other)
        if mine == other or (a.low, a.high, b.low, b.high) != (0, 1, 0, 1):
            raise NotEnumerable("two symbolic numbers are compared, one of which was compared before")
        rates = [my_rate * a.rate, other_rate * b.rate]
        first = self.trail.choose([rate / sum(rates) for rate in rates]) == 0
        winner, rate, loser = (a, my_rate, other) if first else (b, other_rate, mine)
        winner.rate = sum(rates) / rate
        self._states[loser] = self.CONSUMED
        return first


class SymbolicInt(SymbolicToken):
    """An integer of which only the distribution is known.

    Equality with a number branches two ways; arithmetic, order and use as an index branch over all values.
    """

    def item(self) -> SymbolicInt:
        return self

    def __bool__(self) -> bool:
        return int(self) != 0

    def __float__(self) -> float:
        return float(int(self))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, SymbolicToken):
            return int(self) == int(other)
        if self.token is None and isinstance(other, int | np.integer):
            value = int(other)
            return 0 <= value < len(self.law) and float(self.law[value]) > 0 and super().__eq__(value)
        return bool(int(self) == other)

    def __hash__(self) -> int:
        return hash(int(self))

    def __getattr__(self, name: str) -> Any:
        """Other methods of int branch over all values. Asking for a special method must not branch."""
        if name.startswith("__") or not hasattr(int, name):
            raise AttributeError(name)
        return getattr(int(self), name)

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], *_: object) -> Any:
        raise NotEnumerable(f"torch.{func.__name__} of a symbolic integer")


class SymbolicSeed:
    """A symbolic random seed, with too many values to branch on: supports arithmetic, raises if read."""

    def __init__(self, count: int) -> None:
        self._count = count

    def item(self) -> SymbolicSeed:
        return self

    def _refuse(self, *_: object) -> Any:
        raise NotEnumerable(f"an integer drawn out of {self._count} is read")

    __int__ = __index__ = __float__ = __bool__ = __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __hash__ = _refuse


def _int_operation(name: str) -> Callable[..., Any]:
    def operate(self: SymbolicInt, *others: Any) -> Any:
        return getattr(int(self), name)(*(int(other) if isinstance(other, SymbolicToken) else other for other in others))

    return operate


def _same_seed(self: SymbolicSeed, *_: object) -> SymbolicSeed:
    return self


_ARITHMETIC = ["add", "sub", "mul", "floordiv", "mod", "and", "or", "xor", "lshift", "rshift", "truediv", "pow", "divmod"]
for _name in [f"__{side}{name}__" for name in _ARITHMETIC for side in ("", "r")] + ["__neg__", "__abs__", "__pos__"]:
    setattr(SymbolicInt, _name, _int_operation(_name))
    setattr(SymbolicSeed, _name, _same_seed)
for _name in ["__lt__", "__le__", "__gt__", "__ge__", "__round__", "__floor__", "__trunc__"]:
    setattr(SymbolicInt, _name, _int_operation(_name))
