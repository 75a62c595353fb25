"""Tuning and reliability: prices from costs, the search by them, and how confidences compare with acceptance."""

from __future__ import annotations

import numpy as np
import pytest

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.bench import tune as tuning
from harness.bench.clock import clock
from harness.bench.record import Cost, Steps, Tried, Tuned
from harness.bench.reliability import binned, reliability
from harness.bench.settings import asked_prompts
from harness.bench.steps import twin
from harness.bench.tune import PROMPTS, Prices, priced, tune
from harness.pairs import Prompt, prompts, shipped

PRICES = Prices({1: 2.0, 9: 3.0, 33: 6.0}, {1: 0.2, 9: 0.4}, step=0.5, layer=0.1)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    pair = shipped("stdlib")
    return Decoder.load(pair.target, pair.draft, Budget(4, 5, 12), walk)


def test_prices_are_read_from_costs_and_steps() -> None:
    """Passes between measured sizes are interpolated, and raised to what they took in a step; what is neither target nor head
    goes with the step, or with a layer."""
    found = [Cost(what=what, rows=rows, behind=9, n=5, median=ms, low=ms, high=ms) for what, rows, ms in COSTS]
    parts = {"target pass": 9.0, "head passes": 2.7, "tree building": 0.6, "rule": 0.3, "cache commit": 0.15, "rest": 0.05}
    prices = Prices.of(found, Steps(arm="x", temperature=0.0, steps=9, milliseconds=parts), Budget(5, 6, 20))
    assert (prices.step, prices.layer) == pytest.approx((0.5, 0.1))
    assert prices.verify(21) == pytest.approx(9.0) and prices.verify(5) == pytest.approx(5.0)  # 4.5 and 2.5 by themselves
    assert prices.grow(5) == pytest.approx(0.1 + 0.45) and prices.grow(1) == pytest.approx(0.1 + 0.3)


COSTS = [("target", 1, 2.0), ("target", 9, 3.0), ("target", 33, 6.0), ("head", 1, 0.2), ("head", 9, 0.4)]


def test_a_threshold_is_a_cost_times_a_price() -> None:
    """A row costs .125 ms on average, a layer at k = 5 .4 ms: at .8 tokens a millisecond a tenth of a token, and a third."""
    budget = priced(0.8, Prices({1: 2.0, 32: 5.875}, {1: 0.2, 9: 0.4}, 0.5, 0.1), 5, 0.7)
    assert (budget.node, budget.layer, budget.head_temperature, budget.k) == (0.1, 0.32, 0.7, 5)
    assert priced(1e9, PRICES, 1, 1.0).node == 1.0


@pytest.mark.parametrize(("cheap", "drafts"), [(True, True), (False, False)], ids=["a cheap head", "a dear one"])
def test_drafting_is_chosen_where_it_pays(cheap: bool, drafts: bool, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of all that was tried, where that is quicker than no draft at all; nothing where it is not."""
    prices = Prices({1: 2.0, 33: 2.1}, {1: 0.05, 9: 0.05}, 0.1, 0.0) if cheap else Prices({1: 2.0, 33: 9.0}, {1: 40.0}, 0.1, 0.0)
    monkeypatch.setattr(tuning.Prices, "of", lambda *_: prices)
    monkeypatch.setattr(tuning, "costs", lambda *_, **__: [])
    monkeypatch.setattr(tuning, "steps", lambda *_: Steps(arm="x", temperature=0.0, steps=1, milliseconds={"target pass": 2.1}))
    monkeypatch.setattr(tuning, "TOKENS", 16)
    heard: list[str] = []
    found = tune(decoder, some(2), 0.0, clock(decoder.target.device), heard.append)
    assert [one.rate for one in found.tried] == sorted((one.rate for one in found.tried), reverse=True)
    assert len(found.tried) == len(heard) == len({one.budget for one in found.tried}) > 10
    assert found.vanilla == pytest.approx(1 / 2.1) and (found.chosen is not None) == drafts
    if found.chosen:
        assert found.chosen == found.tried[0] and found.chosen.rate > found.vanilla and found.chosen.tau > 2
        found.chosen.budget.check(256)
    assert Tuned.model_validate_json(found.model_dump_json()) == found
    assert decoder.drafter is not None and decoder.rule is walk


def test_rates_are_what_counts_cost(decoder: Decoder) -> None:
    """Tokens over the milliseconds of passes, layers and steps, from the counts of what was decoded."""
    params = SamplingParams(temperature=0.0, max_new_tokens=24)
    spare = twin(decoder)
    told = tuning._try(spare, Budget(1, 2, 2), some(3), params, PRICES)
    assert isinstance(told, Tried) and 1 <= told.tau <= 3 and 1 < told.rows <= 3 and told.layers <= 2
    by_hand = told.tau / (PRICES.verify(told.rows) + PRICES.step + told.layers * PRICES.grow(1))
    assert told.rate == pytest.approx(by_hand, rel=0.01)


def test_tuning_has_prompts_of_its_own() -> None:
    """None of them is among those that are timed, and every kind is there."""
    pair = shipped("stdlib")
    own, timed = asked_prompts(PROMPTS, pair, 0, 64), prompts(pair)
    assert not {prompt.text for prompt in own} & {prompt.text for prompt in timed}
    assert {prompt.kind for prompt in own} == {prompt.kind for prompt in timed}


def test_confidences_are_compared_with_acceptance_in_ten_parts() -> None:
    """Means of each part; the error is the distance of the means, weighted by nodes."""
    confidence = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 1.0])
    told = binned(confidence, np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 0.5, 0.7)
    assert told.nodes == (2, 0, 0, 0, 0, 0, 0, 0, 0, 4)
    assert told.confidence[0] == pytest.approx(0.05) and told.confidence[9] == pytest.approx(3.85 / 4)
    assert (told.accepted[0], told.accepted[9]) == (0.5, 1.0)
    assert told.error == pytest.approx((0.9 + 0.15) / 6)


def test_a_head_at_temperature_1_is_nearly_calibrated_and_at_0_too_modest(decoder: Decoder) -> None:
    """Sampled, an accepted token is one that the target draws, which is what the head was trained to foretell; the likeliest
    token is accepted more often than that, and a sharper head says so. Where a fault of the count would show."""
    (warm,) = reliability(decoder, some(12), 1.0, Budget(4, 5, 12), ())
    greedy, sharper = reliability(decoder, some(12), 0.0, Budget(4, 5, 12), (0.5,))
    assert warm.error < 0.08 and sharper.error < greedy.error
    assert greedy.accepted[9] >= 0.95 and greedy.accepted[0] <= 0.05 and sum(greedy.nodes) > 500


def some(n: int) -> list[Prompt]:
    found = prompts(shipped("stdlib"))
    return found[:: len(found) // n][:n]
