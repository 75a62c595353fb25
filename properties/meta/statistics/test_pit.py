"""PIT values and the factors of bets, compared with their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from harness.statistics import Array
from harness.statistics.eprocess import ODDS, TILTS, child_factors
from harness.statistics.pit import CELLS, pit_sequence


def random_rows(n: int, vocabulary: int, seed: int = 0) -> Array:
    p = np.random.default_rng(seed).dirichlet(np.full(vocabulary, 0.2), size=n)
    return np.asarray(p)


def test_u_is_the_probability_of_likelier_tokens_plus_a_share_of_its_own() -> None:
    """Ties are ordered by id: for p = (.2, .3, .2, .3) the order is 1, 3, 0, 2."""
    p = np.tile([0.2, 0.3, 0.2, 0.3], (4, 1))
    assert pit_sequence(p, np.arange(4), np.zeros(4)).u == pytest.approx([0.6, 0.0, 0.8, 0.3])
    assert pit_sequence(p, np.arange(4), np.full(4, 0.5)).u == pytest.approx([0.7, 0.15, 0.9, 0.45])


@pytest.mark.parametrize("vocabulary", [3, 50])
def test_tilts_and_scores_match_their_definitions(vocabulary: int) -> None:
    """Compared with the formulas token by token, with zeros among the probabilities."""
    p = random_rows(40, vocabulary)
    p[:, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    tokens = np.random.default_rng(1).integers(1, vocabulary, 40)
    sequence = pit_sequence(p, tokens, np.zeros(40))
    for i, (row, x) in enumerate(zip(p, tokens, strict=True)):
        q = row[row > 0]
        assert sequence.p[i] == pytest.approx(row[x])
        assert sequence.tilt[i] == pytest.approx([tilt * np.log(row[x]) - np.log((q ** (1 + tilt)).sum()) for tilt in TILTS])
        entropy = -(q * np.log(q)).sum()
        assert sequence.score[i] == pytest.approx(np.log(row[x]) + entropy)
        assert sequence.variance[i] == pytest.approx((q * (np.log(q) + entropy) ** 2).sum())


def test_expected_factor_of_every_bet_is_one() -> None:
    """Under p, for bets on exponents and for bets on children."""
    p = random_rows(20, 6)
    factors = np.stack([np.exp(pit_sequence(p, np.full(20, x), np.zeros(20)).tilt) for x in range(6)], axis=1)
    assert (p[:, :, None] * factors).sum(axis=1) == pytest.approx(np.ones((20, len(TILTS))))
    child_mass = np.array([0.0, 0.3, 1.0])
    hit, miss = (np.exp(child_factors(np.full(3, x), child_mass)) for x in (1, 0))
    assert child_mass[:, None] * hit + (1 - child_mass[:, None]) * miss == pytest.approx(np.ones((3, len(ODDS))))


def test_expected_factor_differs_from_one_under_another_distribution() -> None:
    """Sampling at another temperature changes the expectation: the test above is not vacuous."""
    p = random_rows(20, 6)
    colder = p**2 / (p**2).sum(axis=1, keepdims=True)
    factors = np.stack([np.exp(pit_sequence(p, np.full(20, x), np.zeros(20)).tilt) for x in range(6)], axis=1)
    assert abs((colder[:, :, None] * factors).sum(axis=1) - 1).max() > 0.05


@pytest.mark.parametrize("vocabulary", [4, 3000])
def test_u_is_uniform_only_if_tokens_are_sampled_from_p(vocabulary: int) -> None:
    rng = np.random.default_rng(2)
    p = random_rows(4000, vocabulary) if vocabulary < 100 else np.repeat(random_rows(40, vocabulary), 25, axis=0)
    n = len(p)
    right = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    wrong = (p.cumsum(axis=1)[::-1] > rng.random((n, 1))).argmax(axis=1)
    assert kstest(pit_sequence(p, right, rng.random(n)).u, "uniform").pvalue > 1e-3
    assert kstest(pit_sequence(p, wrong, rng.random(n)).u, "uniform").pvalue < 1e-9


def test_rows_processed_in_parts_give_the_same_values() -> None:
    p = random_rows(5, CELLS // 2)
    tokens, v = p.argmax(axis=1), np.full(5, 0.25)
    whole, single = pit_sequence(p, tokens, v), [pit_sequence(p[i : i + 1], tokens[i : i + 1], v[i : i + 1]) for i in range(5)]
    for name in ("u", "p", "tilt", "score", "variance"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(one, name) for one in single]))


def test_rows_are_rescaled_to_sum_to_one() -> None:
    p = random_rows(10, 100)
    low, high = (pit_sequence(rows, np.full(10, 7), np.full(10, 0.5)) for rows in (p.astype(np.float32), p))
    assert low.u == pytest.approx(high.u, abs=1e-6)
    assert pit_sequence(p * (1 + 5e-5), np.full(10, 7), np.full(10, 0.5)).u == pytest.approx(high.u, abs=1e-12)
    assert low.u.dtype == np.float64


def test_children_offsets_and_leaves_are_stored() -> None:
    """A child proposed twice counts once; unknown is -1 and nan; a leaf has no children."""
    p = np.tile([0.1, 0.2, 0.3, 0.4], (4, 1))
    tokens, offsets, leaves = np.array([[1, 0, 2, 3], [0, 1, 2, -1], [0, 0, 1, -1]])
    sequence = pit_sequence(p, tokens, np.zeros(4), offsets, leaves, [[1, 1, 2], [3], [], None])
    assert sequence.is_child.tolist() == [1, 0, 0, -1]
    assert sequence.child_mass[:3] == pytest.approx([0.5, 0.4, 0.0])
    assert np.isnan(sequence.child_mass[3])
    assert sequence.offset.tolist() == [0, 1, 2, -1]
    assert sequence.leaf.tolist() == [0, 0, 1, -1]
    unknown = pit_sequence(p, np.zeros(4, int), np.zeros(4))
    assert set(unknown.offset) == set(unknown.leaf) == set(unknown.is_child) == {-1}
    assert np.isnan(unknown.child_mass).all()


def test_impossible_token_has_probability_zero_and_a_finite_row() -> None:
    sequence = pit_sequence(np.array([[0.0, 1.0, 0.0]]), np.array([2]), np.array([0.5]))
    assert sequence.p[0] == 0
    assert sequence.u[0] == 1
    assert np.isfinite(sequence.tilt).all()


def test_empty_text_has_no_rows() -> None:
    assert pit_sequence(np.zeros((0, 5)), np.zeros(0, int), np.zeros(0)).tilt.shape == (0, len(TILTS))


GOOD = np.full((2, 4), 0.25)


@pytest.mark.parametrize(
    ("p", "tokens", "v", "words"),
    [
        (GOOD * 1.01, [0, 1], [0, 0], "sum"),
        (GOOD * np.nan, [0, 1], [0, 0], "sum"),
        (GOOD + np.array([0.5, -0.5, 0, 0]), [0, 1], [0, 0], "non-negative"),
        (GOOD, [0, 4], [0, 0], "tokens"),
        (GOOD, [0, -1], [0, 0], "tokens"),
        (GOOD, [0, 1], [0, 1], "uniform numbers"),
        (GOOD, [0, 1], [0, np.nan], "uniform numbers"),
        (GOOD, [0, 1, 2], [0, 0], "2 rows"),
    ],
)
def test_invalid_rows_and_tokens_are_refused(p: Array, tokens: list[int], v: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pit_sequence(p, np.array(tokens), np.array(v))
