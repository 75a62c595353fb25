"""Caches that share a storage: each keeps its own entries, and a sequence that stays in its row is not copied."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from eagle2_ref.model.cache import CacheStorage, KVCache, StackedKVCache, batch_caches
from eagle2_ref.model.hf_model import HFCache

LAYERS, HEADS, DIM = 3, 2, 4


def empty(lean: bool) -> KVCache:
    device = torch.device("cpu")
    return StackedKVCache(LAYERS, HEADS, DIM, torch.float64, device, capacity=2) if lean else HFCache(CacheStorage(2), device)


def write(cache: KVCache, new: Tensor) -> None:
    """Run a pass that writes entries [layers, 2, B, heads, n, dim]."""
    cache.begin_pass(new.shape[-2])
    for layer, entries in enumerate(new):
        if isinstance(cache, StackedKVCache):
            cache.write(layer, entries)
        elif isinstance(cache, HFCache):
            for which in range(2):
                cache.write(2 * layer + which, entries[which])


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "hosted"])
def test_each_sequence_keeps_its_own_entries(lean: bool) -> None:
    """In any order of rows, with sequences that leave and join, paths of any length, and passes of single sequences."""
    chance, generator = random.Random(0), torch.Generator().manual_seed(0)  # noqa: S311
    texts = [(empty(lean), torch.zeros(LAYERS, 2, 1, HEADS, 0, DIM, dtype=torch.float64)) for _ in range(4)]
    for _ in range(60):
        chance.shuffle(texts)
        if chance.random() < 0.4:
            texts.pop()
            started = empty(lean)
            new = torch.randn(LAYERS, 2, 1, HEADS, 3, DIM, dtype=torch.float64, generator=generator)
            write(started, new)
            started.keep(range(3))
            texts += [(started, new)]
        joint = batch_caches([cache for cache, _ in texts])
        new = torch.randn(LAYERS, 2, len(texts), HEADS, 5, DIM, dtype=torch.float64, generator=generator)
        write(joint, new)
        for row, (cache, expected) in enumerate(texts):
            path = sorted(chance.sample(range(5), chance.randrange(1, 5)))
            cache.keep(path)
            texts[row] = cache, torch.cat([expected, new[:, :, row : row + 1, :, path]], dim=-2)
        assert joint.lengths.tolist() == [expected.shape[-2] for _, expected in texts]
        cache, expected = texts[-1]
        write(cache, new[:, :, :1])
        cache.keep([0])
        texts[-1] = cache, torch.cat([expected, new[:, :, :1, :, :1]], dim=-2)
        for cache, expected in texts:
            assert all(torch.equal(kept, own) for kept, own in zip(cache.entries(), expected, strict=True))


def test_a_sequence_that_keeps_its_row_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a sequence leaves, only the one that takes its row is copied."""
    copied, entries = list[KVCache](), StackedKVCache.written

    def noted(cache: StackedKVCache) -> list[Tensor]:
        copied.append(cache)
        return entries(cache)

    monkeypatch.setattr(StackedKVCache, "written", noted)
    caches = [empty(True) for _ in range(4)]
    batch_caches(caches)
    store = caches[0].storage.tensors[0]
    for texts, moved in ((caches, []), ([caches[0], caches[3], caches[2]], [caches[3]])):
        copied.clear()
        batch_caches(texts)
        assert set(copied) == set(moved) and caches[0].storage.tensors[0] is store
