"""Faults of the caches: entries of the target's or the head's cache after a block."""

from __future__ import annotations

from collections import abc
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.model.cache import KVCache, StackedKVCache
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import Tree
from harness.mutants import mutant
from harness.mutants.cases import FOUR_BEST, GREEDY_TREE, TOP_K, TWO_LAYERS
from harness.mutants.planting import Fault

# --- target cache --------------------------------------------------------------------------------------------------


@mutant("M44", part="cache", source="NVIDIA/TensorRT-LLM PR 15842", killers={"CACHE-1": "", "LAW-1": TOP_K})
class CacheCut(Fault):
    """The cache is truncated to the right length, but the accepted path is not gathered: a rejected node remains."""

    class FaultyTarget(Target):
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
            super().commit(cache, range(1, len(path) + 1))


@mutant("M45", part="cache", source="vllm-project/vllm PR 5412", killers={"CACHE-1": ""}, law=False)
class CacheReversed(Fault):
    """The path is committed in reverse order; attention gives the same result, since keys contain their positions."""

    class FaultyTarget(Target):
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
            super().commit(cache, path[::-1])


@mutant("M46", part="cache", source="ml-explore/mlx-lm PR 1109", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class CacheNotTrimmed(Fault):
    """Rolling back the cache has no effect: rejected nodes remain, and the text continues after them."""

    class FaultyTarget(Target):
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:  # noqa: ARG002
            super().commit(cache, range(1, cache.pass_end - cache.pass_start))


@mutant("M47", part="cache", source="paiml/aprender PR 2014", killers={"CACHE-1": "", "GREEDY-2": GREEDY_TREE})
class CacheReset(Fault):
    """After a rejection, the cache is emptied instead of rolled back: the text before the root is forgotten."""

    class FaultyTarget(Target):
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
            rejected = cache.pass_end - cache.pass_start - 1 - len(path)
            super().commit(cache, path)
            if rejected:
                cache.truncate(0)


@mutant("M48", part="cache", source="ml-explore/mlx-swift-lm PR 173", killers={"CACHE-1": "", "LAW-1": TOP_K})
class FirstLayerTrimmed(Fault):
    """Only the first layer's cache gathers the accepted path; the other layers are truncated to its length."""

    class FaultyTarget(Target):
        @torch.inference_mode()
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
            assert isinstance(cache, StackedKVCache)
            others = cache.tensor[1:].clone()
            super().commit(cache, path)
            cache.tensor[1:] = others


@mutant("M49", part="cache", source="Blaizzy/mlx-vlm PR 2113", killers={"CACHE-1": "", "LAW-1": TWO_LAYERS})
class RejectedZeroed(Fault):
    """Rejected entries are set to 0 but not removed; a zero key still has the weight exp(0) in every softmax."""

    class FaultyTarget(Target):
        @torch.inference_mode()
        def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
            assert isinstance(cache, StackedKVCache)
            rejected = [entry for entry in range(cache.length + 1, cache.pass_end) if entry - cache.length not in path]
            cache.tensor[..., rejected, :] = 0
            super().commit(cache, range(1, cache.pass_end - cache.pass_start))

        def positions(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor:
            is_zero: Tensor = (cache.entries() == 0).all(-1).flatten(0, -2).all(0)
            return super().positions(cache, trees) - is_zero.sum()


# --- head cache: none of these changes the law ---------------------------------------------------------------------


@mutant("M50", part="head cache", source="vllm-project/vllm issue 14649", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class HeadKeepsExpansion(Fault):
    """The head's cache keeps the entries that the head computed from its own features while it expanded the tree."""

    class FaultyDrafter(Eagle2):
        def expand(self, cache: StackedKVCache, feature: Tensor, depth: int) -> tuple[Pool, list[int]]:
            length = cache.length
            result = super().expand(cache, feature, depth)
            cache.length = length + (depth - 1) * self.budget.k
            return result


@mutant("M51", part="head cache", source="vllm-project/vllm PR 55055", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class RootNeverWritten(Fault):
    """After a block with accepted draft tokens, the head's cache lacks the entry of the block's first token."""

    class FaultyDrafter(Eagle2):
        def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
            if sequence.draft.cache.length and len(tokens) > 1:
                tokens, features = tokens[1:], features[1:]
            super().observe(sequence, tokens, features)


@mutant("M52", part="head cache", source="vllm-project/vllm issue 47930", killers={"CACHE-2": ""}, law=False)
class PrefixNeverWritten(Fault):
    """If a prompt begins like an earlier one, the target's cache is restored, but the head's entries are never written."""

    class FaultyDrafter(Eagle2):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            self.prompts: list[list[int]] = []

        def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
            if not sequence.draft.cache.length and not sequence.draft.tokens:
                prompt = [int(token) for token in tokens[:-1]]
                restored = max((common_prefix(prompt, earlier) for earlier in self.prompts), default=0)
                self.prompts.append(prompt)
                features = torch.cat([torch.zeros_like(features[:restored]), features[restored:]])
            super().observe(sequence, tokens, features)


def common_prefix(a: abc.Sequence[int], b: abc.Sequence[int]) -> int:
    """Length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
