"""Prompt lookup: what followed the last few tokens when they stood in the text before (apoorvumang/prompt-lookup-decoding)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eagle2_ref.drafters.base import Checkpoint, FromText, whole
from eagle2_ref.model.target import Target
from eagle2_ref.tree import DraftTree


@dataclass(frozen=True)
class Lookup:
    """ngram: tokens that must match, the longest such match counts. depth: tokens copied from behind it."""

    ngram: int = 3
    depth: int = 10

    checkpoint: ClassVar[Checkpoint] = "none"

    def drafter(self, target: Target, draft: Path | str) -> LookupDrafter:  # noqa: ARG002
        whole(self, ngram=1, depth=1)
        return LookupDrafter(self)


class LookupDrafter(FromText):
    """A chain, copied from the first earlier place where the text went on from the same n-gram; where there is none, nothing.

    A copy is a choice that looks only at the past: the rule is that of chosen trees, and the law is the target's at any
    temperature. (The published code compares with the target's likeliest tokens, and is greedy only.)
    """

    def __init__(self, method: Lookup) -> None:
        self.method = method

    def propose(self, depth: int) -> DraftTree:
        chain = copied(self.text, self.method.ngram, min(depth, self.method.depth))
        return DraftTree.of([self.text[-1], *chain], list(range(-1, len(chain))))


def copied(text: Sequence[int], ngram: int, n: int) -> Sequence[int]:
    """Up to n tokens from behind the first earlier occurrence of the last `ngram` tokens, or of fewer where there is none."""
    for size in range(min(ngram, len(text) - 1), 0, -1):
        sought = list(text[-size:])
        for start in range(len(text) - size):
            if text[start : start + size] == sought:
                return text[start + size : start + size + n]
    return []
