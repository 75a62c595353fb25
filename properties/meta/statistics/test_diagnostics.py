"""Diagnostics have uniform p-values on correct streams and small ones on the faults that they look for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from harness.statistics.diagnostics import child, diagnose, ks, neyman, score, tail
from harness.statistics.eprocess import WIDTHS, Counts, PitSequence
from properties.meta.helpers import streams
from properties.meta.helpers.streams import stream


@pytest.fixture(scope="module")
def correct() -> list[PitSequence]:
    return stream(21, sequences=4800)


def test_p_values_of_correct_streams_are_uniform(correct: list[PitSequence]) -> None:
    """Each test on 150 streams of 1,024 tokens. Strata that are too small for a chi-square are left out."""
    found = [diagnose(correct[i : i + 32]) for i in range(0, len(correct), 32)]
    names = {name for p_values in found for name in p_values}
    assert {"Kolmogorov-Smirnov", "Neyman", "score", "child", "bins", "bins, leaves", "bins, offset 3 or more"} <= names
    for name in names:
        p_values = np.array([p[name] for p in found if name in p])
        assert len(p_values) > 100, name
        assert kstest(p_values, "uniform").pvalue > 1e-3, name
        assert (p_values < 0.05).mean() < 0.12, name


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (streams.hotter, ["score", "Neyman", "Kolmogorov-Smirnov", "bins"]),
        (streams.children_accepted_less, ["child", "score"]),
        (streams.leaf_of_the_token_before, ["bins, leaves", "bins, offset 3 or more", "bins"]),
    ],
)
def test_each_diagnostic_detects_its_fault(fault: streams.Fault, names: list[str]) -> None:
    found = diagnose(stream(22, sequences=300, fault=fault))
    assert all(found[name] < 1e-4 / len(found) for name in names), found


def test_fault_at_leaves_does_not_show_at_inner_nodes() -> None:
    found = diagnose(stream(22, sequences=300, fault=streams.leaf_of_the_token_before))
    assert found["bins, inner nodes"] > 1e-3


def test_diagnostics_without_data_are_left_out() -> None:
    empty = np.zeros(0)
    assert ks(empty) is neyman(empty) is child(empty, empty) is score(Counts.zero()) is tail(Counts.zero().histogram) is None
    blind = diagnose(stream(23, sequences=40, blind=True))
    assert set(blind) == {"Kolmogorov-Smirnov", "Neyman", "score", "bins"}


def test_bins_are_pooled_before_the_chi_square() -> None:
    """One of 200 tokens in a bin of width 2e-4 is not significant; unpooled it would add 24 to the statistic."""
    histogram = np.round(200 * WIDTHS)
    histogram[-1] = 1
    p = tail(histogram)
    assert p is not None
    assert p > 0.9


def test_child_test_groups_nodes_by_probability() -> None:
    """Likely children too rarely, unlikely ones too often, and right on average: only the groups show it."""
    mass = np.tile([0.1, 0.9], 2000)
    w = np.random.default_rng(25).random(4000)
    shifted, right = child((w < np.tile([0.15, 0.85], 2000)).astype(int), mass), child((w < mass).astype(int), mass)
    assert shifted is not None
    assert right is not None
    assert shifted < 1e-9 < 1e-3 < right


def test_neyman_polynomials_are_orthonormal() -> None:
    """At u = 1 the j-th polynomial is sqrt(2 j + 1), so one value there gives a statistic of 3 + 5 + ... + 17 = 80."""
    assert neyman(np.ones(1)) == pytest.approx(chi2.sf(80, 8), abs=0)


def test_diagnostics_ignore_impossible_tokens() -> None:
    """They are proof by themselves, and would distort the tests of the other tokens."""
    impossible = np.arange(32) < 8
    sequences = [replace(s, p=np.where(impossible, 0, s.p), u=np.where(impossible, 1.0, s.u)) for s in stream(24, sequences=64)]
    found = diagnose(sequences)
    assert min(found.values()) > 1e-2 / len(found)
