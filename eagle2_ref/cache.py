"""Keys and values, of the target and of the head: written in place, kept by moving `length`, gathered along a path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Cache:
    """Keys and values of all layers, [layers, 2, texts, kv_heads, capacity, dim].

    The first `length` entries are the text's. A pass writes its own behind them, up to `end`: they are scratch, until `keep`
    or a larger `length` makes them part of the text. (Of a draft's own entries vllm issue 14649 tells what keeping them costs.)
    Storage grows by doubling.
    """

    def __init__(
        self, layers: int, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device, capacity: int = 256, texts: int = 1
    ) -> None:
        self._store = torch.zeros(layers, 2, texts, kv_heads, capacity, dim, dtype=dtype, device=device)
        self.length = self.end = 0
        self.starts = torch.zeros(texts, dtype=torch.long, device=device)

    @classmethod
    def beside(cls, caches: Sequence[Cache]) -> Cache:
        """What several texts keep, side by side. All end together: shorter ones begin later, at `starts` [texts]."""
        joined, longest = cls.__new__(cls), max(cache.length for cache in caches)
        starts = [longest - cache.length for cache in caches]
        room = max(cache.capacity for cache in caches) - longest
        padded = [F.pad(cache.kept(), (0, 0, start, room)) for cache, start in zip(caches, starts, strict=True)]
        joined._store = torch.cat(padded, dim=2)
        joined.length = joined.end = longest
        joined.starts = torch.tensor(starts, device=padded[0].device)
        return joined

    @property
    def capacity(self) -> int:
        return self._store.shape[-2]

    def open(self, n: int) -> None:
        """A pass begins that will write n entries a text. (To cut all layers at once is quicker than one by one.)"""
        self._reserve(n)
        self.end = self.length + n
        self._new = self._store.narrow(-2, self.length, n).unbind()
        self._all = self._store.narrow(-2, 0, self.end).flatten(0, 1).unbind()

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values [2, texts, kv_heads, n, dim] behind the kept ones; returns all keys and all values."""
        self._new[layer].copy_(new)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def keep(self, entries: Sequence[int]) -> None:
        """Of the newest pass's entries, counted from 0, keep these, in this order."""
        n = len(entries)
        if list(entries) != list(range(n)):
            source = torch.tensor(entries, device=self._store.device) + self.length
            self._store.narrow(-2, self.length, n).copy_(self._store.index_select(-2, source))
        self.length = self.end = self.length + n

    def take(self, joined: Cache, row: int, first: int, n: int) -> None:
        """Of the newest pass over several texts side by side, this one's n entries from the `first` on: as scratch."""
        self._reserve(n)
        self.end = self.length + n
        new = joined._store[:, :, row : row + 1].narrow(-2, joined.length + first, n)
        self._store.narrow(-2, self.length, n).copy_(new)

    def kept(self) -> Tensor:
        """The kept entries, [layers, 2, texts, kv_heads, length, dim]."""
        return self._store.narrow(-2, 0, self.length)

    def holds(self) -> Tensor:
        """Boolean [texts, length]: where an entry is one of the text, not what stands before a shorter one."""
        return torch.arange(self.length, device=self.starts.device) >= self.starts[:, None]

    def _reserve(self, n: int) -> None:
        while self.length + n > self.capacity:
            self._store = torch.cat([self._store, torch.zeros_like(self._store)], dim=-2)
