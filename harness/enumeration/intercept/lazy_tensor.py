"""Arithmetic on undecided numbers: what can be followed through it are increasing and decreasing functions of one number."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from harness.enumeration.intercept.random_variables import MOST, Chance, NotEnumerable, Whole

NEGLIGIBLE = 2.0**-23
"""Shifts and clamps of this size guard a logarithm against a uniform of 0 or 1, which has no probability here. Ignored."""


@dataclass(frozen=True)
class Kind:
    """A function g of a uniform number U: U itself, E ** exponent or log E, where E = -log U, or -log(1 - U) if mirrored."""

    name: Literal["uniform", "power", "log"]
    mirrored: bool = False
    exponent: float = 1.0

    @property
    def increasing(self) -> bool:
        return self.name == "uniform" or (self.mirrored == (self.name == "log" or self.exponent > 0))

    def uniform_at(self, y: Tensor) -> Tensor:
        """The u at which g(u) = y; 0 or 1 where g never comes to y."""
        if self.name == "uniform":
            return y
        e = y.exp() if self.name == "log" else y.clamp_min(0) ** (1 / self.exponent)
        return -torch.expm1(-e) if self.mirrored else torch.exp(-e)

    def __str__(self) -> str:
        return {"uniform": "uniform numbers", "power": "exponential noise", "log": "Gumbel noise"}[self.name]


UNIFORM = Kind("uniform")
EXPONENTIAL = Kind("power")


@dataclass(frozen=True)
class Lazy:
    """Numbers shift + scale * g(U) of one kind g, each with a U of its own (`ids`), or plain ones where the id is -1.

    ids, shift and scale have the shape of the numbers; a plain number is its shift, and its scale is 0.
    """

    kind: Kind
    ids: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def fresh(cls, chance: Chance, kind: Kind, shape: tuple[int, ...] | torch.Size) -> Lazy:
        ids = chance.draw(math.prod(shape)).reshape(shape)
        return cls(kind, ids, torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64))

    @property
    def random(self) -> Tensor:
        return self.ids >= 0

    def map(self, function: Callable[[Tensor], Tensor]) -> Lazy:
        """The same rearrangement of all parts."""
        return replace(self, ids=function(self.ids), shift=function(self.shift), scale=function(self.scale))

    def at(self, index: Any) -> Lazy:
        return self.map(lambda part: part[index])

    def affine(self, shift: Tensor, scale: Tensor) -> Lazy:
        """This, with another shift and scale, broadcast; what is scaled by 0 is plain."""
        shape = broadcast(self.ids, shift, scale)
        ids, shift, scale = (part.expand(shape) for part in (self.ids, shift, scale))
        return replace(self, ids=ids.where((scale != 0) & (ids >= 0), -1), shift=shift, scale=scale)

    def plus(self, other: Tensor) -> Lazy:
        return self.affine(self.shift + other, self.scale)

    def times(self, other: Tensor) -> Lazy:
        return self.affine(self.shift * other, self.scale * other)

    def over(self, other: Tensor) -> Lazy:
        """this / other. What is 0 / 0 of a number that is not shifted is the 0 of its shift."""
        return self.affine(torch.where(self.random & (self.shift == 0), 0.0, self.shift / other), self.scale / other)

    def under(self, other: Tensor) -> Lazy:
        """other / this."""
        if self.kind.name != "power" or self._shifted().any():
            raise NotEnumerable(f"1 / x of {self.kind}")
        kind = replace(self.kind, exponent=-self.kind.exponent)
        inverse = torch.where(self.random, self.scale, 1.0).reciprocal()
        plain = torch.where(self.random, 0.0, other / self.shift)
        return replace(self, kind=kind).affine(plain, torch.where(self.random, other * inverse, 0.0))

    def log(self) -> Lazy:
        s, c = self.shift, self.scale
        zero, one = torch.zeros_like(s), torch.ones_like(s)
        if self.kind == UNIFORM and not (~self._shifted() & (c > 0)).logical_not()[self.random].any():
            return self._logarithm(EXPONENTIAL, c, -one)
        if self.kind == UNIFORM and not ((s + c).abs() > NEGLIGIBLE * s)[self.random].any():
            return self._logarithm(replace(EXPONENTIAL, mirrored=True), s, -one)
        if self.kind.name == "power" and not (self._shifted() | (c <= zero))[self.random].any():
            return self._logarithm(replace(self.kind, name="log", exponent=1.0), c, one * self.kind.exponent)
        raise NotEnumerable(f"the logarithm of {self.kind}, shifted")

    def exp(self) -> Lazy:
        exponents = self.scale[self.random]
        if self.kind.name != "log" or not len(exponents) or (exponents != exponents[0]).any():
            raise NotEnumerable(f"the exponential of {self.kind}")
        kind = replace(self.kind, name="power", exponent=float(exponents[0]))
        shift, scale = torch.where(self.random, 0.0, self.shift.exp()), torch.where(self.random, self.shift.exp(), 0.0)
        return replace(self, kind=kind).affine(shift, scale)

    def clamped(self, low: float | None, high: float | None) -> Lazy:
        """This, if the bounds cut off nothing of any probability."""
        s, c = self.shift[self.random], self.scale[self.random]
        cut = (
            (low is not None and self._probability(low, s, c, below=True) > NEGLIGIBLE)
            or (high is not None and self._probability(high, s, c, below=False) > NEGLIGIBLE)
            or not self.random.all()
        )
        if cut:
            raise NotEnumerable(f"a clamp that cuts off some of {self.kind}")
        return self

    def _probability(self, bound: float, s: Tensor, c: Tensor, below: bool) -> float:
        u = self.kind.uniform_at((bound - s) / c).clamp(0, 1)
        rising = (c > 0) == self.kind.increasing
        return float(torch.where(rising == below, u, 1 - u).max()) if len(u) else 0.0

    def _shifted(self) -> Tensor:
        return self.random & (self.shift.abs() > NEGLIGIBLE * self.scale.abs())

    def _logarithm(self, kind: Kind, factor: Tensor, scale: Tensor) -> Lazy:
        shift = torch.where(self.random, factor, self.shift).log()
        return replace(self, kind=kind, shift=shift, scale=torch.where(self.random, scale, 0.0))


def compare(chance: Chance, x: Lazy, thresholds: Tensor, holds: Callable[[Any, Any], Any]) -> Tensor:
    """Boolean: whether holds(x, threshold), one of <, <=, >, >=, element by element, in their order; shapes are broadcast.

    All thresholds that one number meets are met in one choice.
    """
    if thresholds.numel() == 1 == x.ids.numel() and x.scale.item() != 0:
        answer = _compare_one(chance, x, float(thresholds), bool(holds(0, 1)))
        return torch.full(broadcast(x.ids, thresholds), answer)
    t = thresholds.double()
    shape = broadcast(x.ids, t)
    x, t = x.map(lambda part: part.expand(shape).reshape(-1)), t.expand(shape).reshape(-1)
    answers: Tensor = holds(x.shift, t)
    less = bool(holds(0, 1))
    for number in dict.fromkeys(x.ids[x.random].tolist()):
        at = (x.ids == number).nonzero()[:, 0]
        at = at[~t[at].isnan()]
        edges = x.kind.uniform_at((t[at] - x.shift[at]) / x.scale[at])
        order = edges.argsort(stable=True)
        passed = chance.cell(number).place(edges[order])
        above = torch.empty_like(at, dtype=torch.bool)  # whether U lies above each edge
        above[order] = torch.arange(len(at)) < passed
        rising = (x.scale[at] > 0) == x.kind.increasing
        answers[at] = (above == rising) != less
    answers[x.random & t.isnan()] = False
    return answers.reshape(shape)


def broadcast(*tensors: Tensor) -> torch.Size:
    shape: torch.Size = torch.broadcast_tensors(*tensors)[0].shape  # type: ignore[no-untyped-call]
    return shape


def _compare_one(chance: Chance, x: Lazy, threshold: float, less: bool) -> bool:
    if math.isnan(threshold):
        return False
    scale = x.scale.item()
    y = (threshold - x.shift.item()) / scale
    edge = y if x.kind == UNIFORM else float(x.kind.uniform_at(torch.tensor(y, dtype=torch.float64)))
    rising = (scale > 0) == x.kind.increasing
    return (chance.cell(int(x.ids)).above(edge) == rising) != less


def locate(chance: Chance, x: Lazy, edges: Tensor, right: bool) -> Tensor:
    """torch.searchsorted: how many of the ascending edges [n] lie below each number."""
    counted = compare(chance, x.map(lambda part: part[..., None]), edges.double(), operator.ge if right else operator.gt)
    return counted.sum(-1)


def rounded(chance: Chance, x: Lazy, function: Callable[[Tensor], Tensor]) -> Tensor:
    """floor, ceil, trunc or round of each number, decided: a choice among the whole numbers it can come to."""
    if x.kind != UNIFORM:
        raise NotEnumerable(f"{function.__name__} of {x.kind}")
    result = x.shift.clone()
    for place in x.random.nonzero().tolist():
        s, c = float(x.shift[tuple(place)]), float(x.scale[tuple(place)])
        if abs(c) > MOST:
            raise NotEnumerable(f"{function.__name__} of a uniform number times {c:g}")
        steps = torch.arange(math.floor(min(s, s + c)) - 1, math.ceil(max(s, s + c)) + 2, dtype=torch.float64)
        steps = steps + 0.5 if function is torch.round else steps
        cell = chance.cell(int(x.ids[tuple(place)]))
        cell.place(((steps - s) / c).sort().values)
        result[tuple(place)] = s + c * cell.middle
    return function(result)


def race(chance: Chance, x: Lazy, largest: bool) -> Whole:
    """The index of the largest (smallest) of the numbers [n], undecided: independent noises race for it."""
    if not x.random.any():
        winner = x.shift.argmax() if largest else x.shift.argmin()
        return Whole(chance.trail, torch.nn.functional.one_hot(winner, len(x.shift)).double())
    law = rates(x, largest)
    chance.spend(x.ids[x.random])
    return Whole(chance.trail, law / law.sum())


def rates(x: Lazy, largest: bool) -> Tensor:
    """How fast each of the numbers [n] runs for being the largest (smallest): the winner's law, up to a factor.

    Numbers f(E / rate), with one decreasing f for all, are won by the smallest E / rate, which is number i with probability
    rate_i / sum of rates. For p / E the rate is p, for log p - log E as well.
    """
    on, s, c = x.random, x.shift, x.scale
    signs, kind = c[on].sign(), x.kind
    if not on.any() or (signs != signs[0]).any():
        raise NotEnumerable(f"the extreme one of {kind} of both signs")
    first = largest == bool(signs[0] > 0)  # whether the largest g(U) is looked for
    if kind == UNIFORM and not (s[on] != s[on][0]).any() and not (c[on] != c[on][0]).any():
        rate, floor = torch.ones_like(c), -torch.inf if bool((~on).any()) else 0.0
    elif kind.name == "power" and first == (kind.exponent < 0) and not x._shifted().any():
        rate, floor = c.abs() ** (-1 / kind.exponent), 0.0 if first else -torch.inf
    elif kind.name == "log" and not first and not (c[on] != c[on][0]).any():
        rate, floor = (-s / c[on][0] - (-s / c[on][0])[on].max()).exp(), -torch.inf
    else:
        raise NotEnumerable(f"the {'largest' if largest else 'smallest'} of {kind}, in a form whose winner has no simple law")
    beaten = (s <= floor) if largest else (s >= -floor)
    if not (on | beaten).all() or not (rate[on] > 0).any() or rate[on].isinf().any():
        raise NotEnumerable(f"a race of {kind} with numbers that are not random")
    return torch.where(on, rate, 0.0)
