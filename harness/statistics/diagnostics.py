"""What shape a deviation has: classical tests of one fixed number of tokens. They are reported, and decide nothing.

A look at them after every shard would make their p-values meaningless; the verdict rests on e-processes, which may be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre
from scipy.stats import chi2, kstest, norm

from harness.statistics.chisquare import POOL, goodness
from harness.statistics.eprocess import WIDTHS, Counts, PitSequence

Array: TypeAlias = NDArray[Any]

OFFSET_NAMES = ("0", "1", "2", "3 or more")


def diagnose(strands: Sequence[PitSequence]) -> dict[str, float]:
    """p-values by name. A test that has no data is left out: it has said nothing."""
    sums = Counts.of(strands)
    u, p, hit, mass = (np.concatenate([getattr(s, name) for s in strands]) for name in ("u", "p", "is_child", "child_mass"))
    u, hit, mass = (column[p > 0] for column in (u, hit, mass))
    known = ~np.isnan(mass)
    found = {"Kolmogorov-Smirnov": ks(u), "Neyman": neyman(u), "score": score(sums), "child": child(hit[known], mass[known])}
    return {name: p_value for name, p_value in (found | tails(sums)).items() if p_value is not None}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values such that rejecting those below alpha rejects any true hypothesis with probability at most alpha (Holm 1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def ks(u: Array) -> float | None:
    """Largest distance of the empirical distribution function from uniform: broad shifts."""
    return float(kstest(u, "uniform").pvalue) if len(u) else None


def neyman(u: Array, order: int = 8) -> float | None:
    """Means of the first Legendre polynomials, orthonormal on [0, 1]: smooth shapes, more sharply than Kolmogorov-Smirnov."""
    if not len(u):
        return None
    j = np.arange(1, order + 1)[:, None]
    z = (np.sqrt(2 * j + 1) * eval_legendre(j, 2 * u - 1)).sum(axis=1) / np.sqrt(len(u))
    return float(chi2.sf((z**2).sum(), order))


def score(sums: Counts) -> float | None:
    """Sum of log p + entropy, two-sided: too likely or too unlikely tokens, such as a wrong temperature."""
    total, variance = sums.score
    return float(2 * norm.sf(abs(total) / np.sqrt(variance))) if variance > 0 else None


def tails(sums: Counts) -> dict[str, float | None]:
    """Chi-square of the bins of U, pooled to an expectation of 20 (unpooled, small strata reject three times too often)."""
    strata = {"bins": sums.histogram, "bins, inner nodes": sums.leaf[0], "bins, leaves": sums.leaf[1]}
    strata |= {f"bins, offset {name}": sums.offset[i] for i, name in enumerate(OFFSET_NAMES)}
    return {name: tail(histogram) for name, histogram in strata.items()}


def tail(histogram: Array) -> float | None:
    statistic, df = goodness(histogram, histogram.sum() * WIDTHS) if histogram.any() else (0.0, 0)
    return float(chi2.sf(statistic, df)) if df else None


def child(hit: Array, mass: Array) -> float | None:
    """Chi-square of how often the next token was a child of its node, over up to ten groups of like probability.

    Groups are of equal variance, which is at least that of POOL; so each sum of hits is as good as normal.
    """
    order = np.argsort(mass, kind="stable")
    variance = (mass * (1 - mass))[order]
    total = variance.sum()
    groups = min(10, int(total // POOL))
    if not groups:
        return None
    group = np.minimum((variance.cumsum() / total * groups).astype(int), groups - 1)
    excess, spread = np.bincount(group, (hit - mass)[order], groups), np.bincount(group, variance, groups)
    return float(chi2.sf((excess**2 / spread).sum(), groups))
