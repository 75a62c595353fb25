"""Tuning and reliability: prices from costs, the search by them, and how confidences compare with acceptance."""

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
from harness.bench import calibrate
from harness.bench import tune as tuning
from harness.bench.arms import Ours, Timed
from harness.bench.calibrate import likeliest
from harness.bench.clock import clock
from harness.bench.record import Cost, Steps, Tried, Tuned
from harness.bench.reliability import binned, reliability
from harness.bench.settings import asked_prompts
from harness.bench.steps import twin
from harness.bench.tune import PROMPTS, Prices, priced, tune
from harness.pairs import Prompt, prompts, shipped
from properties.meta.helpers.drafting import OneSequence

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
    monkeypatch.setattr(tuning, "Ours", by_depth({16: 0.4, 6: 0.5} if cheap else {16: 1.1, 6: 1.2}))
    heard: list[str] = []
    found = tune(decoder, some(2), 0.0, (1.0, 0.5), clock(decoder.target.device), heard.append)
    timed = [one for one in found.tried if one.timed is not None]
    assert timed == list(found.tried[: len(timed)]) and 8 == tuning.FINALISTS <= len(timed) <= tuning.FINALISTS + tuning.FEW
    assert [one.timed for one in timed] == sorted((one.timed for one in timed if one.timed), reverse=True)
    assert len(found.tried) == len(heard) - 1 == len({one.budget for one in found.tried}) > 10
    assert found.vanilla == pytest.approx(1 / 2.1) and (found.chosen is not None) == drafts
    published = [one for one in timed if one.head_temperature == 1 and not one.node and not one.layer]
    assert len(published) >= tuning.FEW and found.paper == (published[0] if drafts else None)
    if found.chosen:
        assert found.chosen == found.tried[0] and found.chosen.timed == pytest.approx(2.5) and found.chosen.tau > 2
        found.chosen.budget.check(256)
    assert Tuned.model_validate_json(found.model_dump_json()) == found
    assert decoder.drafter is not None and decoder.rule is walk


def by_depth(seconds: dict[int, float]) -> type[Ours]:
    """An arm that takes so long with a budget of that depth, a second without drafts, and half a second for the prompt."""

    class Told(Ours):
        def run(self, prompt: Sequence[int], temperature: float, tokens: int, seed: int) -> Timed:
            assert temperature == 0 and seed < tuning.HEATS
            drafter = self.decoder.drafter
            spent = seconds.get(drafter.budget.depth, 9.0) if isinstance(drafter, Eagle2) else 1.0
            return Timed(0.5 + spent * len(prompt) * (tokens - 1), 0.5, tokens, 1, None)

    return Told


def test_the_best_by_expectation_and_the_best_of_every_k_are_timed() -> None:
    ranked = [tried(k=k, rate=rate) for k, rate in zip((4, 4, 4, 4, 4, 4, 4, 4, 2, 1), range(10, 0, -1), strict=True)]
    found = tuning.finalists(ranked)
    assert [(one.k, one.rate) for one in found] == [(4, 10), (4, 9), (4, 8), (4, 7), (4, 6), (4, 5), (2, 2), (1, 1)]
    plain = [one.model_copy(update={"node": 0.1 if one.rate > 4 else 0.0}) for one in ranked]
    assert [(one.k, one.rate) for one in tuning.finalists(plain)][-4:] == [(4, 4), (4, 3), (2, 2), (1, 1)]


def test_a_race_is_won_by_the_clock(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was expected; ratios are to vanilla, prompt by prompt, without the prompt's pass; nobody's budget is touched."""
    monkeypatch.setattr(tuning, "Ours", by_depth({2: 0.8, 3: 0.5, 4: 2.0}))
    entered = [tried(depth=depth, rate=rate) for depth, rate in ((4, 3.0), (2, 2.0), (3, 1.0))]
    params = SamplingParams(temperature=0.0, max_new_tokens=9)
    found = tuning.race(decoder, entered, some(3), params, clock(torch.device("cpu")))
    assert [one.depth for one in found] == [3, 2, 4]
    assert [one.timed for one in found] == pytest.approx([2.0, 1.25, 0.5])
    assert isinstance(decoder.drafter, Eagle2) and decoder.drafter.budget == Budget(4, 5, 12)


def tried(k: int = 1, depth: int = 6, rate: float = 1.0) -> Tried:
    return Tried(k=k, depth=depth, m=1, head_temperature=1.0, node=0.0, layer=0.0, rate=rate, tau=2.0, rows=2.0, layers=2.0)


def test_the_likeliest_temperature_is_the_one_that_tokens_were_drawn_at() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 16, generator=generator, dtype=torch.float64)
    for temperature in (0.5, 1.0, 1.7):
        tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
        assert likeliest(logits, tokens) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_head_is_asked_along_the_text_what_it_is_asked_in_a_tree(temperature: float, decoder: Decoder) -> None:
    """Its confidences behind a root, and behind the token that came next, are those of the tree that decoding proposes there."""
    (prompt,) = some(1)
    params = SamplingParams(temperature=temperature, max_new_tokens=calibrate.TOKENS)
    came = Decoder(twin(decoder).target).generate(prompt.tokens, params, KeyedCoins(3)).tokens
    (first, followed), (second, behind), *_ = calibrate.foretold(decoder, prompt, temperature, 3)
    assert followed.tolist() == came[1 : 1 + len(first)] and behind.tolist() == came[2 : 2 + len(second)]
    seen, spare = 0, twin(decoder)
    assert isinstance(spare.drafter, Eagle2)
    spare.drafter.budget, text = Budget(8, 2, 72), [*prompt.tokens, *came]
    features = spare.target.prefill([spare.target.cache()], [text])[0].features
    for root in range(0, len(first), 7):
        one = OneSequence(spare.drafter, text[:1])
        one.observe(text[1 : len(prompt.tokens) + root + 1], features[: len(prompt.tokens) + root])
        tree = one.propose(2)
        below = tree.values[tree.children(0)].sort(descending=True).values
        assert torch.allclose(below, first[root].log_softmax(-1).topk(8).values, atol=1e-4)
        if (node := tree.child(0, came[root + 1])) is not None:
            below = (tree.values[tree.children(node)] - tree.values[node]).sort(descending=True).values
            assert torch.allclose(below, second[root].log_softmax(-1).topk(8).values, atol=1e-4)
            seen += 1
    assert seen >= 4


def test_a_fitted_head_is_calibrated_where_it_was_not_fitted(decoder: Decoder) -> None:
    """At temperature 0 confidences are sharpened, and come nearer to acceptance; every temperature is counted once."""
    fit, layers = calibrate.fitted(decoder, some(6), 0.0)
    found = list(calibrate.calibrated(decoder, prompts(shipped("stdlib"))[1:40:8], 0.0, fit, layers))
    by = {one.head_temperature: one for one in found}
    assert (
        set(by) == {*calibrate.FAMILY, fit} and len(found) == len(by) and [one.layers for one in found if one.layers] == [layers]
    )
    assert fit < 0.9 and len(layers) == calibrate.DEPTH and min(layers) <= fit <= max(layers)
    assert by[fit].error < by[1.0].error and len({one.passes for one in found}) > 1
    assert len({one.tokens for one in found}) == 1


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
