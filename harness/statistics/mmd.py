"""Two samples of texts, one law? For targets whose probabilities cannot be had: an engine beside its control.

Weak beside evidence from known probabilities: what 1,000 tokens prove there takes some 10,000 here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import chi2

from harness.statistics.chisquare import goodness

Array: TypeAlias = NDArray[Any]

Texts: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""New tokens by prompt and sample. The samples of one prompt are independent."""

END = -1
"""Stands where a text has ended, so that a text is never a prefix of another."""
PERMUTATIONS = 999
AT_A_TIME = 100


@dataclass(frozen=True)
class PermutationTest:
    """statistic: mean over prompts of MMD^2. p: exact for every sample size, in steps of `resolution` and never below it."""

    statistic: float
    p: float
    resolution: float


def prefix_mmd(engine: Texts, control: Texts, window: int, seed: int, permutations: int = PERMUTATIONS) -> PermutationTest:
    """Maximum mean discrepancy, the kernel of two texts being the share of the first `window` prefixes they have in common.

    Under the null hypothesis engine and control may swap samples within a prompt: p is the rank of what was seen among swaps.
    """
    rng = np.random.default_rng(seed)
    seen, swapped = 0.0, np.zeros(permutations)
    for ours, theirs in _by_prompt(engine, control):
        prefixes = _prefixes([*ours, *theirs], window)
        arms = np.repeat([1 / len(ours), -1 / len(theirs)], [len(ours), len(theirs)])
        seen += float(_discrepancy(arms[None], prefixes)[0]) / window
        for start in range(0, permutations, AT_A_TIME):
            part = swapped[start : start + AT_A_TIME]
            part += _discrepancy(rng.permuted(np.tile(arms, (len(part), 1)), axis=1), prefixes) / window
    # Statistics that are equal differ in their last bits: such a swap counts as no smaller.
    at_least = int(np.count_nonzero(swapped >= seen * (1 - 1e-9)))
    return PermutationTest(seen / len(engine), (1 + at_least) / (1 + permutations), 1 / (1 + permutations))


def first_tokens_test(engine: Texts, control: Texts, window: int) -> float | None:
    """p-value of the chi-square of homogeneity of the first `window` tokens taken jointly, summed over prompts.

    Cells are pooled to an expectation of 20 in the smaller arm. What one arm has too much the other lacks, so that one arm's
    statistic is the whole one up to a factor. None where too few samples leave a single cell: then nothing was tested.
    """
    statistic, df = 0.0, 0
    for ours, theirs in _by_prompt(engine, control):
        small, large = sorted((_starts(ours, window), _starts(theirs, window)), key=lambda arm: arm.total())
        both = small + large
        share = small.total() / both.total()
        observed, expected = np.array([small[x] for x in both]), np.array([share * both[x] for x in both])
        one_arm, cells = goodness(observed, expected)
        statistic, df = statistic + one_arm * (1 + small.total() / large.total()), df + cells
    return float(chi2.sf(statistic, df)) if df else None


def _by_prompt(engine: Texts, control: Texts) -> list[tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]:
    if len(engine) != len(control) or not engine or not all(map(len, [*engine, *control])):
        raise ValueError(f"{len(engine)} and {len(control)} prompts: both arms need samples of every prompt")
    return list(zip(engine, control, strict=True))


def _padded(text: Sequence[int], window: int) -> tuple[int, ...]:
    return (*text, *[END] * window)[:window]


def _starts(texts: Sequence[Sequence[int]], window: int) -> Counter[tuple[int, ...]]:
    return Counter(_padded(text, window) for text in texts)


def _prefixes(texts: Sequence[Sequence[int]], window: int) -> csr_matrix:
    """Indicators [texts, prefixes]: the kernel's features. A prefix is numbered as the node of a trie it leads to."""
    trie: dict[tuple[int, int], int] = {}
    columns = []
    for text in texts:
        node = -1
        for token in _padded(text, window):
            node = trie.setdefault((node, token), len(trie))
            columns.append(node)
    rows = np.repeat(np.arange(len(texts)), window)
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(texts), len(trie)))


def _discrepancy(arms: Array, prefixes: csr_matrix) -> Array:
    """Squared distance of the arms' mean features, for each row of signed weights [permutations, texts]."""
    squared: Array = ((arms @ prefixes) ** 2).sum(axis=1)
    return squared
