"""What looks at undecided numbers: comparisons, races, rounding, and leaving torch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.enumeration.intercept.arithmetic import ROUNDINGS, F, device_of
from harness.enumeration.intercept.dispatch import FOLLOWED, MEASURED, Interception, handles
from harness.enumeration.intercept.lazy_tensor import UNIFORM, Lazy, compare, locate, race, rates, rounded
from harness.enumeration.intercept.random_variables import NotEnumerable

COMPARISONS = {"lt": operator.lt, "less": operator.lt, "le": operator.le, "less_equal": operator.le}
COMPARISONS |= {"gt": operator.gt, "greater": operator.gt, "ge": operator.ge, "greater_equal": operator.ge}
MIRRORED = {operator.lt: operator.gt, operator.gt: operator.lt, operator.le: operator.ge, operator.ge: operator.le}


@handles(MEASURED, " ".join(COMPARISONS))
def comparison(mode: Interception, func: F, x: Any, y: Any) -> Tensor:
    holds = COMPARISONS[func.__name__]
    a, b = mode.numbers(x), mode.numbers(y)
    if a.random.any() and b.random.any():
        raise NotEnumerable("two undecided numbers are compared")
    if b.random.any():
        a, b, holds = b, a, MIRRORED[holds]
    return compare(mode.chance, a, b.shift, holds).to(device_of(x, y))


@handles(FOLLOWED, "eq ne not_equal")
def equality(mode: Interception, func: F, x: Any, y: Any) -> Tensor:
    """Of a whole number with a number: a choice of two. A number out of an interval is not any one number."""
    a, b = mode.objects(x), mode.objects(y)
    result = torch.from_numpy(np.array(np.vectorize(lambda i, j: bool(i == j), otypes=[bool])(a, b)))
    return (result if func.__name__ == "eq" else ~result).to(device_of(x, y))


@handles(FOLLOWED, "isin")
def membership(mode: Interception, _: F, elements: Any, test_elements: Any, **kwargs: Any) -> Tensor:
    tests = list(mode.objects(test_elements).reshape(-1))
    found = np.vectorize(lambda x: any(bool(x == test) for test in tests), otypes=[bool])(mode.objects(elements))
    answer = torch.from_numpy(np.array(found))
    return (~answer if kwargs.get("invert") else answer).to(device_of(elements, test_elements))


@handles(MEASURED, "searchsorted")
def searching(
    mode: Interception, _: F, edges: Tensor, x: Any, *, right: bool = False, side: str | None = None, **kwargs: Any
) -> Tensor:
    rows = mode.plain(edges)
    rows = rows if rows.dim() == 1 else rows[..., None, :]
    found = locate(mode.chance, mode.numbers(x), rows, right or side == "right")
    return found.to(device_of(edges, x), torch.int32 if kwargs.get("out_int32") else torch.int64)


@handles(MEASURED, "bucketize")
def bucketing(mode: Interception, func: F, x: Any, edges: Tensor, **kwargs: Any) -> Tensor:
    found: Tensor = searching(mode, func, edges, x, **kwargs)
    return found


@handles(MEASURED, "argmax argmin")
def winning(mode: Interception, func: F, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    rows, shape = _rows(mode.numbers(x), dim, keepdim)
    winners = [mode.chance.keep(race(mode.chance, row, func.__name__ == "argmax")) for row in rows]
    return mode.new_wholes(winners, shape, device=x.device)


@handles(MEASURED, "max min")
def winning_value(mode: Interception, func: F, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if not isinstance(dim, int):
        raise NotEnumerable(f"torch.{func.__name__} of undecided numbers, without a dimension")
    plainly = torch.argmax if func.__name__ == "max" else torch.argmin
    indices = winning(mode, plainly, x, dim, keepdim)
    values = mode.new(_spent(mode, indices), x.dtype, x.device)
    return getattr(torch.return_types, func.__name__)((values, indices))


@handles(MEASURED, "topk sort argsort msort")
def ordering(mode: Interception, func: F, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The order in which the racers come in: the winner, the winner of the rest, and so on; all decided."""
    name = func.__name__
    names = ("k", "dim", "largest", "sorted") if name == "topk" else ("dim", "descending", "stable")
    asked = {"dim": -1, **dict(zip(names, args, strict=False)), **kwargs}
    k = asked["k"] if name == "topk" else x.shape[asked["dim"]]
    largest = bool(asked.get("largest", True) if name == "topk" else asked.get("descending", False))
    rows, _ = _rows(mode.numbers(x), asked["dim"], True)
    order = torch.tensor([_arrivals(mode, row, k, largest) for row in rows])
    shape = list(x.movedim(asked["dim"], -1).shape[:-1])
    indices = order.reshape(*shape, k).movedim(-1, asked["dim"]).to(x.device)
    if name == "argsort":
        return indices
    values = mode.new(_spent(mode, indices), x.dtype, x.device)
    return getattr(torch.return_types, name)((values, indices))


def _spent(mode: Interception, indices: Tensor) -> Lazy:
    """The values of those that won: noise that has done its work, and must not be used again."""
    values = Lazy.fresh(mode.chance, UNIFORM, indices.shape)
    mode.chance.spend(values.ids.reshape(-1))
    return values


def _arrivals(mode: Interception, row: Lazy, k: int, largest: bool) -> list[int]:
    remaining = rates(row, largest)
    mode.chance.spend(row.ids[row.random])
    arrived: list[int] = []
    for _ in range(k):
        if len(arrived) == len(remaining) - 1:
            return [*arrived, *(set(range(len(remaining))) - set(arrived))]
        if not float(remaining.sum()) > 0:
            raise NotEnumerable("more numbers are ordered than can be told apart")
        arrived.append(mode.chance.trail.choose((remaining / remaining.sum()).tolist()))
        remaining[arrived[-1]] = 0
    return arrived


def _rows(x: Lazy, dim: int | None, keepdim: bool) -> tuple[list[Lazy], list[int]]:
    """The numbers that race with each other, row by row; and the shape of the winners."""
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


# --- rounding, and what leaves torch -----------------------------------------------------------------------------------


@handles(MEASURED, " ".join(ROUNDINGS))
def rounding(mode: Interception, func: F, x: Tensor) -> Tensor:
    return rounded(mode.chance, mode.numbers(x), ROUNDINGS[func.__name__]).to(x)


@handles(MEASURED, "isnan isinf")
def not_a_number(mode: Interception, func: F, x: Tensor) -> Tensor:
    return func(mode.numbers(x).shift)  # type: ignore[no-any-return]


@handles(FOLLOWED, "item tolist numpy __array__ __int__ __index__ __float__ __bool__")
def leaving(mode: Interception, func: F, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    name = func.__name__
    if mode.memory.whole(x) and name not in ("item", "tolist"):
        mode.memory.decide(x)
        return func(x, *args, **kwargs)
    objects = mode.objects(x)
    if name in ("numpy", "__array__"):
        return objects
    if name == "tolist":
        return objects.tolist()
    if x.numel() != 1:
        raise RuntimeError(f"a Tensor with {x.numel()} elements cannot be converted to Scalar")
    return {"__int__": int, "__float__": float, "__bool__": bool}.get(name, lambda value: value)(objects.reshape(-1)[0])
