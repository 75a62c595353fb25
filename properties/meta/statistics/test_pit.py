"""From laws to strands, beside the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from harness.statistics.eprocess import ODDS, TILTS, Array, child_factors
from harness.statistics.pit import CELLS, pit_sequence


def laws(n: int, vocabulary: int, seed: int = 0) -> Array:
    p = np.random.default_rng(seed).dirichlet(np.full(vocabulary, 0.2), size=n)
    return np.asarray(p)


def test_u_is_the_mass_of_the_likelier_tokens_and_a_share_of_the_own() -> None:
    """Ties by id: of p = (.2, .3, .2, .3) the order is 1, 3, 0, 2."""
    p = np.tile([0.2, 0.3, 0.2, 0.3], (4, 1))
    assert pit_sequence(p, np.arange(4), np.zeros(4)).u == pytest.approx([0.6, 0.0, 0.8, 0.3])
    assert pit_sequence(p, np.arange(4), np.full(4, 0.5)).u == pytest.approx([0.7, 0.15, 0.9, 0.45])


@pytest.mark.parametrize("vocabulary", [3, 50])
def test_bets_and_scores_as_defined(vocabulary: int) -> None:
    """Against the formulas, one token at a time, with zeros among the probabilities."""
    p = laws(40, vocabulary)
    p[:, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    tokens = np.random.default_rng(1).integers(1, vocabulary, 40)
    made = pit_sequence(p, tokens, np.zeros(40))
    for i, (row, x) in enumerate(zip(p, tokens, strict=True)):
        q = row[row > 0]
        assert made.p[i] == pytest.approx(row[x])
        assert made.tilt[i] == pytest.approx([tilt * np.log(row[x]) - np.log((q ** (1 + tilt)).sum()) for tilt in TILTS])
        entropy = -(q * np.log(q)).sum()
        assert made.score[i] == pytest.approx(np.log(row[x]) + entropy)
        assert made.variance[i] == pytest.approx((q * (np.log(q) + entropy) ** 2).sum())


def test_a_bet_is_fair_at_every_token() -> None:
    """The expectation of its factor under p is 1: on exponents, and on children."""
    p = laws(20, 6)
    factors = np.stack([np.exp(pit_sequence(p, np.full(20, x), np.zeros(20)).tilt) for x in range(6)], axis=1)
    assert (p[:, :, None] * factors).sum(axis=1) == pytest.approx(np.ones((20, len(TILTS))))
    mass = np.array([0.0, 0.3, 1.0])
    hit, miss = (np.exp(child_factors(np.full(3, x), mass)) for x in (1, 0))
    assert mass[:, None] * hit + (1 - mass[:, None]) * miss == pytest.approx(np.ones((3, len(ODDS))))


def test_an_unfair_bet_is_seen_by_that_test() -> None:
    """Of a temperature that the target does not have, factors do not average to 1."""
    p = laws(20, 6)
    colder = p**2 / (p**2).sum(axis=1, keepdims=True)
    factors = np.stack([np.exp(pit_sequence(p, np.full(20, x), np.zeros(20)).tilt) for x in range(6)], axis=1)
    assert abs((colder[:, :, None] * factors).sum(axis=1) - 1).max() > 0.05


@pytest.mark.parametrize("vocabulary", [4, 3000])
def test_u_is_uniform_if_and_only_if_the_token_is_drawn_from_p(vocabulary: int) -> None:
    rng = np.random.default_rng(2)
    p = laws(4000, vocabulary) if vocabulary < 100 else np.repeat(laws(40, vocabulary), 25, axis=0)
    n = len(p)
    right = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    wrong = (p.cumsum(axis=1)[::-1] > rng.random((n, 1))).argmax(axis=1)
    assert kstest(pit_sequence(p, right, rng.random(n)).u, "uniform").pvalue > 1e-3
    assert kstest(pit_sequence(p, wrong, rng.random(n)).u, "uniform").pvalue < 1e-9


def test_cuts_do_not_show() -> None:
    """Rows are handled a few at a time: one by one they are the same."""
    p = laws(5, CELLS // 2)
    tokens, v = p.argmax(axis=1), np.full(5, 0.25)
    whole, single = pit_sequence(p, tokens, v), [pit_sequence(p[i : i + 1], tokens[i : i + 1], v[i : i + 1]) for i in range(5)]
    for name in ("u", "p", "tilt", "score", "variance"):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(one, name) for one in single]))


def test_float32_laws_are_scaled_to_one() -> None:
    p = laws(10, 100)
    low, high = (pit_sequence(rows, np.full(10, 7), np.full(10, 0.5)) for rows in (p.astype(np.float32), p))
    assert low.u == pytest.approx(high.u, abs=1e-6)
    assert pit_sequence(p * (1 + 5e-5), np.full(10, 7), np.full(10, 0.5)).u == pytest.approx(high.u, abs=1e-12)
    assert low.u.dtype == np.float64


def test_children_and_blocks() -> None:
    """A child offered twice counts once; unknown is -1 and nan, and after a leaf nothing is offered."""
    p = np.tile([0.1, 0.2, 0.3, 0.4], (4, 1))
    tokens, offsets, leaves = np.array([[1, 0, 2, 3], [0, 1, 2, -1], [0, 0, 1, -1]])
    made = pit_sequence(p, tokens, np.zeros(4), offsets, leaves, [[1, 1, 2], [3], [], None])
    assert made.is_child.tolist() == [1, 0, 0, -1]
    assert made.child_mass[:3] == pytest.approx([0.5, 0.4, 0.0])
    assert np.isnan(made.child_mass[3])
    assert made.offset.tolist() == [0, 1, 2, -1]
    assert made.leaf.tolist() == [0, 0, 1, -1]
    black = pit_sequence(p, np.zeros(4, int), np.zeros(4))
    assert set(black.offset) == set(black.leaf) == set(black.is_child) == {-1}
    assert np.isnan(black.child_mass).all()


def test_an_impossible_token_has_probability_zero_and_a_finite_row() -> None:
    made = pit_sequence(np.array([[0.0, 1.0, 0.0]]), np.array([2]), np.array([0.5]))
    assert made.p[0] == 0
    assert made.u[0] == 1
    assert np.isfinite(made.tilt).all()


def test_a_text_of_no_tokens() -> None:
    assert pit_sequence(np.zeros((0, 5)), np.zeros(0, int), np.zeros(0)).tilt.shape == (0, len(TILTS))


GOOD = np.full((2, 4), 0.25)


@pytest.mark.parametrize(
    ("p", "tokens", "v", "told"),
    [
        (GOOD * 1.01, [0, 1], [0, 0], "sum"),
        (GOOD * np.nan, [0, 1], [0, 0], "sum"),
        (GOOD + np.array([0.5, -0.5, 0, 0]), [0, 1], [0, 0], "non-negative"),
        (GOOD, [0, 4], [0, 0], "tokens"),
        (GOOD, [0, -1], [0, 0], "tokens"),
        (GOOD, [0, 1], [0, 1], "coins"),
        (GOOD, [0, 1], [0, np.nan], "coins"),
        (GOOD, [0, 1, 2], [0, 0], "2 laws"),
    ],
)
def test_what_is_no_law_or_no_token_is_refused(p: Array, tokens: list[int], v: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pit_sequence(p, np.array(tokens), np.array(v))
