"""Planted faults: the vectorised rule with one part wrong. The first line of each docstring names a public report of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.calibration.decoders import NONE, Node, Reject, sample_token
from harness.calibration.toy_pairs import Bools, Floats, Ints, Texts, follow


class AcceptsAll(Reject):
    """The uniform number is always 0: every draft of positive probability is accepted (vllm-project/vllm-ascend issue 13730)."""

    def accepts(self, _node: Node, i: int, p: Floats, _remaining: Floats) -> Bools:
        return p[:, i] > 0


class RecoveredFromP(Reject):
    """The recovered token is sampled from p, rejected tokens included (vllm-project/vllm-ascend issue 7807)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(node, np.zeros_like(lost))


class SiblingsNotRenormalised(Reject):
    """A rejected token is set to zero, but the rest is not renormalised (vllm-project/vllm-ascend PR 2881)."""

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        return super().accepts(node, i, p, np.ones_like(remaining))


class LastRefusedStays(Reject):
    """The residual distribution still contains the last rejected token (SafeAILab/EAGLE commit 2f982e2)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(node, np.where(np.arange(lost.shape[1]) == last_rejected(lost)[:, None], 0, lost))


class RatioOfDraft(Reject):
    """Accepts with p / q, although drafts were selected, not sampled from q (jaymody/speculative-sampling issue 3)."""

    def accepts(self, node: Node, i: int, p: Floats, _remaining: Floats) -> Bools:
        return node.coins[:, i] * np.exp(node.confidence[:, i]) < p[:, i]


class PartialResidual(RatioOfDraft):
    """Accepts with p / q, and a rejected token loses at most q of its probability (SafeAILab/EAGLE before commit 2f982e2)."""

    def loses(self, node: Node, p: Floats) -> Floats:
        return np.minimum(p, np.exp(node.confidence))


class SiblingsShareCoin(Reject):
    """All siblings use one uniform number (flashinfer-ai/flashinfer PR 424)."""

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        return node.coins[:, 0] * remaining < p[:, i]


class CoinReused(Reject):
    """The uniform number that rejected a draft also selects the recovered token (vllm-project/vllm-ascend PR 16370)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        rejected = last_rejected(lost)
        coin = node.coins[np.arange(len(rejected)), np.where(rejected == NONE, lost.shape[1], rejected)]
        return sample_token(node, node.pair.target, coin, lost)


class GreedyBonus(Reject):
    """The bonus token is the most likely one at every temperature (Luce-Org/lucebox PR 374)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        return np.where(is_leaf(node), most_likely(node), super().last(node, lost))


class GreedyDrafts(Reject):
    """Drafts are accepted by argmax; only the last token uses the sampling parameters (ROCm/ATOM PR 2318)."""

    def accepts(self, node: Node, i: int, _p: Floats, _remaining: Floats) -> Bools:
        taken: Bools = node.tokens[:, i] == most_likely(node)
        return taken

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(node, np.zeros_like(lost))


class RawAcceptance(Reject):
    """Drafts are accepted with default parameters, the last token uses the request's (vllm-project/vllm issue 9834)."""

    def p(self, node: Node) -> Floats:
        pair, text = node.pair, node.text[:, None]
        return pair.raw.p[pair.kind(text), pair.rank(text, node.tokens)]

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(node, np.where(lost > 0, super().p(node), 0))


class RawBonus(Reject):
    """Where no draft was rejected, the last token is sampled from unprocessed logits (SafeAILab/EAGLE commit c7ef8e5)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        raw = sample_token(node, node.pair.raw, node.coins[:, -1], np.zeros_like(lost))
        return np.where(lost.any(axis=1), super().last(node, lost), raw)


class StaleRow(Reject):
    """From depth 3 on, one row in a hundred is its parent's row (ml-explore/mlx-swift-lm PR 173: wrong cache rewind)."""

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        return super().judge(self.stale(node))

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(self.stale(node), lost)

    def stale(self, node: Node) -> Node:
        affected = (node.depth >= 3) & (follow(node.text, np.array(1)) % np.uint64(100) == 0)
        return replace(node, text=np.where(affected, text_above(node), node.text))


class ParentsRowForBonus(Reject):
    """The bonus token at a leaf is sampled from its parent's row (openvinotoolkit/openvino.genai issue 4190)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(replace(node, text=np.where(is_leaf(node), text_above(node), node.text)), lost)


class RowsOffByOne(Reject):
    """From the second layer on, every decision uses the row above the correct one (kekzl/imp issue 667: off by one)."""

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        return super().judge(replace(node, text=text_above(node)))

    def last(self, node: Node, lost: Floats) -> Ints:
        return super().last(replace(node, text=text_above(node)), lost)


class AcceptsLess(Reject):
    """Accepts with 0.95 of the right probability: no thread's, but of a known size, and small."""

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        return super().accepts(node, i, 0.95 * p, remaining)


