"""Single measurements: interleaved arms, timed texts, parts of a step, latency of a pass, batches, bounds, time to a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.model.target import load_model
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.benchmark import pass_latency, roofline, verdict_latency
from harness.benchmark.arms import FirstTokenTime, ReferenceArm, TimedText, TransformersArm, keyed_texts
from harness.benchmark.batches import time_batches
from harness.benchmark.budgets import budget_point
from harness.benchmark.pass_latency import WARM_UP, pass_latencies
from harness.benchmark.record import Call
from harness.benchmark.reliability import reliability
from harness.benchmark.runner import interleaved
from harness.benchmark.settings import BenchSettings
from harness.benchmark.step_profile import step_profile
from harness.benchmark.timing import Stopwatch
from harness.benchmark.verdict_latency import CampaignPlan
from harness.distributions.campaign import MAX_PROMPT, TEXTS_PER_CALL, TEXTS_PER_LOOK, short_prompts
from harness.distributions.scoring import TargetScorer
from harness.implementations import reference
from harness.implementations.engine import Engine
from harness.pairs import Pair, Prompt, prompts, shipped
from properties.meta.helpers.fake_clock import ticking

PARAMS = SamplingParams(temperature=0.0, max_new_tokens=8)


def load(pair: Pair) -> Decoder:
    return Decoder.load(pair.target, pair.draft, Budget(2, 2, 3))


# --- counts over texts that end -------------------------------------------------------------------------------------------


def test_counts_stop_where_a_text_ends() -> None:
    pair = shipped("dice8")
    decoder, some = load(pair), prompts(pair)[:6]
    whole = keyed_texts(decoder, some, 0.0, 48)
    end = whole[0].tokens[5]
    cut = [text.tokens[: (text.tokens.index(end) if end in text.tokens else 47) + 1] for text in whole]
    assert [text.tokens for text in keyed_texts(decoder, some, 0.0, 48, (end,))] == cut
    short, full = (budget_point(decoder, some, 0.0, 3, ends=ends) for ends in ((end,), ()))
    assert 0 < short.tokens < full.tokens
    everything = tuple(range(pair.vocab_size))  # each text is one token: no node is examined
    assert not list(reliability(decoder, some, 0.0, Budget(2, 2, 3), (), everything))
    assert budget_point(decoder, some, 0.0, 3, ends=everything).passes == 0


# --- interleaved timed texts ----------------------------------------------------------------------------------------------


class FakeArm:
    """An arm that notes its calls as (name, seed). ended: its texts end before their full length."""

    def __init__(self, name: str, calls: list[tuple[str, int]], missing: int = 0, ended: bool = False) -> None:
        self.name, self.calls, self.missing, self.ended = name, calls, missing, ended

    def run(self, prompt: Any, temperature: float, tokens: int, seed: int) -> TimedText:  # noqa: ARG002
        self.calls.append((self.name, seed))
        return TimedText(1.0, 0.1, tokens - self.missing, 1, None, (), self.ended)


def time_texts(arms: dict[str, FakeArm], settings: BenchSettings, n: int) -> list[Call]:
    prompts = [Prompt(str(i), "kind", "", [1]) for i in range(n)]
    return list(interleaved(settings, prompts, dict(arms), lambda *_: None))


def test_arms_take_turns() -> None:
    """All arms decode a prompt before the next prompt, each is first equally often, and all have the seed of the repeat."""
    calls: list[tuple[str, int]] = []
    settings = BenchSettings(tokens=8, repeats=3, temperatures=(0.0, 1.0), seed=7)
    time_texts({name: FakeArm(name, calls) for name in "abc"}, settings, 4)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert all({name for name, _ in one} == set("abc") and len({seed for _, seed in one}) == 1 for one in rounds)
    assert Counter(one[0][0] for one in rounds) == {"a": 8, "b": 8, "c": 8}
    assert [one[0][1] for one in rounds] == [7] * 8 + [8] * 8 + [9] * 8


def test_shorter_text_is_refused_unless_it_ended() -> None:
    """A speed ratio of texts of different lengths would mean nothing; an answer may end early."""
    settings = BenchSettings(tokens=8, temperatures=(0.0,), repeats=1)
    (ended,) = time_texts({"a": FakeArm("a", [], 1, ended=True)}, settings, 1)
    assert ended.tokens == 7
    with pytest.raises(BadInput, match="b emitted 7 tokens of 0, not 8"):
        time_texts({"a": FakeArm("a", []), "b": FakeArm("b", [], 1)}, settings, 1)


def test_reference_is_timed_until_its_first_block(pair: Pair) -> None:
    timed = ReferenceArm(load(pair), ticking()).run(list(b"import os"), 0.0, 8, 0)
    assert (timed.prefill, timed.seconds, timed.first, timed.tokens) == (1.0, 2.0, 1, 8)


def test_transformers_decodes_the_same_text_with_the_same_parameters(pair: Pair) -> None:
    """At temperature 0 it emits the reference's text; above 0 it samples at that temperature without top-k or top-p."""
    model, prompt = load_model(pair.target, "float32").eval(), list(b"import os")
    calls: list[tuple[dict[str, Any], list[int]]] = []
    generate = model.generate

    def noting(text: torch.Tensor, **options: Any) -> Any:
        out = generate(text, **options)
        calls.append((options, out[0, text.shape[1] :].tolist()))
        return out

    model.generate = noting
    arm = TransformersArm(model, ticking())
    timed = arm.run(prompt, 0.0, 8, 0)
    assert calls[0][1] == load(pair).generate(prompt, PARAMS, SeededCoins(0)).tokens
    assert timed.tokens == 8 and not model.generation_config.do_sample
    assert (timed.prefill, timed.seconds) == (1.0, 2.0)  # the clock is read before, at the first token, and at the end
    arm.run(prompt, 0.5, 8, 0)
    expected = {"do_sample": True, "temperature": 0.5, "top_k": 0, "top_p": 1.0}
    assert {name: calls[1][0][name] for name in expected} == expected


