"""Arithmetic on symbolic numbers. Supported are monotone functions of one uniform number per element."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from harness.enumeration.intercept.random_variables import MAX_BRANCHES, NotEnumerable, RandomVariables, SymbolicInt

NEGLIGIBLE = 2.0**-23
"""Shifts and clamps of this size protect a logarithm from a uniform of exactly 0 or 1, which has probability zero. Ignored."""


@dataclass(frozen=True)
class Transform:
    """A function g of a uniform number U: U itself, E ** exponent, or log E.

    E is exponential noise: -log U, or -log(1 - U) if mirrored.
    """

    name: Literal["uniform", "power", "log"]
    mirrored: bool = False
    exponent: float = 1.0

    @property
    def increasing(self) -> bool:
        return self.name == "uniform" or (self.mirrored == (self.name == "log" or self.exponent > 0))

    def inverse(self, y: Tensor) -> Tensor:
        """The u at which g(u) = y; 0 or 1 if y is outside the range of g."""
        if self.name == "uniform":
            return y
        e = y.exp() if self.name == "log" else y.clamp_min(0) ** (1 / self.exponent)
        return -torch.expm1(-e) if self.mirrored else torch.exp(-e)

    def __str__(self) -> str:
        return {"uniform": "uniform numbers", "power": "exponential noise", "log": "Gumbel noise"}[self.name]


UNIFORM = Transform("uniform")
EXPONENTIAL = Transform("power")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of numbers shift + scale * g(U), each element with its own U, mixed with plain numbers.

    Attributes:
        transform: the function g, common to all symbolic elements.
        ids: ids of the random variables U, -1 for plain elements.
        shift: value of a plain element; offset of a symbolic one.
        scale: factor of a symbolic element; 0 for plain ones.
    """

    transform: Transform
    ids: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def sample(cls, variables: RandomVariables, transform: Transform, shape: tuple[int, ...] | torch.Size) -> LazyTensor:
        """New symbolic numbers g(U)."""
        ids = variables.new_ids(math.prod(shape)).reshape(shape)
        return cls(transform, ids, torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64))

    @property
    def symbolic(self) -> Tensor:
        """Mask of the symbolic elements."""
        return self.ids >= 0

    def map(self, function: Callable[[Tensor], Tensor]) -> LazyTensor:
        """Apply a function that only rearranges elements."""
        return replace(self, ids=function(self.ids), shift=function(self.shift), scale=function(self.scale))

    def at(self, index: Any) -> LazyTensor:
        return self.map(lambda part: part[index])

    def affine(self, shift: Tensor, scale: Tensor) -> LazyTensor:
        """The same random variables with another shift and scale, broadcast. Elements of scale 0 become plain."""
        shape = broadcast_shape(self.ids, shift, scale)
        ids, shift, scale = (part.expand(shape) for part in (self.ids, shift, scale))
        return replace(self, ids=ids.where((scale != 0) & (ids >= 0), -1), shift=shift, scale=scale)

    def add(self, other: Tensor) -> LazyTensor:
        return self.affine(self.shift + other, self.scale)

    def mul(self, other: Tensor) -> LazyTensor:
        return self.affine(self.shift * other, self.scale * other)

    def div(self, other: Tensor) -> LazyTensor:
        """self / other. A shift of 0 stays 0 when it is divided by 0."""
        return self.affine(torch.where(self.symbolic & (self.shift == 0), 0.0, self.shift / other), self.scale / other)

    def rdiv(self, other: Tensor) -> LazyTensor:
        """other / self."""
        if self.transform.name != "power" or self._shifted().any():
            raise NotEnumerable(f"1 / x of {self.transform}")
        transform = replace(self.transform, exponent=-self.transform.exponent)
        inverse = torch.where(self.symbolic, self.scale, 1.0).reciprocal()
        plain = torch.where(self.symbolic, 0.0, other / self.shift)
        return replace(self, transform=transform).affine(plain, torch.where(self.symbolic, other * inverse, 0.0))

    def log(self) -> LazyTensor:
        s, c = self.shift, self.scale
        zero, one = torch.zeros_like(s), torch.ones_like(s)
        if self.transform == UNIFORM and not (~self._shifted() & (c > 0)).logical_not()[self.symbolic].any():
            return self._logarithm(EXPONENTIAL, c, -one)  # log(c U) = log c - E
        if self.transform == UNIFORM and not ((s + c).abs() > NEGLIGIBLE * s)[self.symbolic].any():
            return self._logarithm(replace(EXPONENTIAL, mirrored=True), s, -one)  # log(s - s U) = log s - E, mirrored
        if self.transform.name == "power" and not (self._shifted() | (c <= zero))[self.symbolic].any():
            return self._logarithm(replace(self.transform, name="log", exponent=1.0), c, one * self.transform.exponent)
        raise NotEnumerable(f"the logarithm of {self.transform}, shifted")

    def exp(self) -> LazyTensor:
        exponents = self.scale[self.symbolic]
        if self.transform.name != "log" or not len(exponents) or (exponents != exponents[0]).any():
            raise NotEnumerable(f"the exponential of {self.transform}")
        transform = replace(self.transform, name="power", exponent=float(exponents[0]))
        shift, scale = torch.where(self.symbolic, 0.0, self.shift.exp()), torch.where(self.symbolic, self.shift.exp(), 0.0)
        return replace(self, transform=transform).affine(shift, scale)

    def clamped(self, low: float | None, high: float | None) -> LazyTensor:
        """The tensor itself, if the bounds cut off a negligible probability only."""
        s, c = self.shift[self.symbolic], self.scale[self.symbolic]
        cut = (
            (low is not None and self._probability(low, s, c, below=True) > NEGLIGIBLE)
            or (high is not None and self._probability(high, s, c, below=False) > NEGLIGIBLE)
            or not self.symbolic.all()
        )
        if cut:
            raise NotEnumerable(f"a clamp that cuts off part of the range of {self.transform}")
        return self

    def is_shifted(self) -> bool:
        """Whether some symbolic element has a shift that is not negligible."""
        return bool(self._shifted().any())

    def _probability(self, bound: float, s: Tensor, c: Tensor, below: bool) -> float:
        u = self.transform.inverse((bound - s) / c).clamp(0, 1)
        rising = (c > 0) == self.transform.increasing
        return float(torch.where(rising == below, u, 1 - u).max()) if len(u) else 0.0

    def _shifted(self) -> Tensor:
        return self.symbolic & (self.shift.abs() > NEGLIGIBLE * self.scale.abs())

    def _logarithm(self, transform: Transform, factor: Tensor, scale: Tensor) -> LazyTensor:
        shift = torch.where(self.symbolic, factor, self.shift).log()
        return replace(self, transform=transform, shift=shift, scale=torch.where(self.symbolic, scale, 0.0))


