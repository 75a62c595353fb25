"""Tuning of budgets, and calibration of the head: costs of a step, the search, timing of the best, fit, reliability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.benchmark import calibrate
from harness.benchmark import tune as tuning
from harness.benchmark.arms import ReferenceArm, TimedText, copy_decoder
from harness.benchmark.calibrate import likeliest_temperature
from harness.benchmark.prompts import load_prompts
from harness.benchmark.record import BudgetTrial, PassLatency, StepProfile, TuningResult
from harness.benchmark.reliability import binned, reliability
from harness.benchmark.timing import clock
from harness.benchmark.tune import PROMPTS, StepCosts, tune, with_thresholds
from harness.pairs import Prompt, prompts, shipped
from properties.meta.helpers.drafting import OneSequence

COSTS = StepCosts({1: 2.0, 9: 3.0, 33: 6.0}, {1: 0.2, 9: 0.4}, step=0.5, layer=0.1)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    pair = shipped("stdlib")
    return Decoder.load(pair.target, pair.draft, Budget(4, 5, 12), walk)


def test_step_costs_follow_from_latencies_and_a_profile() -> None:
    """Sizes between the measured ones are interpolated, and scaled to the profiled step. What is neither a pass of the target
    nor of the head belongs to the step or to a layer."""
    found = [PassLatency(what=what, rows=rows, behind=9, n=5, median=ms, low=ms, high=ms) for what, rows, ms in LATENCIES]
    parts = {"target pass": 9.0, "head passes": 2.7, "tree building": 0.6, "rule": 0.3, "cache commit": 0.15, "rest": 0.05}
    costs = StepCosts.of(found, StepProfile(arm="x", temperature=0.0, steps=9, milliseconds=parts), Budget(5, 6, 20))
    assert (costs.step, costs.layer) == pytest.approx((0.5, 0.1))
    assert costs.target_pass(21) == pytest.approx(9.0)  # 4.5 alone
    assert costs.target_pass(5) == pytest.approx(5.0)  # 2.5 alone
    assert costs.tree_layer(5) == pytest.approx(0.1 + 0.45) and costs.tree_layer(1) == pytest.approx(0.1 + 0.3)


LATENCIES = [("target", 1, 2.0), ("target", 9, 3.0), ("target", 33, 6.0), ("head", 1, 0.2), ("head", 9, 0.4)]


def test_threshold_is_a_cost_times_a_rate() -> None:
    """A row costs 0.125 ms on average, a layer at k = 5 costs 0.4 ms; the rate is 0.8 tokens per millisecond."""
    budget = with_thresholds(0.8, StepCosts({1: 2.0, 32: 5.875}, {1: 0.2, 9: 0.4}, 0.5, 0.1), 5, 0.7)
    assert (budget.node, budget.layer, budget.head_temperature, budget.k) == (0.1, 0.32, 0.7, 5)
    assert with_thresholds(1e9, COSTS, 1, 1.0).node == 1.0


@pytest.mark.parametrize(("cheap", "drafts"), [(True, True), (False, False)], ids=["cheap head", "expensive head"])
def test_tuning_chooses_drafting_only_if_it_is_faster(
    cheap: bool, drafts: bool, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen budget is the fastest of all that were tried; none is chosen if ordinary decoding is faster."""
    costs = (
        StepCosts({1: 2.0, 33: 2.1}, {1: 0.05, 9: 0.05}, 0.1, 0.0) if cheap else StepCosts({1: 2.0, 33: 9.0}, {1: 40.0}, 0.1, 0.0)
    )
    profile = StepProfile(arm="x", temperature=0.0, steps=1, milliseconds={"target pass": 2.1})
    monkeypatch.setattr(tuning.StepCosts, "of", lambda *_: costs)
    monkeypatch.setattr(tuning, "pass_latencies", lambda *_, **__: [])
    monkeypatch.setattr(tuning, "step_profile", lambda *_: profile)
    monkeypatch.setattr(tuning, "TOKENS", 16)
    monkeypatch.setattr(tuning, "ReferenceArm", arm_by_depth({16: 0.4, 6: 0.5} if cheap else {16: 1.1, 6: 1.2}))
    messages: list[str] = []
    found = tune(decoder, some(2), 0.0, (1.0, 0.5), clock(decoder.target.device), messages.append)
    timed = [one for one in found.tried if one.timed is not None]
    assert (
        timed == list(found.tried[: len(timed)])
        and 8 == tuning.FINALISTS <= len(timed) <= tuning.FINALISTS + tuning.PUBLISHED_FINALISTS
    )
    assert [one.timed for one in timed] == sorted((one.timed for one in timed if one.timed), reverse=True)
    assert len(found.tried) == len(messages) - 1 == len({one.budget for one in found.tried}) > 10
    assert found.vanilla == pytest.approx(1 / 2.1) and (found.chosen is not None) == drafts
    published = [one for one in timed if one.head_temperature == 1 and not one.node and not one.layer]
    assert len(published) >= tuning.PUBLISHED_FINALISTS and found.paper == (published[0] if drafts else None)
    if found.chosen:
        assert found.chosen == found.tried[0] and found.chosen.timed == pytest.approx(2.5) and found.chosen.tau > 2
        found.chosen.budget.check(256)
    assert TuningResult.model_validate_json(found.model_dump_json()) == found
    assert decoder.drafter is not None and decoder.rule is walk


