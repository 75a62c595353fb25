"""Enumerated coins: every execution is run once, and the weights are exact probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.enumeration.coins import EnumeratedCoins, Unrepeatable, executions, unfold
from properties.strategies import laws


def tensor(p: list[float]) -> Tensor:
    return torch.tensor(p, dtype=torch.float64)


@given(st.lists(st.integers(1, 5).flatmap(laws), min_size=1, max_size=3))
def test_executions_cover_the_product_distribution(rows: list[list[float]]) -> None:
    """Independent tokens: one execution for each combination of positive probability, with the product as its weight."""
    found = list(executions(lambda coins: tuple(int(coins.categorical(tensor(row))) for row in rows)))
    assert len({outcome for outcome, _ in found}) == len(found) == math.prod(sum(x > 0 for x in row) for row in rows)
    assert math.fsum(weight for _, weight in found) == pytest.approx(1, abs=1e-12)
    for outcome, weight in found:
        assert weight == pytest.approx(math.prod(row[x] for row, x in zip(rows, outcome, strict=True)), rel=1e-12)


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=4))
def test_comparisons_of_a_lazy_uniform_are_consistent(thresholds: list[float]) -> None:
    """All comparisons of one number agree, and each is true with the probability of its threshold."""

    def run(coins: EnumeratedCoins) -> list[bool]:
        u = coins.uniform()
        return [u < x for x in thresholds]

    found = list(executions(run))
    assert math.fsum(weight for _, weight in found) == pytest.approx(1, abs=1e-12)
    for i, x in enumerate(thresholds):
        below = math.fsum(weight for answers, weight in found if answers[i])
        assert below == pytest.approx(min(max(x, 0), 1), abs=1e-12)
        assert all(answers[i] <= answers[j] for answers, _ in found for j, y in enumerate(thresholds) if x <= y)


def test_a_lazy_uniform_implements_all_comparisons() -> None:
    """The boundary has probability 0: u < x equals u <= x, and u > x and u >= x are their opposite."""
    found = {tuple(answers): weight for answers, weight in executions(_all_comparisons)}
    assert found == {(True, True, False, False): pytest.approx(0.3), (False, False, True, True): pytest.approx(0.7)}


def _all_comparisons(coins: EnumeratedCoins) -> list[bool]:
    u = coins.uniform()
    return [u < 0.3, u <= 0.3, u > 0.3, u >= 0.3]


def test_a_run_without_coins_has_one_execution() -> None:
    assert list(executions(lambda _: "done")) == [("done", 1.0)]


@given(laws(5), st.lists(st.integers(0, 4), max_size=4))
def test_comparisons_of_a_lazy_token_preserve_its_distribution(row: list[float], others: list[int]) -> None:
    """After any comparisons, the executions add up to the distribution of the token."""
    found, runs = [0.0] * 5, 0
    for (token, answers), weight in executions(lambda coins: _compared(coins, row, others)):
        runs += 1
        for (x,), share in unfold([token]):
            found[x] += weight * share
            assert answers == [x == y for y in others]
    assert found == pytest.approx(row, abs=1e-12)
    assert runs <= len(set(others)) + 1


def _compared(coins: EnumeratedCoins, row: list[float], others: list[int]) -> tuple[int, list[bool]]:
    token = coins.categorical(tensor(row))
    return token, [token == x for x in others]


def test_a_lazy_token_used_as_a_number_has_one_execution_per_value() -> None:
    for use in (int, lambda token: [0, 1, 2, 3][token], lambda token: token in {0, 3} or int(token)):
        assert len(list(executions(lambda coins, use=use: use(coins.categorical(tensor([0.25] * 4)))))) == 4  # type: ignore[misc]


def test_state_left_between_executions_is_detected() -> None:
    """A run that changes with each execution meets a known decision with other weights."""
    left = [0.3]

    def leaky(coins: EnumeratedCoins) -> bool:
        left[0] += 0.2
        return coins.uniform() < left[0]

    with pytest.raises(Unrepeatable):
        list(executions(leaky))