def compare(variables: RandomVariables, x: LazyTensor, thresholds: Tensor, holds: Callable[[Any, Any], Any]) -> Tensor:
    """Compare elementwise, with broadcasting: a boolean tensor of holds(x, threshold), with `holds` one of <, <=, >, >=.

    Branches once for each random variable, over the intervals between all the thresholds that it is compared with.
    """
    if thresholds.numel() == 1 == x.ids.numel() and x.scale.item() != 0:
        answer = _compare_one(variables, x, float(thresholds), bool(holds(0, 1)))
        return torch.full(broadcast_shape(x.ids, thresholds), answer)
    t = thresholds.double()
    shape = broadcast_shape(x.ids, t)
    x, t = x.map(lambda part: part.expand(shape).reshape(-1)), t.expand(shape).reshape(-1)
    answers: Tensor = holds(x.shift, t)
    less = bool(holds(0, 1))
    for number in dict.fromkeys(x.ids[x.symbolic].tolist()):
        at = (x.ids == number).nonzero()[:, 0]
        at = at[~t[at].isnan()]
        edges = x.transform.inverse((t[at] - x.shift[at]) / x.scale[at])
        order = edges.argsort(stable=True)
        passed = variables.uniform(number).locate(edges[order])
        above = torch.empty_like(at, dtype=torch.bool)  # whether U is above each edge
        above[order] = torch.arange(len(at)) < passed
        rising = (x.scale[at] > 0) == x.transform.increasing
        answers[at] = (above == rising) != less
    answers[x.symbolic & t.isnan()] = False
    return answers.reshape(shape)


