"""Faults of the caches: entries of the target's or the head's cache after a block."""

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


# --- target cache --------------------------------------------------------------------------------------------------


@mutant("M44", part="cache", source="NVIDIA/TensorRT-LLM PR 15842", killers={"CACHE-1": "", "LAW-1": TOP_K})
class CacheCut(PlantedCommit):
    """The cache is truncated to the right length, but the accepted path is not gathered: a rejected node remains."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        commit(range(1, len(path) + 1))


@mutant("M45", part="cache", source="vllm-project/vllm PR 5412", killers={"CACHE-1": ""}, law=False)
class CacheReversed(PlantedCommit):
    """The path is committed in reverse order; attention gives the same result, since keys contain their positions."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        commit(path[::-1])


@mutant("M46", part="cache", source="ml-explore/mlx-lm PR 1109", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class CacheNotTrimmed(PlantedCommit):
    """Rolling back the cache has no effect: rejected nodes remain, and the text continues after them."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:  # noqa: ARG002
        cache.length = cache.pass_end


@mutant("M47", part="cache", source="paiml/aprender PR 2014", killers={"CACHE-1": "", "GREEDY-2": GREEDY_TREE})
class CacheReset(PlantedCommit):
    """After a rejection, the cache is emptied instead of rolled back: the text before the root is forgotten."""

    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        refused = cache.pass_end - cache.length - 1 - len(path)
        commit(path)
        if refused:
            cache.length = 0


@mutant("M48", part="cache", source="ml-explore/mlx-swift-lm PR 173", killers={"CACHE-1": "", "LAW-1": TOP_K})
class FirstLayerTrimmed(PlantedCommit):
    """Only the first layer's cache gathers the accepted path; the other layers are truncated to its length."""

    @torch.inference_mode()
    def keep(self, cache: Any, commit: Commit, path: list[int]) -> None:
        others = cache.tensor[1:].clone()
        commit(path)
        cache.tensor[1:] = others


@mutant("M49", part="cache", source="Blaizzy/mlx-vlm PR 2113", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class RefusedZeroed(PlantedCommit):
    """Rejected entries are set to 0 but not removed; a zero key still has the weight exp(0) in every softmax."""

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


# --- head cache: none of these changes the law ----------------------------------------------------------------------


@mutant("M50", part="head cache", source="vllm-project/vllm issue 14649", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class HeadKeepsExpansion(Planted):
    """The head's cache keeps the entries that the head computed from its own features while it expanded the tree."""

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
    """After a block with accepted draft tokens, the head's cache lacks the entry of the block's first token."""

    def seen(self, state: EagleState, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:
        begun = bool(state.cache.length) and len(tokens) > 1
        return (tokens[1:], features[1:]) if begun else (tokens, features)


@mutant("M52", part="head cache", source="vllm-project/vllm issue 47930", killers={"CACHE-2": ""}, law=False)
class PrefixNeverWritten(PlantedObserve):
    """If a prompt begins like an earlier one, the target's cache is restored, but the head's entries are never written."""

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
