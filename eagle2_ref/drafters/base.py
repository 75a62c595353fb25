"""The interface of a drafter. The loop knows nothing else of the methods."""

from __future__ import annotations

from collections import abc
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from torch import Tensor

from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree, SampledTree, Tree

if TYPE_CHECKING:
    from eagle2_ref.sequence import Sequence

Checkpoint = Literal["draft", "eagle3", "small", "medusa", "none"]
"""What a method needs besides the target: an EAGLE-1/2 head, an EAGLE-3 head, a small language model, Medusa heads, or nothing
that is trained."""


class DraftState:
    """What a drafter remembers of one sequence. Subclasses add their caches, pools and windows."""

    passes: int = 0
    """Number of forward passes of the draft model in this turn; 0 for a drafter without a model."""


class Drafter:
    """Proposes draft trees. What it proposes changes how fast text is emitted, never its distribution.

    A drafter has no state of its own: what it remembers of a sequence is `sequence.draft`. Subclasses override `propose`, or
    `propose_one` if they draft for one sequence at a time.
    """

    tree_type: ClassVar[type[DraftTree] | type[SampledTree]] = DraftTree
    """Whether the nodes of its trees are chosen or sampled; some rules accept only one kind."""

    layers: tuple[int, ...] = ()
    """Target layers before which it reads the state. Without any, its features are the inputs of the target's LM head."""

    def start(self, sequence: Sequence) -> Any:
        """The state for a new sequence, which has its prompt, parameters and coins.

        Drafters that sample must use `sequence.coins.split()`, so that drafting never changes the target's random numbers.
        """
        del sequence
        return DraftState()

    def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
        """Learn of new text.

        Args:
            sequence: the sequence, which already ends with the new tokens.
            tokens: n tokens. The last is the newest of the sequence, the root of the next tree.
            features: the target's features [n, H], or [n, layers H]: row i is at the position *before* token i.
        """

    def learn(self, sequence: Sequence, tree: Tree, logits: Tensor, path: abc.Sequence[int]) -> None:
        """Learn of the target's output at every node of the last tree, accepted or not. Called before `observe`.

        Args:
            sequence: the sequence.
            tree: the tree that was proposed.
            logits: the target's logits after every node, [m + 1, V].
            path: the accepted nodes.
        """

    def propose(self, sequences: abc.Sequence[Sequence]) -> abc.Sequence[Tree]:
        """A draft tree for each sequence, rooted in its newest token.

        Siblings have different tokens, and no node is deeper than `sequence.max_depth`.
        """
        return [self.propose_one(sequence) for sequence in sequences]

    def propose_one(self, sequence: Sequence) -> Tree:
        """A draft tree for one sequence."""
        raise NotImplementedError


class Method(Protocol):
    """The options of a drafting method, a frozen value."""

    checkpoint: ClassVar[Checkpoint]

    def drafter(self, target: Target, draft: Path | str) -> Drafter:
        """Create the drafter for a target.

        Args:
            target: the target that verifies the drafts.
            draft: directory of the checkpoint that `checkpoint` names.

        Raises:
            BadInput: an option is out of range, or the checkpoint does not fit the target.
        """


def require_whole(method: object, **least: int) -> None:
    """Raise BadInput unless the named options are whole numbers of at least these values."""
    for name, lowest in least.items():
        value: Any = getattr(method, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise BadInput(f"{name} must be a whole number of {lowest} or more, not {value}")
