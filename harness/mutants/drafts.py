"""Faults of the head and of the drafted tree: none of them changes the law; they cost speed, or break the tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Block
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.drafters.eagle_base import EagleState
from eagle2_ref.tree import DraftTree
from harness.mutants import mutant
from harness.mutants.cases import FOUR_BEST, GREEDY_COUNT, GROWING
from harness.mutants.planting import Asked, Planted, PlantedBlock, PlantedChildren, PlantedObserve


@mutant("M53", part="head", source="vllm-project/vllm PR 9730", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class FeaturesLate(PlantedObserve):
    """The head is fed each token with the feature of one position earlier."""

    def seen(self, state: EagleState, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:  # noqa: ARG002
        return tokens, torch.cat([features[:1], features[:-1]])


@mutant("M54", part="tree", source="SafeAILab/EAGLE, total_token in model/cnets.py", killers={"TREE-1": ""}, law=False)
class OverBudget(Planted):
    """`total_token`, which counts the root, is read as the number of drafted tokens."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        drafter.budget = replace(drafter.budget, m=drafter.budget.m + 1)


@mutant("M55", part="tree", source="SafeAILab/EAGLE commit b09a256", killers={"TREE-1": ""}, law=False)
class TwinSiblings(PlantedChildren):
    """The least confident child of a node repeats the most confident one."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        pool = grow(features, values, parents)
        tokens = pool.tokens.view(*values.shape, -1).clone()
        tokens[..., -1] = tokens[..., 0]
        return replace(pool, tokens=tokens.view_as(pool.tokens))


@mutant("M56", part="tree", source="sgl-project/sglang issue 7477", killers={"TREE-4": FOUR_BEST}, law=False)
class RanksByConfidence(PlantedChildren):
    """Candidates are ranked by confidence, not by value, so that parents are lost."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        return grow(features, torch.zeros_like(values), parents)


@mutant("M57", part="tree", source="SafeAILab/EAGLE, torch.topk in model/cnets.py", killers={"TREE-4": FOUR_BEST}, law=False)
class OrphansOfTies(Planted):
    """Of equal values the deeper is kept, and may lose its parent; the head is saturated, so that equal values occur.

    The published code then loses the root's token; here the orphan hangs on the root, and the text is right.
    """

    def plant_drafter(self, drafter: Eagle2) -> None:
        lm_head, expand = drafter.lm_head, drafter.expand
        drafter.lm_head = lambda features: 100 * lm_head(features)

        def later_first(cache: Any, feature: Tensor, depth: int) -> tuple[Pool, list[int]]:
            pool, grown = expand(cache, feature, depth)
            later = 1e-12 * torch.arange(pool.values.shape[-1], device=feature.device)
            return replace(pool, values=pool.values + later), grown

        drafter.expand = later_first  # type: ignore[method-assign]


@mutant("M127", part="tree", source="SafeAILab/EAGLE, torch.topk in model/cnets.py", killers={"THEORY-4": GROWING}, law=False)
class TiesByBudget(Planted):
    """Of equal values arbitrary ones are kept, others for every m; the head is saturated, so that equal values occur."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        lm_head, expand = drafter.lm_head, drafter.expand
        drafter.lm_head = lambda features: 100 * lm_head(features)

        def shuffled(cache: Any, feature: Tensor, depth: int) -> tuple[Pool, list[int]]:
            pool, grown = expand(cache, feature, depth)
            order = torch.randperm(pool.values.shape[-1], generator=torch.Generator().manual_seed(drafter.budget.m))
            return replace(pool, values=pool.values + 1e-12 * order), grown

        drafter.expand = shuffled  # type: ignore[method-assign]


@mutant("M128", part="head", source="halo-box/llama.cpp PR 6", killers={"THEORY-5": GROWING}, law=False)
class LongDraftsForget(Planted):
    """Drafts of more than four layers are drafted from a truncated window: they do not see where the text begins."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        run = drafter.run_head

        def truncated(cache: Any, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
            if mask is not None and drafter.budget.depth > 4:
                mask = mask.clone()
                mask[..., :2] = float("-inf")
            return run(cache, tokens, features, positions, mask)

        drafter.run_head = truncated  # type: ignore[method-assign]


@mutant("M58", part="head", source="vllm-project/vllm PR 11672", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class NormTwice(Planted):
    """The features, which come from behind the target's last norm, are normed once more."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        run = drafter.run_head

        def normed(cache: Any, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
            return run(cache, tokens, F.rms_norm(features, features.shape[-1:]), positions, mask)

        drafter.run_head = normed  # type: ignore[method-assign]


@mutant("M59", part="head", source="vllm-project/vllm PR 14464", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class NoResidualStream(Planted):
    """The head's layer returns what its MLP adds, without what it is added to."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        layer = drafter.head.layers[0]
        mlp = layer.mlp
        layer.mlp = lambda x, residual: mlp(x, torch.zeros_like(residual))  # type: ignore[method-assign]


@mutant(
    "M60", part="tree", source="verl-project/verl-SpeCo PR 67", killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT}, law=False
)
class IdsUnmapped(PlantedChildren):
    """Drafted ids are those of the head's own vocabulary: the map to the target's ids is left out."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        pool = grow(features, values, parents)
        return replace(pool, tokens=(pool.tokens + 1) % self.decoder.target.vocab_size)


@mutant("M61", part="speed", source="ggml-org/llama.cpp issue 25345", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class NeverEngages(Planted):
    """The head is loaded and run, and nothing it proposes is verified."""

    def plant_drafter(self, drafter: Eagle2) -> None:
        propose = drafter.propose
        drafter.propose = lambda sequences: [  # type: ignore[method-assign]
            DraftTree.root_only(tree.token(0)) for tree in propose(sequences)
        ]


@mutant("M62", part="speed", source="ohdearquant/lattice PR 509", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class BonusDropped(PlantedBlock):
    """After a whole path was accepted, its bonus token is not emitted: the last drafted token is verified once more."""

    def block(self, block: Block, asked: Asked, coins: Coins) -> Block:  # noqa: ARG002
        whole = block.path and len(block.tokens) > len(block.path) and not asked.tree.children(block.path[-1])
        return replace(block, tokens=block.tokens[:-1], accepted=block.accepted - 1, path=block.path[:-1]) if whole else block
