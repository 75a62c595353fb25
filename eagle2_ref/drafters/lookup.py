"""Prompt lookup: copy what followed the last few tokens earlier in the text (github.com/apoorvumang/prompt-lookup-decoding)."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eagle2_ref.drafters.base import Checkpoint, Drafter, require_whole
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import DraftTree


@dataclass(frozen=True)
class Lookup:
    """Options of prompt lookup. ngram: longest match that is searched. depth: number of tokens copied."""

    ngram: int = 3
    depth: int = 10

    checkpoint: ClassVar[Checkpoint] = "none"

    def drafter(self, target: Target, draft: Path | str) -> LookupDrafter:  # noqa: ARG002
        require_whole(self, ngram=1, depth=1)
        return LookupDrafter(self)


class LookupDrafter(Drafter):
    """A chain, copied from the first earlier occurrence of the text's last n-gram; no draft where there is none.

    The copy depends only on the past: the tokens are chosen, not sampled, and `reject` is lossless at any temperature. (The
    published code compares with the target's most likely tokens, and is greedy only.)
    """

    def __init__(self, method: Lookup) -> None:
        self.method = method

    def propose_one(self, sequence: Sequence) -> DraftTree:
        text = sequence.tokens
        copy = find_continuation(text, self.method.ngram, min(sequence.max_depth, self.method.depth))
        return DraftTree.of([text[-1], *copy], list(range(-1, len(copy))))


def find_continuation(text: abc.Sequence[int], ngram: int, n: int) -> abc.Sequence[int]:
    """Up to n tokens after the first earlier occurrence of the last `ngram` tokens, or of fewer if these do not occur."""
    for size in range(min(ngram, len(text) - 1), 0, -1):
        last = list(text[-size:])
        for start in range(len(text) - size):
            if text[start : start + size] == last:
                return text[start + size : start + size + n]
    return []
