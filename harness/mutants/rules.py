"""Faults of the acceptance rule: which draft tokens are accepted, the residual distribution, and the last token of a block.

Most are plain rules: (tokens [m + 1], parents [m + 1], p [m + 1, V], coins) -> (accepted path, last token).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule, exclude
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_TREE, ONE_LAYER, SIX_TOKENS, TOP_K, TWO_LAYERS
from harness.mutants.laws import WrongDistribution
from harness.mutants.planting import Fault, PathAndToken, faulty_reject

# --- acceptance ------------------------------------------------------------------------------------------------


@mutant(
    "M01",
    part="accept",
    source="vllm-project/vllm-ascend issue 13730",
    killers={"LAW-1": ONE_LAYER, "LAW-2": "", "LAW-8": SIX_TOKENS},
)
def accepts_all(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Every draft token with nonzero probability is accepted: the uniform number is always 0."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: bool(r[x] > 0))


@mutant("M126", part="accept", source="ohdearquant/lattice issue 591", killers={"THEORY-1": ""}, law=False)
class FirstBranchOnly(Fault):
    """Only the first child of each node is offered to the rule; its siblings are drafted and verified in vain."""

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:  # noqa: ARG002
        self.rule = first_branch
        return super().make_decoder(target, drafter, self.rule)


def first_branch(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
    return Accepted(*faulty_reject(tree, p, coins, order=lambda children, _r: children[:1]))


@mutant("M02", part="accept", source="ohdearquant/lattice issue 243", killers={"LAW-1": ONE_LAYER, "GREEDY-1": "plain"})
def first_unverified(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """The root's first child is accepted without verification."""
    p = p.clone()
    if len(tokens) > 1:
        p[ROOT] = F.one_hot(torch.tensor(tokens[1]), p.shape[1])
    return faulty_reject(DraftTree.of(tokens, parents), p, coins)


