"""Upper bounds on the distance between a decoder's distribution and the target's, given the samples of a test that passed.

A rigorous bound holds at its level for every number of samples; an asymptotic bound is smaller and holds in the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import ncx2

from harness.statistics import Array
from harness.statistics.chisquare import goodness
from harness.statistics.intervals import clopper_pearson_upper

LEVEL = 0.999
"""Default confidence of a bound."""


@dataclass(frozen=True)
class Bound:
    """An upper bound, whether it is rigorous for this number of samples, and the assumption under which it holds."""

    value: float
    rigorous: bool
    assumption: str


def dkw_bound(distance: float, n: int, level: float = LEVEL) -> Bound:
    """Bound on sup_u |F(u) - u|, with F the distribution function of the decoder's PIT values.

    Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of Massart 1990: P(sup |F_n - F| > e) <= 2 exp(-2 n e^2). It bounds
    only events of the kind "a token among the likeliest with total probability u", averaged over contexts; deviations that
    cancel over contexts are not covered.

    Args:
        distance: observed sup_u |F_n(u) - u|.
        n: number of PIT values.
        level: confidence.
    """
    radius = np.sqrt(np.log(2 / (1 - level)) / (2 * n))
    return Bound(
        min(1.0, distance + float(radius)), True, "PIT values independent and identically distributed, their number fixed"
    )


def edge_distance(histogram: Array, widths: Array) -> float:
    """Kolmogorov distance from uniform at the edges of bins, all that counts [B] in bins of the given widths [B] determine."""
    return float(abs(np.cumsum(histogram / histogram.sum() - widths)).max())


def weissman_bound(observed: Array, law: Array, level: float = LEVEL) -> Bound:
    """Bound on the total variation from a known distribution over the whole alphabet of K outcomes.

    Weissman et al. 2003: P(|empirical - true|_1 >= e) <= (2^K - 2) exp(-n e^2 / 2).

    Args:
        observed: counts of independent samples, [K].
        law: the known distribution, [K].
        level: confidence.
    """
    n, cells = observed.sum(), len(observed)
    distance = abs(observed / n - law).sum() / 2
    subsets = cells * np.log(2) + np.log1p(-(2.0 ** (1 - cells)))
    radius = np.sqrt(2 * (subsets - np.log(1 - level)) / n) / 2
    return Bound(min(1.0, float(distance + radius)), True, "samples independent, their number fixed")


def chi_square_bound(observed: Array, law: Array, level: float = LEVEL) -> Bound:
    """Bound on the total variation on cells pooled to an expectation of 20, by inverting the chi-square test.

    It is the largest noncentrality for which a statistic as small as the observed one has probability 1 - level; a
    distribution at total variation d has a noncentrality of at least 4 n d^2. With bins of PIT values as cells, it bounds the
    total variation of their distribution from uniform.

    Args:
        observed: counts [K].
        law: the known distribution [K].
        level: confidence.
    """
    n = observed.sum()
    statistic, df = goodness(observed, n * law)
    if df == 0:
        return Bound(1.0, True, "all samples in one cell: nothing is bounded")
    return Bound(
        min(1.0, float(np.sqrt(_largest_noncentrality(statistic, df, 1 - level) / n) / 2)),
        False,
        "samples independent, their number fixed and large; cells of small expectation pooled into one",
    )


def impossible_token_bound(impossible: int, n: int, level: float = LEVEL) -> Bound:
    """Bound on the probability of emitting a token to which the target gives probability zero (Clopper and Pearson 1934)."""
    return Bound(clopper_pearson_upper(impossible, n, level), True, "the same probability at every token, and their number fixed")


def _largest_noncentrality(statistic: float, df: int, alpha: float) -> float:
    def excess(noncentrality: float) -> float:
        return float(ncx2.cdf(statistic, df, noncentrality)) - alpha

    smallest, largest = 1e-9, 4 * statistic + 40 * df + 400
    return float(brentq(excess, smallest, largest)) if excess(smallest) > 0 else 0.0
