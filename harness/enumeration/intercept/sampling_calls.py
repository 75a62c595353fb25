"""What torch draws with, replaced: each leaves numbers behind that are not decided yet. Generators and seeds are ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.enumeration.intercept.dispatch import DRAWS, Interception, handles
from harness.enumeration.intercept.lazy_tensor import EXPONENTIAL, UNIFORM, Lazy
from harness.enumeration.intercept.random_variables import MOST, NotEnumerable, Whole
from harness.enumeration.intercept.tensor_storage import refuse_coarse

F = Callable[..., Any]


@handles(DRAWS, "rand")
def rand(mode: Interception, _: F, *size: Any, out: Any = None, **made: Any) -> Tensor:
    tensor = torch.empty(*size, **made) if out is None else out
    return mode.memory.store(tensor, Lazy.fresh(mode.chance, UNIFORM, tensor.shape))


@handles(DRAWS, "rand_like")
def rand_like(mode: Interception, _: F, like: Tensor, **made: Any) -> Tensor:
    tensor = torch.empty_like(like, **made)
    return mode.memory.store(tensor, Lazy.fresh(mode.chance, UNIFORM, tensor.shape))


@handles(DRAWS, "uniform_")
def uniform_(mode: Interception, _: F, x: Tensor, low: float = 0.0, high: float = 1.0, **named: Any) -> Tensor:
    bounds = [named.get(name, value) for name, value in (("from", low), ("to", high))]
    bottom, top = torch.tensor(bounds, dtype=torch.float64)
    return mode.memory.store(x, Lazy.fresh(mode.chance, UNIFORM, x.shape).times(top - bottom).plus(bottom))


@handles(DRAWS, "exponential_")
def exponential_(mode: Interception, _: F, x: Tensor, lambd: float = 1.0) -> Tensor:
    noise = Lazy.fresh(mode.chance, EXPONENTIAL, x.shape)
    return mode.memory.store(x, noise.over(torch.tensor(lambd, dtype=torch.float64)))


@handles(DRAWS, "multinomial")
def multinomial(mode: Interception, _: F, p: Tensor, num_samples: int, replacement: bool = False, *, out: Any = None) -> Tensor:
    """Draws from each row of p [rows, V] or from p [V]; the last one of a row stays undecided."""
    refuse_coarse(p.dtype)
    weights = mode.plain(p).reshape(-1, p.shape[-1])
    if not bool((weights >= 0).all() & weights.isfinite().all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not bool((weights.sum(-1) > 0).all()):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    found = [mode.chance.keep(token) for row in weights for token in _several(mode, row, num_samples, replacement)]
    drawn = mode.new_wholes(found, (*p.shape[:-1], num_samples), device=p.device)
    return drawn if out is None else mode.assign(out, drawn)


def _several(mode: Interception, weights: Tensor, n: int, replacement: bool) -> list[Whole]:
    tokens: list[Whole] = []
    for _ in range(n):
        if not float(weights.sum()) > 0:
            raise NotEnumerable("torch.multinomial of more samples than have a positive probability")
        tokens.append(mode.chance.token(weights / weights.sum()))
        if not replacement and len(tokens) < n:
            weights = weights.clone()
            weights[int(tokens[-1])] = 0
    return tokens


@handles(DRAWS, "bernoulli bernoulli_")
def bernoulli(mode: Interception, func: F, x: Tensor, p: Any = None, *, out: Any = None) -> Tensor:
    in_place = func.__name__.endswith("_")
    chances = mode.plain(0.5 if in_place and p is None else x if p is None else p).expand(x.shape).reshape(-1)
    if not bool(((chances >= 0) & (chances <= 1)).all()):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    drawn = [int(mode.chance.token(torch.stack([1 - share, share]))) for share in chances]
    result = torch.tensor(drawn).reshape(x.shape).to(x)
    return mode.assign(x, result) if in_place else result if out is None else mode.assign(out, result)


@handles(DRAWS, "randint randint_like random_")
def randint(mode: Interception, func: F, *args: Any, **named: Any) -> Tensor:
    """Whole numbers below a bound, or from one bound to below another; of too many only seeds can be made."""
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
    if low < 0 and high - low <= MOST:
        values = [low + int(mode.chance.below(0, high - low)) for _ in range(tensor.numel())]
        return mode.assign(tensor, torch.tensor(values).reshape(tensor.shape))
    numbers = [mode.chance.keep(mode.chance.below(low, high)) for _ in range(tensor.numel())]
    mode.memory.forget(tensor)
    if tensor.is_floating_point():
        return tensor.copy_(torch.tensor([int(mode.chance.whole(number)) for number in numbers]).reshape(tensor.shape))
    return mode.memory.store_wholes(tensor, torch.tensor(numbers, dtype=torch.long).reshape(tensor.shape))


@handles(DRAWS, "randperm")
def randperm(mode: Interception, _: F, n: int, *, out: Any = None, **made: Any) -> Tensor:
    rest = list(range(n))
    order = [rest.pop(int(mode.chance.below(0, len(rest)))) for _ in range(n)]
    result = torch.tensor(order, **{"dtype": torch.long, **made})
    return result if out is None else mode.assign(out, result)