def broadcast_shape(*tensors: Tensor) -> torch.Size:
    shape: torch.Size = torch.broadcast_tensors(*tensors)[0].shape  # type: ignore[no-untyped-call]
    return shape


def _compare_one(variables: RandomVariables, x: LazyTensor, threshold: float, less: bool) -> bool:
    if math.isnan(threshold):
        return False
    scale = x.scale.item()
    y = (threshold - x.shift.item()) / scale
    edge = y if x.transform == UNIFORM else float(x.transform.inverse(torch.tensor(y, dtype=torch.float64)))
    rising = (scale > 0) == x.transform.increasing
    return (variables.uniform(int(x.ids)).is_above(edge) == rising) != less


def search_sorted(variables: RandomVariables, x: LazyTensor, edges: Tensor, right: bool) -> Tensor:
    """torch.searchsorted: how many of the ascending edges [n] are below each number."""
    below = compare(variables, x.map(lambda part: part[..., None]), edges.double(), operator.ge if right else operator.gt)
    return below.sum(-1)


def round_values(variables: RandomVariables, x: LazyTensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """floor, ceil, trunc or round of each number; branches over the integers that it can become."""
    if x.transform != UNIFORM:
        raise NotEnumerable(f"{function.__name__} of {x.transform}")
    result = x.shift.clone()
    for index in x.symbolic.nonzero().tolist():
        s, c = float(x.shift[tuple(index)]), float(x.scale[tuple(index)])
        if abs(c) > MAX_BRANCHES:
            raise NotEnumerable(f"{function.__name__} of a uniform number times {c:g}")
        steps = torch.arange(math.floor(min(s, s + c)) - 1, math.ceil(max(s, s + c)) + 2, dtype=torch.float64)
        steps = steps + 0.5 if function is torch.round else steps
        uniform = variables.uniform(int(x.ids[tuple(index)]))
        uniform.locate(((steps - s) / c).sort().values)
        result[tuple(index)] = s + c * uniform.midpoint
    return function(result)


def race(variables: RandomVariables, x: LazyTensor, largest: bool) -> SymbolicInt:
    """The index of the largest (or smallest) of the numbers [n], as a symbolic integer: independent noises race for it."""
    if not x.symbolic.any():
        winner = x.shift.argmax() if largest else x.shift.argmin()
        return SymbolicInt(variables.trail, torch.nn.functional.one_hot(winner, len(x.shift)).double())
    law = rates(x, largest)
    variables.consume(x.ids[x.symbolic])
    return SymbolicInt(variables.trail, law / law.sum())


def rates(x: LazyTensor, largest: bool) -> Tensor:
    """Rates [n] of the numbers [n] in the race for the largest (or smallest): the winner's distribution, up to a factor.

    If all numbers are f(E_i / rate_i) with one decreasing f, the smallest E_i / rate_i wins, which is number i with probability
    rate_i / sum of rates. For p / E and for log p - log E the rates are p.
    """
    on, s, c = x.symbolic, x.shift, x.scale
    signs, transform = c[on].sign(), x.transform
    if not on.any() or (signs != signs[0]).any():
        raise NotEnumerable(f"the extreme one of {transform} of both signs")
    first = largest == bool(signs[0] > 0)  # whether the largest g(U) is wanted
    if transform == UNIFORM and not (s[on] != s[on][0]).any() and not (c[on] != c[on][0]).any():
        rate, floor = torch.ones_like(c), -torch.inf if bool((~on).any()) else 0.0
    elif transform.name == "power" and first == (transform.exponent < 0) and not x.is_shifted():
        rate, floor = c.abs() ** (-1 / transform.exponent), 0.0 if first else -torch.inf
    elif transform.name == "log" and not first and not (c[on] != c[on][0]).any():
        rate, floor = (-s / c[on][0] - (-s / c[on][0])[on].max()).exp(), -torch.inf
    else:
        extreme = "largest" if largest else "smallest"
        raise NotEnumerable(f"the {extreme} of {transform}, in a form whose winner has no simple distribution")
    beaten = (s <= floor) if largest else (s >= -floor)
    if not (on | beaten).all() or not (rate[on] > 0).any() or rate[on].isinf().any():
        raise NotEnumerable(f"a race of {transform} with numbers that are not random")
    return torch.where(on, rate, 0.0)
