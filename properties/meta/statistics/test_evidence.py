"""E-processes: a correct stream gains no evidence, every component detects its fault, counts add."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from harness.statistics import Array
from harness.statistics.eprocess import (
    EXAMPLES,
    EXTEND,
    FAULT,
    WIDTHS,
    Counts,
    Evidence,
    PitSequence,
    detectable_deviation,
    dirichlet_log_gain,
    log10_average,
    log10_components,
)
from properties.meta.helpers import streams
from properties.meta.helpers.streams import stream

CAMPAIGNS, LOOKS, TEXTS = 400, 8, 2
"""Simulated correct campaigns, looks at the evidence per campaign, and sequences between looks."""


def stack(parts: Sequence[Counts]) -> Counts:
    """Counts on a new first axis."""
    arrays: dict[str, Any] = {name: np.stack([getattr(part, name) for part in parts]) for name in parts[0].arrays()}
    return Counts(**arrays)


def running(parts: Sequence[Counts]) -> Counts:
    """Cumulative counts after each shard, on a new first axis."""
    arrays: dict[str, Any] = {name: array.cumsum(axis=0) for name, array in stack(parts).arrays().items()}
    return Counts(**arrays)


@pytest.fixture(scope="module")
def correct() -> list[PitSequence]:
    return stream(11, sequences=CAMPAIGNS * LOOKS * TEXTS)


@pytest.fixture(scope="module")
def campaigns(correct: list[PitSequence]) -> Counts:
    """[CAMPAIGNS, LOOKS, ...]"""
    shards = [Counts.of(correct[i : i + TEXTS]) for i in range(0, len(correct), TEXTS)]
    return stack([running(shards[i : i + LOOKS]) for i in range(0, len(shards), LOOKS)])


def test_false_alarms_obey_villes_inequality(campaigns: Counts) -> None:
    """P(E ever reaches 20) <= .05, and E has expectation at most 1, for every component and for their average."""
    each = log10_components(campaigns)
    for name, log10 in {**each, "average": log10_average(each)}.items():
        assert log10.shape == (CAMPAIGNS, LOOKS)
        assert (log10.max(axis=1) >= np.log10(20)).mean() <= 0.05, name
        assert (10.0 ** log10[:, -1]).mean() <= 1.5, name
    assert log10_average(each).max() < np.log10(EXTEND)


def test_strata_that_depend_on_the_token_reject_a_correct_decoder(correct: list[PitSequence]) -> None:
    """Stratified by accepted or not, the same stream gains evidence: strata must be predictable."""
    by_outcome = [replace(s, leaf=s.is_child) for s in correct[:200]]
    assert Evidence.of(Counts.of(by_outcome)).components["leaf"] > 50
    assert Evidence.of(Counts.of(correct[:200])).components["leaf"] < 1


SHARDS = 12
"""24,576 tokens in all."""

PLANTED: list[tuple[dict[str, Any], list[str]]] = [
    ({"fault": streams.bonus_at_wrong_temperature}, ["histogram", "tilt", "leaf"]),
    ({"fault": streams.leaf_of_the_token_before}, ["leaf", "offset", "histogram"]),
    ({"fault": streams.children_accepted_less}, ["child", "histogram", "tilt"]),
    ({"fault": streams.hotter}, ["tilt", "histogram"]),
    ({"coins": streams.reused, "vocabulary": 64}, ["lag", "block"]),
    ({"coins": streams.shared}, ["cross"]),
]


def shards(**how: Any) -> Counts:
    return running([Counts.of(stream(seed, **how)) for seed in range(SHARDS)])


@pytest.mark.parametrize(("how", "seen_by"), PLANTED, ids=lambda value: value[0] if isinstance(value, list) else "")
def test_planted_fault_is_detected_by_its_components(how: dict[str, Any], seen_by: list[str]) -> None:
    """Each of them and the average exceed FAULT within 25,000 tokens, and the largest is one of them."""
    found = Evidence.of(last(shards(**how)))
    assert found.fault
    assert not found.extend
    assert all(found.components[name] >= np.log10(FAULT) for name in seen_by), found
    assert found.largest in seen_by


def test_stream_without_a_fault_has_no_evidence() -> None:
    each = log10_components(shards())
    assert all(log10.max() < np.log10(EXTEND) for log10 in [*each.values(), log10_average(each)])
    assert not Evidence.of(last(shards())).fault


def test_leaf_component_detects_a_fault_at_leaves_sooner() -> None:
    sums = shards(fault=streams.leaf_of_the_token_before)
    each = log10_components(sums)
    assert each["leaf"][3] > 2 * each["histogram"][3]


def test_reused_random_numbers_show_only_in_pairs() -> None:
    each = Evidence.of(last(shards(coins=streams.reused))).components
    assert each["lag"] >= np.log10(FAULT)
    assert each["histogram"] < np.log10(EXTEND)


def test_black_box_is_tested_without_blocks() -> None:
    """Four components stay at E = 1, the others detect the fault, and the weights of the average stay equal."""
    found = Evidence.of(last(shards(fault=streams.hotter, blind=True)))
    assert [found.components[name] for name in ("leaf", "offset", "block", "child")] == [0, 0, 0, 0]
    assert found.fault
    assert found.log10 == pytest.approx(found.components["tilt"] - np.log10(8), abs=0.1)


def last(sums: Counts) -> Counts:
    arrays: dict[str, Any] = {name: array[-1] for name, array in sums.arrays().items()}
    return Counts(**arrays)


def test_counts_of_shards_add_in_any_order(correct: list[PitSequence]) -> None:
    """The sum equals the counts of one shard, except for pairs of sequences across the cut."""
    a, b, whole = Counts.of(correct[:5]), Counts.of(correct[5:12]), Counts.of(correct[:12])
    assert_same(a + b, b + a)
    assert_same(a + b, replace(whole, cross=(a + b).cross))
    assert (a + b).cross.sum() == whole.cross.sum() - 32
    assert_same(Counts.zero() + a, a)
    assert_same(Counts.of([]), Counts.zero())


def test_counts_have_the_expected_totals(correct: list[PitSequence]) -> None:
    sums = Counts.of(correct[:12])
    assert [int(sums.tokens), int(sums.sequences), int(sums.impossible)] == [12 * 32, 12, 0]
    assert sums.histogram.sum() == sums.leaf.sum() == sums.offset.sum() == 12 * 32
    assert sums.lag.sum() == 12 * 31
    assert sums.cross.sum() == 11 * 32
    assert sums.block.sum() == sum((s.offset == 0).sum() - 1 for s in correct[:12])
    assert np.array_equal(sums.leaf.sum(axis=0), sums.histogram)
    offsets = np.concatenate([s.offset for s in correct[:12]])
    assert sums.offset.sum(axis=1).tolist() == [
        (offsets == 0).sum(),
        (offsets == 1).sum(),
        (offsets == 2).sum(),
        (offsets > 2).sum(),
    ]
    assert WIDTHS.sum() == pytest.approx(1)
    assert len(WIDTHS) == 28


def test_vectorised_components_equal_the_scalar_evidence(campaigns: Counts, correct: list[PitSequence]) -> None:
    """For campaign 3 after 5 looks."""
    start = 3 * LOOKS * TEXTS
    parts = [Counts.of(correct[i : i + TEXTS]) for i in range(start, start + 5 * TEXTS, TEXTS)]
    alone = Evidence.of(sum(parts, Counts.zero()))
    each = log10_components(campaigns)
    assert alone.log10 == pytest.approx(log10_average(each)[3, 4])
    assert alone.components == pytest.approx({name: log10[3, 4] for name, log10 in each.items()})


def test_counts_survive_json(correct: list[PitSequence]) -> None:
    sums = Counts.of([*correct[:3], impossible(correct[3])])
    back = Counts.from_json(json.loads(json.dumps(sums.to_json())))
    assert_same(back, sums)
    assert back.examples == sums.examples == ((3, 4),)
    assert back.histogram.dtype == np.int64


@pytest.mark.parametrize("damage", [{"histogram": [0] * 27}, {"tilt": None}, {"more": 1}])
def test_counts_of_other_fields_or_shapes_are_refused(damage: dict[str, Any]) -> None:
    values = {**Counts.zero().to_json(), **damage}
    with pytest.raises(ValueError, match=r"counts must have|shape"):
        Counts.from_json({name: value for name, value in values.items() if value is not None})


def impossible(sequence: PitSequence) -> PitSequence:
    """The same sequence, with token 4 of probability zero."""
    p = sequence.p.copy()
    p[4] = 0
    return replace(sequence, p=p, u=np.where(p > 0, sequence.u, 1.0))


def test_one_impossible_token_is_a_fault_without_evidence(correct: list[PitSequence]) -> None:
    sums = Counts.of([correct[0], impossible(correct[1])])
    found = Evidence.of(sums)
    assert found.fault
    assert found.impossible == 1
    assert sums.examples == ((1, 4),)
    assert sums.histogram.sum() == 63
    assert sums.lag.sum() == 60  # two pairs contain it
    assert not Evidence.of(Counts.of(correct[:2])).fault
    assert found.log10 < 1


def test_examples_are_numbered_across_shards_and_limited(correct: list[PitSequence]) -> None:
    one = Counts.of([correct[0], impossible(correct[1])])
    many = sum([one] * 20, Counts.zero())
    assert many.impossible == 20
    assert many.examples == tuple((2 * i + 1, 4) for i in range(EXAMPLES))


def test_evidence_thresholds() -> None:
    def at(log10: float) -> tuple[bool, bool]:
        found = Evidence(1, 0, {"lag": log10}, log10)
        return found.fault, found.extend

    assert [at(x) for x in (2.99, 3.0, 8.99, 9.0)] == [(False, False), (False, True), (False, True), (True, False)]


def test_dirichlet_gain_is_the_product_of_sequential_predictions() -> None:
    """The ratio, token by token, of the posterior mean to the null probability."""
    rng = np.random.default_rng(0)
    pi = np.array([0.5, 0.3, 0.2])
    tokens = rng.integers(0, 3, 60)
    for i, c in enumerate(10.0 ** np.arange(1, 7)):
        n, log = np.zeros(3), 0.0
        for x in tokens:
            log += np.log((n[x] + c * pi[x]) / (n.sum() + c) / pi[x])
            n[x] += 1
        assert dirichlet_log_gain(n, pi)[i] == pytest.approx(log, abs=1e-6)


@pytest.mark.parametrize("n", [20_000, 1_000_000])
def test_detectable_deviation_is_detected_with_the_stated_power(n: int) -> None:
    """Power .9 in the worst shape (probability moved between two halves), and almost none at half of it."""
    up = np.arange(28) < 10
    power = {}
    for share in (1.0, 0.5):
        d = share * detectable_deviation(n).value
        q = np.where(up, WIDTHS * (1 + d / WIDTHS[up].sum()), WIDTHS * (1 - d / WIDTHS[~up].sum()))
        assert abs(q - WIDTHS).sum() / 2 == pytest.approx(d)
        observed = np.random.default_rng(3).multinomial(n, q, size=1000)
        power[share] = (log10_average(log10_components(histograms(observed))) >= np.log10(FAULT)).mean()
    assert power[1.0] == pytest.approx(0.9, abs=0.04)
    assert power[0.5] < 0.02


def histograms(observed: Array) -> Counts:
    empty = {name: np.broadcast_to(array, (len(observed), *array.shape)) for name, array in Counts.zero().arrays().items()}
    arrays: dict[str, Any] = empty | {"histogram": observed}
    return Counts(**arrays)


def test_few_tokens_detect_nothing() -> None:
    assert detectable_deviation(0).value == detectable_deviation(10).value == 1
    assert not detectable_deviation(1000).rigorous


def assert_same(one: Counts, two: Counts) -> None:
    for field in fields(Counts):
        if field.name != "examples":
            assert getattr(one, field.name) == pytest.approx(getattr(two, field.name), abs=1e-9), field.name
