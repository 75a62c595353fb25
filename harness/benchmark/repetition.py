"""How repetitive a text is. The greedy text of a small model loops, and a loop is easy to draft: τ is read next to it."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 4


def repeated_ngrams(text: Sequence[int]) -> float | None:
    """Share of the n-grams of a text that occurred in it before: seq-rep-4 of Welleck et al. 2019, arXiv 1908.04319, section 3.

    None for a text of fewer than NGRAM tokens.
    """
    ngrams = [tuple(text[i : i + NGRAM]) for i in range(len(text) - NGRAM + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else None
