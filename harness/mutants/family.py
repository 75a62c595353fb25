"""Faults of other drafting methods and their rules: EAGLE, Medusa and a small draft model."""

from __future__ import annotations

from collections import abc
from dataclasses import replace

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle import EagleDrafter
from eagle2_ref.drafters.small_model import SmallModelState, SpeculativeDrafter
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.rules import Accepted, Rule, reject
from eagle2_ref.sequence import Block, Sequence
from eagle2_ref.tree import ROOT, SampledTree, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_COUNT, ONE_LAYER
from harness.mutants.planting import MethodFault, faulty_sampled

# --- EAGLE -----------------------------------------------------------------------------------------------------------


@mutant("M116", part="bonus", source="SafeAILab/EAGLE commit bf10ac5", killers={"LAW-1": ONE_LAYER})
class RawBonus(MethodFault, method="eagle"):
    """After a fully accepted path, the bonus token is sampled from the softmax of raw logits."""

    class FaultyDecoder(Decoder):
        def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            p, scores = super().target_distribution(sequence, tree, logits)
            if sequence.params.temperature:
                leaves = [node for node in range(1, len(tree)) if not tree.children(node)]
                p = p.clone()
                p[leaves] = logits[leaves].softmax(-1).to(p)
            return p, scores


@mutant("M118", part="q", source="SafeAILab/EAGLE issue 110", killers={"LAW-1": ONE_LAYER})
class ChosenJudgedAsSampled(MethodFault, method="eagle"):
    """The head's most likely tokens are drafted, but judged by p/q as if they were sampled from its softmax."""

    class FaultyDrafter(EagleDrafter):
        def children(self, sequence: Sequence, q: Tensor, n: int) -> list[int]:  # noqa: ARG002
            best: list[int] = q.topk(min(n, int((q > 0).sum()))).indices.tolist()
            return best


@mutant("M119", part="tree", source="ikawrakow/ik_llama.cpp PR 1820", killers={"LAW-1": ONE_LAYER})
class UnlikelySamplesDropped(MethodFault, method="eagle"):
    """Sampled draft tokens of low probability are left out of the tree."""

    class FaultyDrafter(EagleDrafter):
        def children(self, sequence: Sequence, q: Tensor, n: int) -> list[int]:
            tokens = super().children(sequence, q, n)
            return [token for token in tokens if q[token] > 0.2] if sequence.params.temperature else tokens


@mutant("M120", part="tree", source="SafeAILab/EAGLE commit 2d2d039", killers={"TREE-1": ""})
class SampledWithReplacement(MethodFault, method="eagle"):
    """Siblings are sampled with replacement, repetitions included, but judged as if each had been removed from q."""

    class FaultyDrafter(EagleDrafter):
        def children(self, sequence: Sequence, q: Tensor, n: int) -> list[int]:
            if not sequence.params.temperature:
                return super().children(sequence, q, n)
            return [int(sequence.draft.coins.categorical(q)) for _ in range(n)]


@mutant("M122", part="residual", source="SafeAILab/EAGLE issue 74", killers={"LAW-1": ONE_LAYER, "THEORY-2": ""})
class SiblingsAsFirst(MethodFault, method="eagle"):
    """Every sibling is judged by the q of the first one, which still contains the earlier siblings."""

    def make_rule(self, rule: Rule) -> Rule:
        as_first = faulty_sampled(then=lambda q, _x: q)
        return lambda tree, p, coins: (as_first if isinstance(tree, SampledTree) else rule)(tree, p, coins)


# --- Medusa ----------------------------------------------------------------------------------------------------------


@mutant("M117", part="accept", source="FasterDecoding/Medusa commit 0ac14da", killers={"LAW-1": ONE_LAYER})
class EveryPathSampled(MethodFault, method="medusa"):
    """Each path is sampled on its own and accepted up to its first mismatch; after the longest, a token is sampled afresh.

    This is the published mode `nucleus`: a sample that does not match is discarded, and a prefix that several paths share is
    sampled for each of them.
    """

    def make_rule(self, rule: Rule) -> Rule:  # noqa: ARG002
        return longest_match


def longest_match(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
    leaves = [node for node in range(len(tree)) if not tree.children(node)]
    path = max((matching_prefix(tree, leaf, p, coins) for leaf in leaves), key=len)
    return Accepted(path, coins.categorical(p[path[-1] if path else ROOT]))


def matching_prefix(tree: Tree, leaf: int, p: Tensor, coins: Coins) -> list[int]:
    """The nodes of a path up to the first that differs from a fresh sample."""
    prefix = list[int]()
    for node in tree.path(leaf):
        if not coins.uniform() < p[tree.parent(node), tree.token(node)]:
            break
        prefix.append(node)
    return prefix


@mutant("M124", part="head", source="vllm-project/vllm PR 17956", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class FeatureOfTheLastRow(MethodFault, method="medusa"):
    """The heads read the feature of the tree's last node instead of the last accepted token's."""

    class FaultyDecoder(Decoder):
        def observe(self, sequence: Sequence, block: Block, output: ModelOutput) -> None:
            features = output.features[-1:].expand_as(output.features)
            super().observe(sequence, block, replace(output, features=features))


# --- small draft model -----------------------------------------------------------------------------------------------


class LossyState(SmallModelState):
    """lost: number of tokens of the text that the cache lacks."""

    lost = 0


@mutant("M121", part="cache", source="lablup/mlxcel issue 994", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class CacheRewoundTooFar(MethodFault, method="speculative"):
    """After a rejection, the small model's cache loses two entries too many, which are not recomputed."""

    class FaultyDrafter(SpeculativeDrafter):
        def start(self, sequence: Sequence) -> LossyState:
            return LossyState(self.small.cache(), sequence.coins.split())

        def propose_one(self, sequence: Sequence) -> SampledTree:
            state: LossyState = sequence.draft
            entries = len(sequence.tokens) - 1 - state.lost
            if state.cache.length > entries:
                state.lost += min(2, entries)
                state.cache.truncate(max(0, entries - 2))
            return super().propose_one(sequence)

        def distribution(self, sequence: Sequence, text: abc.Sequence[int]) -> Tensor:
            state: LossyState = sequence.draft
            end = state.cache.length
            return super().distribution(sequence, [*text[:end], *text[end + state.lost :]])


@mutant("M125", part="accept", source="vllm-project/vllm issue 40149", killers={"THEORY-3": "", "THEORY-2": ""}, law=False)
class JudgedAsCertain(MethodFault, method="speculative"):
    """The rule does not use the small model's q: a draft token is accepted with probability p, as if it were certain."""

    def make_rule(self, rule: Rule) -> Rule:  # noqa: ARG002
        return reject


@mutant("M123", part="q", source="huggingface/transformers PR 28166", killers={"LAW-1": ONE_LAYER})
class DraftsAtOne(MethodFault, method="speculative"):
    """The small model samples at temperature 1, but q is its distribution at the temperature of the request."""

    class FaultyDrafter(SpeculativeDrafter):
        def propose_one(self, sequence: Sequence) -> SampledTree:
            params = sequence.params
            sequence.params = replace(params, temperature=1.0 if params.temperature else 0.0)
            tree = super().propose_one(sequence)
            sequence.params = params
            q = torch.where(tree.q > 0, tree.q.log() / (params.temperature or 1.0), -torch.inf).softmax(-1)
            return replace(tree, q=q)