def arm_by_depth(seconds: dict[int, float]) -> type[ReferenceArm]:
    """A fake arm: seconds per token by depth of the budget, one second without drafts, and half a second for the prompt."""

    class FakeArm(ReferenceArm):
        def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> TimedText:
            assert temperature == 0 and seed < tuning.HEATS
            drafter = self.decoder.drafter
            spent = seconds.get(drafter.budget.depth, 9.0) if isinstance(drafter, Eagle2) else 1.0
            return TimedText(0.5 + spent * len(prompt) * (tokens - 1), 0.5, tokens, 1, None)

    return FakeArm


def test_finalists_are_the_best_of_every_k_and_the_best_others() -> None:
    ranked = [trial(k=k, rate=rate) for k, rate in zip((4, 4, 4, 4, 4, 4, 4, 4, 2, 1), range(10, 0, -1), strict=True)]
    found = tuning.finalists(ranked)
    assert [(one.k, one.rate) for one in found] == [(4, 10), (4, 9), (4, 8), (4, 7), (4, 6), (4, 5), (2, 2), (1, 1)]
    plain = [one.model_copy(update={"node": 0.1 if one.rate > 4 else 0.0}) for one in ranked]
    assert [(one.k, one.rate) for one in tuning.finalists(plain)][-4:] == [(4, 4), (4, 3), (2, 2), (1, 1)]


