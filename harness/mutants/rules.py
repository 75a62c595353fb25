"""Faults of the acceptance rule: what is accepted, what remains after a refusal, and the token that ends a block."""

from __future__ import annotations

from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.tree import DraftTree
from harness.mutants import mutant
from harness.mutants.planting import Answer, broken_reject

TOP_K = "coin4, T=1.0 top_k=2, reject, k=2 depth=3 m=7"


@mutant("M04", part="residual", source="SafeAILab/EAGLE PR 47", killers={"LAW-2": "", "LAW-1": TOP_K})
def stale_bonus(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Answer:
    """After a sibling was refused and the next accepted, the bonus comes from the siblings' remainder."""

    def last(r: Tensor, refused: Uniform | None, above: Tensor | None) -> int:
        return coins.categorical(r if refused is not None or above is None else above)

    return broken_reject(DraftTree.of(tokens, parents), p, coins, last=last)
