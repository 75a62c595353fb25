"""A symbolic number outside of tensors, as returned by `random.random()` and `tensor.item()`, alone or in numpy arrays."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.intercept.lazy_tensor import UNIFORM, LazyTensor, Transform, compare, rates, round_values
from harness.enumeration.intercept.random_variables import NotEnumerable, RandomVariables

ZERO, ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)


class SymbolicFloat:
    """A symbolic number. Arithmetic is followed, comparison with a number branches, conversion to float is refused."""

    def __init__(self, variables: RandomVariables, lazy: LazyTensor) -> None:
        self.variables, self.lazy = variables, lazy

    @classmethod
    def sample(cls, variables: RandomVariables, transform: Transform = UNIFORM) -> SymbolicFloat:
        return cls(variables, LazyTensor(transform, variables.new_ids(1)[0], ZERO, ONE))

    def item(self) -> SymbolicFloat:
        return self

    def log(self) -> SymbolicFloat:
        """Called by numpy.log on object arrays."""
        return self._of(self.lazy.log())

    def log1p(self) -> SymbolicFloat:
        return self._of(self.lazy.add(ONE).log())

    def exp(self) -> SymbolicFloat:
        return self._of(self.lazy.exp())

    def __add__(self, other: Any) -> Any:
        return self._affine(self.lazy.add, other)

    def __mul__(self, other: Any) -> Any:
        return self._affine(self.lazy.mul, other)

    def __truediv__(self, other: Any) -> Any:
        return self._affine(self.lazy.div, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._affine(self.lazy.rdiv, other)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self._affine(lambda value: self.lazy.add(-value), other)

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
        """A continuous variable equals a given number with probability zero."""
        if isinstance(other, SymbolicFloat) and other is not self:
            raise NotEnumerable("two symbolic numbers are compared")
        return other is self

    __hash__ = object.__hash__

    def __int__(self) -> int:
        return self.__trunc__()

    def __trunc__(self) -> int:
        return int(round_values(self.variables, self.lazy, torch.trunc))

    def __floor__(self) -> int:
        return int(round_values(self.variables, self.lazy, torch.floor))

    def __ceil__(self) -> int:
        return int(round_values(self.variables, self.lazy, torch.ceil))

    def __round__(self) -> int:
        return int(round_values(self.variables, self.lazy, torch.round))

    def __abs__(self) -> Any:
        raise NotEnumerable("abs() of a symbolic number")

    def __pow__(self, _other: Any) -> Any:
        raise NotEnumerable("a power of a symbolic number")

    def __mod__(self, _other: Any) -> Any:
        raise NotEnumerable("the remainder of a symbolic number")

    __rpow__, __rmod__, __floordiv__, __rfloordiv__ = __pow__, __mod__, __mod__, __mod__

    def __float__(self) -> float:
        raise NotEnumerable("float() of a symbolic number (functions of `math` call it)")

    def __bool__(self) -> bool:
        raise NotEnumerable("bool() of a symbolic number")

    def __repr__(self) -> str:
        return "a symbolic number"

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], *_: object) -> Any:
        raise NotEnumerable(f"torch.{func.__name__} of a symbolic number")

    def _of(self, lazy: LazyTensor) -> SymbolicFloat:
        return SymbolicFloat(self.variables, lazy)

    def _affine(self, operation: Callable[[Tensor], LazyTensor], other: Any) -> Any:
        if isinstance(other, Tensor | np.ndarray):
            return NotImplemented  # the array broadcasts
        if isinstance(other, SymbolicFloat):
            raise NotEnumerable("arithmetic between two symbolic numbers")
        return self._of(operation(torch.tensor(float(other), dtype=torch.float64)))

    def _compare(self, other: Any, holds: Callable[[Any, Any], Any]) -> Any:
        if isinstance(other, Tensor | np.ndarray):
            return NotImplemented
        if other is self:
            return holds(0, 0)
        if isinstance(other, SymbolicFloat):
            return self._compare_noise(other, bool(holds(1, 0)))
        return bool(compare(self.variables, self.lazy, torch.tensor(float(other), dtype=torch.float64), holds))

    def _compare_noise(self, other: SymbolicFloat, largest: bool) -> bool:
        """Whether this is the larger (smaller) of two noises, by a race."""
        if self.lazy.transform != other.lazy.transform or self.lazy.transform == UNIFORM:
            raise NotEnumerable("two symbolic numbers are compared")
        both = (self.lazy, other.lazy)
        pair = LazyTensor(
            both[0].transform, *(torch.stack([getattr(x, part) for x in both]) for part in ("ids", "shift", "scale"))
        )
        mine, theirs = rates(pair, largest).tolist()
        return self.variables.race_pair(int(pair.ids[0]), mine, int(pair.ids[1]), theirs)
