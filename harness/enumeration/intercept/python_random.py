"""Draws outside torch: `random` and numpy.random, replaced while code is enumerated; and generators that take any seed."""

from __future__ import annotations

import random
import secrets
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from harness.enumeration.intercept.lazy_tensor import EXPONENTIAL, Kind
from harness.enumeration.intercept.random_variables import Chance, NotEnumerable, Seed, Whole
from harness.enumeration.intercept.symbolic_float import Number


def replacements(chance: Chance) -> list[tuple[Any, str, Any]]:
    """(object, attribute, stand-in) of everything outside torch's functions that draws or takes a seed."""

    def uniform(*_: Any) -> Number:
        return Number.draw(chance)

    def below(_: random.Random, n: int) -> Whole | Seed:
        return chance.below(0, n)

    def bits(*arguments: Any) -> Whole | Seed:
        return chance.below(0, 1 << int(arguments[-1]))

    def seeded(generator: str, result: Any = None) -> Callable[..., Any]:
        def seed(*seeds: Any, **named: Any) -> Any:
            chance.seed(generator, next((seed for seed in (*seeds, *named.values()) if isinstance(seed, int | np.integer)), None))
            return result

        return seed

    drawn = NumpyDraws(chance)
    found: list[tuple[Any, str, Any]] = [
        *((place, name, stand_in) for place in (random, random.Random, random.SystemRandom)
          for name, stand_in in (("random", uniform), ("getrandbits", bits), ("seed", seeded("random")))),
        (random.Random, "_randbelow", below),
        (vars(tempfile)["_RandomNameSequence"], "__next__", lambda _: secrets.token_hex(4)),  # nobody's coins
        (torch, "Generator", _undrawn_generator(chance)),
        *((place, "manual_seed", seeded("torch", torch.default_generator)) for place in (torch, torch.random)),
        (np.random, "seed", seeded("numpy.random")),
        (np.random, "default_rng", seeded("numpy.random", drawn)),
        *((np.random, name, _always(drawn, getattr(np.random, name), seeded("numpy.random", drawn)))
          for name in ("Generator", "RandomState")),
    ]  # fmt: skip
    for name in sorted(NUMPY_DRAWS):
        if hasattr(np.random, name):
            found.append((np.random, name, getattr(drawn, name)))
    return found


NUMPY_DRAWS = {
    *(name for kind in (np.random.Generator, np.random.RandomState) for name in dir(kind) if not name.startswith("_")),
    "ranf", "sample",
} - {"bit_generator", "get_state", "set_state", "seed", "spawn"}  # fmt: skip


class NumpyDraws:
    """numpy's random functions, new and old, as one generator: what is not here cannot be followed."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in NUMPY_DRAWS:
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise NotEnumerable(f"numpy.random.{name}")

        return refuse

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self._array(size, lambda: Number.draw(self._chance))

    random_sample = ranf = sample = random

    def rand(self, *shape: int) -> Any:
        return self.random(shape or None)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return self.random(size) * (high - low) + low

    def exponential(self, scale: Any = 1.0, size: Any = None) -> Any:
        return self._array(size, lambda: Number.draw(self._chance, EXPONENTIAL)) * scale

    def standard_exponential(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self.exponential(1.0, size)

    def gumbel(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return self._array(size, lambda: Number.draw(self._chance, Kind("log"))) * -scale + loc

    def integers(self, low: int, high: int | None = None, size: Any = None, *_: Any, endpoint: bool = False, **__: Any) -> Any:
        low, high = (0, low) if high is None else (low, high)
        return self._array(size, lambda: self._chance.below(low, high + endpoint))

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
            token = self._chance.token(weights / weights.sum())
            if not replace and size is not None:
                weights[int(token)] = 0
            return token if values is None else values[int(token)]

        return self._array(size, one)

    def multinomial(self, n: int, pvals: Any, size: Any = None) -> Any:
        def one() -> Any:
            drawn = [int(self.choice(len(pvals), p=pvals)) for _ in range(n)]
            return np.bincount(drawn, minlength=len(pvals))

        return one() if size is None else np.stack([one() for _ in range(int(size))])

    def permutation(self, x: Any) -> Any:
        order = np.arange(int(x)) if np.ndim(x) == 0 else np.array(x)
        self.shuffle(order)
        return order

    def shuffle(self, x: Any, *_: Any) -> None:
        for i in reversed(range(1, len(x))):
            j = int(self._chance.below(0, i + 1))
            x[[i, j]] = x[[j, i]]

    def _array(self, size: Any, one: Callable[[], Any]) -> Any:
        if size is None:
            return one()
        drawn = np.empty(size, dtype=object)
        for i in range(drawn.size):
            drawn.reshape(-1)[i] = one()
        decided = all(not isinstance(value, Number | Whole | Seed) for value in drawn.reshape(-1))
        return np.array(drawn.tolist()) if decided else drawn


def _always(instance: object, plain: type, make: Callable[..., Any]) -> type:
    """A class in the place of `plain` whose only instance is this one; instances of `plain` still count as its own."""

    class Meta(type):
        def __instancecheck__(cls, other: object) -> bool:
            return other is instance or isinstance(other, plain)

        def __call__(cls, *seeds: Any, **named: Any) -> Any:
            return make(*seeds, **named)

    return Meta(plain.__name__, (), {})


def _undrawn_generator(chance: Chance) -> type[torch.Generator]:
    plain = torch.Generator

    class Meta(type(plain)):  # type: ignore[misc]
        def __instancecheck__(cls, other: object) -> bool:
            return isinstance(other, plain)

    class Generator(plain, metaclass=Meta):  # type: ignore[valid-type, misc]
        """A generator that is never drawn from."""

        def manual_seed(self, seed: Any) -> Generator:
            chance.seed("a torch.Generator", seed)
            return self

    return Generator
