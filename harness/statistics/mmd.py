"""Two-sample tests on texts, for targets whose probabilities are unknown: an engine against its control.

They are weak: where tests with known probabilities need 1,000 tokens, these need about 10,000.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import chi2

from harness.statistics import Array
from harness.statistics.chisquare import goodness

Texts: TypeAlias = Sequence[Sequence[Sequence[int]]]
"""New tokens by prompt and sample. The samples of one prompt are independent."""

END = -1
"""Padding after the end of a text, so that no text is a prefix of another."""
PERMUTATIONS = 999
BATCH = 100
"""Permutations computed at once."""


@dataclass(frozen=True)
class PermutationTest:
    """Result of a permutation test.

    Attributes:
        statistic: mean over prompts of MMD^2.
        p: p-value, exact for every sample size.
        resolution: smallest possible p-value, and its step.
    """

    statistic: float
    p: float
    resolution: float


def prefix_mmd(engine: Texts, control: Texts, window: int, seed: int, permutations: int = PERMUTATIONS) -> PermutationTest:
    """Maximum mean discrepancy between engine and control (Gretton et al. 2012, the biased estimate of equation 5).

    The kernel of two texts is the share of the first `window` prefixes that they have in common. Null hypothesis: for each
    prompt, engine and control sample from the same distribution, so their samples are exchangeable. The p-value is the rank of
    the observed statistic among permutations within prompts, (1 + #{permuted >= observed}) / (1 + permutations).
    """
    rng = np.random.default_rng(seed)
    observed, permuted = 0.0, np.zeros(permutations)
    for ours, theirs in _by_prompt(engine, control):
        prefixes = _prefix_features([*ours, *theirs], window)
        weights = np.repeat([1 / len(ours), -1 / len(theirs)], [len(ours), len(theirs)])
        observed += float(_discrepancy(weights[None], prefixes)[0]) / window
        for start in range(0, permutations, BATCH):
            part = permuted[start : start + BATCH]
            part += _discrepancy(rng.permuted(np.tile(weights, (len(part), 1)), axis=1), prefixes) / window
    # Equal statistics may differ in their last bits; such a permutation counts as at least the observed one.
    at_least = int(np.count_nonzero(permuted >= observed * (1 - 1e-9)))
    return PermutationTest(observed / len(engine), (1 + at_least) / (1 + permutations), 1 / (1 + permutations))


def first_tokens_test(engine: Texts, control: Texts, window: int) -> float | None:
    """p-value of the chi-square test of homogeneity of the first `window` tokens, taken jointly and summed over prompts.

    Cells are pooled to an expectation of 20 in the smaller arm. An excess in one arm is a deficit in the other, so the whole
    statistic is that of one arm times a factor.

    Returns:
        None if the samples fill a single cell: then nothing is tested.
    """
    statistic, df = 0.0, 0
    for ours, theirs in _by_prompt(engine, control):
        small, large = sorted((_first_tokens(ours, window), _first_tokens(theirs, window)), key=lambda arm: arm.total())
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


def _first_tokens(texts: Sequence[Sequence[int]], window: int) -> Counter[tuple[int, ...]]:
    return Counter(_padded(text, window) for text in texts)


def _prefix_features(texts: Sequence[Sequence[int]], window: int) -> csr_matrix:
    """Indicators [texts, prefixes], the features of the kernel. A prefix is numbered by its node in a trie."""
    trie: dict[tuple[int, int], int] = {}
    columns = []
    for text in texts:
        node = -1
        for token in _padded(text, window):
            node = trie.setdefault((node, token), len(trie))
            columns.append(node)
    rows = np.repeat(np.arange(len(texts)), window)
    return csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(texts), len(trie)))


def _discrepancy(weights: Array, prefixes: csr_matrix) -> Array:
    """Squared distance [permutations] between the arms' mean features, given signed weights [permutations, texts]."""
    squared: Array = ((weights @ prefixes) ** 2).sum(axis=1)
    return squared
