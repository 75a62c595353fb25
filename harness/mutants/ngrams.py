"""Faults of drafters that draft n-grams: prompt lookup, lookahead decoding, Ouroboros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.model.cache import KVCache
from eagle2_ref.rules import Accepted
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import ROOT, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_COUNT, ONE_DRAFT, TWO_LAYERS
from harness.mutants.planting import Drafting


@mutant("M111", part="accept", source="ohdearquant/lattice issue 243", killers={"LAW-1": ONE_DRAFT, "GREEDY-1": "plain"})
class FirstCopyUnverified(Drafting, method="lookup"):
    """The first of the copied tokens is emitted without being compared; only what follows it is judged."""

    def plant(self, decoder: Decoder) -> None:
        rule = decoder.rule

        def trusting(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
            if first := tree.children(ROOT)[:1]:
                certain = F.one_hot(torch.tensor(tree.token(first[0])), p.shape[1]).to(p)
                p = torch.cat([certain[None], p[1:]])
            return rule(tree, p, coins)

        decoder.rule = trusting


@mutant("M112", part="tree", source="ggml-org/llama.cpp issue 27852", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class PoolNeverReset(Drafting, method="lookahead"):
    """A new text begins with the guesses of the one before, and with its count of the tokens that were looked at."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        start, before = drafter.start, list[Any]()

        def starting(sequence: Text) -> Any:
            state = start(sequence)
            if before:
                state.pool, state.pooled = before[0].pool, before[0].pooled
            before[:] = [state]
            return state

        drafter.start = starting


ALL_SEEN = "alipay/PainlessInferenceAcceleration issue 27"


@mutant("M113", part="masks", source=ALL_SEEN, killers={"TREE-3": "", "TREE-2": "", "LAW-1": TWO_LAYERS})
class GuessSeesWindow(Drafting, method="lookahead"):
    """The branches of a pass have no mask: a guess sees the lookahead window that rides with it."""

    def plant(self, decoder: Decoder) -> None:
        mask = decoder.target.mask

        def unmasked(cache: KVCache, trees: Sequence[Tree]) -> Tensor | None:
            given, n = mask(cache, trees), len(trees[0].proposals)
            if given is not None:
                given[0, 1:n, cache.length + n :] = True
            return given

        decoder.target.mask = unmasked  # type: ignore[method-assign]


@mutant("M114", part="head cache", source="ikawrakow/ik_llama.cpp PR 1979", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class SmallKeepsRefused(Drafting, method="ouroboros"):
    """The small model's cache is never rolled back: what was refused stays, and its next draft goes on behind it."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        start = drafter.start

        def starting(sequence: Text) -> Any:
            state = start(sequence)
            state.cache.truncate = lambda _root: None
            return state

        drafter.start = starting


@mutant("M115", part="tree", source="hao-ai-lab/LookaheadDecoding commit eed010d", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class LastTokenPooled(Drafting, method="lookahead"):
    """Of a block of several tokens the last is noted for each of them, in the text that guesses are taken from."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        pool = drafter.pool_text

        def pooling(sequence: Text) -> None:
            text = sequence.tokens
            sequence.tokens = text[: sequence.start + 1]
            for block in sequence.blocks[1:]:
                n = len(block.tokens)
                sequence.tokens += [text[len(sequence.tokens) + n - 1]] * n
            pool(sequence)
            sequence.tokens = text

        drafter.pool_text = pooling
