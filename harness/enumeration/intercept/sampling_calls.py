"""Handlers of torch functions that draw: their results are symbolic. Generators and seeds are ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.enumeration.intercept.dispatch import SAMPLING, InterceptMode, handles
from harness.enumeration.intercept.lazy_tensor import EXPONENTIAL, UNIFORM, LazyTensor
from harness.enumeration.intercept.random_variables import MAX_BRANCHES, NotEnumerable, SymbolicInt
from harness.enumeration.intercept.tensor_storage import refuse_low_precision

Function = Callable[..., Any]


@handles(SAMPLING, "rand")
def rand(mode: InterceptMode, _: Function, *size: Any, out: Any = None, **options: Any) -> Tensor:
    tensor = torch.empty(*size, **options) if out is None else out
    return mode.memory.store(tensor, LazyTensor.sample(mode.variables, UNIFORM, tensor.shape))


@handles(SAMPLING, "rand_like")
def rand_like(mode: InterceptMode, _: Function, like: Tensor, **options: Any) -> Tensor:
    tensor = torch.empty_like(like, **options)
    return mode.memory.store(tensor, LazyTensor.sample(mode.variables, UNIFORM, tensor.shape))


@handles(SAMPLING, "uniform_")
def uniform_(mode: InterceptMode, _: Function, x: Tensor, low: float = 0.0, high: float = 1.0, **named: Any) -> Tensor:
    bounds = [named.get(name, value) for name, value in (("from", low), ("to", high))]
    bottom, top = torch.tensor(bounds, dtype=torch.float64)
    return mode.memory.store(x, LazyTensor.sample(mode.variables, UNIFORM, x.shape).mul(top - bottom).add(bottom))


@handles(SAMPLING, "exponential_")
def exponential_(mode: InterceptMode, _: Function, x: Tensor, lambd: float = 1.0) -> Tensor:
    noise = LazyTensor.sample(mode.variables, EXPONENTIAL, x.shape)
    return mode.memory.store(x, noise.div(torch.tensor(lambd, dtype=torch.float64)))


@handles(SAMPLING, "multinomial")
def multinomial(
    mode: InterceptMode, _: Function, p: Tensor, num_samples: int, replacement: bool = False, *, out: Any = None
) -> Tensor:
    """Samples from each row of p [rows, V], or from p [V]. Without replacement, all but the last sample of a row branch."""
    refuse_low_precision(p.dtype)
    weights = mode.require_plain(p).reshape(-1, p.shape[-1])
    if not bool((weights >= 0).all() & weights.isfinite().all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not bool((weights.sum(-1) > 0).all()):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    found = [mode.variables.register(token) for row in weights for token in _sample_row(mode, row, num_samples, replacement)]
    sampled = mode.new_integers(found, (*p.shape[:-1], num_samples), device=p.device)
    return sampled if out is None else mode.assign(out, sampled)


def _sample_row(mode: InterceptMode, weights: Tensor, n: int, replacement: bool) -> list[SymbolicInt]:
    """n samples from weights [V]."""
    tokens: list[SymbolicInt] = []
    for _ in range(n):
        if not float(weights.sum()) > 0:
            raise NotEnumerable("torch.multinomial of more samples than have a positive probability")
        tokens.append(mode.variables.sample_integer(weights / weights.sum()))
        if not replacement and len(tokens) < n:
            weights = weights.clone()
            weights[int(tokens[-1])] = 0
    return tokens


@handles(SAMPLING, "bernoulli bernoulli_")
def bernoulli(mode: InterceptMode, func: Function, x: Tensor, p: Any = None, *, out: Any = None) -> Tensor:
    in_place = func.__name__.endswith("_")
    probabilities = mode.require_plain(0.5 if in_place and p is None else x if p is None else p).expand(x.shape).reshape(-1)
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    sampled = [int(mode.variables.sample_integer(torch.stack([1 - one, one]))) for one in probabilities]
    result = torch.tensor(sampled).reshape(x.shape).to(x)
    return mode.assign(x, result) if in_place else result if out is None else mode.assign(out, result)


@handles(SAMPLING, "randint randint_like random_")
def randint(mode: InterceptMode, func: Function, *args: Any, **named: Any) -> Tensor:
    """Integers below a bound, or from one bound to below another; with too many values they can only serve as seeds."""
    name, limits = func.__name__, [named.pop(key) for key in ("low", "from", "high", "to") if key in named]
    rest = list(args)
    target = rest.pop(0) if name in ("randint_like", "random_") else None
    size: Any = named.pop("size", None) if name == "randint" else None
    if name == "randint" and size is None:
        size = rest.pop()
    limits = [int(limit) for limit in [*rest, *limits] if limit is not None] or [2**53]
    low, high = (0, limits[0]) if len(limits) == 1 else (limits[0], limits[1])
    if target is None:
        tensor = torch.zeros(size, **{"dtype": torch.long, **named})
    else:
        tensor = target if name == "random_" else torch.zeros_like(target, **named)
    if low < 0 and high - low <= MAX_BRANCHES:
        values = [low + int(mode.variables.sample_below(0, high - low)) for _ in range(tensor.numel())]
        return mode.assign(tensor, torch.tensor(values).reshape(tensor.shape))
    numbers = [mode.variables.register(mode.variables.sample_below(low, high)) for _ in range(tensor.numel())]
    mode.memory.clear(tensor)
    if tensor.is_floating_point():
        return tensor.copy_(torch.tensor([int(mode.variables.integer(number)) for number in numbers]).reshape(tensor.shape))
    return mode.memory.store_integers(tensor, torch.tensor(numbers, dtype=torch.long).reshape(tensor.shape))


@handles(SAMPLING, "randperm")
def randperm(mode: InterceptMode, _: Function, n: int, *, out: Any = None, **options: Any) -> Tensor:
    rest = list(range(n))
    order = [rest.pop(int(mode.variables.sample_below(0, len(rest)))) for _ in range(n)]
    result = torch.tensor(order, **{"dtype": torch.long, **options})
    return result if out is None else mode.assign(out, result)
