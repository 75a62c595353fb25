"""Clopper-Pearson limits invert the binomial; bootstrap intervals are those of resampled prompts, and repeatable."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binom

from harness.statistics import Array
from harness.statistics.intervals import bootstrap, clopper_pearson, clopper_pearson_upper, paired_ratio_difference


@pytest.mark.parametrize(("successes", "n"), [(3, 100), (1, 5000), (99, 100)])
def test_clopper_pearson_limits_invert_the_binomial(successes: int, n: int) -> None:
    low, high = clopper_pearson(successes, n, 0.99)
    assert binom.sf(successes - 1, n, low) == pytest.approx(0.005)
    assert binom.cdf(successes, n, high) == pytest.approx(0.005)
    assert binom.cdf(successes, n, clopper_pearson_upper(successes, n, 0.99)) == pytest.approx(0.01)


def test_clopper_pearson_limits_at_the_extremes() -> None:
    assert clopper_pearson(0, 10)[0] == 0 and clopper_pearson(10, 10)[1] == 1
    assert clopper_pearson(0, 0) == (0, 1)
    assert clopper_pearson_upper(7, 7) == 1


def ratio(tokens: Array, passes: Array, axis: int) -> Array:
    quotient: Array = tokens.sum(axis=axis) / passes.sum(axis=axis)
    return quotient


def test_interval_of_a_paired_difference_is_that_of_a_t_test_where_ratios_are_means() -> None:
    random = np.random.default_rng(0)
    now, before, ones = random.normal(2, 1, 7), random.normal(1, 1, 7), np.ones(7)
    expected = stats.ttest_rel(now, before).confidence_interval(0.95)
    assert paired_ratio_difference((now, ones), (before, ones)) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="two prompts or more"):
        paired_ratio_difference(([1], [1]), ([1], [1]))


def test_interval_of_a_paired_difference_has_its_coverage() -> None:
    """Of ratios of sums with six prompts: 95 % within the noise of 400 samples."""
    random, hits = np.random.default_rng(1), 0
    for _ in range(400):
        passes = random.integers(15, 40, (2, 6))
        tokens = np.round(passes * random.normal([[2.3], [2.0]], 0.2, (2, 6)))
        low, high = paired_ratio_difference((tokens[0], passes[0]), (tokens[1], passes[1]))
        hits += low <= 0.3 <= high
    assert 0.91 <= hits / 400 <= 0.985


def test_bootstrap_interval_is_that_of_resampled_prompts() -> None:
    """The quantiles of a bootstrap in three lines of numpy, for a ratio of sums and for a median."""
    rng = np.random.default_rng(5)
    tokens, passes = rng.integers(20, 90, 31), rng.integers(10, 30, 31)
    prompts = np.random.default_rng(0).integers(31, size=(500, 31))
    ratios = tokens[prompts].sum(axis=1) / passes[prompts].sum(axis=1)
    assert bootstrap(ratio, tokens, passes, resamples=500) == pytest.approx(np.quantile(ratios, [0.025, 0.975]))
    medians = np.median(tokens[prompts], axis=1)
    assert bootstrap(np.median, tokens, level=0.8, resamples=500) == pytest.approx(np.quantile(medians, [0.1, 0.9]))


def test_bootstrap_of_no_prompt_and_of_one() -> None:
    assert all(isnan(limit) for limit in bootstrap(np.median, []))
    assert bootstrap(ratio, [6], [4]) == (1.5, 1.5)
