"""Faults that only another method than EAGLE-2 can have: of the drafts of EAGLE, Medusa and a small model, and of their rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle import EagleDrafter
from eagle2_ref.drafters.small_model import SmallModelState, SpeculativeDrafter
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.rules import Accepted, exclude, reject, residual
from eagle2_ref.sampling import draft_scores, probabilities
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import ROOT, SampledTree, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_COUNT, ONE_LAYER
from harness.mutants.planting import Drafting


class EagleChildren(Drafting, method="eagle"):
    """The children of a node come about otherwise: n tokens for a law q."""

    def children(self, q: Tensor, n: int, coins: Coins) -> list[int]:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        drafter = decoder.drafter
        assert isinstance(drafter, EagleDrafter)
        greedily = drafter.children

        def otherwise(sequence: Text, q: Tensor, n: int) -> list[int]:
            if sequence.params.temperature:
                return self.children(q, n, sequence.draft.coins)
            return greedily(sequence, q, n)

        drafter.children = otherwise  # type: ignore[method-assign]


# --- EAGLE -----------------------------------------------------------------------------------------------------------


@mutant("M116", part="bonus", source="SafeAILab/EAGLE commit bf10ac5", killers={"LAW-1": ONE_LAYER})
class RawBonus(Drafting, method="eagle"):
    """Behind a path that was accepted whole, the bonus token is drawn from the softmax of raw logits."""

    def plant(self, decoder: Decoder) -> None:
        original = decoder.target_distribution

        def raw(sequence: Text, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            p, scores = original(sequence, tree, logits)
            leaves = [node for node in range(1, len(tree)) if not tree.children(node)] if sequence.params.temperature else []
            p = p.clone()
            p[leaves] = logits[leaves].softmax(-1).to(p)
            return p, scores

        decoder.target_distribution = raw  # type: ignore[method-assign]


@mutant("M118", part="q", source="SafeAILab/EAGLE issue 110", killers={"LAW-1": ONE_LAYER})
class ChosenJudgedAsDrawn(EagleChildren):
    """The head's likeliest tokens are drafted, and judged by p/q as if they had been drawn from its softmax."""

    def children(self, q: Tensor, n: int, coins: Coins) -> list[int]:  # noqa: ARG002
        best: list[int] = q.topk(min(n, int((q > 0).sum()))).indices.tolist()
        return best


@mutant("M119", part="tree", source="ikawrakow/ik_llama.cpp PR 1820", killers={"LAW-1": ONE_LAYER})
class DrawsDropped(EagleChildren):
    """Of the tokens that were drawn those of little probability are left out of the tree."""

    def children(self, q: Tensor, n: int, coins: Coins) -> list[int]:
        return [token for token in drawn_apart(q, n, coins) if q[token] > 0.2]


def drawn_apart(q: Tensor, n: int, coins: Coins) -> list[int]:
    """n draws that differ."""
    tokens, left = list[int](), q
    for _ in range(min(n, int((q > 0).sum()))):
        tokens.append(int(coins.categorical(left)))
        left = exclude(left, tokens[-1])
    return tokens


@mutant("M120", part="tree", source="SafeAILab/EAGLE commit 2d2d039", killers={"TREE-1": ""})
class DrawnWithReplacement(EagleChildren):
    """Siblings are drawn with replacement, the same token twice too, and judged as if each had been taken out of q."""

    def children(self, q: Tensor, n: int, coins: Coins) -> list[int]:
        return [int(coins.categorical(q)) for _ in range(n)]


