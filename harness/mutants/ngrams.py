"""Faults of n-gram drafters: prompt lookup, lookahead decoding, Ouroboros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.decode import Decoder
from eagle2_ref.model.network import Rows
from eagle2_ref.rules import Accepted
from eagle2_ref.tree import ROOT, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_COUNT, ONE_DRAFT, TWO_LAYERS
from harness.mutants.planting import Drafting


@mutant("M111", part="accept", source="ohdearquant/lattice issue 243", killers={"LAW-1": ONE_DRAFT, "GREEDY-1": "plain"})
class FirstCopyUnverified(Drafting, method="lookup"):
    """The first copied token is emitted without verification; only the tokens after it are judged."""

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
    """A new text starts with the n-gram pool of the previous text, and with its count of processed tokens."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        begin, kept = drafter.begin, dict[str, Any]()

        def beginning(*asked: Any) -> None:
            kept.update({name: value for name, value in vars(drafter).items() if name in ("pool", "_pooled")})
            begin(*asked)
            vars(drafter).update(kept)

        drafter.begin = beginning


ALL_SEEN = "alipay/PainlessInferenceAcceleration issue 27"


@mutant("M113", part="masks", source=ALL_SEEN, killers={"TREE-3": "", "TREE-2": "", "LAW-1": TWO_LAYERS})
class GuessSeesWindow(Drafting, method="lookahead"):
    """The branches of a pass are not masked: a guess attends to the lookahead window."""

    def plant(self, decoder: Decoder) -> None:
        verify, seen = decoder.target.verify, decoder.target._seen

        def unmasked(tree: Tree) -> Rows:
            def all_seen(ancestors: Tensor) -> Tensor:
                ancestors[1 : len(tree.proposals), len(tree.proposals) :] = True
                return seen(ancestors)

            decoder.target._seen = all_seen  # type: ignore[method-assign]
            return verify(tree)

        decoder.target.verify = unmasked  # type: ignore[method-assign]


@mutant("M114", part="head cache", source="ikawrakow/ik_llama.cpp PR 1979", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class SmallKeepsRefused(Drafting, method="ouroboros"):
    """The small model's cache is never rolled back: rejected tokens remain, and the next draft continues after them."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        begin = drafter.begin

        def beginning(*asked: Any) -> None:
            begin(*asked)
            drafter.small.cache.cut = lambda _root: None

        drafter.begin = beginning


@mutant("M115", part="tree", source="hao-ai-lab/LookaheadDecoding commit eed010d", killers={"COUNT-2": GREEDY_COUNT}, law=False)
class LastTokenPooled(Drafting, method="lookahead"):
    """In the text that n-grams are collected from, every token of a block is replaced by the block's last token."""

    def plant(self, decoder: Decoder) -> None:
        drafter: Any = decoder.drafter
        begin, observe, pool = drafter.begin, drafter.observe, drafter._pool_the_text
        lengths: list[int] = []  # of the blocks, the first of which is the prompt's

        def beginning(*asked: Any) -> None:
            lengths.clear()
            begin(*asked)

        def observing(tokens: Sequence[int], features: Tensor) -> None:
            lengths.append(len(tokens))
            observe(tokens, features)

        def pooling() -> None:
            text = drafter.text
            drafter._text = text[: 1 + lengths[0]]
            for n in lengths[1:]:
                drafter._text += [text[len(drafter._text) + n - 1]] * n
            pool()
            drafter._text = text

        drafter.begin, drafter.observe, drafter._pool_the_text = beginning, observing, pooling