def test_first_token_time_skips_the_prompt() -> None:
    streamer, times = FirstTokenTime(ticking()), []
    for _ in range(3):
        streamer.put(None)
        times.append(streamer.at)
    assert times == [-1.0, 0.0, 0.0]


# --- parts of a step, latency of a pass -----------------------------------------------------------------------------------


def test_inner_part_is_counted_once() -> None:
    class Nested:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    nested, watch = Nested(), Stopwatch(ticking())
    watch.time(nested, "outer", "outer")
    watch.time(nested, "inner", "inner")
    assert nested.outer() == 2
    assert watch.seconds == {"outer": 2.0, "inner": 1.0}  # the clock is read at 0, 1, 2 and 3


def test_step_profile_changes_neither_text_nor_decoder(pair: Pair) -> None:
    """The parts add up to the time of all steps, and their number is that of the blocks after the prompt's."""
    decoder, prompt = load(pair), Prompt("a", "kind", "", list(b"def f(x):"))
    before = dict(vars(decoder.target))
    profile = step_profile(decoder, "speculative", [prompt], PARAMS, 0, ticking())
    assert vars(decoder.target) == before and "accept" not in vars(decoder)
    blocks = decoder.generate(prompt.tokens, PARAMS, SeededCoins(0)).blocks
    assert profile.steps == len(blocks) - 1
    assert profile.milliseconds["target pass"] == profile.milliseconds["cache commit"] == 1000.0
    assert profile.total > 3000 and min(profile.milliseconds.values()) >= 0


def test_pass_latency_is_measured_after_warm_up_on_a_text_that_stays(pair: Pair) -> None:
    decoder, clock = load(pair), ticking()
    found = list(pass_latencies(decoder, list(b"def f(x):"), clock, times=2))
    assert {one.behind for one in found} == {200} and all(one.median == 1000.0 for one in found)
    assert clock() == len(found) * (WARM_UP + 2 * 2)


