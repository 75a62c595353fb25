"""An undecided number outside of tensors: what `random.random()` and `tensor.item()` give, alone or in numpy arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.intercept.lazy_tensor import UNIFORM, Kind, Lazy, compare, rates, rounded
from harness.enumeration.intercept.random_variables import Chance, NotEnumerable

ZERO, ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


class Number:
    """An undecided number. Arithmetic is followed, a comparison with a number is a choice, and a look at it is refused."""

    def __init__(self, chance: Chance, lazy: Lazy) -> None:
        self.chance, self.lazy = chance, lazy

    @classmethod
    def draw(cls, chance: Chance, kind: Kind = UNIFORM) -> Number:
        return cls(chance, Lazy(kind, chance.draw(1)[0], ZERO, ONE))

    def item(self) -> Number:
        return self

    def log(self) -> Number:
        """What numpy.log asks of an object."""
        return self._of(self.lazy.log())

    def log1p(self) -> Number:
        return self._of(self.lazy.plus(ONE).log())

    def exp(self) -> Number:
        return self._of(self.lazy.exp())

    def __add__(self, other: Any) -> Any:
        return self._affine(self.lazy.plus, other)

    def __mul__(self, other: Any) -> Any:
        return self._affine(self.lazy.times, other)

    def __truediv__(self, other: Any) -> Any:
        return self._affine(self.lazy.over, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._affine(self.lazy.under, other)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self._affine(lambda value: self.lazy.plus(-value), other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, operator.lt)

    def __le__(self, other: Any) -> Any:
        return self._compare(other, operator.le)

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, operator.gt)

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, operator.ge)

    def __eq__(self, other: object) -> bool:
        """A number that is drawn from an interval is not any one number."""
        if isinstance(other, Number) and other is not self:
            raise NotEnumerable("two undecided numbers are compared")
        return other is self

    __hash__ = object.__hash__

    def __int__(self) -> int:
        return self.__trunc__()

    def __trunc__(self) -> int:
        return int(rounded(self.chance, self.lazy, torch.trunc))

    def __floor__(self) -> int:
        return int(rounded(self.chance, self.lazy, torch.floor))

    def __ceil__(self) -> int:
        return int(rounded(self.chance, self.lazy, torch.ceil))

    def __round__(self) -> int:
        return int(rounded(self.chance, self.lazy, torch.round))

    def __abs__(self) -> Any:
        raise NotEnumerable("abs() of an undecided number")

    def __pow__(self, _other: Any) -> Any:
        raise NotEnumerable("a power of an undecided number")

    def __mod__(self, _other: Any) -> Any:
        raise NotEnumerable("the remainder of an undecided number")

    __rpow__, __rmod__, __floordiv__, __rfloordiv__ = __pow__, __mod__, __mod__, __mod__

    def __float__(self) -> float:
        raise NotEnumerable("float() of an undecided number (or a function of `math`, which asks for it)")

    def __bool__(self) -> bool:
        raise NotEnumerable("bool() of an undecided number")

    def __repr__(self) -> str:
        return "an undecided number"

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], *_: object) -> Any:
        raise NotEnumerable(f"torch.{func.__name__} of an undecided number")

    def _of(self, lazy: Lazy) -> Number:
        return Number(self.chance, lazy)

    def _affine(self, operation: Callable[[Tensor], Lazy], other: Any) -> Any:
        if isinstance(other, Tensor | np.ndarray):
            return NotImplemented  # theirs is the broadcasting
        if isinstance(other, Number):
            raise NotEnumerable("arithmetic between two undecided numbers")
        return self._of(operation(torch.tensor(float(other), dtype=torch.float64)))

    def _compare(self, other: Any, holds: Callable[[Any, Any], Any]) -> Any:
        if isinstance(other, Tensor | np.ndarray):
            return NotImplemented
        if other is self:
            return holds(0, 0)
        if isinstance(other, Number):
            return self._duel(other, bool(holds(1, 0)))
        return bool(compare(self.chance, self.lazy, torch.tensor(float(other), dtype=torch.float64), holds))

    def _duel(self, other: Number, largest: bool) -> bool:
        """Whether this one is the largest (smallest) of the two, in a form in which noises race."""
        if self.lazy.kind != other.lazy.kind or self.lazy.kind == UNIFORM:
            raise NotEnumerable("two undecided numbers are compared")
        both = (self.lazy, other.lazy)
        pair = Lazy(both[0].kind, *(torch.stack([getattr(x, part) for x in both]) for part in ("ids", "shift", "scale")))
        mine, theirs = rates(pair, largest).tolist()
        return self.chance.duel(int(pair.ids[0]), mine, int(pair.ids[1]), theirs)
