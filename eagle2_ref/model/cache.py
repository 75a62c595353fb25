"""Keys and values, of the target and of the head: written in place, kept by moving `length`, gathered along a path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor


class Room:
    """Where the entries of texts lie, a row each: tensors [..., texts, kv_heads, capacity, dim], one of all layers or more."""

    def __init__(self, capacity: int = 256) -> None:
        self.texts, self.capacity, self.tensors = 1, capacity, dict[int, Tensor]()

    def reserve(self, columns: int, texts: int = 1) -> None:
        """Make room for so many; columns grow by doubling. What was never written is 0."""
        if columns <= self.capacity and texts <= self.texts:
            return
        capacity, texts = self.capacity, max(texts, self.texts)
        while capacity < columns:
            capacity *= 2
        more = (0, 0, 0, capacity - self.capacity, 0, 0, 0, texts - self.texts)
        self.tensors = {name: F.pad(tensor, more) for name, tensor in self.tensors.items()}
        self.texts, self.capacity = texts, capacity


class Kept(ABC):
    """What is kept of a text, or of several that are rows of one room, side by side.

    The first `length` entries are the text's; an entry's column is its position. A pass writes its own behind them, from
    `begun` up to `end`: they are scratch, until `keep` or a larger `length` makes them part of the text. (Of a draft's own
    entries vllm issue 14649 tells what keeping them costs.)
    """

    def __init__(self, room: Room, device: torch.device) -> None:
        self._room, self._row, self.device = room, 0, device
        self._texts: tuple[Kept, ...] = ()  # which stand side by side here; none: this is one text
        self.length = self.begun = self.end = 0

    @property
    def capacity(self) -> int:
        return self._room.capacity

    @property
    def lengths(self) -> Tensor:
        """How many entries are kept of each text, [texts]."""
        return torch.tensor([text.length for text in self._texts or (self,)], device=self.device)

    @abstractmethod
    def kept(self) -> Any:
        """The kept entries, layer by layer, [2, texts, kv_heads, length, dim]."""

    def holds(self) -> Tensor:
        """Boolean [texts, length]: where an entry is one of the text, not what lies behind a shorter one."""
        return torch.arange(self.length, device=self.device) < self.lengths[:, None]

    def keep(self, entries: Sequence[int]) -> None:
        """Of the newest pass's entries, counted from 0, keep these, in this order; the others are dropped."""
        n = len(entries)
        if self.begun > self.length or list(entries) != list(range(n)):
            source = torch.tensor(entries, dtype=torch.long, device=self.device) + self.begun
            for rows in self._rows():
                rows.narrow(-2, self.length, n).copy_(rows.index_select(-2, source.to(rows.device)))
        self.length = self.begun = self.end = self.length + n

    def cut(self, length: int) -> None:
        """Keep no more than the first entries, so many."""
        self.length = self.begun = self.end = min(length, self.length)

    def _rows(self) -> list[Tensor]:
        """What the room has of these texts."""
        return [tensor.narrow(-4, self._row, len(self._texts) or 1) for tensor in self._room.tensors.values()]

    def _entries(self) -> list[Tensor]:
        """What is kept, of each tensor; nothing of an empty text, whose tensors may not be there yet."""
        return [rows.narrow(-2, 0, self.length) for rows in self._rows()] if self.length else []

    def _begin(self, n: int) -> None:
        """A pass begins that will write n entries a text."""
        self._room.reserve(self.length + n)
        self.begun, self.end = self.length, self.length + n


K = TypeVar("K", bound=Kept)


def beside(caches: Sequence[K]) -> K:
    """The caches of several texts as one, for passes that serve them all.

    Such a pass writes at the same columns for all, behind the longest text; `keep` of each then moves what it keeps of that to
    where its own entries end. The texts become the rows of one room, that of the first that has begun, and stay there: those
    that stand in their place already are not copied. A text of this room that is left out is given up.
    """
    room = next((cache for cache in caches if cache.length), caches[0])._room
    longest = max(cache.length for cache in caches)
    moving = [(row, cache) for row, cache in enumerate(caches) if cache._room is not room or cache._row != row]
    copies = [[entries.clone() for entries in cache._entries()] for _, cache in moving]
    room.reserve(longest, len(caches))
    for (row, cache), copied in zip(moving, copies, strict=True):
        cache._room, cache._row = room, row
        for entries, kept in zip(cache._entries(), copied, strict=True):
            entries.copy_(kept)
    for cache in caches:
        cache.begun = longest
    joint = copy(caches[0])
    joint._texts, joint.length = tuple(caches), longest
    return joint


class Cache(Kept):
    """Keys and values of layers of one shape, in one tensor [layers, 2, texts, kv_heads, capacity, dim]."""

    def __init__(
        self, layers: int, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device, capacity: int = 256
    ) -> None:
        super().__init__(Room(capacity), device)
        self._room.tensors[0] = torch.zeros(layers, 2, 1, kv_heads, capacity, dim, dtype=dtype, device=device)

    @property
    def _store(self) -> Tensor:
        return self._room.tensors[0]

    def open(self, n: int) -> None:
        """A pass begins that will write n entries a text. (To cut all layers at once is quicker than one by one.)"""
        self._begin(n)
        (rows,) = self._rows()
        self._new = rows.narrow(-2, self.begun, n).unbind()
        self._all = rows.narrow(-2, 0, self.end).flatten(0, 1).unbind()

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values [2, texts, kv_heads, n, dim] behind the kept ones; returns all keys and all values."""
        self._new[layer].copy_(new)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def kept(self) -> Tensor:
        """The kept entries, [layers, 2, texts, kv_heads, length, dim]."""
        (rows,) = self._rows()
        return rows.narrow(-2, 0, self.length)
