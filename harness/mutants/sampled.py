"""A decoder that samples its drafts (a control), and faults that only such a decoder can have.

Each mutant overrides one method of `SampledChain`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle import SamplingState
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.drafters.eagle_base import EagleBase
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule, exclude
from eagle2_ref.sampling import target_distribution
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, SampledTree
from harness.implementations.reference import LAW, Engine
from harness.mutants import control, mutant
from harness.mutants.cases import MIN_P, ONE_DRAFT, ONE_LAYER
from harness.mutants.planting import invert


@control("C06", part="sampled", source="Leviathan et al. 2023, arXiv 2211.17192")
class SampledChain(Engine):
    """Draft tokens are sampled from q, accepted with probability min(1, p/q), and a rejected one is replaced from (p - q)+.

    Right: x is drafted and accepted with probability min(q, p), and (p - q)+ supplies the rest of p. This holds for any q, but q
    must be the distribution that the draft tokens were sampled from. It holds on average over the drafts, not for a given draft:
    the token after a node depends on what was drafted there, so that a bet on the draft tokens wins against a correct decoder.
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

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:  # noqa: ARG002
        chain = ChainDrafter(drafter, self) if isinstance(drafter, Eagle2) else None
        return super().make_decoder(target, chain, self.accept)

    def head_distribution(self, sequence: Sequence, logits: Tensor, text: list[int], **changes: Any) -> Tensor:
        """The head's distribution [V] after a text, with the sampling parameters of the request."""
        params = replace(sequence.params, **changes)
        return target_distribution(logits[None], DraftTree.root_only(text[-1]), text, params)[0]

    def sampled_from(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:
        """The distribution that a draft token is sampled from."""
        return self.head_distribution(sequence, logits, text)

    def declared(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:
        """The q that the rule uses."""
        return self.head_distribution(sequence, logits, text)

    def draft_token(self, q: Tensor, coins: Coins, level: int) -> int:  # noqa: ARG002
        return coins.categorical(q)

    def residual(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        """The distribution of the token that replaces a rejected x."""
        rest = (p - q).clamp(min=0)
        return rest / rest.sum()

    def recovered(self, r: Tensor, coins: Coins, u: Uniform, level: int) -> int:  # noqa: ARG002
        """The token that replaces a draft token, which was rejected by the uniform number u."""
        return coins.categorical(r)

    def accept(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        """Accept draft tokens up to the first rejection, each with probability p(x) / q(x)."""
        path: list[int] = []
        for node, child in enumerate(range(1, len(tree))):
            x, u, q = tree.token(child), coins.uniform(), tree.q[node]
            if not u < p[node, x] / q[x]:
                return Accepted(path, self.recovered(self.residual(p[node], q, x), coins, u, node))
            path.append(child)
        return Accepted(path, coins.categorical(p[-1]))


class ChainDrafter(EagleBase):
    """EAGLE's head as an ordinary draft model: it drafts one sampled token after the other."""

    tree_type = SampledTree

    def __init__(self, eagle: Eagle2, chain: SampledChain) -> None:
        super().__init__(eagle.head, eagle.lm_head)
        self.chain, self.depth = chain, min(eagle.budget.depth, eagle.budget.m)

    def start(self, sequence: Sequence) -> SamplingState:
        return SamplingState(self.head.cache(), sequence.coins.split())

    @torch.inference_mode()
    def propose_one(self, sequence: Sequence) -> SampledTree:
        depth, state = min(sequence.max_depth, self.depth), sequence.draft
        text = list(sequence.tokens)
        if depth < 1:
            return SampledTree.root_only(text[-1])
        feature, length, q = self.catch_up([sequence]), state.cache.length, list[Tensor]()
        for level in range(depth):
            logits = self.lm_head(feature)[0, 0]
            q.append(self.chain.declared(sequence, logits, text))
            text.append(int(self.chain.draft_token(self.chain.sampled_from(sequence, logits, text), state.coins, level)))
            token, position = (torch.tensor([[n]], device=feature.device) for n in (text[-1], length + level))
            feature = self.run_head(state.cache, token, feature, position, None)
            state.cache.keep([0])
        state.cache.truncate(length)
        return SampledTree(torch.tensor(text[-depth - 1 :]), torch.arange(-1, depth), torch.stack([*q, torch.zeros_like(q[0])]))


# --- q is not the distribution of the drafts -------------------------------------------------------------------------


@mutant("M70", part="q", source="huggingface/transformers issue 32867", killers={"LAW-1": ONE_DRAFT})
class GreedyDrafts(SampledChain):
    """The drafter takes its most likely token, but q is its softmax."""

    def draft_token(self, q: Tensor, coins: Coins, level: int) -> int:  # noqa: ARG002
        return int(q.argmax())


@mutant("M71", part="q", source="huggingface/transformers issue 47932", killers={"LAW-1": ONE_DRAFT})
class RawQ(SampledChain):
    """Draft tokens are sampled after top-k, but q is the softmax of raw logits."""

    def sampled_from(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:
        return self.head_distribution(sequence, logits, text, top_k=2)

    def declared(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return logits.softmax(-1)


@mutant("M72", part="q", source="deepseek-ai/DeepSpec issue 31", killers={"LAW-1": ONE_DRAFT})
class RoundedDrafts(SampledChain):
    """Draft tokens are sampled from a softmax in bfloat16, but q is computed in full precision."""

    def sampled_from(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:
        rounded = self.head_distribution(sequence, logits, text).bfloat16().to(logits)
        return rounded / rounded.sum()


@mutant("M73", part="q", source="huggingface/transformers PR 28166", killers={"LAW-1": ONE_LAYER})
class UnprocessedDrafts(SampledChain):
    """The drafter ignores the sampling parameters and samples at temperature 1, but q includes them."""

    def sampled_from(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return logits.softmax(-1)


@mutant("M78", part="q", source="alibaba/rtp-llm PR 1311", killers={"LAW-1": ONE_DRAFT})
class QInDraftIds(SampledChain):
    """q is indexed by draft ids, here in reverse order, but read at the target's ids."""

    def declared(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:
        return self.head_distribution(sequence, logits, text).flip(-1)


@control("C08", part="sampled", source="vllm-project/vllm issue 40149")
class CertainDrafts(SampledChain):
    """The rule does not use q: sampled draft tokens are judged as if each had been certain.

    Right: given any x, accepting it with probability p(x) and otherwise sampling from p without x is a sample from p. Fewer draft
    tokens are accepted than with p/q.
    """

    def declared(self, sequence: Sequence, logits: Tensor, text: list[int]) -> Tensor:  # noqa: ARG002
        return torch.ones_like(logits)

    def residual(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        return exclude(p, x)


# --- recovered token -----------------------------------------------------------------------------------------------


@mutant("M74", part="residual", source="vllm-project/vllm PR 46665", killers={"LAW-1": ONE_DRAFT})
class SmallQLost(SampledChain):
    """The residual is computed as p (1 - q/p) with a rounded 1 - q/p, so that a q much smaller than p is not subtracted."""

    def residual(self, p: Tensor, q: Tensor, x: int) -> Tensor:  # noqa: ARG002
        r = p * (1 - q / p.clamp(min=1e-30)).bfloat16().clamp(min=0)
        return r / r.sum()


@mutant("M75", part="residual", source="SafeAILab/EAGLE commit 2f982e2", killers={"LAW-1": ONE_DRAFT})
class OnlyRejectedReduced(SampledChain):
    """Of p, only the rejected token's probability is reduced to (p - q)+; the others stay the same."""

    def residual(self, p: Tensor, q: Tensor, x: int) -> Tensor:
        r = p.clone()
        r[x] = (p[x] - q[x]).clamp(min=0)
        return r / r.sum()


@mutant("M77", part="randomness", source="vllm-project/vllm PR 47386", killers={"LAW-1": ONE_DRAFT})
class OneNoise(SampledChain):
    """The random number that selected a draft token also selects the recovered token; acceptance is correct."""

    noise: list[Uniform]

    def draft_token(self, q: Tensor, coins: Coins, level: int) -> int:
        self.noise = [*(self.noise if level else []), coins.uniform()]
        return invert(q, self.noise[-1])

    def recovered(self, r: Tensor, coins: Coins, u: Uniform, level: int) -> int:  # noqa: ARG002
        return invert(r, self.noise[level])


@mutant("M18", part="randomness", source="vllm-project/vllm-ascend PR 16370", killers={"LAW-1": ONE_DRAFT})
class NumberUsedTwice(SampledChain):
    """The uniform number that rejected a draft token also selects the recovered token, although it is never below p/q."""

    def recovered(self, r: Tensor, coins: Coins, u: Uniform, level: int) -> int:  # noqa: ARG002
        return invert(r, u)


@mutant("M76", part="accept", source="huggingface/transformers PR 28508", killers={"LAW-1": MIN_P})
class SuccessesCounted(SampledChain):
    """As many draft tokens are accepted as tests succeed, including tests after the first rejection."""

    def accept(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        chain = list(range(1, len(tree)))
        n = sum(coins.uniform() < (p[i - 1] / tree.q[i - 1])[tree.token(i)] for i in chain)
        r = p[n] if n == len(chain) else self.residual(p[n], tree.q[n], tree.token(n + 1))
        return Accepted(chain[:n], coins.categorical(r))


# --- block verification -------------------------------------------------------------------------------------------


@control("C07", part="sampled", source="Sun et al. 2024, arXiv 2403.10444")
class BlockVerification(SampledChain):
    """A draft token can be accepted although the test of an earlier one failed, if the block as a whole is likely enough.

    Right: the weight w = min(1, w p/q) of the block is carried from token to token, the longest prefix whose test succeeds is
    accepted, and the recovered token is sampled from (w p - q)+. This is exact and accepts more than token-wise verification.
    """

    def accept(self, tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        chain, weight = list(range(1, len(tree))), 1.0
        best, best_weight = ROOT, 1.0
        for node in chain:
            x = tree.token(node)
            weight = min(1.0, weight * float(p[node - 1, x] / tree.q[node - 1, x]))
            threshold = weight
            if node != chain[-1]:
                rest = float((weight * p[node] - tree.q[node]).clamp(min=0).sum())
                threshold = rest / (rest + 1 - weight) if rest else 0.0
            if coins.uniform() < threshold:
                best, best_weight = node, weight
        if best == len(chain):
            return Accepted(chain, coins.categorical(p[best]))
        return Accepted(chain[:best], coins.categorical(self.rest(best_weight, p[best], tree.q[best])))

    def rest(self, weight: float, p: Tensor, q: Tensor) -> Tensor:
        """The distribution of the token after the accepted prefix."""
        return self.residual(weight * p, q, 0)


@mutant("M79", part="residual", source="vllm-project/vllm-ascend issue 7807", killers={"LAW-1": MIN_P})
class TokenwiseResidual(BlockVerification):
    """Blocks are verified as a whole, but the recovered token is sampled from the residual of token-wise verification."""

    def rest(self, weight: float, p: Tensor, q: Tensor) -> Tensor:  # noqa: ARG002
        return self.residual(p, q, 0)
