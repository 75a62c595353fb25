"""Key-value caches of the target and of the draft head.

A pass writes its keys and values in place, after the entries of the sequence. To accept a path is to move its entries to the
end of the sequence and to raise `length`; to reject is to do nothing. Several sequences can be rows of one storage, so that
one pass serves them all.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor


class CacheStorage:
    """Memory of one or more caches, a row each: tensors [..., rows, kv_heads, capacity, dim]."""

    def __init__(self, capacity: int = 256, tensors: dict[int, Tensor] | None = None) -> None:
        self.rows, self.capacity, self.tensors = 1, capacity, tensors or {}
        self.owners: dict[int, weakref.ref[KVCache]] = {}

    def reserve(self, columns: int, rows: int = 1) -> None:
        """Grow to at least so many columns, by doubling, and rows. New entries are 0."""
        if columns <= self.capacity and rows <= self.rows:
            return
        capacity, rows = self.capacity, max(rows, self.rows)
        while capacity < columns:
            capacity *= 2
        more = (0, 0, 0, capacity - self.capacity, 0, 0, 0, rows - self.rows)
        self.tensors = {name: F.pad(tensor, more) for name, tensor in self.tensors.items()}
        self.rows, self.capacity = rows, capacity

    def copy_row(self, row: int) -> CacheStorage:
        """A storage of its own with a copy of one row."""
        return CacheStorage(self.capacity, {name: tensor.narrow(-4, row, 1).clone() for name, tensor in self.tensors.items()})


class KVCache(ABC):
    """Keys and values of one sequence, or of a batch of sequences that are neighbouring rows of one storage.

    The first `length` columns are the sequence; the column of an entry is its position. A pass writes its entries into the
    columns from `pass_start` to `pass_end`. They are scratch: `keep`, or a larger `length`, makes them part of the sequence.
    """

    def __init__(self, storage: CacheStorage, device: torch.device) -> None:
        self.storage, self.row, self.device = storage, 0, device
        self.members: tuple[KVCache, ...] = ()  # the caches of a batch; empty for one sequence
        self.length = self.pass_start = self.pass_end = 0
        storage.owners[0] = weakref.ref(self)

    @property
    def capacity(self) -> int:
        """Number of columns of the storage."""
        return self.storage.capacity

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return len(self.members) or 1

    @property
    def lengths(self) -> Tensor:
        """Number of entries of each sequence, [B]."""
        return torch.tensor([cache.length for cache in self.members or (self,)], device=self.device)

    @abstractmethod
    def entries(self) -> Any:
        """The entries of the sequence, layer by layer, each [2, B, kv_heads, length, dim]."""

    def valid_mask(self) -> Tensor:
        """Boolean [B, length]: true at the entries of a sequence, false after the end of a shorter one."""
        if not self.members:
            return torch.ones(1, self.length, dtype=torch.bool, device=self.device)
        return torch.arange(self.length, device=self.device) < self.lengths[:, None]

    def keep(self, entries: Sequence[int]) -> None:
        """Append entries of the latest pass to the sequence, and drop its other entries.

        Args:
            entries: indices among the entries of the pass, from 0, in the order of the sequence.
        """
        n = len(entries)
        if self.pass_start > self.length or list(entries) != list(range(n)):
            source = torch.tensor(entries, dtype=torch.long, device=self.device) + self.pass_start
            for rows in self.rows():
                rows.narrow(-2, self.length, n).copy_(rows.index_select(-2, source.to(rows.device)))
        self.length = self.pass_start = self.pass_end = self.length + n

    def truncate(self, length: int) -> None:
        """Drop all entries from column `length` on."""
        self.length = self.pass_start = self.pass_end = min(length, self.length)

    def release(self) -> None:
        """Give up the row, which another sequence may then overwrite. The cache must not be used again."""
        self.storage.owners.pop(self.row, None)

    def rows(self) -> list[Tensor]:
        """Views of the rows of these sequences, one for each tensor of the storage."""
        return [tensor.narrow(-4, self.row, self.batch) for tensor in self.storage.tensors.values()]

    def begin_pass(self, n: int) -> None:
        """Prepare for a pass that writes n entries for each sequence."""
        self.storage.reserve(self.length + n)
        self.pass_start, self.pass_end = self.length, self.length + n

    def written(self) -> list[Tensor]:
        """Views of the entries, one for each tensor; none for an empty sequence, whose tensors may not exist yet."""
        return [rows.narrow(-2, 0, self.length) for rows in self.rows()] if self.length else []

    def place(self, storage: CacheStorage, row: int) -> None:
        """Make a row of a storage the row of this cache. Its entries are not moved."""
        self.storage, self.row = storage, row
        storage.owners[row] = weakref.ref(self)

    def joint(self, members: Sequence[Self], length: int) -> Self:
        """A view of the rows of several caches, this one the first of them."""
        cache = copy(self)
        cache.members, cache.length = tuple(members), length
        return cache


C = TypeVar("C", bound=KVCache)


def batch_caches(caches: Sequence[C]) -> C:
    """Combine the caches of several sequences for one pass over all of them.

    The sequences become rows 0 to B - 1 of one storage and stay there, so that from the second pass on nothing is copied. A pass
    writes to the same columns for all sequences, after the longest; `keep` of each cache then moves its entries to the end of
    its own sequence. A sequence that is not in the batch, but whose row is needed, is first copied to a storage of its own.

    Args:
        caches: one cache for each sequence. The cache of a single sequence is returned unchanged.

    Returns:
        A cache of B sequences, which is valid for one pass.
    """
    if len(caches) == 1:
        return caches[0]
    storage = next((cache for cache in caches if cache.length), caches[0]).storage
    longest = max(cache.length for cache in caches)
    moving = [(row, cache) for row, cache in enumerate(caches) if cache.storage is not storage or cache.row != row]
    copies = [[entries.clone() for entries in cache.written()] for _, cache in moving]
    for row, _ in moving:
        owner = storage.owners[row]() if row in storage.owners else None
        if owner is not None and owner.storage is storage and owner.row == row and all(owner is not cache for cache in caches):
            owner.place(storage.copy_row(row), 0)  # set aside, to be resumed later
    storage.reserve(longest, len(caches))
    for (row, cache), copied in zip(moving, copies, strict=True):
        cache.place(storage, row)
        for entries, source in zip(cache.written(), copied, strict=True):
            entries.copy_(source)
    for cache in caches:
        cache.pass_start = longest
    return caches[0].joint(caches, longest)


class StackedKVCache(KVCache):
    """Keys and values of layers of one shape, in one tensor [layers, 2, rows, kv_heads, capacity, dim]."""

    def __init__(
        self, layers: int, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device, capacity: int = 256
    ) -> None:
        tensor = torch.zeros(layers, 2, 1, kv_heads, capacity, dim, dtype=dtype, device=device)
        super().__init__(CacheStorage(capacity, {0: tensor}), device)

    @property
    def tensor(self) -> Tensor:
        """The tensor of the storage."""
        return self.storage.tensors[0]

    def begin_pass(self, n: int) -> None:
        super().begin_pass(n)
        (rows,) = self.rows()
        # One view for each layer, taken at once: that is faster than one by one.
        self._new = rows.narrow(-2, self.pass_start, n).unbind()
        self._all = rows.narrow(-2, 0, self.pass_end).flatten(0, 1).unbind()

    def write(self, layer: int, new: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of a pass.

        Args:
            layer: index of the layer.
            new: keys and values, [2, B, kv_heads, n, dim].

        Returns:
            All keys and all values of the layer, each [B, kv_heads, length + n, dim].
        """
        self._new[layer].copy_(new)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def entries(self) -> Tensor:
        """The entries, [layers, 2, B, kv_heads, length, dim]."""
        (rows,) = self.rows()
        return rows.narrow(-2, 0, self.length)
