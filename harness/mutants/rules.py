"""Faults of the acceptance rule: what is accepted, what remains after a refusal, and which token ends a block.

Most are bare rules: (tokens [m + 1], parents [m + 1], p [m + 1, V], coins) -> (accepted path, one more token).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Decoder
from eagle2_ref.rules import Accepted, exclude
from eagle2_ref.tree import ROOT, DraftTree
from harness.mutants import mutant
from harness.mutants.cases import GREEDY_TREE, ONE_LAYER, SIX_TOKENS, TOP_K, TWO_LAYERS
from harness.mutants.planting import Answer, Asked, Planted, PlantedLaw, broken_reject

# --- what is accepted ----------------------------------------------------------------------------------------------


@mutant(
    "M01",
    part="accept",
    source="vllm-project/vllm-ascend issue 13730",
    killers={"LAW-1": ONE_LAYER, "LAW-2": "", "LAW-8": SIX_TOKENS},
)
def accepts_all(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The uniform number is always 0: every draft that is possible is accepted."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: bool(r[x] > 0))


@mutant("M126", part="accept", source="ohdearquant/lattice issue 591", killers={"THEORY-1": ""}, law=False)
class FirstBranchOnly(Planted):
    """Of every node the first child alone is offered, as in a chain: its siblings are drafted and verified for nothing."""

    def plant(self, decoder: Decoder) -> None:
        decoder.rule = self.rule = first_branch


def first_branch(tree: DraftTree, p: Tensor, coins: Coins) -> Accepted:
    return Accepted(*broken_reject(tree, p, coins, order=lambda children, _r: children[:1]))


@mutant("M02", part="accept", source="ohdearquant/lattice issue 243", killers={"LAW-1": ONE_LAYER, "GREEDY-1": "plain"})
def first_unseen(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The root's first child is committed without being compared."""
    p = p.clone()
    if len(tokens) > 1:
        p[ROOT] = F.one_hot(torch.tensor(tokens[1]), p.shape[1])
    return broken_reject(DraftTree.of(tokens, parents), p, coins)