@mutant("M122", part="residual", source="SafeAILab/EAGLE issue 74", killers={"LAW-1": ONE_LAYER, "THEORY-2": ""})
class SiblingsAsFirst(Drafting, method="eagle"):
    """Every sibling is judged by the law that the first was drawn from, in which the earlier ones still have their share."""

    def plant(self, decoder: Decoder) -> None:
        rule = decoder.rule

        def judged(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
            return as_first(tree, p, coins) if isinstance(tree, SampledTree) else rule(tree, p, coins)

        decoder.rule = judged


def as_first(tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
    path: list[int] = []
    node = ROOT
    while True:
        r, q = p[node], tree.q[node]
        for child in tree.children(node):
            x = tree.token(child)
            if coins.uniform() < r[x] / q[x]:
                break
            r = residual(r, q)
        else:
            return Accepted(path, coins.categorical(r))
        path.append(child)
        node = child


# --- Medusa ----------------------------------------------------------------------------------------------------------


@mutant("M117", part="accept", source="FasterDecoding/Medusa commit 0ac14da", killers={"LAW-1": ONE_LAYER})
class EveryRowDraws(Drafting, method="medusa"):
    """Each path draws for itself and keeps what matches; behind the longest, one more token is drawn afresh.

    That is the published mode `nucleus`: a miss is thrown away, and a prefix that paths share is drawn for each of them.
    """

    def plant(self, decoder: Decoder) -> None:
        def judged(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
            leaves = [node for node in range(len(tree)) if not tree.children(node)]
            kept = max((matching(tree, leaf, p, coins) for leaf in leaves), key=len)
            return Accepted(kept, coins.categorical(p[kept[-1] if kept else ROOT]))

        decoder.rule = judged


def matching(tree: Tree, leaf: int, p: Tensor, coins: Coins) -> list[int]:
    """How far fresh draws go along a path."""
    kept = list[int]()
    for node in tree.path(leaf):
        if not coins.uniform() < p[tree.parent(node), tree.token(node)]:
            break
        kept.append(node)
    return kept


@mutant("M124", part="head", source="vllm-project/vllm PR 17956", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class FeatureOfTheLastRow(Drafting, method="medusa"):
    """The heads read the feature of the tree's last row, not of the token that was accepted last."""

    def plant(self, decoder: Decoder) -> None:
        def observe(sequence: Text, block: Block, output: ModelOutput) -> None:
            assert decoder.drafter
            decoder.drafter.observe(sequence, block.tokens[-1:], output.features[-1:])

        decoder.observe = observe  # type: ignore[method-assign]


# --- a small model ---------------------------------------------------------------------------------------------------


@mutant("M121", part="cache", source="lablup/mlxcel issue 994", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class CacheRewoundTooFar(Drafting, method="speculative"):
    """After a refusal the small model's cache is rewound by two entries too many, and what they held is not read again."""

    def plant(self, decoder: Decoder) -> None:
        decoder.drafter.__class__ = Forgetful


class Forgetful(SpeculativeDrafter):
    """Its cache has fewer entries than the text has tokens, by `lost`."""

    def start(self, sequence: Text) -> SmallModelState:
        state = super().start(sequence)
        state.lost = 0  # type: ignore[attr-defined]
        return state

    def propose_one(self, sequence: Text) -> SampledTree:
        state = sequence.draft
        entries = len(sequence.tokens) - 1 - state.lost
        if state.cache.length > entries:
            state.lost += min(2, entries)
            state.cache.truncate(max(0, entries - 2))
        return super().propose_one(sequence)

    def distribution(self, sequence: Text, text: Sequence[int]) -> Tensor:
        state = sequence.draft
        start, known = state.cache.length, state.cache.length + state.lost
        positions = torch.arange(start, len(text) - state.lost)
        rows = self.small(torch.tensor([text[known:]]), positions[None], None, state.cache, True)
        state.cache.keep(range(len(text) - known))
        state.passes += 1
        return probabilities(draft_scores(rows.logits[0], [text], sequence.params), sequence.params)[0]


@mutant("M125", part="accept", source="vllm-project/vllm issue 40149", killers={"THEORY-3": "", "THEORY-2": ""}, law=False)
class JudgedAsCertain(Drafting, method="speculative"):
    """The small model's q is not handed on: a draft is kept with probability p, as if it had been certain, not p/q."""

    def plant(self, decoder: Decoder) -> None:
        decoder.rule = reject


@mutant("M123", part="q", source="huggingface/transformers PR 28166", killers={"LAW-1": ONE_LAYER})
class DraftsAtOne(Drafting, method="speculative"):
    """The small model draws at temperature 1, and q is its law at the temperature of the request."""

    def plant(self, decoder: Decoder) -> None:
        decoder.drafter.__class__ = Warmer


class Warmer(SpeculativeDrafter):
    """Of the tokens that it draws it tells another law."""

    def propose_one(self, sequence: Text) -> SampledTree:
        asked = sequence.params
        sequence.params = replace(asked, temperature=1.0 if asked.temperature else 0.0)
        tree = super().propose_one(sequence)
        sequence.params = asked
        told = torch.where(tree.q > 0, tree.q.log() / (asked.temperature or 1.0), -torch.inf).softmax(-1)
        return replace(tree, q=told)
