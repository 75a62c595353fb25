"""What `eagle2 bench` times: arms that take turns, texts from where to where, the parts of a step, the cost of a pass."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import load_model
from eagle2_ref.sampling import SamplingParams
from harness.bench import costs as costing
from harness.bench.arms import FirstToken, Ours, Timed, Transformers
from harness.bench.batches import batches
from harness.bench.costs import WARM, costs
from harness.bench.record import Call
from harness.bench.run import calls
from harness.bench.settings import Settings
from harness.bench.steps import Stopwatch, steps
from harness.pairs import Pair, Prompt
from properties.meta.helpers import tiny
from properties.meta.helpers.fake_clock import ticking


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("bench"), max_position_embeddings=320)


class Noted:
    """An arm that notes when it was asked, for which seed."""

    def __init__(self, name: str, asked: list[tuple[str, int]], tokens: int = 8) -> None:
        self.name, self.asked, self.tokens = name, asked, tokens

    def run(self, prompt: Any, temperature: float, tokens: int, seed: int) -> Timed:  # noqa: ARG002
        self.asked.append((self.name, seed))
        return Timed(1.0, 0.1, self.tokens, 1, None)


def noted(arms: dict[str, Noted], settings: Settings, n: int) -> list[Call]:
    prompts = [Prompt(str(i), "kind", "", [1]) for i in range(n)]
    return list(calls(settings, prompts, dict(arms), lambda *_: None))


def test_arms_take_turns() -> None:
    """All arms do a prompt before any does the next; each is first as often; all have the seed of the repeat."""
    asked: list[tuple[str, int]] = []
    settings = Settings(tokens=8, repeats=3, temperatures=(0.0, 1.0), seed=7)
    noted({name: Noted(name, asked) for name in "abc"}, settings, 4)
    rounds = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    assert all({name for name, _ in one} == set("abc") and len({seed for _, seed in one}) == 1 for one in rounds)
    assert Counter(one[0][0] for one in rounds) == {"a": 8, "b": 8, "c": 8}
    assert [one[0][1] for one in rounds] == [7] * 8 + [8] * 8 + [9] * 8


def test_texts_of_another_length_are_not_compared() -> None:
    with pytest.raises(BadInput, match="b emitted 7 tokens of 0, not 8"):
        noted({"a": Noted("a", []), "b": Noted("b", [], 7)}, Settings(tokens=8), 1)


def test_a_part_inside_a_part_is_counted_once() -> None:
    class Nested:
        def outer(self) -> int:
            return self.inner() + 1

        def inner(self) -> int:
            return 1

    nested, watch = Nested(), Stopwatch(ticking())
    watch.stand_at(nested, "outer", "outer")
    watch.stand_at(nested, "inner", "inner")
    assert nested.outer() == 2
    assert watch.spent == {"outer": 2.0, "inner": 1.0}  # looked at 0 1 2 3: three seconds in all, one of them inside


def loaded(pair: Pair) -> Decoder:
    return Decoder.load(pair.target, pair.draft, Budget(2, 2, 3))


def test_parts_make_up_the_step(pair: Pair) -> None:
    """The text is the same, with clocks in it; the decoder that is measured is left as it was."""
    decoder, prompt = loaded(pair), Prompt("a", "kind", "", list(b"def f(x):"))
    before = dict(vars(decoder.target))
    found = steps(decoder, "speculative", [prompt], SamplingParams(temperature=0.0, max_new_tokens=8), 0, ticking())
    blocks = decoder.generate(prompt.tokens, SamplingParams(temperature=0.0, max_new_tokens=8), SeededCoins(0)).blocks
    assert found.steps == len(blocks) - 1 and all(spent >= 0 for spent in found.milliseconds.values())
    assert set(vars(decoder.target)) == set(before) and "accept" not in vars(decoder)


def test_a_pass_is_measured_behind_a_text_that_stays(pair: Pair) -> None:
    """What the first turns took is not looked at."""
    decoder, clock = loaded(pair), ticking()
    found = list(costs(decoder, list(b"def f(x):"), clock, times=2))
    assert {cost.behind for cost in found} == {200} and all(cost.median == 1000.0 for cost in found)
    assert clock() == len(found) * (WARM + 2 * 2)


def test_no_pass_comes_always_behind_the_same_other_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn has every size once, each in another order: what one pass leaves in the machine's caches is not always there."""
    asked: list[int] = []
    monkeypatch.setattr(costing, "_target", lambda *_: {("target", n): lambda n=n: asked.append(n) for n in (1, 2, 3)})
    list(costs(Decoder.load(pair.target), list(b"def f(x):"), ticking(), times=40))
    turns = [asked[i : i + 3] for i in range(0, len(asked), 3)]
    assert len(turns) == WARM + 40 and all(sorted(turn) == [1, 2, 3] for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 6


def test_transformers_is_asked_for_the_same(pair: Pair) -> None:
    """Greedy, it emits the text that ours does; above 0 it samples at that temperature, with nothing else on."""
    model, prompt, decoder = load_model(pair.target, "float32").eval(), list(b"import os"), loaded(pair)
    heard: list[tuple[dict[str, Any], list[int]]] = []
    generate = model.generate

    def listening(text: torch.Tensor, **asked: Any) -> Any:
        out = generate(text, **asked)
        heard.append((asked, out[0, text.shape[1] :].tolist()))
        return out

    model.generate = listening
    arm = Transformers(model, ticking())
    timed = arm.run(prompt, 0.0, 8, 0)
    greedy = decoder.generate(prompt, SamplingParams(temperature=0.0, max_new_tokens=8), SeededCoins(0))
    assert heard[0][1] == greedy.tokens and timed.tokens == 8 and not model.generation_config.do_sample
    assert (timed.prefill, timed.seconds) == (1.0, 2.0)  # looked at: before, at the first token, at the end
    arm.run(prompt, 0.5, 8, 0)
    assert {name: heard[1][0][name] for name in ("do_sample", "temperature", "top_k", "top_p")} == {
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
    }


def test_the_first_token_comes_after_the_prompt() -> None:
    heard, seen = FirstToken(ticking()), []
    for _ in range(3):
        heard.put(None)
        seen.append(heard.at)
    assert seen == [-1.0, 0.0, 0.0]


def test_ours_is_timed_to_its_first_block(pair: Pair) -> None:
    timed = Ours(loaded(pair), ticking()).run(list(b"import os"), 0.0, 8, 0)
    assert (timed.prefill, timed.seconds, timed.first, timed.tokens) == (1.0, 2.0, 1, 8)


def test_a_batch_is_timed_from_when_all_have_begun(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at before, when the first trees are asked for, and at the end; repeats have seeds of their own."""
    seeds: list[int] = []

    def noting(seed: int) -> SeededCoins:
        seeds.append(seed)
        return SeededCoins(seed)

    monkeypatch.setattr("harness.bench.batches.SeededCoins", noting)
    arms: dict[str, Any] = {name: Ours(loaded(pair), ticking()) for name in ("speculative", "vanilla")}
    arms["transformers"] = Noted("transformers", [])
    settings = Settings(temperatures=(0.0,), tokens=3, repeats=2, batch=(2, 1), seed=7)
    prompts = [Prompt(str(i), "kind", "", [1 + i]) for i in range(3)]
    lines = list(batches(settings, prompts, arms, ticking(), lambda *_: None))
    assert {(one.prefill, one.seconds, one.tokens) for one in lines} == {(1.0, 2.0, 3), (1.0, 2.0, 6)}
    rounds = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    assert [(one[0].arm, one[0].prompts) for one in rounds] == [
        ("speculative", ("0", "2")),
        ("speculative", ("0",)),
        ("vanilla", ("2",)),
        ("vanilla", ("0", "2")),
        ("vanilla", ("0",)),
        ("speculative", ("2",)),
    ]
    assert seeds == [7] * (2 * 2 + 2 * 4) + [8] * (2 * 4)  # of two arms: two texts for nothing, then four texts a repeat
    assert all(one.prompts == other.prompts and {one.arm, other.arm} == {"speculative", "vanilla"} for one, other in rounds)
