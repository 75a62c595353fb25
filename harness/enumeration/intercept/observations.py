"""Handlers of torch functions that read symbolic numbers, and therefore branch: comparisons, races, rounding, conversion."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.intercept.arithmetic import ROUNDINGS, Function, device_of
from harness.enumeration.intercept.dispatch import SYMBOLIC, SYMBOLIC_FLOATS, InterceptMode, handles
from harness.enumeration.intercept.lazy_tensor import UNIFORM, LazyTensor, compare, race, rates, round_values, search_sorted
from harness.enumeration.intercept.random_variables import NotEnumerable

COMPARISONS = {"lt": operator.lt, "less": operator.lt, "le": operator.le, "less_equal": operator.le}
COMPARISONS |= {"gt": operator.gt, "greater": operator.gt, "ge": operator.ge, "greater_equal": operator.ge}
MIRRORED = {operator.lt: operator.gt, operator.gt: operator.lt, operator.le: operator.ge, operator.ge: operator.le}


@handles(SYMBOLIC_FLOATS, " ".join(COMPARISONS))
def compare_numbers(mode: InterceptMode, func: Function, x: Any, y: Any) -> Tensor:
    holds = COMPARISONS[func.__name__]
    a, b = mode.as_lazy(x), mode.as_lazy(y)
    if a.symbolic.any() and b.symbolic.any():
        raise NotEnumerable("two symbolic numbers are compared")
    if b.symbolic.any():
        a, b, holds = b, a, MIRRORED[holds]
    return compare(mode.variables, a, b.shift, holds).to(device_of(x, y))


@handles(SYMBOLIC, "eq ne not_equal")
def equal(mode: InterceptMode, func: Function, x: Any, y: Any) -> Tensor:
    """A symbolic integer branches two ways; a continuous variable equals a given number with probability zero."""
    a, b = mode.as_objects(x), mode.as_objects(y)
    result = torch.from_numpy(np.array(np.vectorize(lambda i, j: bool(i == j), otypes=[bool])(a, b)))
    return (result if func.__name__ == "eq" else ~result).to(device_of(x, y))


@handles(SYMBOLIC, "isin")
def isin(mode: InterceptMode, _: Function, elements: Any, test_elements: Any, **kwargs: Any) -> Tensor:
    tests = list(mode.as_objects(test_elements).reshape(-1))
    found = np.vectorize(lambda x: any(bool(x == test) for test in tests), otypes=[bool])(mode.as_objects(elements))
    answer = torch.from_numpy(np.array(found))
    return (~answer if kwargs.get("invert") else answer).to(device_of(elements, test_elements))


@handles(SYMBOLIC_FLOATS, "searchsorted")
def searchsorted(
    mode: InterceptMode, _: Function, edges: Tensor, x: Any, *, right: bool = False, side: str | None = None, **kwargs: Any
) -> Tensor:
    rows = mode.require_plain(edges)
    rows = rows if rows.dim() == 1 else rows[..., None, :]
    found = search_sorted(mode.variables, mode.as_lazy(x), rows, right or side == "right")
    return found.to(device_of(edges, x), torch.int32 if kwargs.get("out_int32") else torch.int64)


@handles(SYMBOLIC_FLOATS, "bucketize")
def bucketize(mode: InterceptMode, func: Function, x: Any, edges: Tensor, **kwargs: Any) -> Tensor:
    found: Tensor = searchsorted(mode, func, edges, x, **kwargs)
    return found


@handles(SYMBOLIC_FLOATS, "argmax argmin")
def argmax(mode: InterceptMode, func: Function, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    rows, shape = _rows(mode.as_lazy(x), dim, keepdim)
    winners = [mode.variables.register(race(mode.variables, row, func.__name__ == "argmax")) for row in rows]
    return mode.new_integers(winners, shape, device=x.device)


@handles(SYMBOLIC_FLOATS, "max min")
def max_with_index(mode: InterceptMode, func: Function, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if not isinstance(dim, int):
        raise NotEnumerable(f"torch.{func.__name__} of symbolic numbers, without a dimension")
    index_of = torch.argmax if func.__name__ == "max" else torch.argmin
    indices = argmax(mode, index_of, x, dim, keepdim)
    values = mode.new_floats(_consumed(mode, indices), x.dtype, x.device)
    return getattr(torch.return_types, func.__name__)((values, indices))


@handles(SYMBOLIC_FLOATS, "topk sort argsort msort")
def sort(mode: InterceptMode, func: Function, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The order in which racers finish: the winner, the winner among the rest, and so on. Branches over every place."""
    name = func.__name__
    names = ("k", "dim", "largest", "sorted") if name == "topk" else ("dim", "descending", "stable")
    options = {"dim": -1, **dict(zip(names, args, strict=False)), **kwargs}
    k = options["k"] if name == "topk" else x.shape[options["dim"]]
    largest = bool(options.get("largest", True) if name == "topk" else options.get("descending", False))
    rows, _ = _rows(mode.as_lazy(x), options["dim"], True)
    places = torch.tensor([_order(mode, row, k, largest) for row in rows])
    shape = list(x.movedim(options["dim"], -1).shape[:-1])
    indices = places.reshape(*shape, k).movedim(-1, options["dim"]).to(x.device)
    if name == "argsort":
        return indices
    values = mode.new_floats(_consumed(mode, indices), x.dtype, x.device)
    return getattr(torch.return_types, name)((values, indices))


