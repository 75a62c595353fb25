"""A decoder whose drafts are drawn, not chosen, and the faults that only such a one can have: a q that is not the drafts' own.

`SampledChain` is the decoder, and as it stands a control. Each mutant overrides one of its methods.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins, Uniform
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.drafters.eagle_base import EagleBase, EagleState
from eagle2_ref.rules import Accepted, exclude
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import ROOT, DraftTree, SampledTree
from harness.implementations.reference import LAW, Engine
from harness.mutants import control, mutant
from harness.mutants.cases import MIN_P, ONE_DRAFT, ONE_LAYER
from harness.mutants.planting import inverted


@control("C06", part="sampled", source="Leviathan et al. 2023, arXiv 2211.17192")
class SampledChain(Engine):
    """Drafts are drawn from q, kept with probability min(1, p/q), and a refused one is made up for from (p - q)+.

    x is drafted and kept with probability min(q, p), and what p lacks then is what (p - q)+ brings, whatever q is; but q must be
    the very law that the drafts were drawn from. That holds over the drafts, not given one: what is emitted after a node depends
    on what was drafted there, so that a bet on the drafted tokens would win against a decoder that is right.
    """

    capabilities = frozenset({*LAW, "blocks", "context", "coins", "budget"})

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        k: int = 1,
        depth: int = 4,
        m: int = 4,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(target, draft, k=k, depth=depth, m=m, dtype=dtype, device=device)
        self.params, self.coins = SamplingParams(), SeededCoins(0)  # type: SamplingParams, Coins
        self.decoder.rule = self.accepted
        if isinstance(self.decoder.drafter, Eagle2):
            self.decoder.drafter = Drawing(self.decoder.drafter, self)

    def law(self, logits: Tensor, text: list[int], **changes: Any) -> Tensor:
        """The head's law [V] after a text, with the sampling parameters of the request."""
        return target_distribution(logits[None], DraftTree.root_only(text[-1]), text, replace(self.params, **changes))[0]

    def drawn_from(self, logits: Tensor, text: list[int]) -> Tensor:
        """What a draft is drawn from."""
        return self.law(logits, text)

    def declared(self, logits: Tensor, text: list[int]) -> Tensor:
        """The q that the rule is told."""
        return self.law(logits, text)

    def draw(self, q: Tensor, level: int) -> int:  # noqa: ARG002
        return self.coins.categorical(q)

    def remainder(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        """The law of the token that makes up for a refused x."""
        lacking = (p - q).clamp(min=0)
        return lacking / lacking.sum()

    def recovered(self, r: Tensor, coin: Uniform, level: int) -> int:  # noqa: ARG002
        return self.coins.categorical(r)

    def accepted(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        """Keep drafts up to the first refused one: x with probability p(x) / q(x), p and q after what stands before it."""
        path: list[int] = []
        for node, child in enumerate(range(1, len(tree))):
            x, coin, q = tree.token(child), coins.uniform(), tree.q[node]
            if not coin < p[node, x] / q[x]:
                return Accepted(path, self.recovered(self.remainder(p[node], q, x), coin, node))
            path.append(child)
        return Accepted(path, coins.categorical(p[-1]))


class Drawing(EagleBase):
    """The head as an ordinary drafter: it is asked for a law, a token is drawn, and the head goes on behind it."""

    tree_type = SampledTree

    def __init__(self, head: Eagle2, chain: SampledChain) -> None:
        self.chain, self.depth = chain, min(head.budget.depth, head.budget.m)
        super().__init__(head.head, head.lm_head)

    def start(self, sequence: Text) -> EagleState:
        self.chain.params, self.chain.coins = sequence.params, sequence.coins
        return super().start(sequence)

    @torch.inference_mode()
    def propose_one(self, sequence: Text) -> SampledTree:
        depth, cache = min(sequence.max_depth, self.depth), sequence.draft.cache
        text = list(sequence.tokens)
        if depth < 1:
            return SampledTree.root_only(text[-1])
        feature, kept, q = self.catch_up([sequence]), cache.length, []
        device = feature.device
        for level in range(depth):
            logits = self.lm_head(feature)[0, 0]
            q.append(self.chain.declared(logits, text))
            text.append(int(self.chain.draw(self.chain.drawn_from(logits, text), level)))
            token, position = torch.tensor([text[-1:]], device=device), torch.tensor([[kept + level]], device=device)
            feature = self.run_head(cache, token, feature, position, None)
            cache.length += 1
        cache.length = kept
        return SampledTree(torch.tensor(text[-depth - 1 :]), torch.arange(-1, depth), torch.stack([*q, torch.zeros_like(q[0])]))


# --- q is not what the drafts were drawn from ----------------------------------------------------------------------


@mutant("M70", part="q", source="huggingface/transformers issue 32867", killers={"LAW-1": ONE_DRAFT})
class GreedyDrafts(SampledChain):
    """The drafter takes its likeliest token, and q is its softmax."""

    def draw(self, q: Tensor, level: int) -> int:  # noqa: ARG002
        return int(q.argmax())


@mutant("M71", part="q", source="huggingface/transformers issue 47932", killers={"LAW-1": ONE_DRAFT})
class RawQ(SampledChain):
    """Drafts are drawn from what top-k leaves, and q is the softmax of raw logits."""

    def drawn_from(self, logits: Tensor, text: list[int]) -> Tensor:
        return self.law(logits, text, top_k=2)

    def declared(self, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return logits.softmax(-1)


@mutant("M72", part="q", source="deepseek-ai/DeepSpec issue 31", killers={"LAW-1": ONE_DRAFT})
class RoundedDrafts(SampledChain):
    """Drafts are drawn from a softmax in bfloat16, and q is computed in full precision."""

    def drawn_from(self, logits: Tensor, text: list[int]) -> Tensor:
        rounded = self.law(logits, text).bfloat16().to(logits)
        return rounded / rounded.sum()


@mutant("M73", part="q", source="huggingface/transformers PR 28166", killers={"LAW-1": ONE_LAYER})
class UnprocessedDrafts(SampledChain):
    """The drafter is not passed the sampling parameters: it draws at temperature 1, and q is what it should have drawn from."""

    def drawn_from(self, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return logits.softmax(-1)


@mutant("M78", part="q", source="alibaba/rtp-llm PR 1311", killers={"LAW-1": ONE_DRAFT})
class QInDraftIds(SampledChain):
    """q is numbered as the draft vocabulary is, here backwards, and read at the target's ids."""

    def declared(self, logits: Tensor, text: list[int]) -> Tensor:
        return self.law(logits, text).flip(-1)


@control("C08", part="sampled", source="vllm-project/vllm issue 40149")
class CertainDrafts(SampledChain):
    """No q is handed to the rule: drafts that were drawn are judged as if each had been certain.

    Given x, whatever it was drawn from, to keep it with probability p(x) and else to draw from p without x is a draw from p. It
    keeps fewer drafts than p/q would.
    """

    def declared(self, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return torch.ones_like(logits)

    def remainder(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        return exclude(p, x)


# --- what makes up for a refused draft -----------------------------------------------------------------------------


@mutant("M74", part="residual", source="vllm-project/vllm PR 46665", killers={"LAW-1": ONE_DRAFT})
class SmallQLost(SampledChain):
    """The residual is computed as p (1 - q/p) with a rounded 1 - q/p, so that a q that is small beside p is not subtracted."""

    def remainder(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        r = p * (1 - q / p.clamp(min=1e-30)).bfloat16().clamp(min=0)
        return r / r.sum()


@mutant("M75", part="residual", source="SafeAILab/EAGLE commit 2f982e2", killers={"LAW-1": ONE_DRAFT})
class OnlyTheRefused(SampledChain):
    """Of p only the refused token's share is reduced to (p - q)+; the others keep theirs."""

    def remainder(self, p: Tensor, q: Tensor, x: int) -> Tensor:
        r = p.clone()
        r[x] = (p[x] - q[x]).clamp(min=0)
        return r / r.sum()


@mutant("M77", part="randomness", source="vllm-project/vllm PR 47386", killers={"LAW-1": ONE_DRAFT})
class OneNoise(SampledChain):
    """The noise that picked a draft picks the token that makes up for it; acceptance is as it should be."""

    def draw(self, q: Tensor, level: int) -> int:
        self.noise = [*(self.noise if level else []), self.coins.uniform()]
        return inverted(q, self.noise[-1])

    def recovered(self, r: Tensor, coin: Uniform, level: int) -> int:  # noqa: ARG002
        return inverted(r, self.noise[level])

    noise: list[Uniform]


@mutant("M18", part="randomness", source="vllm-project/vllm-ascend PR 16370", killers={"LAW-1": ONE_DRAFT})
class CoinTwice(SampledChain):
    """The coin that refused a draft picks the token that makes up for it: it lies above p/q, not anywhere in [0, 1)."""

    def recovered(self, r: Tensor, coin: Uniform, level: int) -> int:  # noqa: ARG002
        return inverted(r, coin)


@mutant("M76", part="accept", source="huggingface/transformers PR 28508", killers={"LAW-1": MIN_P})
class MatchesCounted(SampledChain):
    """As many drafts are kept as coins came up, also those behind the first refusal."""

    def accepted(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        path = list(range(1, len(tree)))
        kept = path[: sum(coins.uniform() < (p[i - 1] / tree.q[i - 1])[tree.token(i)] for i in path)]
        n = len(kept)
        r = p[n] if kept == path else self.remainder(p[n], tree.q[n], tree.token(n + 1))
        return Accepted(kept, coins.categorical(r))


# --- blocks judged as a whole --------------------------------------------------------------------------------------


@control("C07", part="sampled", source="Sun et al. 2024, arXiv 2403.10444")
class BlockVerification(SampledChain):
    """A draft is kept although an earlier one was refused, if the block as a whole is likely enough.

    w = min(1, w p/q), carried from draft to draft, is what is left of the block's weight; the longest beginning whose coin comes
    up is kept, and what makes up for the rest comes from (w p - q)+. That is exact, and keeps more than token by token.
    """

    def accepted(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        path, weight, kept = list(range(1, len(tree))), 1.0, 1.0
        best = ROOT
        for node in path:
            x, last = tree.token(node), node == path[-1]
            weight = min(1.0, weight * float(p[node - 1, x] / tree.q[node - 1, x]))
            lacking = float((weight * p[node] - tree.q[node]).clamp(min=0).sum()) if not last else 0.0
            odds = weight if last else lacking / (lacking + 1 - weight) if lacking else 0.0
            if coins.uniform() < odds:
                best, kept = node, weight
        if best == len(path):
            return Accepted(path, coins.categorical(p[best]))
        return Accepted(path[:best], coins.categorical(self.rest(kept, p[best], tree.q[best])))

    def rest(self, weight: float, p: Tensor, q: Tensor) -> Tensor:
        """The law of what follows the longest beginning that was kept."""
        return self.remainder(weight * p, q, 0)


@mutant("M79", part="residual", source="vllm-project/vllm-ascend issue 7807", killers={"LAW-1": MIN_P})
class TokensRemainder(BlockVerification):
    """Blocks are judged as a whole, and what makes up for a refusal is that of the token-wise rule."""

    def rest(self, weight: float, p: Tensor, q: Tensor) -> Tensor:  # noqa: ARG002
        return self.remainder(p, q, 0)
