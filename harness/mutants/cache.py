"""Faults of the caches, the target's and the head's: what stays in them after a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.drafters.eagle_base import EagleState
from eagle2_ref.model.cache import KVCache
from harness.mutants import mutant
from harness.mutants.cases import FOUR_BEST, GREEDY_TREE, TOP_K, TWO_LAYERS
from harness.mutants.planting import Planted, PlantedCommit, PlantedObserve

Commit = Callable[[Sequence[int]], None]


# --- the target's --------------------------------------------------------------------------------------------------


@mutant("M44", part="cache", source="NVIDIA/TensorRT-LLM PR 15842", killers={"CACHE-1": "", "LAW-1": TOP_K})
class CacheCut(PlantedCommit):
    """The cache is cut to the right length without gathering the path: a refused node stays."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        commit(range(1, len(path) + 1))


@mutant("M45", part="cache", source="vllm-project/vllm PR 5412", killers={"CACHE-1": ""}, law=False)
class CacheReversed(PlantedCommit):
    """The path is committed bottom up; attention cannot tell, since keys carry their positions."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        commit(path[::-1])


@mutant("M46", part="cache", source="ml-explore/mlx-lm PR 1109", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class CacheNotTrimmed(PlantedCommit):
    """To roll the cache back does nothing: refused nodes stay, and the text goes on behind them."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:  # noqa: ARG002
        cache.length = cache.pass_end


@mutant("M47", part="cache", source="paiml/aprender PR 2014", killers={"CACHE-1": "", "GREEDY-2": GREEDY_TREE})
class CacheReset(PlantedCommit):
    """Where a node was refused the cache is emptied, not rolled back: the text before the root is forgotten."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        refused = cache.pass_end - cache.length - 1 - len(path)
        commit(path)
        if refused:
            cache.length = 0


@mutant("M48", part="cache", source="ml-explore/mlx-swift-lm PR 173", killers={"CACHE-1": "", "LAW-1": TOP_K})
class FirstLayerTrimmed(PlantedCommit):
    """Only the first layer keeps the accepted path; the others are cut to its length."""

    @torch.inference_mode()
    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        others = cache.tensor[1:].clone()
        commit(path)
        cache.tensor[1:] = others


@mutant("M49", part="cache", source="Blaizzy/mlx-vlm PR 2113", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class RefusedZeroed(PlantedCommit):
    """Refused entries are zeroed and stay; a key of zeros still has the weight exp(0) in every softmax."""

    zeroed = 0

    def plant(self, decoder: Decoder) -> None:
        super().plant(decoder)
        positions, empty = decoder.target.positions, decoder.target.cache

        def emptied() -> KVCache:
            self.zeroed = 0
            return empty()

        decoder.target.positions = lambda cache, trees: positions(cache, trees) - self.zeroed  # type: ignore[method-assign]
        decoder.target.cache = emptied  # type: ignore[method-assign]

    @torch.inference_mode()
    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:  # noqa: ARG002
        refused = [i for i in range(cache.length + 1, cache.pass_end) if i - cache.length not in path]
        cache.tensor[..., refused, :] = 0
        self.zeroed += len(refused)
        cache.length = cache.pass_end


# --- the head's: none of these changes the law ---------------------------------------------------------------------


@mutant("M50", part="head cache", source="vllm-project/vllm issue 14649", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class HeadKeepsExpansion(Planted):
    """The head's cache keeps what it computed from its own features for the tree."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        expand = drafter.expand

        def keeping(cache: Any, feature: Tensor, depth: int) -> tuple[Pool, list[int]]:
            before = cache.length
            pool, grown = expand(cache, feature, depth)
            cache.length = before + (depth - 1) * drafter.budget.k
            return pool, grown

        drafter.expand = keeping  # type: ignore[method-assign]


@mutant("M51", part="head cache", source="vllm-project/vllm PR 55055", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class RootNeverWritten(PlantedObserve):
    """After a block with accepted drafts, the head's cache lacks the entry of the token the block began with."""

    def seen(self, state: EagleState, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:
        begun = bool(state.cache.length) and len(tokens) > 1
        return (tokens[1:], features[1:]) if begun else (tokens, features)


@mutant("M52", part="head cache", source="vllm-project/vllm issue 47930", killers={"CACHE-2": ""}, law=False)
class PrefixNeverWritten(PlantedObserve):
    """Where a prompt begins like an earlier one, the target's entries are restored, and the head's are never written."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        self.earlier: list[list[int]] = []
        super().plant_drafter(drafter)

    def seen(self, state: EagleState, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:
        if state.cache.length or state.tokens:
            return tokens, features
        prompt = [int(token) for token in tokens[:-1]]
        restored = max((_common(prompt, other) for other in self.earlier), default=0)
        self.earlier.append(prompt)
        return tokens, torch.cat([torch.zeros_like(features[:restored]), features[restored:]])


def _common(a: list[int], b: list[int]) -> int:
    """Length of the longest common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
