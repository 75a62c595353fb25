"""What follows from a test that saw nothing: upper bounds on how far a decoder may still be from its target's law.

A rigorous bound holds at its level for every number of samples. An asymptotic one is smaller, and true in the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import ncx2

from harness.statistics.chisquare import goodness
from harness.statistics.intervals import clopper_pearson_upper

Array: TypeAlias = NDArray[Any]

LEVEL = 0.999
"""Confidence of a bound unless said otherwise."""


@dataclass(frozen=True)
class Bound:
    """A number, whether it is proved for this many samples, and under what assumption."""

    value: float
    rigorous: bool
    assumption: str


def rank_cdf(distance: float, n: int, level: float = LEVEL) -> Bound:
    """sup |F - u| over u, F the distribution of the decoder's PIT values, which the n seen miss by `distance` (Kolmogorov).

    Dvoretzky-Kiefer-Wolfowitz, with Massart's constant. It bounds only events of the kind "a token among the likeliest that
    make up u", on average over contexts: deviations that cancel over contexts are not in it.
    """
    radius = np.sqrt(np.log(2 / (1 - level)) / (2 * n))
    return Bound(
        min(1.0, distance + float(radius)), True, "PIT values independent and identically distributed, their number fixed"
    )


def edge_distance(histogram: Array, widths: Array) -> float:
    """Kolmogorov's distance seen at the edges of bins alone: what counts can tell of it."""
    return float(abs(np.cumsum(histogram / histogram.sum() - widths)).max())


def weissman(observed: Array, law: Array, level: float = LEVEL) -> Bound:
    """Total variation from a known law [K], given independent samples counted by outcome [K], over the whole alphabet.

    Weissman et al. 2003: P(|empirical - true| >= e in L1) <= (2^K - 2) exp(-n e^2 / 2).
    """
    n, cells = observed.sum(), len(observed)
    seen = abs(observed / n - law).sum() / 2
    subsets = cells * np.log(2) + np.log1p(-(2.0 ** (1 - cells)))
    radius = np.sqrt(2 * (subsets - np.log(1 - level)) / n) / 2
    return Bound(min(1.0, float(seen + radius)), True, "samples independent, their number fixed")


def inversion(observed: Array, law: Array, level: float = LEVEL) -> Bound:
    """Total variation on cells pooled to an expectation of 20, by inverting the test: the largest noncentrality that would
    give a chi-square as small as the one seen with probability 1 - level. A law at total variation d has at least 4 n d^2.

    With bins of PIT values for cells: the total variation of their distribution from uniform.
    """
    n = observed.sum()
    statistic, df = goodness(observed, n * law)
    if df == 0:
        return Bound(1.0, True, "all in one cell: nothing is bounded")
    return Bound(
        min(1.0, float(np.sqrt(_largest_noncentrality(statistic, df, 1 - level) / n) / 2)),
        False,
        "samples independent, their number fixed and large; cells of small expectation pooled into one",
    )


def support(impossible: int, n: int, level: float = LEVEL) -> Bound:
    """Probability, a token, of one that the target gives probability zero (Clopper and Pearson)."""
    return Bound(clopper_pearson_upper(impossible, n, level), True, "the same probability at every token, and their number fixed")


def _largest_noncentrality(statistic: float, df: int, alpha: float) -> float:
    def excess(noncentrality: float) -> float:
        return float(ncx2.cdf(statistic, df, noncentrality)) - alpha

    tiny, most = 1e-9, 4 * statistic + 40 * df + 400
    return float(brentq(excess, tiny, most)) if excess(tiny) > 0 else 0.0
