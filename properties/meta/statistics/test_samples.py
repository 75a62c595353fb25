"""Two-sample tests have uniform p-values under the null and small ones otherwise; staged tests keep the error budget."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics.budget import (
    ALLOWED,
    E_PROCESS_SHARE,
    REPLICATES,
    TWO_STAGES,
    confirm,
    error_budget,
    false_alarm,
)
from harness.statistics.mmd import Texts, first_tokens_test, prefix_mmd

PROMPTS, WINDOW = 3, 6


def texts(seed: int, samples: int, tilt: float = 1.0, prompts: int = PROMPTS) -> Texts:
    """Markov chains on 6 tokens, one chain per prompt, ended by token 0; every step is sampled from p^tilt."""
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


def test_mmd_equals_the_sum_over_kernel_pairs() -> None:
    """Compared with the double sum over pairs of texts."""
    ours, theirs = texts(1, 7, prompts=1)[0], texts(2, 5, prompts=1)[0]

    def kernel(a: list[int], b: list[int]) -> float:
        one, two = ([*text, *[-1] * WINDOW][:WINDOW] for text in (a, b))
        return sum(one[:i] == two[:i] for i in range(1, WINDOW + 1)) / WINDOW

    def mean(a: list[list[int]], b: list[list[int]]) -> float:
        return float(np.mean([[kernel(list(x), list(y)) for y in b] for x in a]))

    a, b = [list(x) for x in ours], [list(x) for x in theirs]
    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert prefix_mmd([a], [b], WINDOW, seed=0, permutations=9).statistic == pytest.approx(expected)


def test_two_sample_tests_detect_a_tilt() -> None:
    found = prefix_mmd(texts(1, 150), texts(2, 150, tilt=2.5), WINDOW, seed=0)
    assert found.p == found.resolution == 1 / 1000
    p = first_tokens_test(texts(1, 300), texts(2, 300, tilt=2.5), 2)
    assert p is not None
    assert p < 1e-6


def test_mmd_detects_a_difference_at_one_prompt() -> None:
    ours, theirs, other = texts(1, 300), texts(2, 300), texts(3, 300, tilt=2)
    found = prefix_mmd(ours, [theirs[0], other[1], theirs[2]], WINDOW, seed=0, permutations=199)
    assert found.p == 1 / 200


def test_mmd_p_values_are_uniform_under_the_null() -> None:
    """200 comparisons with unequal arms and texts that end. Differences between prompts must not count."""
    found = [prefix_mmd(texts(2 * i, 30), texts(2 * i + 1, 20), WINDOW, seed=i, permutations=39).p for i in range(200)]
    assert_uniform(found)


def test_first_tokens_p_values_are_uniform_under_the_null() -> None:
    """300 comparisons of 400 with 300 texts, for two prompts each."""
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


def test_permutation_that_changes_nothing_counts_as_at_least_observed() -> None:
    """With one text per arm every permutation has the same statistic, so p = 1."""
    assert prefix_mmd([[[1]]], [[[2]]], 3, seed=0, permutations=99).p == 1


def test_identical_arms_have_p_value_one() -> None:
    one = texts(1, 40)
    assert prefix_mmd(one, one, WINDOW, seed=0, permutations=99).p == 1
    assert first_tokens_test(one, one, WINDOW) == 1


def test_two_sample_tests_need_samples_of_every_prompt() -> None:
    assert first_tokens_test(texts(1, 5), texts(2, 5), WINDOW) is None
    with pytest.raises(ValueError, match="both arms"):
        prefix_mmd(texts(1, 5), texts(2, 5, prompts=2), WINDOW, seed=0)
    with pytest.raises(ValueError, match="both arms"):
        first_tokens_test([[]], [[[1]]], WINDOW)


def test_ended_text_is_no_prefix_of_a_longer_one() -> None:
    found = prefix_mmd([[[1]] * 30], [[[1, 0]] * 30], 2, seed=0, permutations=99)
    assert found.p == 1 / 100
    assert found.statistic == pytest.approx(1.0)


def test_replicates_stop_at_the_first_that_does_not_reject() -> None:
    stages = []

    def sampler(number: int, size: int) -> float:
        stages.append((number, size))
        return prefix_mmd(texts(10 + number, 100), texts(20 + number, 100, tilt=2.5), WINDOW, seed=number).p

    assert confirm(sampler, REPLICATES).fault
    assert stages == [(0, 1), (1, 1), (2, 1)]
    stopped = confirm(lambda number, _: [0.001, 0.002][number], REPLICATES)
    assert not stopped.fault
    assert stopped.p_values == (0.001, 0.002)


def test_second_stage_takes_four_times_the_samples() -> None:
    sizes = []

    def sampler(_: int, size: int) -> float:
        sizes.append(size)
        return 1e-8

    assert confirm(sampler).fault
    assert sizes == [1, 4]
    assert not confirm(lambda number, _: [1e-4, 1e-5][number]).fault
    assert confirm(lambda *_: 0.5).p_values == (0.5,)


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.5])
def test_invalid_p_value_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="no p-value"):
        confirm(lambda *_: p)


def test_every_test_has_a_false_alarm_share_of_1e_9() -> None:
    assert false_alarm(TWO_STAGES) == pytest.approx(1e-9)
    assert false_alarm(REPLICATES) == pytest.approx(1e-9)
    assert pytest.approx(1e-9) == E_PROCESS_SHARE


def test_error_budget_allows_200_checks_and_not_600() -> None:
    """200 checks of 1e-9 at 50 runs a day give 0.37 false alarms in a century."""
    ours = error_budget([1e-9] * 200 + [0.0] * 50)
    assert ours / ALLOWED == pytest.approx(0.365, abs=0.001)
    assert ours < ALLOWED < error_budget([1e-9] * 600)
    with pytest.raises(ValueError, match="probability"):
        error_budget([1e-9, 1.1])
