"""Pearson's chi-square test against a fully known distribution, with pooled cells, and the deviation it can detect."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

from harness.statistics import Array

T = TypeVar("T", bound=Hashable)

POOL = 20.0
"""Cells are pooled until each has this expectation. With unpooled cells of expectation below 1 the tail probability of the
chi-square approximation is wrong by factors of 20 to 80."""


@dataclass(frozen=True)
class ChiSquare:
    """Result of one test.

    Attributes:
        statistic: sum over cells of (observed - expected)^2 / expected.
        df: degrees of freedom, cells - 1.
        p: upper tail probability; 0 if an impossible outcome occurred.
        n: number of samples.
        impossible: samples with outcomes of probability zero; one of them is proof by itself.
        distance: observed total variation on the pooled cells, with the impossible outcomes as an additional cell.
        expected_distance: mean of `distance` for samples of the distribution itself.
    """

    statistic: float
    df: int
    p: float
    n: int
    impossible: int
    distance: float = 0.0
    expected_distance: float = 0.0

    def detectable_deviation(self, alpha: float, power: float = 0.9) -> float:
        """Smallest total variation, on the pooled cells, that the test rejects with the given power at level alpha.

        A distribution at total variation d has a chi-square distance of at least 4 d^2 (Cauchy-Schwarz), so n samples give the
        statistic a noncentrality of at least 4 n d^2.
        """
        if self.df == 0:
            return 1.0
        threshold = chi2.isf(alpha, self.df)
        noncentrality = brentq(lambda x: ncx2.sf(threshold, self.df, x) - power, 1e-9, 1e6)
        return min(1.0, float(np.sqrt(noncentrality / self.n) / 2))


def chi_square(counts: Mapping[T, int], law: Mapping[T, float], pool: float = POOL) -> ChiSquare:
    """Test counts of independent samples against a distribution, both by outcome."""
    n = sum(counts.values())
    impossible = sum(count for outcome, count in counts.items() if law.get(outcome, 0.0) == 0.0)
    outcomes = [x for x in law if law[x] > 0]
    expected = np.array([n * law[x] for x in outcomes])
    observed = np.array([counts.get(x, 0) for x in outcomes], dtype=float)
    o, e = _pool(observed, expected, pool)
    statistic, df = _statistic(o, e)
    p = 0.0 if impossible else float(chi2.sf(statistic, df)) if df else 1.0
    distance = float(np.abs(o - e).sum() + impossible) / (2 * n)
    mean = float(np.sqrt(2 / np.pi * e * (1 - e / n)).sum()) / (2 * n)  # mean absolute deviation of a normal count
    return ChiSquare(statistic, df, p, n, impossible, distance, mean)


def goodness(observed: Array, expected: Array, pool: float = POOL) -> tuple[float, int]:
    """Statistic and degrees of freedom of counts [K] against expectations [K]; outcomes of expectation 0 are left out."""
    return _statistic(*_pool(observed, expected, pool))


def _statistic(o: Array, e: Array) -> tuple[float, int]:
    return float(((o - e) ** 2 / e).sum()), len(e) - 1


def _pool(observed: Array, expected: Array, pool: float) -> tuple[Array, Array]:
    """Observed and expected counts of the pooled cells."""
    order = np.argsort(-expected, kind="stable")[: np.count_nonzero(expected)]
    cells = _cell_numbers(expected[order], pool)
    return np.bincount(cells, observed[order]), np.bincount(cells, expected[order])


def _cell_numbers(expected: Array, pool: float) -> NDArray[np.intp]:
    """Cell number of each outcome, given expectations in descending order.

    An outcome joins the cell of its predecessor while that is below `pool`. A last cell that stays below is merged into the
    one before it.
    """
    cells, filled = np.zeros(len(expected), dtype=np.intp), 0.0
    for i, e in enumerate(expected):
        cells[i] = cells[i - 1] if i and filled < pool else (cells[i - 1] + 1 if i else 0)
        filled = filled + e if i and cells[i] == cells[i - 1] else e
    if filled < pool and cells[-1] > 0:
        cells[cells == cells[-1]] = cells[-1] - 1
    return cells