@mutant("M03", part="accept", source="sgl-project/sglang PR 37134", killers={"LAW-1": ONE_LAYER, "SMOKE-2": ""})
def greedy_always(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The greedy branch is taken at every temperature, without a word."""
    return broken_reject(DraftTree.of(tokens, parents), F.one_hot(p.argmax(-1), p.shape[1]).to(p), coins)


@mutant("M05", part="accept", source="ROCm/ATOM PR 2318", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def greedy_drafts(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Argmax decides at drafted positions, and only the last token honours the temperature."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, _u: int(r.argmax()) == x)


@mutant("M06", part="accept", source="sgl-project/sglang issue 35771", killers={"LAW-5": ""})
def inclusive_coin(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A coin of exactly 0 accepts a token of probability exactly 0: the comparison is inclusive."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: bool(u <= r[x]))


@mutant("M07", part="accept", source="sgl-project/sglang PR 30822", killers={"LAW-5": "", "LAW-2": ""})
def coin_of_one(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Coins are rounded to float32: the highest become 1 and refuse a token that is certain, and the last id stands in for it."""
    highest = 1 - 2**-25  # from here on a number is rounded up to 1

    def remainder(r: Tensor, x: int) -> Tensor:
        return exclude(r, x) if r[x] < 1 else torch.zeros_like(r)

    def last(r: Tensor, _refused: Uniform | None, _above: Tensor | None) -> int:
        return coins.categorical(r) if r.any() else len(r) - 1

    def accepts(r: Tensor, x: int, coin: Uniform) -> bool:
        return coin < min(float(r[x]), highest)

    return broken_reject(DraftTree.of(tokens, parents), p, coins, remainder, accepts, last)


@mutant("M08", part="accept", source="sgl-project/sglang PR 7702, threshold_single", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def likely_enough(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A draft whose probability exceeds a threshold is accepted without a coin."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: bool(r[x] > 0.4) or u < r[x])


@mutant("M09", part="accept", source="sgl-project/sglang PR 7702, threshold_acc", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def generous_ratio(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Acceptance probabilities are divided by a threshold below 1."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=lambda r, x, u: u < r[x] / 0.9)


@mutant("M10", part="accept", source="vllm-project/vllm PR 5131", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def typical(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Typical acceptance: a draft is kept if its probability exceeds a bound that falls with the entropy."""

    def accepts(r: Tensor, x: int, _coin: Uniform) -> bool:
        return bool(r[x] > min(0.09, 0.3 * float(torch.special.entr(r).sum().neg().exp())))

    return broken_reject(DraftTree.of(tokens, parents), p, coins, accepts=accepts)


@mutant("M11", part="accept", source="foundation-model-stack/fms-extras issue 12", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def matched_alone(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Every sibling is compared with a fresh draw of its own, as if it were the only candidate."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, remainder=lambda r, _x: r, accepts=lambda r, x, u: u < r[x])


@mutant("M12", part="accept", source="NVIDIA/TensorRT-LLM PR 3865", killers={"GREEDY-1": "plain", "GREEDY-2": GREEDY_TREE})
class Relaxed(PlantedLaw):
    """At temperature 0 a draft is accepted if it is among the two likeliest tokens, and not much less likely than the first."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        if asked.params.temperature > 0:
            return p
        p, scores = p.clone(), asked.logits.softmax(-1)
        for node in range(len(p)):
            for child in map(asked.tree.token, asked.tree.children(node)):
                if child in scores[node].topk(2).indices and scores[node, child] > 0.2 * scores[node].max():
                    p[node] = F.one_hot(torch.tensor(child), p.shape[1])
                    break
        return p


# --- what remains after a refusal, and the token that ends a block -------------------------------------------------


@mutant("M13", part="residual", source="SafeAILab/EAGLE commit 2f982e2", killers={"LAW-1": ONE_LAYER, "LAW-2": ""})
def keeps_the_refused(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A refused sibling counts again: its token is removed for the last draw alone, and the next sibling's odds are p's."""
    tree = DraftTree.of(tokens, parents)
    refused: list[int] = []

    def remainder(r: Tensor, x: int) -> Tensor:
        refused.append(x)
        return r

    def last(r: Tensor, coin: Uniform | None, _above: Tensor | None) -> int:
        return coins.categorical(r if coin is None else F.normalize(r.index_fill(0, torch.tensor(refused[-1:]), 0), p=1, dim=0))

    return broken_reject(tree, p, coins, remainder=remainder, last=last)


@mutant("M14", part="residual", source="vllm-project/vllm-ascend PR 2881", killers={"LAW-1": TWO_LAYERS, "LAW-2": ""})
def does_not_renormalise(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A refused token is zeroed, and what remains is not made to sum to 1."""
    return broken_reject(DraftTree.of(tokens, parents), p, coins, remainder=lambda r, x: r.index_fill(0, torch.tensor([x]), 0.0))


@mutant("M04", part="bonus", source="SafeAILab/EAGLE PR 47", killers={"LAW-1": TOP_K, "LAW-2": ""})
def stale_bonus(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """After a sibling was refused and the next accepted, the bonus comes from the siblings' remainder."""

    def last(r: Tensor, refused: Uniform | None, above: Tensor | None) -> int:
        return coins.categorical(r if refused is not None or above is None else above)

    return broken_reject(DraftTree.of(tokens, parents), p, coins, last=last)


@mutant("M15", part="residual", source="openvinotoolkit/openvino.genai issue 4190", killers={"LAW-1": TWO_LAYERS, "LAW-2": ""})
def late_refusal(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """A refusal is noticed one token late: the right token is dropped, and one is drawn as if the refused one stood there."""
    tree = DraftTree.of(tokens, parents)
    path, token = broken_reject(tree, p, coins)
    refused = tree.children(path[-1] if path else ROOT)
    return path, coins.categorical(p[refused[0]]) if refused else token


@mutant("M16", part="bonus", source="torch/cutorch issue 398", killers={"LAW-2": ""})
def past_the_end(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The last token is found in a float32 cumulative sum, and a coin beyond its end gives the last id, whatever its odds."""

    def last(r: Tensor, _refused: Uniform | None, _above: Tensor | None) -> int:
        coin = coins.uniform()
        return next((x for x, cumulative in enumerate(r.float().cumsum(0)) if coin < cumulative), len(r) - 1)

    return broken_reject(DraftTree.of(tokens, parents), p, coins, last=last)
