"""What tests of drafters share: what they compare, and a drafter with one sequence, whose target is the test."""

from __future__ import annotations

from collections import abc
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.decode import Block, Decoder, Generation
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import Tree

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


def paths(tree: Tree) -> dict[tuple[int, ...], int]:
    """The nodes below the root, by the tokens on their paths."""
    return {tuple(map(tree.token, tree.path(node))): node for node in range(1, len(tree))}


def contents(block: Block) -> object:
    """Everything in a block but its log-probabilities and values, which passes of other shapes round differently."""
    return block.start, block.tokens, block.accepted, block.path, block.tree.tokens.tolist(), block.tree.parents.tolist()


def summary(result: Generation) -> object:
    """Everything that must not depend on the other sequences of a batch."""
    return result.tokens, result.finish, result.target_passes, result.draft_passes, [*map(contents, result.blocks)]


def drafted_blocks(
    decoder: Decoder, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins
) -> Iterator[tuple[list[int], Block, Sequence]]:
    """The blocks of a continuation after that of the prompt, each with the text up to its root, and the sequence."""
    sequence = decoder.start(prompt, params, coins)
    for block in decoder.blocks(sequence):
        if block.start > len(prompt):
            yield sequence.tokens[: block.start], block, sequence