def test_race_ranks_budgets_by_measured_time(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the computed rate. Speed-ups are over vanilla, prompt by prompt; the decoder itself is not changed."""
    monkeypatch.setattr(tuning, "ReferenceArm", arm_by_depth({2: 0.8, 3: 0.5, 4: 2.0}))
    entrants = [trial(depth=depth, rate=rate) for depth, rate in ((4, 3.0), (2, 2.0), (3, 1.0))]
    params = SamplingParams(temperature=0.0, max_new_tokens=9)
    found = tuning.race(decoder, entrants, some(3), params, clock(torch.device("cpu")))
    assert [one.depth for one in found] == [3, 2, 4]
    assert [one.timed for one in found] == pytest.approx([2.0, 1.25, 0.5])
    assert isinstance(decoder.drafter, Eagle2) and decoder.drafter.budget == Budget(4, 5, 12)


def trial(k: int = 1, depth: int = 6, rate: float = 1.0) -> BudgetTrial:
    return BudgetTrial(k=k, depth=depth, m=1, head_temperature=1.0, node=0.0, layer=0.0, rate=rate, tau=2.0, rows=2.0, layers=2.0)


def test_likeliest_temperature_is_that_of_the_sampled_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 16, generator=generator, dtype=torch.float64)
    for temperature in (0.5, 1.0, 1.7):
        tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        assert likeliest_temperature(logits, tokens) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_head_logits_along_the_text_are_those_of_the_draft_tree(temperature: float, decoder: Decoder) -> None:
    """After a root, and after the next token of the text, where the proposed tree contains it."""
    (prompt,) = some(1)
    params = SamplingParams(temperature=temperature, max_new_tokens=calibrate.TOKENS)
    new = Decoder(copy_decoder(decoder).target).generate(prompt.tokens, params, KeyedCoins(3)).tokens
    (first, next_tokens), (second, second_tokens), *_ = calibrate.head_logits(decoder, prompt, temperature, 3)
    assert next_tokens.tolist() == new[1 : 1 + len(first)] and second_tokens.tolist() == new[2 : 2 + len(second)]
    compared, spare = 0, copy_decoder(decoder)
    assert isinstance(spare.drafter, Eagle2)
    spare.drafter.budget, text = Budget(8, 2, 72), [*prompt.tokens, *new]
    features = spare.target.prefill([spare.target.cache()], [text])[0].features
    for root in range(0, len(first), 7):
        one = OneSequence(spare.drafter, text[:1])
        one.observe(text[1 : len(prompt.tokens) + root + 1], features[: len(prompt.tokens) + root])
        tree = one.propose(2)
        below = tree.values[tree.children(0)].sort(descending=True).values
        assert torch.allclose(below, first[root].log_softmax(-1).topk(8).values, atol=1e-4)
        if (node := tree.child(0, new[root + 1])) is not None:
            below = (tree.values[tree.children(node)] - tree.values[node]).sort(descending=True).values
            assert torch.allclose(below, second[root].log_softmax(-1).topk(8).values, atol=1e-4)
            compared += 1
    assert compared >= 4


def test_fitted_temperature_calibrates_the_head_on_other_prompts(decoder: Decoder) -> None:
    """At temperature 0 the fit is below 1 and has a smaller calibration error."""
    fit, layers = calibrate.fit_head_temperature(decoder, some(6), 0.0)
    found = list(calibrate.tau_by_head_temperature(decoder, prompts(shipped("stdlib"))[1:40:8], 0.0, fit, layers))
    by = {one.head_temperature: one for one in found}
    assert (
        set(by) == {*calibrate.ROUND_TEMPERATURES, fit}
        and len(found) == len(by)
        and [one.layers for one in found if one.layers] == [layers]
    )
    assert fit < 0.9 and len(layers) == calibrate.DEPTH and min(layers) <= fit <= max(layers)
    assert by[fit].error < by[1.0].error and len({one.passes for one in found}) > 1
    assert len({one.tokens for one in found}) == 1


def test_rate_of_a_budget_is_tokens_over_computed_milliseconds(decoder: Decoder) -> None:
    params = SamplingParams(temperature=0.0, max_new_tokens=24)
    found = tuning.try_budget(copy_decoder(decoder), Budget(1, 2, 2), some(3), params, COSTS)
    assert 1 <= found.tau <= 3 and 1 < found.rows <= 3 and found.layers <= 2
    by_hand = found.tau / (COSTS.target_pass(found.rows) + COSTS.step + found.layers * COSTS.tree_layer(1))
    assert found.rate == pytest.approx(by_hand, rel=0.01)


def test_tuning_prompts_are_not_timed() -> None:
    """They are of the same kinds as the timed prompts."""
    pair = shipped("stdlib")
    own, timed = load_prompts(PROMPTS, pair, 0, 64), prompts(pair)
    assert not {prompt.text for prompt in own} & {prompt.text for prompt in timed}
    assert {prompt.kind for prompt in own} == {prompt.kind for prompt in timed}


def test_calibration_error_is_the_weighted_distance_of_bin_means() -> None:
    confidence = np.array([0.05, 0.05, 0.95, 0.95, 0.95, 1.0])
    found = binned(confidence, np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 0.5, 0.7)
    assert found.nodes == (2, 0, 0, 0, 0, 0, 0, 0, 0, 4)
    assert found.confidence[0] == pytest.approx(0.05) and found.confidence[9] == pytest.approx(3.85 / 4)
    assert (found.accepted[0], found.accepted[9]) == (0.5, 1.0)
    assert found.error == pytest.approx((0.9 + 0.15) / 6)


def test_head_is_calibrated_at_temperature_1_and_underconfident_at_0(decoder: Decoder) -> None:
    """At temperature 1 the target samples what the head was trained to predict. At 0 the most probable token is accepted more
    often, and a sharper head is better calibrated. A fault in counting nodes would show here."""
    (warm,) = reliability(decoder, some(12), 1.0, Budget(4, 5, 12), ())
    greedy, sharper = reliability(decoder, some(12), 0.0, Budget(4, 5, 12), (0.5,))
    assert warm.error < 0.08 and sharper.error < greedy.error
    assert greedy.accepted[9] >= 0.95 and greedy.accepted[0] <= 0.05 and sum(greedy.nodes) > 500


def some(n: int) -> list[Prompt]:
    found = prompts(shipped("stdlib"))
    return found[:: len(found) // n][:n]
