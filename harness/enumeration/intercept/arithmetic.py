"""Handlers of torch functions that rearrange or compute with symbolic numbers, one for each family of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.enumeration.intercept.dispatch import SYMBOLIC, SYMBOLIC_FLOATS, InterceptMode, handles
from harness.enumeration.intercept.lazy_tensor import LazyTensor, round_values
from harness.enumeration.intercept.random_variables import NotEnumerable

ROUNDINGS = {"floor": torch.floor, "ceil": torch.ceil, "trunc": torch.trunc, "fix": torch.trunc, "round": torch.round}
Function = Callable[..., Any]


# --- rearranging elements ----------------------------------------------------------------------------------------------


@handles(
    SYMBOLIC,
    "__getitem__ reshape reshape_as view view_as squeeze unsqueeze expand expand_as broadcast_to transpose swapaxes permute t"
    " flatten unflatten ravel movedim narrow select split tensor_split chunk unbind diagonal flip roll repeat"
    " repeat_interleave tile gather index_select take take_along_dim masked_select as_strided unfold",
)
def rearrange_elements(mode: InterceptMode, func: Function, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = mode.decide(args), mode.decide(kwargs)
    return mode.rearrange(lambda data: func(data, *args, **kwargs), [x])


@handles(SYMBOLIC, "cat concat concatenate stack hstack vstack")
def join(mode: InterceptMode, func: Function, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    return mode.rearrange(lambda *data: func(data, *args, **kwargs), list(tensors))


@handles(SYMBOLIC, "clone contiguous detach alias to float double half bfloat16 type type_as cpu cuda long int positive")
def copy(mode: InterceptMode, func: Function, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return mode.cast(x, func(x, *args, **kwargs))


@handles(SYMBOLIC, "tensor as_tensor asarray scalar_tensor")
def make_tensor(
    mode: InterceptMode, func: Function, data: Any, dtype: torch.dtype | None = None, device: Any = None, **_: Any
) -> Tensor:
    tensor = mode.as_tensor(data)
    if isinstance(data, Tensor) and func.__name__ == "tensor":
        tensor = mode.rearrange(torch.clone, [tensor])
    wanted = tensor.to(dtype or tensor.dtype).to(device or tensor.device)
    return wanted if wanted is tensor else mode.cast(tensor, wanted)


@handles(SYMBOLIC, "full full_like")
def fill_new(mode: InterceptMode, func: Function, like: Any, fill_value: Any, **kwargs: Any) -> Tensor:
    value = mode.as_tensor(fill_value)
    return mode.assign(func(like, 0, **{"dtype": value.dtype, **kwargs}), value)


@handles(SYMBOLIC, "where")
def where(mode: InterceptMode, func: Function, condition: Tensor, *sides: Any) -> Tensor:
    if len(sides) != 2:
        raise NotEnumerable("torch.where of symbolic numbers, without two values")
    data = [mode.as_tensor(side) for side in sides]
    return mode.rearrange(lambda a, b: func(*mode.decide([condition]), a, b), data)  # type: ignore[no-any-return]


@handles(SYMBOLIC, "masked_fill masked_fill_")
def masked_fill(mode: InterceptMode, func: Function, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    fill = mode.as_tensor(value).to(x.dtype)
    result = mode.rearrange(lambda a, b: torch.where(mask, b, a), [x, fill])
    return mode.assign(x, result) if func.__name__.endswith("_") else result


@handles(SYMBOLIC, "__setitem__ index_put_ copy_ fill_ zero_")
def write(mode: InterceptMode, func: Function, x: Tensor, *args: Any, **_: Any) -> Tensor | None:
    name = func.__name__
    if name in ("copy_", "fill_", "zero_"):
        return mode.assign(x, mode.as_tensor(args[0] if args else 0))
    index, value = mode.decide(args[0]), mode.as_tensor(args[1])

    def overwrite(old: Tensor, new: Tensor) -> Tensor:
        changed = old.clone()
        changed[index] = new.to(old.dtype)
        return changed

    mode.assign(x, mode.rearrange(overwrite, [x, value]))
    return x if name == "index_put_" else None


# --- arithmetic --------------------------------------------------------------------------------------------------------


@handles(SYMBOLIC_FLOATS, "add sub subtract mul multiply div divide true_divide rsub __rsub__ __rdiv__ __rtruediv__")
def binary(
    mode: InterceptMode, func: Function, x: Any, y: Any, *, alpha: float = 1, rounding_mode: str | None = None, out: Any = None
) -> Any:
    name = func.__name__.strip("_")
    name = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "rtruediv": "rdiv"}.get(name, name)
    if name in ("rsub", "rdiv"):
        x, y, name = y, x, name[1:]
    a, b = mode.as_lazy(x), mode.as_lazy(y)
    if alpha != 1:
        b = b.mul(torch.tensor(float(alpha), dtype=torch.float64))
    result = _combine(name, a, b)
    if rounding_mode is not None:
        return round_values(mode.variables, result, ROUNDINGS[rounding_mode]).to(device_of(x, y), _dtype(x, y))
    return _result(mode, result, out, x, y)


@handles(
    SYMBOLIC, "add_ sub_ subtract_ mul_ multiply_ div_ divide_ true_divide_ __iadd__ __isub__ __imul__ __idiv__ __itruediv__"
)
def binary_in_place(mode: InterceptMode, func: Function, x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    name = func.__name__.strip("_").removeprefix("i").replace("truediv", "div")
    return mode.assign(x, binary(mode, getattr(torch, name), x, y, alpha=alpha))


@handles(SYMBOLIC_FLOATS, "neg negative log exp log1p reciprocal neg_ log_ exp_ log1p_ reciprocal_")
def unary(mode: InterceptMode, func: Function, x: Any, out: Any = None) -> Tensor:
    numbers, one = mode.as_lazy(x), torch.ones((), dtype=torch.float64)
    name = func.__name__.strip("_")
    if name in ("neg", "negative"):
        result = numbers.mul(-one)
    elif name == "reciprocal":
        result = numbers.rdiv(one)
    elif name == "log1p":
        result = numbers.add(one).log()
    else:
        result = numbers.log() if name == "log" else numbers.exp()
    return _result(mode, result, x if func.__name__.endswith("_") else out, x)


@handles(SYMBOLIC_FLOATS, "clamp clip clamp_min clamp_max clamp_ clip_ clamp_min_ clamp_max_")
def clamp(mode: InterceptMode, func: Function, x: Any, *bounds: Any, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002
    if func.__name__.startswith("clamp_max"):
        bounds = (None, *bounds)
    low, high = [*bounds, None, None][:2]
    low, high = min if low is None else low, max if high is None else high
    numbers = mode.as_lazy(x).clamped(None if low is None else float(low), None if high is None else float(high))
    return _result(mode, numbers, x if func.__name__.endswith("_") else None, x)


def _combine(name: str, a: LazyTensor, b: LazyTensor) -> LazyTensor:
    if a.symbolic.any() and b.symbolic.any():
        raise NotEnumerable("arithmetic between two symbolic numbers")
    if not b.symbolic.any():
        return {"add": a.add, "sub": lambda value: a.add(-value), "mul": a.mul, "div": a.div}[name](b.shift)
    if name == "sub":
        return b.mul(-torch.ones((), dtype=torch.float64)).add(a.shift)
    return {"add": b.add, "mul": b.mul, "div": b.rdiv}[name](a.shift)


def _result(mode: InterceptMode, numbers: LazyTensor, out: Tensor | None, *sources: Any) -> Tensor:
    """The result of arithmetic: written into `out`, or a new tensor of the dtype that torch would choose."""
    if out is not None:
        return mode.memory.store(out, numbers)
    return mode.new_floats(numbers, _dtype(*sources), device_of(*sources))


def _dtype(*sources: Any) -> torch.dtype:
    known: list[Any] = [source if isinstance(source, Tensor) else 1.0 for source in sources]
    dtype = torch.result_type(known[0], known[-1])
    return dtype if dtype.is_floating_point else torch.get_default_dtype()


def device_of(*sources: Any) -> torch.device:
    """The device of torch's result: that of the first tensor with the most dimensions, since scalars follow."""
    tensors = [source for source in sources if isinstance(source, Tensor)]
    return next((tensor.device for tensor in sorted(tensors, key=lambda tensor: -tensor.dim())), torch.device("cpu"))