class AcceptsCertain(Reject):
    """A draft of probability above .9 is accepted without a coin (sgl-project/sglang issue 35771: threshold_single)."""

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        return (p[:, i] > 0.9) | super().accepts(node, i, p, remaining)


class TypicalAcceptance(Reject):
    """Typical acceptance: accepts what is likely given the entropy, else emits the argmax (vllm-project/vllm PR 5131)."""

    def accepts(self, node: Node, i: int, p: Floats, _remaining: Floats) -> Bools:
        entropy = node.pair.entropy[node.pair.kind(node.text)]
        return p[:, i] > np.minimum(0.09, 0.3 * np.exp(-entropy))

    def last(self, node: Node, lost: Floats) -> Ints:
        return np.where(lost.any(axis=1), most_likely(node), super().last(node, lost))


class CoinsRepeat(Reject):
    """Every second block reuses the uniform numbers of the previous block (vllm-project/vllm PR 47386)."""

    def coins(self, rng: np.random.Generator, shape: tuple[int, ...], step: int, before: Floats | None) -> Floats:
        return before if before is not None and step % 2 else super().coins(rng, shape, step, before)


class StaleResidual(Reject):
    """At a leaf accepted after a sibling was rejected, the bonus token uses the parent's residual (SafeAILab/EAGLE PR 47)."""

    def last(self, node: Node, lost: Floats) -> Ints:
        right = super().last(node, lost)
        if node.above is None:
            return right
        stale = super().last(replace(node.above, coins=node.coins), node.refused)
        return np.where(is_leaf(node) & node.refused.any(axis=1), stale, right)


class RoundedTo16Bits(Reject):
    """Negligible: p is rounded to bfloat16 before the comparison (SafeAILab/EAGLE computes in the model's dtype)."""

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        bits = p.astype(np.float32).view(np.uint32) + np.uint32(0x8000) & np.uint32(0xFFFF0000)
        return super().accepts(node, i, bits.view(np.float32).astype(float), remaining)


@dataclass(frozen=True)
class Fault:
    """A faulty rule.

    Args:
        rule: the rule.
        prototype: tokens at which a prototype of these statistics reached E = 1e6 in nine of ten runs, with the histogram alone
            and on other toy pairs, at V = 8, 64 and 32,000; NEVER within a million tokens; None where it had no such fault.
        processing: sampling parameters, a key of PROCESSING; a fault of processing needs the right one.
    """

    rule: type[Reject]
    prototype: tuple[float, float, float] | None = None
    processing: str = "T=0.7"

    @property
    def name(self) -> str:
        return self.rule.__name__ + (f", {self.processing}" if self.processing != "T=0.7" else "")

    @property
    def description(self) -> str:
        return (self.rule.__doc__ or "").splitlines()[0]


NEVER = np.inf
FAULTS = (
    Fault(AcceptsAll),
    Fault(RecoveredFromP, (1500, 970, 790)),
    Fault(SiblingsNotRenormalised, (3800, 11000, 7000)),
    Fault(LastRefusedStays, (7400, 21000, 22000)),
    Fault(RatioOfDraft, (180, 55, 230)),
    Fault(PartialResidual, (230, 89, 260)),
    Fault(SiblingsShareCoin, (900, 740, 2500)),
    Fault(CoinReused, (7400, 15000, 16000)),
    Fault(GreedyBonus, (740, 110, 320)),
    Fault(GreedyDrafts),
    Fault(RawAcceptance, (2500, 1800, 110)),
    Fault(RawBonus),
    Fault(RawBonus, (190, 39, 22), "top_p=0.9"),
    Fault(StaleRow, (NEVER, NEVER, 290000)),
    Fault(ParentsRowForBonus, (690, 350, 260)),
    Fault(RowsOffByOne, (150, 89, 20)),
    Fault(AcceptsLess, (18000, 86000, 41000)),
    Fault(AcceptsCertain, (NEVER, NEVER, NEVER)),
    Fault(TypicalAcceptance, (260, 110, 250)),
    Fault(CoinsRepeat, (NEVER, NEVER, NEVER)),
    Fault(StaleResidual, (1900, 1300, 220)),
    Fault(RoundedTo16Bits, (NEVER, NEVER, NEVER)),
)


def is_leaf(node: Node) -> Bools:
    """Whether a node has no children, [n]."""
    return np.logical_not(node.offered.any(axis=1))


def text_above(node: Node) -> Texts:
    """The text before the node's own token; at the root its own text, since the pass has no row above it."""
    return node.text if node.above is None else node.above.text


def most_likely(node: Node) -> Ints:
    """The target's argmax, [n]."""
    return node.pair.token(node.text, np.zeros(len(node.text), int))


def last_rejected(lost: Floats) -> Ints:
    """The child rejected last, or NONE, [n]."""
    backwards: Bools = lost[:, ::-1] > 0
    return np.where(backwards.any(axis=1), lost.shape[1] - 1 - backwards.argmax(axis=1), NONE)
