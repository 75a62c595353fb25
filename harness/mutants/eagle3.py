"""Faults of EAGLE-3, and of draft vocabularies that lack tokens of the target (EAGLE-3's d2t, FR-Spec)."""

from __future__ import annotations

from collections import abc

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.drafters.eagle3 import Eagle3Drafter
from eagle2_ref.drafters.eagle_head import FusedEagle3Head
from eagle2_ref.model.cache import StackedKVCache
from eagle2_ref.model.llama import rms_norm
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule, exclude
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import DraftTree
from harness.mutants import mutant
from harness.mutants.cases import FOUR_BEST, GREEDY_COUNT, ONE_LAYER
from harness.mutants.planting import Fault, MethodFault, faulty_reject


def draft_ids(drafter: Eagle2, tokens: Tensor) -> Tensor:
    """The draft tokens of target tokens, whose vocabulary is in ascending order."""
    assert drafter.vocabulary is not None
    return torch.searchsorted(drafter.vocabulary, tokens)


# --- EAGLE-3 ---------------------------------------------------------------------------------------------------------


@mutant("M129", part="head", source="vllm-project/vllm PR 43671", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class StatesOfOtherLayers(MethodFault, method="eagle3"):
    """The states are those before the layers one below the named ones."""

    class FaultyTarget(Target):
        def reading(self, layers: tuple[int, ...]) -> Target:  # type: ignore[override]
            return super().reading(tuple(max(0, layer - 1) for layer in layers))


@mutant("M130", part="head", source="ROCm/ATOM PR 882", killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT}, law=False)
class NormedStateRecycled(MethodFault, method="eagle3"):
    """In the tree the head reads its own state after the norm of its LM head, not before it."""

    class FaultyDrafter(Eagle3Drafter):
        def run_head(
            self, cache: StackedKVCache, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None
        ) -> Tensor:
            assert isinstance(self.head, FusedEagle3Head)
            if mask is not None:
                features = rms_norm(features.flatten(0, 1), self.head.norm, self.head.config.rms_norm_eps).view_as(features)
            return super().run_head(cache, tokens, features, positions, mask)


@mutant(
    "M131",
    part="tree",
    source="NVIDIA-NeMo/Automodel PR 2447",
    killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT},
    law=False,
)
class OffsetsIgnored(MethodFault, method="eagle3"):
    """d2t is not applied: draft tokens are proposed as if they were tokens of the target."""

    class FaultyDrafter(Eagle3Drafter):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            pool = super().children(features, values, parents)
            return Pool(draft_ids(self, pool.tokens), pool.parents, pool.values)


@mutant("M132", part="tree", source="mlc-ai/mlc-llm PR 2949", killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT}, law=False)
class OffsetsShifted(MethodFault, method="eagle3"):
    """A draft token is mapped by the d2t of the next one."""

    class FaultyDrafter(Eagle3Drafter):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            pool = super().children(features, values, parents)
            assert self.vocabulary is not None
            tokens = self.vocabulary.roll(-1)[draft_ids(self, pool.tokens)]
            return Pool(tokens, pool.parents, pool.values)


@mutant(
    "M133",
    part="head",
    source="vllm-project/vllm-ascend PR 16166",
    killers={"TREE-4": FOUR_BEST, "COUNT-2": GREEDY_COUNT},
    law=False,
)
class DraftIdsEmbedded(MethodFault, method="eagle3"):
    """Proposals are mapped by d2t, but the head embeds its draft tokens without it."""

    class FaultyDrafter(Eagle3Drafter):
        def run_head(
            self, cache: StackedKVCache, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None
        ) -> Tensor:
            tokens = tokens if mask is None else draft_ids(self, tokens)
            return super().run_head(cache, tokens, features, positions, mask)


@mutant("M134", part="head", source="sgl-project/sglang issue 10059", killers={"CACHE-2": "", "TREE-4": FOUR_BEST}, law=False)
class StatesLate(MethodFault, method="eagle3"):
    """The head reads each token with the states of one position earlier."""

    class FaultyDrafter(Eagle3Drafter):
        def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
            super().observe(sequence, tokens, torch.cat([features[:1], features[:-1]]))


@mutant("M135", part="head", source="vllm-project/vllm-ascend PR 9795", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class LmHeadOfTarget(MethodFault, method="eagle3"):
    """The head's own LM head is replaced by the target's, whose first rows do not belong to the draft vocabulary."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        if isinstance(drafter, Eagle3Drafter) and drafter.vocabulary is not None:
            drafter.lm_head = target.network.lm_head_of(torch.arange(len(drafter.vocabulary)))
        return super().make_decoder(target, drafter, rule)


# --- FR-Spec ---------------------------------------------------------------------------------------------------------


class RestrictedFault(Fault):
    """EAGLE-2 that can propose all tokens but token 0."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        if isinstance(drafter, Eagle2):
            vocabulary = torch.arange(1, target.vocab_size)
            drafter = Eagle2(drafter.head, target.network.lm_head_of(vocabulary), drafter.budget, vocabulary)
        return super().make_decoder(target, drafter, rule)


@mutant("M136", part="tree", source="sgl-project/sglang PR 3822", killers={"TREE-4": FOUR_BEST}, law=False)
class RankingInOtherOrder(RestrictedFault):
    """Draft tokens are mapped by the ranking in another order than that of the rows of the LM head."""

    class FaultyDrafter(Eagle2):
        def children(self, features: Tensor, values: Tensor, parents: Tensor) -> Pool:
            pool = super().children(features, values, parents)
            assert self.vocabulary is not None
            return Pool(self.vocabulary.flip(0)[draft_ids(self, pool.tokens)], pool.parents, pool.values)


@mutant("M137", part="residual", source="xLLM-AI/xllm PR 2175", killers={"LAW-1": ONE_LAYER})
class ResidualOfDraftVocabulary(RestrictedFault):
    """After a rejection, the residual has no probability outside the draft vocabulary."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:  # noqa: ARG002
        def restricted(r: Tensor, x: int) -> Tensor:
            rest = exclude(r, x)
            return exclude(rest, 0) if rest[0] < 1 else rest

        return super().make_decoder(target, drafter, _rejecting(restricted))


@mutant("M138", part="residual", source="sgl-project/sglang issue 4328", killers={"LAW-1": ONE_LAYER})
class DraftIdExcluded(RestrictedFault):
    """After a rejection, the token with the id of the draft token is taken out of the residual, not the token itself."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:  # noqa: ARG002
        def by_draft_id(r: Tensor, x: int) -> Tensor:
            return exclude(r, x - 1) if r[x - 1] < 1 else r

        return super().make_decoder(target, drafter, _rejecting(by_draft_id))


def _rejecting(residual: abc.Callable[[Tensor, int], Tensor]) -> Rule:
    def rule(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
        return Accepted(*faulty_reject(tree, p, coins, residual=residual))

    return rule