def test_sizes_of_passes_are_measured_in_random_order(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round has every size once, in a new order, so that no size always finds the same data in the caches."""
    calls: list[int] = []
    passes = {("target", n): lambda n=n: calls.append(n) for n in (1, 2, 3)}
    monkeypatch.setattr(pass_latency, "_target_passes", lambda *_: passes)
    list(pass_latencies(Decoder.load(pair.target), list(b"def f(x):"), ticking(), times=40))
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == WARM_UP + 40 and all(sorted(one) == [1, 2, 3] for one in rounds)
    assert len({tuple(one) for one in rounds}) == 6


# --- batches, bounds ------------------------------------------------------------------------------------------------------


def test_batches_take_turns_and_are_timed_after_their_first_tokens(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read before, when the first trees are proposed, and at the end. The seed is that of the repeat."""
    seeds: list[int] = []

    def noting(seed: int) -> SeededCoins:
        seeds.append(seed)
        return SeededCoins(seed)

    monkeypatch.setattr("harness.benchmark.batches.SeededCoins", noting)
    arms: dict[str, Any] = {name: ReferenceArm(load(pair), ticking()) for name in ("speculative", "vanilla")}
    arms["transformers"] = FakeArm("transformers", [])
    settings = BenchSettings(temperatures=(0.0,), tokens=3, repeats=2, batch=(2, 1), seed=7)
    prompts = [Prompt(str(i), "kind", "", [1 + i]) for i in range(3)]
    found = list(time_batches(settings, prompts, arms, ticking(), lambda *_: None))
    assert {(one.prefill, one.seconds, one.tokens) for one in found} == {(1.0, 2.0, 3), (1.0, 2.0, 6)}
    rounds = [found[i : i + 2] for i in range(0, len(found), 2)]
    assert [(one[0].arm, one[0].prompts) for one in rounds] == [
        ("speculative", ("0", "2")),
        ("speculative", ("0",)),
        ("vanilla", ("2",)),
        ("vanilla", ("0", "2")),
        ("vanilla", ("0",)),
        ("speculative", ("2",)),
    ]
    assert seeds == [7] * (2 * 2 + 2 * 4) + [8] * (2 * 4)  # two arms: a warm-up of two texts, then four texts per repeat
    assert all(one.prompts == other.prompts and {one.arm, other.arm} == {"speculative", "vanilla"} for one, other in rounds)


def test_step_of_fixed_shapes_lies_between_two_blocks(pair: Pair) -> None:
    """The first step of a text, which includes the head's pass over the prompt, is left out."""
    prompt, params = Prompt("a", "k", "", list(b"import os")), SamplingParams(0.0, max_new_tokens=12)
    fixed = FixedShapeDecoder.load(pair.target, pair.draft, Budget(2, 2, 3), walk)
    blocks = fixed.generate(prompt.tokens, params, SeededCoins(0)).blocks
    bound = roofline.step_bound(fixed, "static", [prompt, prompt], params, 0, ticking(), 1e9)
    assert bound.steps == 2 * (len(blocks) - 2) and bound.milliseconds == 1000.0


def test_bandwidth_counts_bytes_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "COPIED", 1000)
    assert roofline.memory_bandwidth(torch.device("cpu"), ticking()) == 2000.0


# --- time to a verdict ----------------------------------------------------------------------------------------------------

COIN = shipped("coin4")
PLAN = CampaignPlan.of(COIN, short_prompts(COIN.vocab_size), new=12, tokens=600, k=2, depth=3, m=5)


def time_verdict(decoder: str = "ref", plan: CampaignPlan = PLAN, clock: Callable[[], float] | None = None) -> Any:
    return verdict_latency.verdict_latency(decoder, plan, BenchSettings(), clock or ticking())


def test_time_to_a_verdict_is_divided_between_decoder_target_and_harness() -> None:
    """A call of the decoder and the passes over its texts take one tick each, with one tick between them."""
    found = time_verdict()
    assert (found.verdict, found.texts, found.tokens) == ("pass", TEXTS_PER_LOOK, 12 * TEXTS_PER_LOOK)
    calls = TEXTS_PER_LOOK / TEXTS_PER_CALL
    assert (found.decoding, found.scoring, found.seconds) == (calls, calls, 4 * calls + 1)
    assert found.harness_share == pytest.approx(1 - 4 / 9)


@pytest.mark.parametrize(
    ("owner", "name", "part"),
    [
        (reference.Engine, "generate", "decoding"),
        (TargetScorer, "logits", "scoring"),
        (TargetScorer, "_law", "harness"),
        (Engine, "_validate", "harness"),
    ],
)
def test_slow_part_has_the_largest_share(owner: type, name: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, method = ticking(), getattr(owner, name)

    def slow(*arguments: Any) -> Any:
        for _ in range(100):
            clock()
        return method(*arguments)

    monkeypatch.setattr(owner, name, slow)
    found = time_verdict(clock=clock)
    shares = {part: getattr(found, part) / found.seconds for part in ("decoding", "scoring")} | {"harness": found.harness_share}
    assert shares[part] > 0.9


def test_faulty_decoder_is_found() -> None:
    assert time_verdict("mutant:M11", replace(PLAN, tokens=10_000)).verdict == "fault"


def test_campaigns_run_on_the_pair_and_on_a_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_latency, "verdict_latency", lambda decoder, plan, *_: (decoder, plan))
    prompts = [Prompt(str(i), "kind", "", [1] * 200) for i in range(3)]
    found: list[Any] = list(verdict_latency.verdict_latencies(BenchSettings(k=2, depth=2, m=4), COIN, prompts, ticking()))
    decoders, plans = zip(*found, strict=True)
    assert decoders == verdict_latency.DECODERS * 2 and [plan.pair.name for plan in plans] == ["coin4"] * 2 + ["dice8"] * 2
    assert plans[0].plan.prompts == [[1] * MAX_PROMPT] * 3 and plans[0].budget == {"k": 2, "depth": 2, "m": 4}