def _consumed(mode: InterceptMode, indices: Tensor) -> LazyTensor:
    """The values of the winners: noise that is used up and must not be read again."""
    values = LazyTensor.sample(mode.variables, UNIFORM, indices.shape)
    mode.variables.consume(values.ids.reshape(-1))
    return values


def _order(mode: InterceptMode, row: LazyTensor, k: int, largest: bool) -> list[int]:
    remaining = rates(row, largest)
    mode.variables.consume(row.ids[row.symbolic])
    order: list[int] = []
    for _ in range(k):
        if len(order) == len(remaining) - 1:
            return [*order, *(set(range(len(remaining))) - set(order))]
        if not float(remaining.sum()) > 0:
            raise NotEnumerable("more numbers are sorted than have a chance to win")
        order.append(mode.variables.trail.choose((remaining / remaining.sum()).tolist()))
        remaining[order[-1]] = 0
    return order


def _rows(x: LazyTensor, dim: int | None, keepdim: bool) -> tuple[list[LazyTensor], list[int]]:
    """The rows of numbers that race with each other, and the shape of the result."""
    if dim is None:
        return [x.map(lambda part: part.reshape(-1))], [1] * x.ids.dim() if keepdim else []
    axis, shape = dim, list(x.ids.shape)
    length = shape[axis]
    if keepdim:
        shape[dim] = 1
    else:
        del shape[dim]
    flat = x.map(lambda part: part.movedim(axis, -1).reshape(-1, length))
    return [flat.at(i) for i in range(len(flat.ids))], shape


# --- rounding, and conversion to Python -----------------------------------------------------------------------------------


@handles(SYMBOLIC_FLOATS, " ".join(ROUNDINGS))
def rounding(mode: InterceptMode, func: Function, x: Tensor) -> Tensor:
    return round_values(mode.variables, mode.as_lazy(x), ROUNDINGS[func.__name__]).to(x)


@handles(SYMBOLIC_FLOATS, "isnan isinf")
def is_nan(mode: InterceptMode, func: Function, x: Tensor) -> Tensor:
    return func(mode.as_lazy(x).shift)  # type: ignore[no-any-return]


@handles(SYMBOLIC, "item tolist numpy __array__ __int__ __index__ __float__ __bool__")
def to_python(mode: InterceptMode, func: Function, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func.__name__
    if mode.memory.holds_integers(x) and name not in ("item", "tolist"):
        mode.memory.decide(x)
        return func(x, *args, **kwargs)
    objects = mode.as_objects(x)
    if name in ("numpy", "__array__"):
        return objects
    if name == "tolist":
        return objects.tolist()
    if x.numel() != 1:
        raise RuntimeError(f"a Tensor with {x.numel()} elements cannot be converted to Scalar")
    return {"__int__": int, "__float__": float, "__bool__": bool}.get(name, lambda value: value)(objects.reshape(-1)[0])
