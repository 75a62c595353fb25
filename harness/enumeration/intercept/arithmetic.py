"""What torch's functions do to undecided numbers, one handler for each family of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.enumeration.intercept.dispatch import FOLLOWED, MEASURED, Interception, handles
from harness.enumeration.intercept.lazy_tensor import Lazy, rounded
from harness.enumeration.intercept.random_variables import NotEnumerable

ROUNDINGS = {"floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "fix": torch.trunc, "round": torch.round}
F = Callable[..., Any]


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


@handles(MEASURED, "add sub subtract mul multiply div divide true_divide rsub __rsub__ __rdiv__ __rtruediv__")
def arithmetic(
    mode: Interception, func: F, x: Any, y: Any, *, alpha: float = 1, rounding_mode: str | None = None, out: Any = None
) -> Any:
    name = func.__name__.strip("_")
    name = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "rtruediv": "rdiv"}.get(name, name)
    if name in ("rsub", "rdiv"):
        x, y, name = y, x, name[1:]
    a, b = mode.numbers(x), mode.numbers(y)
    if alpha != 1:
        b = b.times(torch.tensor(float(alpha), dtype=torch.float64))
    result = _combined(name, a, b)
    if rounding_mode is not None:
        return rounded(mode.chance, result, ROUNDINGS[rounding_mode]).to(device_of(x, y), _dtype(x, y))
    return _made(mode, result, out, x, y)


@handles(
    FOLLOWED, "add_ sub_ subtract_ mul_ multiply_ div_ divide_ true_divide_ __iadd__ __isub__ __imul__ __idiv__ __itruediv__"
)
def arithmetic_in_place(mode: Interception, func: F, x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    name = func.__name__.strip("_").removeprefix("i").replace("truediv", "div")
    plainly = getattr(torch, name)
    return mode.assign(x, arithmetic(mode, plainly, x, y, alpha=alpha))


@handles(MEASURED, "neg negative log exp log1p reciprocal neg_ log_ exp_ log1p_ reciprocal_")
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


@handles(MEASURED, "clamp clip clamp_min clamp_max clamp_ clip_ clamp_min_ clamp_max_")
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
    return mode.new(numbers, _dtype(*sources), device_of(*sources))


def _dtype(*sources: Any) -> torch.dtype:
    known: list[Any] = [source if isinstance(source, Tensor) else 1.0 for source in sources]
    dtype = torch.result_type(known[0], known[-1])
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def device_of(*sources: Any) -> torch.device:
    """Where torch puts what it makes of these: on the device of the first tensor that is more than a number."""
    tensors = [source for source in sources if isinstance(source, Tensor)]
    return next((tensor.device for tensor in sorted(tensors, key=lambda tensor: -tensor.dim())), torch.device("cpu"))
