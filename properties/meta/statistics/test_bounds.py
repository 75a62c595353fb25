"""Bounds cover, shrink as they should, and say what they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, kstest

from harness.statistics.bounds import Bound, chi_square_bound, dkw_bound, edge_distance, impossible_token_bound, weissman_bound
from harness.statistics.chisquare import chi_square, goodness
from harness.statistics.eprocess import WIDTHS, Array

LAW = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.04, 0.02, 0.01])
LEVEL = 0.9
REPEATS = 400


def shifted(d: float) -> Array:
    """A law at total variation d from LAW, in the direction that a chi-square sees least: both halves scaled."""
    up = np.arange(8) == 0
    q: Array = np.where(up, LAW * (1 + d / LAW[up].sum()), LAW * (1 - d / LAW[~up].sum()))
    assert abs(q - LAW).sum() / 2 == pytest.approx(d)
    return q


def coverage(bound: Callable[[Array], Bound], q: Array, n: int, true: float) -> float:
    samples = np.random.default_rng(5).multinomial(n, q, size=REPEATS)
    return float(np.mean([bound(sample).value >= true for sample in samples]))


@pytest.mark.parametrize("d", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("n", [300, 10_000])
def test_total_variation_is_covered(d: float, n: int) -> None:
    """At the level promised; the rigorous bound is wide, the asymptotic one near its level."""
    q = shifted(d)
    assert coverage(lambda seen: weissman_bound(seen, LAW, LEVEL), q, n, d) >= LEVEL
    assert coverage(lambda seen: chi_square_bound(seen, LAW, LEVEL), q, n, d) >= LEVEL - 0.03


def test_a_bound_that_is_too_small_does_not_cover() -> None:
    """What the tests above would see: two thirds of the asymptotic bound, at a deviation as large as it can see."""
    q = shifted(0.05)
    assert coverage(lambda seen: Bound(2 / 3 * chi_square_bound(seen, LAW, LEVEL).value, False, ""), q, 10_000, 0.05) < 0.6


def test_rank_distribution_is_covered() -> None:
    """F is known for u = w^(1.1): sup |F - u|, against the bound from what n = 500 values show."""
    rng = np.random.default_rng(6)
    grid = np.linspace(0, 1, 10_001)
    true = abs(grid ** (1 / 1.1) - grid).max()
    found = [dkw_bound(float(kstest(rng.random(500) ** 1.1, "uniform").statistic), 500, LEVEL).value >= true for _ in range(500)]
    radius = dkw_bound(0, 500, LEVEL).value
    assert np.mean(found) >= LEVEL
    assert radius == pytest.approx(np.sqrt(np.log(20) / 1000))
    assert dkw_bound(0.3, 500, LEVEL).value == pytest.approx(0.3 + radius)


def test_radius_of_the_rank_distribution_is_no_wider_than_it_must_be() -> None:
    """Coverage of |empirical - F| <= radius is at the level itself, for F = uniform: half the radius fails."""
    rng = np.random.default_rng(7)
    seen = np.array([kstest(rng.random(500), "uniform").statistic for _ in range(500)])
    radius = dkw_bound(0, 500, LEVEL).value
    assert np.mean(seen <= radius) == pytest.approx(LEVEL, abs=0.05)
    assert np.mean(seen <= radius / 2) < 0.2


def test_distance_at_edges_is_at_most_the_whole_distance() -> None:
    u = np.random.default_rng(8).random(400)
    histogram = np.bincount(np.searchsorted(WIDTHS.cumsum()[:-1], u, side="right"), minlength=28)
    assert 0 < edge_distance(histogram, WIDTHS) <= kstest(u, "uniform").statistic + 1e-12
    assert edge_distance(histogram[::-1], WIDTHS) > 0.1


@pytest.mark.parametrize(("n", "k"), [(100, 0), (100, 3), (5000, 1)])
def test_support_inverts_the_binomial(n: int, k: int) -> None:
    """At the bound, k or fewer have probability 1 - level."""
    assert binom.cdf(k, n, impossible_token_bound(k, n, 0.99).value) == pytest.approx(0.01)


def test_nothing_seen_bounds_nothing() -> None:
    assert impossible_token_bound(5, 5).value == 1
    assert chi_square_bound(np.array([9.0]), np.array([1.0])).value == 1
    assert dkw_bound(0.0, 1).value == 1


def test_sizes_of_published_bounds() -> None:
    """Order of magnitude, at 99.9 % for a million samples of 8 outcomes that fit as samples do."""
    seen = np.random.default_rng(9).multinomial(10**6, LAW)
    assert 0.0025 < weissman_bound(seen, LAW).value < 0.0045
    assert 0.0015 < chi_square_bound(seen, LAW).value < 0.003
    assert weissman_bound(seen, LAW).rigorous
    assert not chi_square_bound(seen, LAW).rigorous


def test_a_mapping_and_its_arrays_are_one_chi_square() -> None:
    seen = np.random.default_rng(10).multinomial(500, LAW)
    statistic, df = goodness(seen, 500 * LAW)
    test = chi_square(dict(enumerate(seen.tolist())), dict(enumerate(LAW.tolist())))
    assert [test.statistic, test.df] == pytest.approx([statistic, df])
    assert list(goodness(seen[::-1], 500 * LAW[::-1])) == pytest.approx([statistic, df])
