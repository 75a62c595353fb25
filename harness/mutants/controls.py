"""Decoders that look wrong and are not: a check that turns one of them red is wrong itself. (More of them in sampled.py.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.rules import walk
from eagle2_ref.sampling import apply_processors
from eagle2_ref.tree import ROOT, DraftTree
from harness.implementations.reference import RULE_CAPABILITIES, Engine
from harness.mutants import control
from harness.mutants.planting import Alone, Answer, Asked, Planted, PlantedLaw, broken_reject

POINT_MASSES = "SafeAILab/EAGLE issue 183"
OTHER_DRAFTER = RULE_CAPABILITIES - {"decoder", "batch"}
"""What is not declared: the insides, and the option `rule`; for a drafter that is not EAGLE-2's is not judged as EAGLE-2's."""


@control("C01", part="accept", source="z-lab/dflash issue 74")
def walks(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """The target is sampled, and a draft counts as accepted where the draw happens to be its token.

    The draw is emitted either way, so that every token is one from p.
    """
    accepted = walk(DraftTree.of(tokens, parents), p, coins)
    return accepted.path, accepted.token


@control("C02", part="accept", source=POINT_MASSES)
def least_first(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Siblings are offered in reverse, the drafter's favourite last.

    Each is accepted with what remains of its probability: a draw from p in pieces, in whatever order the pieces come.
    """
    return broken_reject(DraftTree.of(tokens, parents), p, coins, order=lambda children, _r: children[::-1])


@control("C03", part="accept", source=POINT_MASSES)
def likeliest_first(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Siblings are offered in the order of the target's own probabilities, which the drafter cannot know.

    The order may depend on p, for it does not depend on the coins.
    """
    tree = DraftTree.of(tokens, parents)

    def order(children: list[int], r: Tensor) -> list[int]:
        return sorted(children, key=lambda child: -float(r[tree.token(child)]))

    return broken_reject(tree, p, coins, order=order)


@control("C04", part="accept", source="lablup/mlxcel PR 992")
def sampler_match(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """Only the first child of a node is looked at: it is accepted if and only if a fresh draw from the target equals it.

    The draw is emitted on both branches. What other siblings are there costs speed alone.
    """
    tree, path, node = DraftTree.of(tokens, parents), [], ROOT  # type: DraftTree, list[int], int
    while True:
        token, children = coins.categorical(p[node]), tree.children(node)
        if not children or token != tree.token(children[0]):
            return path, token
        node = children[0]
        path.append(node)


@control("C05", part="randomness", source="vllm-project/vllm PR 47386, as mended")
class Coupled(Alone):
    """Noise depends on the seed and the position alone: the text is the same whatever is drafted.

    The token at a position is the winner of p / noise, a draw from p, and noise of different positions is independent.
    """

    capabilities = Alone.capabilities - {"rules", "tau"}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "rule": "walk"})

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return [self.decode(prompt, row, KeyedCoins(seed)) for prompt, row, seed in zip(prompts, params, seeds, strict=True)]


@control("C09", part="ties", source="ohdearquant/lattice issue 280")
class LastOfTies(PlantedLaw):
    """Of equally likely tokens the last is taken at temperature 0.

    None of them is the target's choice more than another; it is told as a tie.
    """

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        if asked.params.temperature:
            return p
        last = apply_processors(asked.logits, asked.tree, asked.text, asked.params).flip(-1).argmax(-1)
        return F.one_hot(last, p.shape[1]).flip(-1).to(p)


@control("C10", part="ties", source="ml-explore/mlx-lm issue 1423", settings={"dtype": "bfloat16"})
class Rounded(Engine):
    """Target and head run in bfloat16, where passes over several tokens and over one round differently.

    Where they disagree the target's own margin is within that noise.
    """


@control("C11", part="randomness", source="vllm-project/vllm issue 13196")
class SeedlessGreedy(Engine):
    """At temperature 0 the seed has no effect.

    There is nothing left to chance.
    """

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        used = [seed if row["temperature"] else 0 for row, seed in zip(params, seeds, strict=True)]
        return super().generate(prompts, params, used)


@control("C13", part="head", source="SafeAILab/EAGLE, torch.topk in model/cnets.py")
class SaturatedHead(Planted):
    """The head is a hundred times as sure of itself, so that confidences of exactly 1 occur, and equal values.

    Of equal values the shallower is kept, and the tree stays one.
    """

    capabilities = Alone.capabilities - {"rules", "tau"}

    def plant_drafter(self, drafter: Eagle2) -> None:
        lm_head = drafter.lm_head
        drafter.lm_head = lambda features: 100 * lm_head(features)


class OwnBudget(Engine):
    """A budget that nobody can choose."""

    capabilities = OTHER_DRAFTER - {"budget"}

    def __init__(self, target: str, draft: str | None = None, dtype: str = "float32", device: str = "cpu") -> None:
        super().__init__(target, draft, k=1, depth=1, m=1, dtype=dtype, device=device)
        if isinstance(self.decoder.drafter, Eagle2):
            self.decoder.drafter.budget = self.budget(self.decoder.target.vocab_size)

    def budget(self, vocab_size: int) -> Budget:
        raise NotImplementedError


@control("C12", part="speed", source="sgl-project/sglang issue 8228")
class NeverRight(OwnBudget):
    """The drafter proposes what its head finds least likely, so that nearly every draft is refused.

    A bad drafter costs speed: a tau of 1 is slow, and the text is the target's.
    """

    def budget(self, vocab_size: int) -> Budget:  # noqa: ARG002
        return Budget(1, 3, 3)

    def __init__(self, target: str, draft: str | None = None, dtype: str = "float32", device: str = "cpu") -> None:
        super().__init__(target, draft, dtype, device)
        if isinstance(drafter := self.decoder.drafter, Eagle2):
            lm_head = drafter.lm_head
            drafter.lm_head = lambda features: -lm_head(features)


@control("C14", part="speed", source="sgl-project/sglang issue 11948")
class Wasteful(OwnBudget):
    """Everything the head is asked for is verified, nearly the whole tree of continuations where the vocabulary is small.

    How much is drafted is a matter of speed.
    """

    def budget(self, vocab_size: int) -> Budget:
        k = min(6, vocab_size)
        return Budget(k, 6, Budget(k, 6, 1).pool)


@control("C15", part="speed", source="NVIDIA/TensorRT-LLM issue 10323")
class Frugal(OwnBudget):
    """A single token is drafted, a tree of depth 1."""

    def budget(self, vocab_size: int) -> Budget:  # noqa: ARG002
        return Budget(1, 1, 1)
