"""Faults of the head and of the draft tree. None of them changes the law: they cost speed or break the tree's structure."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, Pool, TreeBudget, rerank
from eagle2_ref.drafters.eagle_head import EagleHead, FusedHead
from eagle2_ref.model.cache import StackedKVCache
from eagle2_ref.model.llama import Layer
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import DraftTree, Tree
from harness.mutants import mutant
from harness.mutants.cases import FOUR_BEST, GREEDY_COUNT, GROWING
from harness.mutants.planting import Fault

LmHead = Callable[[Tensor], Tensor]


@mutant("M53", part="head", source="vllm-project/vllm PR 9730", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class FeaturesLate(Fault):
    """The head reads each token with the feature of one position earlier."""

    class FaultyDrafter(Eagle2):
        def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
            super().observe(sequence, tokens, torch.cat([features[:1], features[:-1]]))


@mutant("M54", part="tree", source="SafeAILab/EAGLE, total_token in model/cnets.py", killers={"TREE-1": ""}, law=False)
class OverBudget(Fault):
    """`total_token`, which counts the root, is used as the number of draft tokens."""

    class FaultyDrafter(Eagle2):
        def choose(self, root: int, pool: Pool) -> DraftTree:
            return rerank(root, pool, self.budget.m + 1, self.budget.least)


@mutant("M55", part="tree", source="SafeAILab/EAGLE commit b09a256", killers={"TREE-1": ""}, law=False)
class TwinSiblings(Fault):
    """The least confident child of a node repeats the most confident one."""

    class FaultyDrafter(Eagle2):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            pool = super().children(features, values, parents)
            tokens = pool.tokens.view(*values.shape, -1).clone()
            tokens[..., -1] = tokens[..., 0]
            return replace(pool, tokens=tokens.view_as(pool.tokens))


@mutant("M56", part="tree", source="sgl-project/sglang issue 7477", killers={"TREE-4": FOUR_BEST}, law=False)
class RanksByConfidence(Fault):
    """Candidates are ranked by confidence instead of value, so that parents are lost."""

    class FaultyDrafter(Eagle2):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            return super().children(features, torch.zeros_like(values), parents)


class SaturatedDrafter(Eagle2):
    """The head's logits are multiplied by 100, so that confidences of exactly 1 and equal values occur."""

    def __init__(self, head: EagleHead | FusedHead, lm_head: LmHead, budget: TreeBudget, vocabulary: Tensor | None) -> None:
        super().__init__(head, lambda features: 100 * lm_head(features), budget, vocabulary)


@mutant("M57", part="tree", source="SafeAILab/EAGLE, torch.topk in model/cnets.py", killers={"TREE-4": FOUR_BEST}, law=False)
class OrphansOfTies(Fault):
    """Of equal values the deeper is selected, and may lose its parent; head logits are scaled up, so that equal values occur.

    The published code then loses the root's token. Here the orphan becomes a child of the root, and the text is right.
    """

    class FaultyDrafter(SaturatedDrafter):
        def choose(self, root: int, pool: Pool) -> DraftTree:
            later_first = 1e-12 * torch.arange(len(pool.values))
            return super().choose(root, replace(pool, values=pool.values + later_first))


@mutant("M127", part="tree", source="SafeAILab/EAGLE, torch.topk in model/cnets.py", killers={"THEORY-4": GROWING}, law=False)
class TiesByBudget(Fault):
    """Of equal values an arbitrary one is selected, dependent on m; head logits are scaled up, so that equal values occur."""

    class FaultyDrafter(SaturatedDrafter):
        def choose(self, root: int, pool: Pool) -> DraftTree:
            order = torch.randperm(len(pool.values), generator=torch.Generator().manual_seed(self.budget.m))
            return super().choose(root, replace(pool, values=pool.values + 1e-12 * order))


class WrongHeadPass(Eagle2):
    """A drafter that changes the features or the attention mask of every pass of the head."""

    def change(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    def run_head(self, cache: StackedKVCache, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        features, mask = self.change(features, mask)
        return super().run_head(cache, tokens, features, positions, mask)


@mutant("M128", part="head", source="halo-box/llama.cpp PR 6", killers={"THEORY-5": GROWING}, law=False)
class LongDraftsForget(Fault):
    """Drafts of more than four layers use a truncated window: they do not see the beginning of the text."""

    class FaultyDrafter(WrongHeadPass):
        def change(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
            if mask is not None and self.budget.depth > 4:
                mask = mask.clone()
                mask[..., :2] = float("-inf")
            return features, mask


@mutant("M58", part="head", source="vllm-project/vllm PR 11672", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class NormTwice(Fault):
    """The features, which the target's last norm has normalised, are normalised again."""

    class FaultyDrafter(WrongHeadPass):
        def change(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return F.rms_norm(features, features.shape[-1:]), mask


class LayerWithoutResidual(Layer):
    """A decoder layer that does not add the MLP's output to its input."""

    def mlp(self, x: Tensor, residual: Tensor) -> Tensor:
        return super().mlp(x, torch.zeros_like(residual))


@mutant("M59", part="head", source="vllm-project/vllm PR 14464", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class NoResidualStream(Fault):
    """The head's layer returns the output of its MLP without the residual connection."""

    class FaultyDrafter(Eagle2):
        def __init__(self, *parts: Any) -> None:
            super().__init__(*parts)
            first, *others = self.head.layers
            self.head = replace(self.head, layers=[LayerWithoutResidual(**vars(first)), *others])


@mutant(
    "M60", part="tree", source="verl-project/verl-SpeCo PR 67", killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT}, law=False
)
class IdsUnmapped(Fault):
    """Draft tokens are ids of the head's own vocabulary: they are not mapped to the target's ids."""

    class FaultyDrafter(Eagle2):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            pool = super().children(features, values, parents)
            return replace(pool, tokens=(pool.tokens + 1) % self.head.config.vocab_size)


@mutant("M61", part="speed", source="ggml-org/llama.cpp issue 25345", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class NeverEngages(Fault):
    """The head is loaded and run, but none of its proposals is verified."""

    class FaultyDrafter(Eagle2):
        def propose(self, sequences: abc.Sequence[Sequence]) -> list[Tree]:
            return [DraftTree.root_only(tree.token(0)) for tree in super().propose(sequences)]


@mutant("M62", part="speed", source="ohdearquant/lattice PR 509", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class BonusDropped(Fault):
    """After a fully accepted path, the bonus token is not emitted: the last draft token is verified again."""

    class FaultyDecoder(Decoder):
        def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            block = super().accept(sequence, tree, logits)
            if not block.path or tree.children(block.path[-1]):
                return block
            return replace(block, tokens=block.tokens[:-1], accepted=block.accepted - 1, path=block.path[:-1])
