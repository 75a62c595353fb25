"""What proposes trees. One file a drafter; the loop knows only what is said here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree, SampledTree, Tree

Checkpoint = Literal["draft", "small", "medusa", "none"]
"""What a method drafts with: an EAGLE head, a small language model, Medusa heads, or nothing that was trained."""


class Drafter(ABC):
    """Proposes continuations; what it proposes changes how fast text is emitted, never its law."""

    trees: ClassVar[type[DraftTree] | type[SampledTree]] = DraftTree
    """What its trees are: chosen, or drawn. A rule takes both, or one of them."""

    passes: int = 0
    """Forward passes of the draft model since `begin`; 0 where there is none."""

    @abstractmethod
    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        """A new text begins: forget the one before. A shallow copy that is begun drafts for another text.

        Who draws, draws from `coins.aside()`. The prompt's tokens but the first are observed too.
        """

    @abstractmethod
    def observe(self, tokens: Sequence[int], features: Tensor) -> None:
        """features [n, H] are the target's for n further positions; tokens [n] are the tokens emitted *after* each of them.

        The last token is the root of the next tree.
        """

    @abstractmethod
    def propose(self, depth: int) -> DraftTree | SampledTree:
        """A tree on the root, with no proposal deeper than `depth`, of distinct siblings and parents before children."""

    def learn(self, tree: Tree, logits: Tensor, path: Sequence[int]) -> None:  # noqa: B027
        """Hear what the target said, [m + 1, V], behind every node of the last tree, accepted (as path tells) or not; before
        `observe`. Most drafters have no use for it."""


class Method(Protocol):
    """A way to draft, with its options: a frozen value, of which a drafter is made for a target."""

    checkpoint: ClassVar[Checkpoint]

    def drafter(self, target: Target, draft: Path | str) -> Drafter:
        """BadInput for options that cannot be met, and for checkpoints that do not fit. `draft`: a directory of what
        `checkpoint` tells."""


class FromText(Drafter):
    """What drafts from the text alone."""

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:  # noqa: ARG002
        self._text = [int(prompt[0])]

    def observe(self, tokens: Sequence[int], features: Tensor) -> None:  # noqa: ARG002
        self._text = [*self.text, *tokens]

    @property
    def text(self) -> list[int]:
        """All of it, the root last, which chance may have left open until it is looked at."""
        self._text[-1] = int(self._text[-1])
        return self._text


def whole(method: object, **least: int) -> None:
    """Raise BadInput for an option that is no whole number, or below its least value."""
    for name, lowest in least.items():
        value: Any = getattr(method, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise BadInput(f"{name} is {value}", f"{name} must be a whole number of {lowest} or more")
