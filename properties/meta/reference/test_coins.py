"""Coins: samples have the distribution p and its support, and each kind of coins has its documented property."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins, ScriptedCoins, SeededCoins, invert
from harness.statistics.chisquare import chi_square
from properties.strategies import laws

LAST = math.nextafter(1.0, 0.0)
P = torch.tensor([0.0, 0.25, 0.125, 0.0, 0.5, 0.125, 0.0], dtype=torch.float64)


def tensor(p: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(p, dtype=dtype)


# --- invert --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("u", "token"),
    [(0.0, 1), (0.25, 2), (math.nextafter(0.25, 0), 1), (0.375, 4), (0.875, 5), (math.nextafter(0.875, 0), 4), (LAST, 5)],
)
def test_intervals_of_inversion_are_half_open(u: float, token: int) -> None:
    """u = 0, exact cumulative sums, and the numbers one step below: the token is the one whose interval [a, b) contains u."""
    assert invert(P, u) == token


@given(st.integers(1, 8).flatmap(laws), st.floats(0, 1, exclude_max=True), st.sampled_from([torch.float64, torch.float32]))
def test_a_token_of_probability_zero_is_never_sampled(p: list[float], u: float, dtype: torch.dtype) -> None:
    """For any u and p, also if the sum of p rounds to less than 1."""
    law = tensor(p, dtype)
    for chance in (u, 0.0, LAST, *(min(float(x), LAST) for x in law.double().cumsum(0))):
        assert law[invert(law, chance)] > 0


def test_u_beyond_the_sum_gives_the_last_possible_token() -> None:
    short = tensor([0.3, 0.3, 0.3, 0.0])
    assert invert(short, LAST) == 2 and invert(short.float(), 0.95) == 2


def test_small_probabilities_are_not_lost_in_the_sum() -> None:
    """Sums are in float64: a token of 1e-9 after one of 0.9 keeps its interval, for float32 probabilities too."""
    p = tensor([0.9, 1e-9, 0.1], torch.float32)
    assert invert(p, float(p[0]) + 0.5e-9) == 1 and invert(p, float(p[0]) + 2e-9) == 2


# --- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [SeededCoins, KeyedCoins])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_samples_have_distribution_p(make: Callable[[int], Coins], dtype: torch.dtype) -> None:
    """Over consecutive positions of one seed, and over one position of many seeds."""
    p, one = tensor([0.0, 0.5, 0.25, 0.2, 0.05, 0.0], dtype), make(3)
    one.seek(0)
    along = Counter(one.categorical(p) for _ in range(8000))
    across: Counter[int] = Counter()
    for seed in range(8000):
        coins = make(seed)
        coins.seek(5)
        across[coins.categorical(p)] += 1
    law = dict(enumerate(p.tolist()))
    assert chi_square(along, law).p > 1e-6 and chi_square(across, law).p > 1e-6


@pytest.mark.parametrize("make", [SeededCoins, KeyedCoins])
def test_uniforms_are_uniform_and_uncorrelated(make: Callable[[int], Coins]) -> None:
    coins = make(11)
    drawn = np.array([float(coins.uniform()) for _ in range(6000)])  # type: ignore[arg-type]
    assert drawn.min() >= 0 and drawn.max() < 1
    assert kstest(drawn, "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / math.sqrt(len(drawn))


def test_the_same_seed_gives_the_same_coins() -> None:
    """The global generator of torch is neither used nor changed."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for make in (SeededCoins, KeyedCoins):
        first, again, other = (_some(make(seed)) for seed in (7, 7, 8))
        assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def _some(coins: Coins) -> list[object]:
    coins.seek(3)
    return [coins.uniform(), coins.categorical(P), coins.uniform(), coins.categorical(P)]


def test_keyed_tokens_depend_on_seed_and_position_only() -> None:
    """Earlier calls and their order make no difference."""
    p = torch.full((50,), 0.02, dtype=torch.float64)
    straight = KeyedCoins(5)
    straight.seek(10)
    text = [straight.categorical(p) for _ in range(30)]
    jumping = KeyedCoins(5)
    for position in torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist():
        jumping.seek(10 + position)
        for _ in range(position % 3):
            jumping.uniform()
        assert jumping.categorical(p) == text[position]
    other = KeyedCoins(6)
    other.seek(10)
    assert [other.categorical(p) for _ in range(30)] != text and len(set(text)) > 15


def test_a_keyed_token_is_the_argmax_of_p_over_noise() -> None:
    coins = KeyedCoins(9)
    for position in range(50):
        coins.seek(position)
        noise = coins.noise(position, 6)
        assert noise.min() > 0 and coins.categorical(tensor([0.1, 0.2, 0.0, 0.3, 0.4, 0.0])) == int(
            (tensor([0.1, 0.2, 0.0, 0.3, 0.4, 0.0]) / noise).argmax()
        )
    many = torch.cat([coins.noise(position, 100) for position in range(60)])
    assert kstest(many.numpy(), "expon").pvalue > 1e-6


def test_scripted_coins_are_read_in_order() -> None:
    coins = ScriptedCoins([0.0, 0.25, LAST])
    assert coins.uniform() == 0.0 and coins.categorical(P) == 2 and coins.categorical(P) == 5
