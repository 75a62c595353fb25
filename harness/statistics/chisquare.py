"""Chi-square against a fully known law, with pooled cells, and the smallest deviation it would have seen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

T = TypeVar("T", bound=Hashable)

POOL = 20.0
"""Cells are pooled until each expects this many. With raw cells of E < 1 the tail probability is off by factors of 20 to 80."""


@dataclass(frozen=True)
class ChiSquare:
    """Outcome of one test. impossible: samples on outcomes of probability zero; one of them is proof by itself.

    distance: the total variation seen on the pooled cells, with the impossible as a cell of their own; due: what samples of
    the law itself would show on average, as chance alone puts some there.
    """

    statistic: float
    df: int
    p: float
    n: int
    impossible: int
    distance: float = 0.0
    due: float = 0.0

    def detectable_deviation(self, alpha: float, power: float = 0.9) -> float:
        """The smallest total variation (on the pooled cells) that this test rejects with the given power at level alpha.

        The chi-square distance of a law at total variation d is at least 4 d^2 (Cauchy-Schwarz), so that n samples put a
        noncentrality of at least 4 n d^2 into the statistic.
        """
        if self.df == 0:
            return 1.0
        threshold = chi2.isf(alpha, self.df)
        noncentrality = brentq(lambda x: ncx2.sf(threshold, self.df, x) - power, 1e-9, 1e6)
        return min(1.0, float(np.sqrt(noncentrality / self.n) / 2))


def chi_square(counts: Mapping[T, int], law: Mapping[T, float], pool: float = POOL) -> ChiSquare:
    """Test counts of independent samples against a law."""
    n = sum(counts.values())
    impossible = sum(count for outcome, count in counts.items() if law.get(outcome, 0.0) == 0.0)
    outcomes = [x for x in law if law[x] > 0]
    expected = np.array([n * law[x] for x in outcomes])
    observed = np.array([counts.get(x, 0) for x in outcomes], dtype=float)
    o, e = _cells(observed, expected, pool)
    statistic, df = _statistic(o, e)
    p = 0.0 if impossible else float(chi2.sf(statistic, df)) if df else 1.0
    distance = float(np.abs(o - e).sum() + impossible) / (2 * n)
    due = float(np.sqrt(2 / np.pi * e * (1 - e / n)).sum()) / (2 * n)  # mean absolute deviation of a normal count
    return ChiSquare(statistic, df, p, n, impossible, distance, due)


def goodness(observed: NDArray[Any], expected: NDArray[Any], pool: float = POOL) -> tuple[float, int]:
    """Statistic and degrees of freedom, given counts and expectations in any order; outcomes expected 0 times are left out."""
    return _statistic(*_cells(observed, expected, pool))


def _statistic(o: NDArray[Any], e: NDArray[Any]) -> tuple[float, int]:
    return float(((o - e) ** 2 / e).sum()), len(e) - 1


def _cells(observed: NDArray[Any], expected: NDArray[Any], pool: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Observed and expected counts of the pooled cells."""
    order = np.argsort(-expected, kind="stable")[: np.count_nonzero(expected)]
    cells = _pooled(expected[order], pool)
    return np.bincount(cells, observed[order]), np.bincount(cells, expected[order])


def _pooled(expected: NDArray[Any], pool: float) -> NDArray[np.intp]:
    """Cell numbers for outcomes in descending order: an outcome joins its predecessor's cell while that lacks mass.

    A last cell that stays too small is merged into the one before it.
    """
    cells, filled = np.zeros(len(expected), dtype=np.intp), 0.0
    for i, e in enumerate(expected):
        cells[i] = cells[i - 1] if i and filled < pool else (cells[i - 1] + 1 if i else 0)
        filled = filled + e if i and cells[i] == cells[i - 1] else e
    if filled < pool and cells[-1] > 0:
        cells[cells == cells[-1]] = cells[-1] - 1
    return cells
