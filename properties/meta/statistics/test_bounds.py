"""Bounds cover the truth at their level, are not too wide, and say whether they are rigorous."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, kstest

from harness.statistics import Array
from harness.statistics.bounds import Bound, chi_square_bound, dkw_bound, edge_distance, impossible_token_bound, weissman_bound
from harness.statistics.chisquare import chi_square, goodness
from harness.statistics.eprocess import WIDTHS

LAW = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.04, 0.02, 0.01])
LEVEL = 0.9
REPEATS = 400


def shifted(d: float) -> Array:
    """A distribution at total variation d from LAW, in the direction of smallest chi-square distance: two scaled parts."""
    up = np.arange(8) == 0
    q: Array = np.where(up, LAW * (1 + d / LAW[up].sum()), LAW * (1 - d / LAW[~up].sum()))
    assert abs(q - LAW).sum() / 2 == pytest.approx(d)
    return q


def coverage(bound: Callable[[Array], Bound], q: Array, n: int, true: float) -> float:
    samples = np.random.default_rng(5).multinomial(n, q, size=REPEATS)
    return float(np.mean([bound(sample).value >= true for sample in samples]))


@pytest.mark.parametrize("d", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("n", [300, 10_000])
def test_total_variation_bounds_cover_the_truth(d: float, n: int) -> None:
    """The rigorous bound is wide, the asymptotic one close to its level."""
    q = shifted(d)
    assert coverage(lambda observed: weissman_bound(observed, LAW, LEVEL), q, n, d) >= LEVEL
    assert coverage(lambda observed: chi_square_bound(observed, LAW, LEVEL), q, n, d) >= LEVEL - 0.03


def test_smaller_bound_does_not_cover() -> None:
    """Two thirds of the asymptotic bound, at a deviation it can detect: the test above is not vacuous."""
    q = shifted(0.05)
    assert (
        coverage(lambda observed: Bound(2 / 3 * chi_square_bound(observed, LAW, LEVEL).value, False, ""), q, 10_000, 0.05) < 0.6
    )


def test_dkw_bound_covers_the_distance() -> None:
    """For u = w^(1.1) with w uniform, F is known; the bound is computed from n = 500 values."""
    rng = np.random.default_rng(6)
    grid = np.linspace(0, 1, 10_001)
    true = abs(grid ** (1 / 1.1) - grid).max()
    found = [dkw_bound(float(kstest(rng.random(500) ** 1.1, "uniform").statistic), 500, LEVEL).value >= true for _ in range(500)]
    radius = dkw_bound(0, 500, LEVEL).value
    assert np.mean(found) >= LEVEL
    assert radius == pytest.approx(np.sqrt(np.log(20) / 1000))
    assert dkw_bound(0.3, 500, LEVEL).value == pytest.approx(0.3 + radius)


def test_dkw_radius_is_tight() -> None:
    """For uniform F, |F_n - F| <= radius is covered at the level itself; half the radius is not."""
    rng = np.random.default_rng(7)
    observed = np.array([kstest(rng.random(500), "uniform").statistic for _ in range(500)])
    radius = dkw_bound(0, 500, LEVEL).value
    assert np.mean(observed <= radius) == pytest.approx(LEVEL, abs=0.05)
    assert np.mean(observed <= radius / 2) < 0.2


def test_edge_distance_is_at_most_the_kolmogorov_distance() -> None:
    u = np.random.default_rng(8).random(400)
    histogram = np.bincount(np.searchsorted(WIDTHS.cumsum()[:-1], u, side="right"), minlength=28)
    assert 0 < edge_distance(histogram, WIDTHS) <= kstest(u, "uniform").statistic + 1e-12
    assert edge_distance(histogram[::-1], WIDTHS) > 0.1


@pytest.mark.parametrize(("n", "k"), [(100, 0), (100, 3), (5000, 1)])
def test_impossible_token_bound_inverts_the_binomial(n: int, k: int) -> None:
    """At the bound, k or fewer impossible tokens have probability 1 - level."""
    assert binom.cdf(k, n, impossible_token_bound(k, n, 0.99).value) == pytest.approx(0.01)


def test_uninformative_samples_bound_nothing() -> None:
    assert impossible_token_bound(5, 5).value == 1
    assert chi_square_bound(np.array([9.0]), np.array([1.0])).value == 1
    assert dkw_bound(0.0, 1).value == 1


def test_bounds_of_a_million_samples_have_the_expected_size() -> None:
    """At 99.9 %, for samples of the distribution itself over 8 outcomes."""
    observed = np.random.default_rng(9).multinomial(10**6, LAW)
    assert 0.0025 < weissman_bound(observed, LAW).value < 0.0045
    assert 0.0015 < chi_square_bound(observed, LAW).value < 0.003
    assert weissman_bound(observed, LAW).rigorous
    assert not chi_square_bound(observed, LAW).rigorous


def test_chi_square_of_mappings_and_of_arrays_agree() -> None:
    observed = np.random.default_rng(10).multinomial(500, LAW)
    statistic, df = goodness(observed, 500 * LAW)
    test = chi_square(dict(enumerate(observed.tolist())), dict(enumerate(LAW.tolist())))
    assert [test.statistic, test.df] == pytest.approx([statistic, df])
    assert list(goodness(observed[::-1], 500 * LAW[::-1])) == pytest.approx([statistic, df])
