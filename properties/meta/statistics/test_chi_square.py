"""The chi-square test: calibrated under the law, and as sensitive as it reports."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.stats import kstest

from harness.statistics.chisquare import chi_square


def test_chi_square_is_calibrated_and_detects_what_it_reports() -> None:
    """p-values are uniform under the law; a deviation of twice the reported size is detected."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(40, 0.4))
    law = {i: float(w) for i, w in enumerate(weights)}
    tests = [chi_square(Counter(map(int, rng.choice(40, size=4000, p=weights))), law) for _ in range(400)]
    assert kstest([test.p for test in tests], "uniform").pvalue > 1e-3
    alpha, distance = 1e-3, tests[0].detectable_deviation(1e-3)
    flat = np.where(np.arange(40) % 2 == 0, 1.0, -1.0) * weights
    moved = np.clip(weights + 2 * distance * (flat - flat.mean()) / np.abs(flat - flat.mean()).sum(), 0, None)
    moved /= moved.sum()
    detected = [chi_square(Counter(map(int, rng.choice(40, size=4000, p=moved))), law).p < alpha for _ in range(200)]
    assert np.mean(detected) > 0.85


def test_chi_square_of_four_cells_is_calibrated() -> None:
    rng, weights = np.random.default_rng(1), [0.4, 0.3, 0.2, 0.1]
    found = [chi_square(Counter(map(int, rng.choice(4, size=1000, p=weights))), dict(enumerate(weights))).p for _ in range(400)]
    assert kstest(found, "uniform").pvalue > 1e-3


def test_one_sample_of_a_rare_outcome_is_no_fault() -> None:
    """One sample where 0.06 were expected: cells are pooled."""
    assert chi_square({0: 500, 1: 499, 2: 1}, {0: 0.5, 1: 0.49994, 2: 6e-5}).p > 0.01


def test_one_sample_of_an_impossible_outcome_is_a_fault() -> None:
    assert chi_square({"a": 10_000, "b": 1}, {"a": 1.0, "b": 0.0}).p == 0.0
