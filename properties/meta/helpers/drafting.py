"""A drafter with one sequence, for tests that play the part of the target."""

from __future__ import annotations

from collections import abc
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence

CONTEXT = 1 << 30


class OneSequence:
    """A sequence of a drafter. The test says what is emitted, with which features, and asks for trees."""

    def __init__(
        self, drafter: Drafter, prompt: abc.Sequence[int] = (0,), params: SamplingParams | None = None, coins: Coins | None = None
    ) -> None:
        self.drafter = drafter
        cache: Any = None  # no target has one
        self.sequence = Sequence(prompt, params or SamplingParams(), coins or SeededCoins(0), cache, CONTEXT)
        self.sequence.draft = drafter.start(self.sequence)

    @property
    def state(self) -> Any:
        """The drafter's state."""
        return self.sequence.draft

    def observe(self, tokens: abc.Sequence[int], features: Tensor) -> None:
        """Emit tokens [n]; features [n, H] are those of the positions before them."""
        self.sequence.tokens += tokens
        self.drafter.observe(self.sequence, tokens, features)

    def propose(self, depth: int) -> Any:
        """The next tree, of this depth at most."""
        (tree,) = propose_together([self], [depth])
        return tree


def propose_together(several: abc.Sequence[OneSequence], depths: abc.Sequence[int]) -> list[Any]:
    """The next trees of sequences that have one drafter."""
    for one, depth in zip(several, depths, strict=True):
        one.sequence.end = len(one.sequence.tokens) + depth + 1
    return list(several[0].drafter.propose([one.sequence for one in several]))
