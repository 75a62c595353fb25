"""Sources of randomness. Every random decision takes its numbers from a `Coins` object; nothing uses a global generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Uniform(Protocol):
    """A number in [0, 1). A rule may only compare it with a threshold."""

    def __lt__(self, threshold: Any, /) -> bool: ...


class Coins(Protocol):
    """A source of random numbers."""

    def seek(self, position: int) -> None:
        """Set the absolute position of the next token to be emitted. Called once for each block."""

    def uniform(self) -> Uniform:
        """A number distributed uniformly in [0, 1)."""

    def categorical(self, p: Tensor) -> int:
        """A token sampled with probabilities p [V], which sum to 1 up to rounding.

        The result acts like an int. In enumeration (harness/enumeration/coins.py) it is a token without a value, until a
        comparison or a conversion to int needs one.
        """

    def split(self) -> Coins:
        """Coins for a drafter that samples, so that drafting never changes the numbers that the rule gets."""
        return self


class SeededCoins(Coins):
    """Numbers from a torch generator: the ordinary choice."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> float:
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def categorical(self, p: Tensor) -> int:
        return invert(p, self.uniform())


class KeyedCoins(Coins):
    """Numbers that depend on the seed and on the position only, not on the order of the calls.

    The token at a position is argmax p / e, where e is exponential noise with the key (seed, position): an exact sample from
    p. A decoder that samples one token for each position therefore emits the same text for every drafter and every tree.
    This coupling turns equality of distributions into equality of tokens.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator()
        self._position = 0
        self._uniforms = 0

    def seek(self, position: int) -> None:
        self._position, self._uniforms = position, 0

    def uniform(self) -> float:
        self._uniforms += 1
        self._generator.manual_seed(_key(self._seed, self._position, self._uniforms))
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def categorical(self, p: Tensor) -> int:
        token = int((p / self.noise(self._position, len(p)).to(p)).argmax())
        self.seek(self._position + 1)
        return token

    def split(self) -> Coins:
        return KeyedCoins(_key(self._seed, 1 << 32))

    def noise(self, position: int, size: int) -> Tensor:
        """The exponential noise of a position, [size]. The token is argmax p / noise."""
        self._generator.manual_seed(_key(self._seed, position, 0))
        noise = torch.empty(size, dtype=torch.float64).exponential_(generator=self._generator)
        return noise.clamp_min_(torch.finfo(torch.float32).tiny)  # p / 0 would be inf or NaN


class ScriptedCoins(Coins):
    """Numbers from a list, for tests at the boundary: 0, the largest number below 1, an exact tie."""

    def __init__(self, uniforms: Sequence[float]) -> None:
        self._uniforms: Iterator[float] = iter(uniforms)

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> float:
        return next(self._uniforms)

    def categorical(self, p: Tensor) -> int:
        return invert(p, self.uniform())


def invert(p: Tensor, u: float) -> int:
    """Sample from p [V] by inversion: the first token at which the cumulative sum of p exceeds u, for u in [0, 1).

    A token of probability 0 is never returned: its cumulative sum does not rise. The sum of p may round to less than u; then
    the result is the last token of positive probability.
    """
    cumulative = p.double().cumsum(0)
    token = int(torch.searchsorted(cumulative, u, right=True))
    return token if token < len(p) else int(p.nonzero()[-1])


def _key(*parts: int) -> int:
    """A 63-bit seed from several integers, by the finaliser of splitmix64 applied to each in turn."""
    mask, key = (1 << 64) - 1, 0
    for part in parts:
        key = (key + (part & mask) + 0x9E3779B97F4A7C15) & mask
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & mask
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & mask
        key ^= key >> 31
    return key >> 1
