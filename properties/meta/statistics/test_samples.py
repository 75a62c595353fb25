"""Two samples of texts: p-values uniform where the laws are one, small where they are two; stages and the error budget."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics.budget import (
    ALLOWED,
    EVIDENCE,
    REPLICATES,
    TWO_STAGES,
    confirm,
    error_budget,
    share,
)
from harness.statistics.mmd import Texts, first_tokens_test, prefix_mmd

PROMPTS, WINDOW = 3, 6


def texts(seed: int, samples: int, tilt: float = 1.0, prompts: int = PROMPTS) -> Texts:
    """Markov chains on 6 tokens, a chain a prompt, ended by token 0; each step drawn from p^tilt."""
    rng = np.random.default_rng(seed)
    chains = np.random.default_rng(0).dirichlet(np.full(6, 0.5), size=(PROMPTS, 6)) ** tilt
    chains = (chains / chains.sum(axis=2, keepdims=True)).cumsum(axis=2)
    return [[_text(rng, chains[prompt]) for _ in range(samples)] for prompt in range(prompts)]


def _text(rng: np.random.Generator, chain: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[int]:
    text = [1]
    for w in rng.random(WINDOW):
        text.append(int((chain[text[-1]] <= w).sum().clip(max=5)))
        if text[-1] == 0:
            break
    return text[1:]


def test_mmd_is_the_kernel_statistic() -> None:
    """Against the double sum over pairs of texts, the kernel written out."""
    ours, theirs = texts(1, 7, prompts=1)[0], texts(2, 5, prompts=1)[0]

    def kernel(a: list[int], b: list[int]) -> float:
        one, two = ([*text, *[-1] * WINDOW][:WINDOW] for text in (a, b))
        return sum(one[:i] == two[:i] for i in range(1, WINDOW + 1)) / WINDOW

    def mean(a: list[list[int]], b: list[list[int]]) -> float:
        return float(np.mean([[kernel(list(x), list(y)) for y in b] for x in a]))

    a, b = [list(x) for x in ours], [list(x) for x in theirs]
    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert prefix_mmd([a], [b], WINDOW, seed=0, permutations=9).statistic == pytest.approx(expected)


def test_a_difference_is_seen() -> None:
    found = prefix_mmd(texts(1, 150), texts(2, 150, tilt=2.5), WINDOW, seed=0)
    assert found.p == found.resolution == 1 / 1000
    p = first_tokens_test(texts(1, 300), texts(2, 300, tilt=2.5), 2)
    assert p is not None
    assert p < 1e-6


def test_a_difference_in_one_prompt_is_not_averaged_away() -> None:
    ours, theirs, other = texts(1, 300), texts(2, 300), texts(3, 300, tilt=2)
    found = prefix_mmd(ours, [theirs[0], other[1], theirs[2]], WINDOW, seed=0, permutations=199)
    assert found.p == 1 / 200


def test_p_values_of_swaps_are_uniform_without_a_difference() -> None:
    """200 comparisons; unequal arms, texts that end. Prompts that differ among themselves must not look like a difference."""
    found = [prefix_mmd(texts(2 * i, 30), texts(2 * i + 1, 20), WINDOW, seed=i, permutations=39).p for i in range(200)]
    assert_uniform(found)


def test_p_values_of_first_tokens_are_uniform_without_a_difference() -> None:
    """300 comparisons of 400 with 300 texts for each of two prompts."""
    found = []
    for i in range(300):
        rng = np.random.default_rng(i)
        ours, theirs = ([rng.choice(6, (n, 1), p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01]).tolist() for _ in "12"] for n in (400, 300))
        found.append(first_tokens_test(ours, theirs, 1))
    assert_uniform([p for p in found if p is not None])


def assert_uniform(p_values: list[float]) -> None:
    """The share at or below each level is that level, to 3.5 standard errors."""
    assert len(p_values) >= 200
    for level in (0.05, 0.25, 0.5, 0.75):
        spread = 3.5 * np.sqrt(level * (1 - level) / len(p_values))
        assert abs(np.mean(np.array(p_values) <= level + 1e-9) - level) < spread


def test_a_swap_that_changes_nothing_counts() -> None:
    """One text on each side: whichever is which, the statistic is the same, and p is 1."""
    assert prefix_mmd([[[1]]], [[[2]]], 3, seed=0, permutations=99).p == 1


def test_same_texts_on_both_sides_are_no_difference() -> None:
    one = texts(1, 40)
    assert prefix_mmd(one, one, WINDOW, seed=0, permutations=99).p == 1
    assert first_tokens_test(one, one, WINDOW) == 1


def test_too_little_says_nothing() -> None:
    assert first_tokens_test(texts(1, 5), texts(2, 5), WINDOW) is None
    with pytest.raises(ValueError, match="both arms"):
        prefix_mmd(texts(1, 5), texts(2, 5, prompts=2), WINDOW, seed=0)
    with pytest.raises(ValueError, match="both arms"):
        first_tokens_test([[]], [[[1]]], WINDOW)


def test_a_text_that_ends_is_no_prefix_of_another() -> None:
    found = prefix_mmd([[[1]] * 30], [[[1, 0]] * 30], 2, seed=0, permutations=99)
    assert found.p == 1 / 100
    assert found.statistic == pytest.approx(1.0)


def test_three_replicates_stop_at_the_first_that_is_not_small() -> None:
    asked = []

    def sampler(number: int, size: int) -> float:
        asked.append((number, size))
        return prefix_mmd(texts(10 + number, 100), texts(20 + number, 100, tilt=2.5), WINDOW, seed=number).p

    assert confirm(sampler, REPLICATES).fault
    assert asked == [(0, 1), (1, 1), (2, 1)]
    stopped = confirm(lambda number, _: [0.001, 0.002][number], REPLICATES)
    assert not stopped.fault
    assert stopped.p_values == (0.001, 0.002)


def test_two_stages_take_four_times_as_much_for_the_second() -> None:
    sizes = []

    def sampler(_: int, size: int) -> float:
        sizes.append(size)
        return 1e-8

    assert confirm(sampler).fault
    assert sizes == [1, 4]
    assert not confirm(lambda number, _: [1e-4, 1e-5][number]).fault
    assert confirm(lambda *_: 0.5).p_values == (0.5,)


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.5])
def test_no_p_value_is_no_pass(p: float) -> None:
    with pytest.raises(ValueError, match="no p-value"):
        confirm(lambda *_: p)


def test_every_rule_has_a_share_of_one_in_a_thousand_million() -> None:
    assert share(TWO_STAGES) == pytest.approx(1e-9)
    assert share(REPLICATES) == pytest.approx(1e-9)
    assert pytest.approx(1e-9) == EVIDENCE


def test_the_budget_is_kept_by_200_checks_and_not_by_600() -> None:
    """200 checks of 1e-9 at 50 runs a day: 0.37 false alarms in a century."""
    ours, too_many = error_budget([1e-9] * 200 + [0.0] * 50), error_budget([1e-9] * 600)
    assert ours.within_limit
    assert ours.checks == 250
    assert ours.per_century == pytest.approx(0.365, abs=0.001)
    assert not too_many.within_limit
    assert too_many.per_century > 1
    assert not error_budget([ALLOWED]).within_limit
    with pytest.raises(ValueError, match="probability"):
        error_budget([1e-9, 1.1])
