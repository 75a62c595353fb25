"""Faults of n-gram drafters: prompt lookup, lookahead decoding, Ouroboros."""

from __future__ import annotations

from collections import abc

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.lookahead import LookaheadDrafter, LookaheadState
from eagle2_ref.drafters.ouroboros import OuroborosDrafter
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_COUNT, ONE_DRAFT, TWO_LAYERS
from harness.mutants.planting import MethodFault


@mutant("M111", part="accept", source="ohdearquant/lattice issue 243", killers={"LAW-1": ONE_DRAFT, "GREEDY-1": "plain"})
class FirstCopyUnverified(MethodFault, method="lookup"):
    """The first copied token is emitted without verification; only the tokens after it are judged."""

    def make_rule(self, rule: Rule) -> Rule:
        def trust_first(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
            if first := tree.children(ROOT)[:1]:
                certain = F.one_hot(torch.tensor(tree.token(first[0])), p.shape[1]).to(p)
                p = torch.cat([certain[None], p[1:]])
            return rule(tree, p, coins)

        return trust_first


@mutant("M112", part="tree", source="ggml-org/llama.cpp issue 27852", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class PoolNeverReset(MethodFault, method="lookahead"):
    """A new text starts with the n-gram pool of the previous text, and with its count of processed tokens."""

    class FaultyDrafter(LookaheadDrafter):
        previous: LookaheadState | None = None

        def start(self, sequence: Sequence) -> LookaheadState:
            state = super().start(sequence)
            if self.previous:
                state.pool, state.pooled = self.previous.pool, self.previous.pooled
            self.previous = state
            return state


ALL_ATTENDED = "alipay/PainlessInferenceAcceleration issue 27"


@mutant("M113", part="masks", source=ALL_ATTENDED, killers={"TREE-3": "", "TREE-2": "", "LAW-1": TWO_LAYERS})
class GuessAttendsToWindow(MethodFault, method="lookahead"):
    """The branches of a pass are not masked: a guess attends to the lookahead window."""

    class FaultyTarget(Target):
        def mask(self, cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor | None:
            mask, n, nodes = super().mask(cache, trees), len(trees[0].proposals), len(trees[0])
            if mask is not None and n < nodes:
                mask[:, 1:n, n - nodes :] = True
            return mask


@mutant("M114", part="head cache", source="ikawrakow/ik_llama.cpp PR 1979", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class SmallKeepsRejected(MethodFault, method="ouroboros"):
    """The small model's cache is never rolled back: rejected tokens remain, and the next draft continues after them."""

    class FaultyDrafter(OuroborosDrafter):
        def catch_up(self, sequence: Sequence) -> None:
            if sequence.draft.cache.length < len(sequence.tokens) - 1:  # otherwise the cache would be truncated
                super().catch_up(sequence)


@mutant("M115", part="tree", source="hao-ai-lab/LookaheadDecoding commit eed010d", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class LastTokenPooled(MethodFault, method="lookahead"):
    """In the text that n-grams are collected from, every token of a block is replaced by the block's last token."""

    class FaultyDrafter(LookaheadDrafter):
        def pool_text(self, sequence: Sequence) -> None:
            tokens = sequence.tokens
            last = [tokens[block.start + len(block.tokens) - 1] for block in sequence.blocks for _ in block.tokens]
            sequence.tokens = [*tokens[: sequence.start], *last]
            super().pool_text(sequence)
            sequence.tokens = tokens
