"""Replacements for `random`, numpy.random and torch.Generator while code is enumerated."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harness.enumeration.intercept.lazy_tensor import EXPONENTIAL, Transform
from harness.enumeration.intercept.random_variables import NotEnumerable, RandomVariables, SymbolicInt, SymbolicSeed
from harness.enumeration.intercept.symbolic_float import SymbolicFloat


def patches(variables: RandomVariables) -> list[tuple[Any, str, Any]]:
    """(object, attribute, replacement) for everything outside torch's functions that draws or takes a seed."""

    def uniform(*_: Any) -> SymbolicFloat:
        return SymbolicFloat.sample(variables)

    def below(_: random.Random, n: int) -> SymbolicInt | SymbolicSeed:
        return variables.sample_below(0, n)

    def bits(*arguments: Any) -> SymbolicInt | SymbolicSeed:
        return variables.sample_below(0, 1 << int(arguments[-1]))

    def seeded(generator: str, result: Any = None) -> Callable[..., Any]:
        def seed(*seeds: Any, **named: Any) -> Any:
            variables.check_seed(
                generator, next((seed for seed in (*seeds, *named.values()) if isinstance(seed, int | np.integer)), None)
            )
            return result

        return seed

    numpy_generator = NumpyGenerator(variables)
    found: list[tuple[Any, str, Any]] = [
        *((place, name, replacement) for place in (random, random.Random, random.SystemRandom)
          for name, replacement in (("random", uniform), ("getrandbits", bits), ("seed", seeded("random")))),
        (random.Random, "_randbelow", below),
        (vars(tempfile)["_RandomNameSequence"], "__next__", lambda _: secrets.token_hex(4)),  # names of temporary files
        (torch, "Generator", _generator_class(variables)),
        *((place, "manual_seed", seeded("torch", torch.default_generator)) for place in (torch, torch.random)),
        (np.random, "seed", seeded("numpy.random")),
        (np.random, "default_rng", seeded("numpy.random", numpy_generator)),
        *((np.random, name, _class_of_one(numpy_generator, getattr(np.random, name), seeded("numpy.random", numpy_generator)))
          for name in ("Generator", "RandomState")),
    ]  # fmt: skip
    for name in sorted(NUMPY_FUNCTIONS):
        if hasattr(np.random, name):
            found.append((np.random, name, getattr(numpy_generator, name)))
    return found


NUMPY_FUNCTIONS = {
    *(name for kind in (np.random.Generator, np.random.RandomState) for name in dir(kind) if not name.startswith("_")),
    "ranf", "sample",
} - {"bit_generator", "get_state", "set_state", "seed", "spawn"}  # fmt: skip


class NumpyGenerator:
    """numpy's random functions, old and new, as one generator. Functions without a method here are refused."""

    def __init__(self, variables: RandomVariables) -> None:
        self._variables = variables

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in NUMPY_FUNCTIONS:
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise NotEnumerable(f"numpy.random.{name}")

        return refuse

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self._array(size, lambda: SymbolicFloat.sample(self._variables))

    random_sample = ranf = sample = random

    def rand(self, *shape: int) -> Any:
        return self.random(shape or None)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self.random(size) * (high - low) + low

    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        return self._array(size, lambda: SymbolicFloat.sample(self._variables, EXPONENTIAL)) * scale

    def standard_exponential(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self.exponential(1.0, size)

    def gumbel(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._array(size, lambda: SymbolicFloat.sample(self._variables, Transform("log"))) * -scale + loc

    def integers(self, low: int, high: int | None = None, size: Any = None, *_: Any, endpoint: bool = False, **__: Any) -> Any:
        low, high = (0, low) if high is None else (low, high)
        return self._array(size, lambda: self._variables.sample_below(low, high + endpoint))

    def randint(self, low: int, high: int | None = None, size: Any = None, *_: Any, **__: Any) -> Any:
        return self.integers(low, high, size)

    def choice(self, a: Any, size: Any = None, replace: bool = True, p: Any = None, *_: Any, **__: Any) -> Any:
        values = None if np.ndim(a) == 0 else np.asarray(a)
        n = int(a) if values is None else len(values)
        weights = (
            torch.full((n,), 1 / n, dtype=torch.float64) if p is None else torch.as_tensor(np.asarray(p, dtype=float)).clone()
        )
        if abs(float(weights.sum()) - 1) > 1e-6 or bool((weights < 0).any()):
            raise ValueError("probabilities do not sum to 1")

        def one() -> Any:
            token = self._variables.sample_integer(weights / weights.sum())
            if not replace and size is not None:
                weights[int(token)] = 0
            return token if values is None else values[int(token)]

        return self._array(size, one)

    def multinomial(self, n: int, pvals: Any, size: Any = None) -> Any:
        def one() -> Any:
            sampled = [int(self.choice(len(pvals), p=pvals)) for _ in range(n)]
            return np.bincount(sampled, minlength=len(pvals))

        return one() if size is None else np.stack([one() for _ in range(int(size))])

    def permutation(self, x: Any) -> Any:
        order = np.arange(int(x)) if np.ndim(x) == 0 else np.array(x)
        self.shuffle(order)
        return order

    def shuffle(self, x: Any, *_: Any) -> None:
        for i in reversed(range(1, len(x))):
            j = int(self._variables.sample_below(0, i + 1))
            x[[i, j]] = x[[j, i]]

    def _array(self, size: Any, one: Callable[[], Any]) -> Any:
        if size is None:
            return one()
        sampled = np.empty(size, dtype=object)
        for i in range(sampled.size):
            sampled.reshape(-1)[i] = one()
        decided = all(not isinstance(value, SymbolicFloat | SymbolicInt | SymbolicSeed) for value in sampled.reshape(-1))
        return np.array(sampled.tolist()) if decided else sampled


def _class_of_one(instance: object, plain: type, make: Callable[..., Any]) -> type:
    """A class that replaces `plain`: calling it returns `instance`, and instances of `plain` still count as its own."""

    class Meta(type):
        def __instancecheck__(cls, other: object) -> bool:
            return other is instance or isinstance(other, plain)

        def __call__(cls, *seeds: Any, **named: Any) -> Any:
            return make(*seeds, **named)

    return Meta(plain.__name__, (), {})


def _generator_class(variables: RandomVariables) -> type[torch.Generator]:
    plain = torch.Generator

    class Meta(type(plain)):  # type: ignore[misc]
        def __instancecheck__(cls, other: object) -> bool:
            return isinstance(other, plain)

    class Generator(plain, metaclass=Meta):  # type: ignore[valid-type, misc]
        """A generator that only checks its seeds; draws ignore it."""

        def manual_seed(self, seed: Any) -> Generator:
            variables.check_seed("a torch.Generator", seed)
            return self

    return Generator