@mutant("M03", part="accept", source="sgl-project/sglang PR 37134", killers={"LAW-1": ONE_LAYER, "SMOKE-2": ""})
def greedy_always(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Decoding is greedy at every temperature, without a warning."""
    return faulty_reject(DraftTree.of(tokens, parents), F.one_hot(p.argmax(-1), p.shape[1]).to(p), coins)


@mutant("M05", part="accept", source="ROCm/ATOM PR 2318", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def greedy_drafts(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """A draft token is accepted if it is the argmax; only the last token of a block is sampled."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: int(r.argmax()) == x)


@mutant("M06", part="accept", source="sgl-project/sglang issue 35771", killers={"LAW-5": ""})
def inclusive_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """The comparison is inclusive (u <= p): a uniform number of exactly 0 accepts a token of probability 0."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: bool(u <= r[x]))


@mutant("M07", part="accept", source="sgl-project/sglang PR 30822", killers={"LAW-5": "", "LAW-2": ""})
def coin_of_one(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Uniform numbers are rounded to float32: the highest become 1 and reject a certain token, and the last id replaces it."""
    highest = 1 - 2**-25  # float32 rounds numbers from here on up to 1

    def residual(r: Tensor, x: int) -> Tensor:
        return exclude(r, x) if r[x] < 1 else torch.zeros_like(r)

    def last(r: Tensor, _rejected: Uniform | None, _above: Tensor | None) -> int:
        return coins.categorical(r) if r.any() else len(r) - 1

    def accepts(r: Tensor, x: int, u: Uniform) -> bool:
        return u < min(float(r[x]), highest)

    return faulty_reject(DraftTree.of(tokens, parents), p, coins, residual, accepts, last)


@mutant("M08", part="accept", source="sgl-project/sglang PR 7702, threshold_single", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def acceptance_threshold(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """A draft token whose probability exceeds a threshold is always accepted."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: bool(r[x] > 0.4) or u < r[x])


@mutant("M09", part="accept", source="sgl-project/sglang PR 7702, threshold_acc", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def ratio_over_threshold(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Acceptance probabilities are divided by a threshold below 1."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: u < r[x] / 0.9)


@mutant("M10", part="accept", source="vllm-project/vllm PR 5131", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def typical(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Typical acceptance: a draft token is accepted if its probability exceeds a bound that falls with the entropy."""

    def accepts(r: Tensor, x: int, _u: Uniform) -> bool:
        return bool(r[x] > min(0.09, 0.3 * float(torch.special.entr(r).sum().neg().exp())))

    return faulty_reject(DraftTree.of(tokens, parents), p, coins, accepts=accepts)


@mutant("M11", part="accept", source="foundation-model-stack/fms-extras issue 12", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def siblings_independent(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Each sibling is compared with a fresh sample, as if it were the only candidate."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, residual=lambda r, _x: r, accepts=lambda r, x, u: u < r[x])


@mutant("M12", part="accept", source="NVIDIA/TensorRT-LLM PR 3865", killers={"GREEDY-1": "plain", "GREEDY-2": GREEDY_TREE})
class Relaxed(Fault):
    """At temperature 0, a draft token is accepted if it is among the two most likely and not much less likely than the first."""

    class FaultyDecoder(WrongDistribution):
        def change(self, p: Tensor, sequence: Sequence, tree: Tree, logits: Tensor) -> Tensor:
            if sequence.params.temperature > 0:
                return p
            p, scores = p.clone(), logits.softmax(-1)
            for node in range(len(p)):
                for child in map(tree.token, tree.children(node)):
                    if child in scores[node].topk(2).indices and scores[node, child] > 0.2 * scores[node].max():
                        p[node] = F.one_hot(torch.tensor(child), p.shape[1])
                        break
            return p


# --- residual distribution and last token --------------------------------------------------------------------------


@mutant("M13", part="residual", source="SafeAILab/EAGLE commit 2f982e2", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def rejected_not_removed(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """A rejected token is excluded from the node's last draw, but not from the distribution that judges the next sibling."""
    tree = DraftTree.of(tokens, parents)
    rejected: list[int] = []

    def residual(r: Tensor, x: int) -> Tensor:
        rejected.append(x)
        return r

    def last(r: Tensor, u: Uniform | None, _above: Tensor | None) -> int:
        return coins.categorical(r if u is None else F.normalize(r.index_fill(0, torch.tensor(rejected[-1:]), 0), p=1, dim=0))

    return faulty_reject(tree, p, coins, residual=residual, last=last)


@mutant("M14", part="residual", source="vllm-project/vllm-ascend PR 2881", killers={"LAW-1": TWO_LAYERS, "LAW-2": ""})
def not_renormalised(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """A rejected token is set to 0, but the residual distribution is not renormalised."""
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, residual=lambda r, x: r.index_fill(0, torch.tensor([x]), 0.0))


@mutant("M04", part="bonus", source="SafeAILab/EAGLE PR 47", killers={"LAW-1": TOP_K, "LAW-2": ""})
def stale_bonus(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """After one sibling was rejected and the next accepted, the bonus token is sampled from the siblings' residual."""

    def last(r: Tensor, rejected: Uniform | None, above: Tensor | None) -> int:
        return coins.categorical(r if rejected is not None or above is None else above)

    return faulty_reject(DraftTree.of(tokens, parents), p, coins, last=last)


@mutant("M15", part="residual", source="openvinotoolkit/openvino.genai issue 4190", killers={"LAW-1": TWO_LAYERS, "LAW-2": ""})
def late_rejection(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """A rejection is noticed one token late: the recovered token is dropped, and one is sampled after the rejected token."""
    tree = DraftTree.of(tokens, parents)
    path, token = faulty_reject(tree, p, coins)
    rejected = tree.children(path[-1] if path else ROOT)
    return path, coins.categorical(p[rejected[0]]) if rejected else token


@mutant("M16", part="bonus", source="torch/cutorch issue 398", killers={"LAW-2": ""})
def past_the_end(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """The last token comes from a float32 cumulative sum, and a uniform number beyond its end gives the last id."""

    def last(r: Tensor, _rejected: Uniform | None, _above: Tensor | None) -> int:
        u = coins.uniform()
        return next((x for x, cumulative in enumerate(r.float().cumsum(0)) if u < cumulative), len(r) - 1)

    return faulty_reject(DraftTree.of(tokens, parents), p, coins, last=last)
