"""Classical tests that describe the shape of a deviation. They are reported and decide nothing.

Their p-values hold for one fixed number of tokens. Looking at them after every shard would invalidate them; the verdict rests on
e-processes, which may be looked at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import eval_legendre
from scipy.stats import chi2, kstest, norm

from harness.statistics import Array
from harness.statistics.chisquare import POOL, goodness
from harness.statistics.eprocess import WIDTHS, Counts, PitSequence

OFFSET_NAMES = ("0", "1", "2", "3 or more")


def diagnose(sequences: Sequence[PitSequence]) -> dict[str, float]:
    """p-values by name of test; tests without data are left out."""
    counts = Counts.of(sequences)
    names = ("u", "p", "is_child", "child_mass")
    u, p, is_child, child_mass = (np.concatenate([getattr(s, name) for s in sequences]) for name in names)
    u, is_child, child_mass = (column[p > 0] for column in (u, is_child, child_mass))
    known = ~np.isnan(child_mass)
    found = {
        "Kolmogorov-Smirnov": ks(u),
        "Neyman": neyman(u),
        "score": score(counts),
        "child": child(is_child[known], child_mass[known]),
    }
    return {name: p_value for name, p_value in (found | tails(counts)).items() if p_value is not None}


def ks(u: Array) -> float | None:
    """Kolmogorov-Smirnov test of uniformity of PIT values [n]: sensitive to broad shifts."""
    return float(kstest(u, "uniform").pvalue) if len(u) else None


def neyman(u: Array, order: int = 8) -> float | None:
    """Neyman's smooth test (1937) of uniformity of PIT values [n].

    The statistic is the sum of squares of sqrt(n) times the means of the first `order` Legendre polynomials, orthonormal on
    [0, 1]; under the null it is chi-square with `order` degrees of freedom.
    """
    if not len(u):
        return None
    j = np.arange(1, order + 1)[:, None]
    z = (np.sqrt(2 * j + 1) * eval_legendre(j, 2 * u - 1)).sum(axis=1) / np.sqrt(len(u))
    return float(chi2.sf((z**2).sum(), order))


def score(counts: Counts) -> float | None:
    """Two-sided normal test of the sum of log p + entropy: tokens too likely or too unlikely, as at a wrong temperature."""
    total, variance = counts.score
    return float(2 * norm.sf(abs(total) / np.sqrt(variance))) if variance > 0 else None


def tails(counts: Counts) -> dict[str, float | None]:
    """Chi-square tests of the bins of U by stratum, pooled to an expectation of 20.

    Unpooled, small strata reject three times too often.
    """
    strata = {"bins": counts.histogram, "bins, inner nodes": counts.leaf[0], "bins, leaves": counts.leaf[1]}
    strata |= {f"bins, offset {name}": counts.offset[i] for i, name in enumerate(OFFSET_NAMES)}
    return {name: tail(histogram) for name, histogram in strata.items()}


def tail(histogram: Array) -> float | None:
    """Chi-square test of one histogram [28] of U."""
    statistic, df = goodness(histogram, histogram.sum() * WIDTHS) if histogram.any() else (0.0, 0)
    return float(chi2.sf(statistic, df)) if df else None


def child(is_child: Array, child_mass: Array) -> float | None:
    """Chi-square test of how often the next token was a child of its node, in up to ten groups of similar probability.

    Groups have equal variance, at least POOL each, so the sum of each is nearly normal.
    """
    order = np.argsort(child_mass, kind="stable")
    variance = (child_mass * (1 - child_mass))[order]
    total = variance.sum()
    groups = min(10, int(total // POOL))
    if not groups:
        return None
    group = np.minimum((variance.cumsum() / total * groups).astype(int), groups - 1)
    excess, spread = np.bincount(group, (is_child - child_mass)[order], groups), np.bincount(group, variance, groups)
    return float(chi2.sf((excess**2 / spread).sum(), groups))
