"""What torch's functions do to undecided numbers, one handler for each family of functions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.laws.interception.chance import NotEnumerable, Seed, Whole
from harness.laws.interception.mode import FOLLOWED, Interception, handles
from harness.laws.interception.numbers import Number
from harness.laws.interception.values import UNIFORM, Lazy, compare, locate, race, rates, rounded

COMPARISONS = {"lt": operator.lt, "less": operator.lt, "le": operator.le, "less_equal": operator.le}
COMPARISONS |= {"gt": operator.gt, "greater": operator.gt, "ge": operator.ge, "greater_equal": operator.ge}
MIRRORED = {operator.lt: operator.gt, operator.gt: operator.lt, operator.le: operator.ge, operator.ge: operator.le}
ROUNDING = {"floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "fix": torch.trunc, "round": torch.round}
F = Callable[..., Any]


@handles(
    FOLLOWED,
    "__get__ size dim ndimension numel nelement stride is_contiguous storage_offset element_size get_device is_floating_point"
    " is_complex is_inference __len__ __hash__ untyped_storage requires_grad_ is_tensor",
)
def telling(_: Interception, func: F, *args: Any, **kwargs: Any) -> Any:
    """Functions that tell about a tensor without looking at its elements; and properties, of which some are views."""
    return func(*args, **kwargs)


# --- elements moved about ----------------------------------------------------------------------------------------------


@handles(
    FOLLOWED,
    "__getitem__ reshape reshape_as view view_as squeeze unsqueeze expand expand_as broadcast_to transpose swapaxes permute t"
    " flatten unflatten ravel movedim narrow select split tensor_split chunk unbind diagonal flip roll repeat"
    " repeat_interleave tile gather index_select take take_along_dim masked_select as_strided unfold",
)
def moving(mode: Interception, func: F, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = mode.decided(args), mode.decided(kwargs)
    return mode.moved(lambda data: func(data, *args, **kwargs), [x])


@handles(FOLLOWED, "cat concat concatenate stack hstack vstack")
def joining(mode: Interception, func: F, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    return mode.moved(lambda *data: func(data, *args, **kwargs), list(tensors))


@handles(FOLLOWED, "clone contiguous detach alias to float double half bfloat16 type type_as cpu cuda long int positive")
def copying(mode: Interception, func: F, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return mode.cast(x, func(x, *args, **kwargs))


@handles(FOLLOWED, "tensor as_tensor asarray scalar_tensor")
def making(mode: Interception, func: F, data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any) -> Tensor:
    made = mode.tensor(data)
    if isinstance(data, Tensor) and func.__name__ == "tensor":
        made = mode.moved(torch.clone, [made])
    wanted = made.to(dtype or made.dtype).to(device or made.device)
    return wanted if wanted is made else mode.cast(made, wanted)


@handles(FOLLOWED, "full full_like")
def filling(mode: Interception, func: F, like: Any, fill_value: Any, **kwargs: Any) -> Tensor:
    value = mode.tensor(fill_value)
    return mode.assign(func(like, 0, **{"dtype": value.dtype, **kwargs}), value)


@handles(FOLLOWED, "where")
def where(mode: Interception, func: F, condition: Tensor, *sides: Any) -> Tensor:
    if len(sides) != 2:
        raise NotEnumerable("torch.where of undecided numbers, without two sides")
    data = [mode.tensor(side) for side in sides]
    return mode.moved(lambda a, b: func(*mode.decided([condition]), a, b), data)  # type: ignore[no-any-return]


@handles(FOLLOWED, "masked_fill masked_fill_")
def masked_fill(mode: Interception, func: F, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    fill = mode.tensor(value).to(x.dtype)
    result = mode.moved(lambda a, b: torch.where(mask, b, a), [x, fill])
    return mode.assign(x, result) if func.__name__.endswith("_") else result


@handles(FOLLOWED, "__setitem__ index_put_ copy_ fill_ zero_")
def writing(mode: Interception, func: F, x: Tensor, *args: Any, **_: Any) -> Tensor | None:
    name = func.__name__
    if name in ("copy_", "fill_", "zero_"):
        return mode.assign(x, mode.tensor(args[0] if args else 0))
    index, value = mode.decided(args[0]), mode.tensor(args[1])

    def written(old: Tensor, new: Tensor) -> Tensor:
        changed = old.clone()
        changed[index] = new.to(old.dtype)
        return changed

    mode.assign(x, mode.moved(written, [x, value]))
    return x if name == "index_put_" else None


# --- arithmetic --------------------------------------------------------------------------------------------------------


@handles(FOLLOWED, "add sub subtract mul multiply div divide true_divide rsub __rsub__ __rdiv__ __rtruediv__")
def arithmetic(mode: Interception, func: F, x: Any, y: Any, *, alpha: float = 1, rounding_mode: str | None = None, out: Any = None) -> Any:
    name = func.__name__.strip("_")
    name = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "rtruediv": "rdiv"}.get(name, name)
    if name in ("rsub", "rdiv"):
        x, y, name = y, x, name[1:]
    a, b = mode.numbers(x), mode.numbers(y)
    if alpha != 1:
        b = b.times(torch.tensor(float(alpha), dtype=torch.float64))
    result = _combined(name, a, b)
    if rounding_mode is not None:
        return rounded(mode.chance, result, ROUNDING[rounding_mode]).to(_dtype(x, y))
    return _made(mode, result, out, x, y)


@handles(FOLLOWED, "add_ sub_ subtract_ mul_ multiply_ div_ divide_ true_divide_ __iadd__ __isub__ __imul__ __idiv__ __itruediv__")
def arithmetic_in_place(mode: Interception, func: F, x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    name = func.__name__.strip("_").removeprefix("i").replace("truediv", "div")
    plainly = getattr(torch, name)
    return mode.assign(x, arithmetic(mode, plainly, x, y, alpha=alpha))


@handles(FOLLOWED, "neg negative log exp log1p reciprocal neg_ log_ exp_ log1p_ reciprocal_")
def function(mode: Interception, func: F, x: Any, out: Any = None) -> Tensor:
    numbers, one = mode.numbers(x), torch.ones((), dtype=torch.float64)
    name = func.__name__.strip("_")
    if name in ("neg", "negative"):
        result = numbers.times(-one)
    elif name == "reciprocal":
        result = numbers.under(one)
    elif name == "log1p":
        result = numbers.plus(one).log()
    else:
        result = numbers.log() if name == "log" else numbers.exp()
    return _made(mode, result, x if func.__name__.endswith("_") else out, x)


@handles(FOLLOWED, "clamp clip clamp_min clamp_max clamp_ clip_ clamp_min_ clamp_max_")
def clamping(mode: Interception, func: F, x: Any, *bounds: Any, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    if func.__name__.startswith("clamp_max"):
        bounds = (None, *bounds)
    low, high = [*bounds, None, None][:2]
    low, high = min if low is None else low, max if high is None else high
    numbers = mode.numbers(x).clamped(None if low is None else float(low), None if high is None else float(high))
    return _made(mode, numbers, x if func.__name__.endswith("_") else None, x)


def _combined(name: str, a: Lazy, b: Lazy) -> Lazy:
    if a.random.any() and b.random.any():
        raise NotEnumerable("arithmetic between two undecided numbers")
    if not b.random.any():
        return {"add": a.plus, "sub": lambda value: a.plus(-value), "mul": a.times, "div": a.over}[name](b.shift)
    if name == "sub":
        return b.times(-torch.ones((), dtype=torch.float64)).plus(a.shift)
    return {"add": b.plus, "mul": b.times, "div": b.under}[name](a.shift)


def _made(mode: Interception, numbers: Lazy, out: Tensor | None, *sources: Any) -> Tensor:
    """The result of arithmetic: written into `out`, or a new tensor of the dtype that torch would give it."""
    if out is not None:
        return mode.memory.store(out, numbers)
    device = next((source.device for source in sources if isinstance(source, Tensor) and source.dim()), None)
    return mode.new(numbers, _dtype(*sources), device)


def _dtype(*sources: Any) -> torch.dtype:
    known = [source if isinstance(source, Tensor) else 1.0 for source in sources]
    dtype = torch.result_type(*(known * 2)[:2])
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


# --- comparisons and races ---------------------------------------------------------------------------------------------


@handles(FOLLOWED, " ".join(COMPARISONS))
def comparison(mode: Interception, func: F, x: Any, y: Any) -> Tensor:
    holds = COMPARISONS[func.__name__]
    a, b = mode.numbers(x), mode.numbers(y)
    if not b.random.any():
        return compare(mode.chance, a, b.shift, holds)
    if a.random.any():
        raise NotEnumerable("two undecided numbers are compared")
    return compare(mode.chance, b, a.shift, MIRRORED[holds])


@handles(FOLLOWED, "eq ne not_equal")
def equality(mode: Interception, func: F, x: Any, y: Any) -> Tensor:
    """Of a whole number with a number: a choice of two. A number out of an interval is not any one number."""
    a, b = mode.objects(x), mode.objects(y)
    result = torch.from_numpy(np.array(np.vectorize(lambda i, j: bool(i == j), otypes=[bool])(a, b)))
    return result if func.__name__ == "eq" else ~result


@handles(FOLLOWED, "isin")
def membership(mode: Interception, _: F, elements: Any, test_elements: Any, **kwargs: Any) -> Tensor:
    tests = list(mode.objects(test_elements).reshape(-1))
    found = np.vectorize(lambda x: any(bool(x == test) for test in tests), otypes=[bool])(mode.objects(elements))
    return torch.from_numpy(np.array(found)) ^ bool(kwargs.get("invert", False))


@handles(FOLLOWED, "searchsorted")
def searching(mode: Interception, _: F, edges: Tensor, x: Any, *, right: bool = False, side: str | None = None, **kwargs: Any) -> Tensor:
    rows = mode.plain(edges)
    rows = rows if rows.dim() == 1 else rows[..., None, :]
    found = locate(mode.chance, mode.numbers(x), rows, right or side == "right")
    return found.int() if kwargs.get("out_int32") else found


@handles(FOLLOWED, "bucketize")
def bucketing(mode: Interception, func: F, x: Any, edges: Tensor, **kwargs: Any) -> Tensor:
    return searching(mode, func, edges, x, **kwargs)


@handles(FOLLOWED, "argmax argmin")
def winning(mode: Interception, func: F, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    rows, shape = _rows(mode.numbers(x), dim, keepdim)
    winners = [mode.chance.keep(race(mode.chance, row, func.__name__ == "argmax")) for row in rows]
    return mode.new_wholes(winners, shape, device=x.device)


@handles(FOLLOWED, "max min")
def winning_value(mode: Interception, func: F, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if not isinstance(dim, int):
        raise NotEnumerable(f"torch.{func.__name__} of undecided numbers, without a dimension")
    plainly = torch.argmax if func.__name__ == "max" else torch.argmin
    indices = winning(mode, plainly, x, dim, keepdim)
    values = mode.new(_spent(mode, indices), x.dtype, x.device)
    return getattr(torch.return_types, func.__name__)((values, indices))


@handles(FOLLOWED, "topk sort argsort msort")
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
        if not float(remaining.sum()) > 0:
            raise NotEnumerable("more numbers are ordered than can be told apart")
        arrived.append(mode.chance.trail.choose((remaining / remaining.sum()).tolist()))
        remaining[arrived[-1]] = 0
    return arrived


def _rows(x: Lazy, dim: int | None, keepdim: bool) -> tuple[list[Lazy], list[int]]:
    """The numbers that race with each other, row by row; and the shape of the winners."""
    if dim is None:
        return [x.map(lambda part: part.reshape(-1))], [1] * x.ids.dim() if keepdim else []
    shape = list(x.ids.shape)
    length = shape[dim]
    if keepdim:
        shape[dim] = 1
    else:
        del shape[dim]
    flat = x.map(lambda part: part.movedim(dim, -1).reshape(-1, length))
    return [flat.map(lambda part, i=i: part[i]) for i in range(len(flat.ids))], shape


# --- rounding, and what leaves torch -----------------------------------------------------------------------------------


@handles(FOLLOWED, " ".join(ROUNDING))
def rounding(mode: Interception, func: F, x: Tensor) -> Tensor:
    return rounded(mode.chance, mode.numbers(x), ROUNDING[func.__name__]).to(x.dtype)


@handles(FOLLOWED, "isnan isinf")
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
