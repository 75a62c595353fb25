"""What proposes trees. One file a drafter; the loop knows only the protocol below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from eagle2_ref.tree import DraftTree


class Drafter(Protocol):
    """Proposes continuations; what it proposes changes how fast text is emitted, never its law."""

    passes: int
    """Forward passes of the draft model since `reset`."""

    def reset(self) -> None:
        """Forget the text: a new prompt begins. A shallow copy, once reset, drafts for another text."""

    def observe(self, tokens: Sequence[int], features: Tensor) -> None:
        """features [n, H] are the target's for n further positions; tokens [n] are the tokens emitted *after* each of them.

        The last token is the root of the next tree.
        """

    def propose(self, depth: int) -> DraftTree:
        """A tree on the root, with no node deeper than `depth`, of distinct siblings and parents before children."""
