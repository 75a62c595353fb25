"""Controls: decoders that look wrong and are right. A check that fails one of them is wrong itself. (More in sampled.py.)"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.eagle_head import EagleHead, FusedHead
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule, walk
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.implementations.reference import RULE_CAPABILITIES, Engine
from harness.mutants import control
from harness.mutants.drafts import LmHead, SaturatedDrafter
from harness.mutants.planting import Fault, Params, PathAndToken, Prompts, Results, Seeds, faulty_reject

POINT_MASSES = "SafeAILab/EAGLE issue 183"
OTHER_DRAFTER = RULE_CAPABILITIES - {"decoder", "batch"}
"""Without access to the decoder's parts and without the option `rule`: its drafter must not be judged as EAGLE-2's."""


@control("C01", part="accept", source="z-lab/dflash issue 74")
def walks(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """The target is sampled at every node, and a draft token counts as accepted if it equals the sample.

    Right: the sample is emitted in both cases, so that every token is a sample from p.
    """
    accepted = walk(DraftTree.of(tokens, parents), p, coins)
    return accepted.path, accepted.token


@control("C02", part="accept", source=POINT_MASSES)
def least_first(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Siblings are offered in reverse order, the drafter's least confident first.

    Right: recursive rejection samples p piece by piece, and the order of the pieces does not matter.
    """
    return faulty_reject(DraftTree.of(tokens, parents), p, coins, order=lambda children, _r: children[::-1])


@control("C03", part="accept", source=POINT_MASSES)
def likeliest_first(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Siblings are offered in the order of the target's own probabilities, which the drafter cannot know.

    Right: the order may depend on p, since it does not depend on the random numbers.
    """
    tree = DraftTree.of(tokens, parents)

    def order(children: list[int], r: Tensor) -> list[int]:
        return sorted(children, key=lambda child: -float(r[tree.token(child)]))

    return faulty_reject(tree, p, coins, order=order)


@control("C04", part="accept", source="lablup/mlxcel PR 992")
def sampler_match(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> PathAndToken:
    """Only the first child of a node is considered: it is accepted if and only if a fresh sample from the target equals it.

    Right: the sample is emitted in both cases. Drafting further siblings only costs time.
    """
    tree, path, node = DraftTree.of(tokens, parents), [], ROOT  # type: DraftTree, list[int], int
    while True:
        token, children = coins.categorical(p[node]), tree.children(node)
        if not children or token != tree.token(children[0]):
            return path, token
        node = children[0]
        path.append(node)


@control("C05", part="randomness", source="vllm-project/vllm PR 47386, as mended")
class Coupled(Fault):
    """Random numbers depend on seed and position alone, so that the text does not depend on the drafts.

    Right: the token at each position is the argmax of p / noise, a sample from p, and the noise of different positions is
    independent.
    """

    capabilities = Fault.capabilities - {"rules", "tau"}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rule": "walk"})

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        return [self.decode(prompt, row, KeyedCoins(seed)) for prompt, row, seed in zip(prompts, params, seeds, strict=True)]


@control("C09", part="ties", source="ohdearquant/lattice issue 280")
class LastOfTies(Fault):
    """At temperature 0, the last of equally likely tokens is chosen.

    Right: each of them is an argmax of the target. Checks report a tie.
    """

    class FaultyDecoder(Decoder):
        def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            p, scores = super().target_distribution(sequence, tree, logits)
            last = F.one_hot(scores.flip(-1).argmax(-1), p.shape[1]).flip(-1).to(p)
            return p if sequence.params.temperature else last, scores


@control("C10", part="ties", source="ml-explore/mlx-lm issue 1423", settings={"dtype": "bfloat16"})
class Rounded(Engine):
    """Target and draft head run in bfloat16, where passes over one and over several tokens round differently.

    Right: where the results differ, the target's own margin is within that rounding noise.
    """


@control("C11", part="randomness", source="vllm-project/vllm issue 13196")
class SeedlessGreedy(Engine):
    """The seed has no effect at temperature 0.

    Right: greedy decoding uses no random numbers.
    """

    def generate(self, prompts: Prompts, params: Params, seeds: Seeds) -> Results:
        used = [seed if row["temperature"] else 0 for row, seed in zip(params, seeds, strict=True)]
        return super().generate(prompts, params, used)


@control("C13", part="head", source="SafeAILab/EAGLE, torch.topk in model/cnets.py")
class SaturatedHead(Fault):
    """The head's logits are multiplied by 100, so that confidences of exactly 1 and equal values occur.

    Right: of equal values the shallower is selected, so that every selected node keeps its parent.
    """

    capabilities = Fault.capabilities - {"rules", "tau"}

    FaultyDrafter = SaturatedDrafter


class FixedBudget(Engine):
    """A budget that no option changes; here a single draft token."""

    capabilities = OTHER_DRAFTER - {"budget"}
    FaultyDrafter: type[Eagle2] = Eagle2

    def __init__(self, target: str, draft: str | None = None, dtype: str = "float32", device: str = "cpu") -> None:
        super().__init__(target, draft, k=1, depth=1, m=1, dtype=dtype, device=device)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        if isinstance(drafter, Eagle2):
            drafter = self.FaultyDrafter(drafter.head, drafter.lm_head, self.budget(target.vocab_size))
        return super().make_decoder(target, drafter, rule)

    def budget(self, vocab_size: int) -> Budget:  # noqa: ARG002
        return Budget(1, 1, 1)


@control("C12", part="speed", source="sgl-project/sglang issue 8228")
class WorstDrafts(FixedBudget):
    """The drafter proposes the tokens that its head finds least likely, so that nearly every draft token is rejected.

    Right: a bad drafter only costs time. τ is near 1, and the text has the target's distribution.
    """

    def budget(self, vocab_size: int) -> Budget:  # noqa: ARG002
        return Budget(1, 3, 3)

    class FaultyDrafter(Eagle2):
        def __init__(self, head: EagleHead | FusedHead, lm_head: LmHead, budget: Budget) -> None:
            super().__init__(head, lambda features: -lm_head(features), budget)


@control("C14", part="speed", source="sgl-project/sglang issue 11948")
class WholeExpansion(FixedBudget):
    """All expanded nodes are verified, with a small vocabulary nearly the whole tree of continuations.

    Right: the number of draft tokens only affects speed.
    """

    def budget(self, vocab_size: int) -> Budget:
        k = min(6, vocab_size)
        return Budget(k, 6, Budget(k, 6, 1).pool)


@control("C15", part="speed", source="NVIDIA/TensorRT-LLM issue 10323")
class SingleDraft(FixedBudget):
    """A single token is drafted: a tree of depth 1.

    Right: the number of draft tokens only affects speed.
    """
