"""TOLD and COUNT-3 themselves: red for what an engine could tell wrongly, green for its right twin and for every convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.implementations import Implementation, connect
from harness.implementations.engine import AdapterError, BlockTrace, Counters, Missing, NotApplicable, Output
from harness.implementations.reference import Engine as Reference
from harness.implementations.trace import write_head
from harness.pairs import prompts, shipped
from harness.record.model import Verdict
from properties.meta.helpers.fake_engines import Outsider, implementation
from properties.meta.helpers.run_check import heard
from properties.test_told import CALLS, _miscounted, _unlike_blocks

CALL = {call.id: call for call in CALLS}
COIN = shipped("coin4")
SHORT = [replace(prompt, tokens=prompt.tokens[: 4 + i % 3]) for i, prompt in enumerate(prompts(COIN)[:8])]

Texts = list[list[float]]


# --- log-probabilities ---------------------------------------------------------------------------------------------


class Telling(Outsider):
    """Ordinary sampling that tells log-probabilities, those of the law at its temperature; the arms may retell them."""

    context = 24

    def __init__(self, target: str, draft: str | None = None, depth: int = 1) -> None:
        super().__init__(target, draft, depth)
        self.speculates = draft is not None

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Any]:
        room = [self.context - len(prompt) for prompt in prompts]
        asked = [
            {"temperature": row["temperature"] or 1e-9, "max_new_tokens": min(row["max_new_tokens"], left)}
            for row, left in zip(params, room, strict=True)
        ]
        texts = super().generate(prompts, asked, seeds)
        told = [self.log(*row) for row in zip(prompts, texts, params, strict=True)]
        return [{"tokens": text, "logprobs": row} for text, row in zip(texts, self.retold(told), strict=True)]

    @torch.inference_mode()
    def log(self, prompt: list[int], text: list[int], params: dict[str, Any]) -> list[float]:
        logits = self.model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        law = (logits / (params["temperature"] or 1.0)).log_softmax(-1)
        return [float(x) for x in law.gather(-1, torch.tensor(text)[:, None])[:, 0]]

    def retold(self, told: Texts) -> Texts:
        return told


def teller(otherwise: Callable[[Texts], Texts], both: bool = False) -> type[Telling]:
    class Otherwise(Telling):
        def retold(self, told: Texts) -> Texts:
            return otherwise(told) if self.speculates or both else told

    return Otherwise


def each(change: Callable[[float], float]) -> Callable[[Texts], Texts]:
    return lambda told: [[change(x) for x in row] for row in told]


def late(told: Texts) -> Texts:
    return [row[:1] + row[:-1] for row in told]


class Raw(Telling):
    """The model's log-probabilities, at any temperature."""

    def log(self, prompt: list[int], text: list[int], params: dict[str, Any]) -> list[float]:
        return super().log(prompt, text, {**params, "temperature": 1.0})


TWIN, SPECULATION = "log-probabilities are those of the law", "the control arm tells otherwise"


@pytest.mark.parametrize(
    ("engine", "call", "verdict", "told"),
    [
        (Telling, "T=0", "pass", TWIN),
        (Telling, "T=1", "pass", TWIN),
        (Telling, "mixed temperatures", "pass", TWIN),
        (teller(each(lambda _: 0.0)), "T=1", "fault", SPECULATION),
        (teller(each(lambda _: 0.0)), "T=0", "fault", SPECULATION),
        (teller(each(lambda _: 0.0), both=True), "T=0", "n/a", "point mass"),
        (teller(each(lambda _: 0.0), both=True), "mixed temperatures", "fault", "it is not speculation"),
        (teller(each(lambda x: x + 0.01)), "T=1", "fault", SPECULATION),
        (teller(each(lambda x: x + 0.01), both=True), "T=1", "n/a", "arithmetic of another kind"),
        (teller(each(lambda x: x + 0.2), both=True), "T=1", "fault", "it is not speculation"),
        (teller(each(lambda x: x + 1e-5)), "T=1", "pass", TWIN),
        (teller(each(lambda _: -math.inf)), "T=1", "fault", "reported -inf"),
        (teller(each(lambda x: -x)), "T=1", "fault", SPECULATION),
        (teller(late), "T=1", "fault", "the values are those of the previous tokens"),
        (teller(lambda told: told[::-1]), "T=1", "fault", SPECULATION),
        (Raw, "T=1", "pass", TWIN),
        (Raw, "mixed temperatures", "fault", "the values are those of the model before sampling parameters; "),
    ],
)
def test_what_is_told_of_tokens(engine: type[Outsider], call: str, verdict: Verdict, told: str) -> None:
    result = heard("TOLD-1", implementation(engine, "logprobs"), texts=equally_long(), call=CALL[call])
    assert result.verdict == verdict and told in result.summary, result.summary


def equally_long() -> list[Any]:
    """Prompts of one length, so that texts have one too."""
    return [replace(prompt, tokens=prompt.tokens[:4]) for prompt in SHORT]


def test_what_is_called_raw_must_be_raw() -> None:
    told = [
        heard("TOLD-1", replace(implementation(engine, "logprobs"), logprobs="raw"), texts=SHORT, call=CALL["mixed temperatures"])
        for engine in (Raw, Telling)
    ]
    assert [result.verdict for result in told] == ["pass", "fault"]
    assert "not those of the model before" in told[1].summary and "the values are those of the law after" in told[1].summary


def test_nothing_told_is_no_pass() -> None:
    with pytest.raises(NotApplicable, match="logprobs"):
        heard("TOLD-1", implementation(Outsider), call=CALL["T=1"])
    silent = implementation(teller(lambda told: [None, *told[1:]]), "logprobs")  # type: ignore[list-item]
    with pytest.raises(AdapterError, match="of text 0 none were told"):
        heard("TOLD-1", silent, texts=SHORT, call=CALL["T=1"])


@pytest.mark.parametrize(
    ("values", "wrong"),
    [([0.0], "1 numbers for"), ([math.nan] * 20, "has nan"), ([math.inf] * 20, "has inf"), (["x"], "not a list")],
)
def test_what_cannot_be_a_log_probability(values: Any, wrong: str) -> None:
    engine = implementation(teller(lambda told: [values] * len(told)), "logprobs").open(COIN)
    with pytest.raises(AdapterError, match=wrong):
        engine.generate([[0, 1, 2, 3]], [{"temperature": 1.0, "max_new_tokens": 99}], [0])


# --- counters ------------------------------------------------------------------------------------------------------

BUDGET = {"k": 1, "depth": 3, "m": 3}
CHAIN = BlockTrace(2, (7, 1, 2, 3), (-1, 0, 1, 2))
"""Three tokens were drafted, two of them accepted, and one more emitted."""
PROMPTS = BlockTrace(0, (), ())


def text(n: int, *blocks: BlockTrace) -> Output:
    return Output((0,) * n, blocks or None)


@pytest.mark.parametrize(
    ("counted", "told", "budget", "wrong"),
    [
        # Two passes of three tokens behind the prompt's, as conventions count them.
        ((2, 6, 4), text(7), BUDGET, ""),
        ((3, 6, 4), text(8), BUDGET, ""),  # a pass without drafts is counted
        ((2, 6, 4), text(8), BUDGET, ""),  # or is not
        ((2, 6, 4), text(6), BUDGET, ""),  # the prompt's pass has drafts, and is one of them
        ((2, 6, 4), text(5), BUDGET, ""),  # the last block runs past the end
        ((2, 6, 4), text(7), {}, ""),
        ((0, 0, 0), text(7), BUDGET, ""),
        ((2, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), BUDGET, ""),
        ((3, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, ""),
        ((2, 6, 5), text(6, PROMPTS, CHAIN, CHAIN), {}, ""),
        # What none of them allows.
        ((2, 4, 6), text(9), {}, "6 tokens were accepted, but only 4 drafted"),
        ((2, -6, 4), text(9), {}, "went back"),
        ((0, 6, 0), text(9), {}, "0 passes over 6"),
        ((9, 9, 9), text(8), {}, "9 passes over 9"),
        ((2, 7, 4), text(9), BUDGET, "7 tokens were drafted in 2 passes, of 3 at most"),
        ((4, 12, 8), text(8), BUDGET, "emit 12, but the texts have 8"),
        ((2, 8, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "by the blocks, 4 of 6"),
        ((2, 6, 5), text(7, PROMPTS, CHAIN, CHAIN), {}, "by the blocks, 4 of 6"),
        ((1, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "1 passes were counted, and 3 blocks told"),
        ((4, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "4 passes were counted, and 3 blocks told"),
    ],
)
def test_counters_of_a_text(counted: tuple[int, int, int], told: Output, budget: dict[str, int], wrong: str) -> None:
    found = _miscounted(Counters(*counted), [told], budget)
    found = found or (_unlike_blocks(Counters(*counted), [told]) if told.blocks else "")
    assert (wrong in found) if wrong else not found, found


class Counting(Reference):
    """The reference's decoder behind a few capabilities, as a chain of two."""

    factor = 1

    def __init__(self, target: str, draft: str | None = None, dtype: str = "float32") -> None:
        super().__init__(target, draft, k=1, depth=2, m=2, dtype=dtype)

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"accepted": self.factor * counted["accepted"]}


class Overcounting(Counting):
    """Everything is accepted twice."""

    factor = 2


class Never(Counting):
    """Nothing is ever drafted."""

    def counters(self) -> dict[str, int]:
        return {"passes": 0, "drafted": 0, "accepted": 0}


def counting(engine: type[Counting], *capabilities: str, **about: Any) -> Implementation:
    told = {"budget": {"k": 1, "depth": 2, "m": 2}, **about}
    return Implementation(engine.__name__, engine, {}, frozenset({"temperature", *capabilities}), **told)


@pytest.mark.parametrize(
    ("engine", "also", "verdict"),
    [(Counting, (), "pass"), (Counting, ("blocks",), "pass"), (Overcounting, ("blocks",), "fault"), (Never, (), "inconclusive")],
)
def test_counters_are_judged(engine: type[Counting], also: tuple[str, ...], verdict: Verdict) -> None:
    """Twice as many accepted as there were is more than the blocks say; they count where they are declared."""
    assert heard("TOLD-2", counting(engine, "counters", *also), texts=SHORT, temperature=1.0).verdict == verdict


@pytest.mark.parametrize("told", [{}, None, {"passes": 1, "drafted": 2}, {"passes": 1.5, "drafted": 2, "accepted": 1}])
def test_what_cannot_be_counters(told: Any) -> None:
    class Odd(Counting):
        def counters(self) -> Any:
            return told

    with pytest.raises(AdapterError, match=r"counters\(\) returned"):
        counting(Odd, "counters").open(COIN).counters()
    assert counting(Odd).open(COIN).counters() is None


# --- tau of the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "capabilities", "about", "verdict", "told"),
    [
        (Counting, ("counters",), {}, "pass", "on 6 texts that both emit"),
        (Counting, ("blocks",), {}, "pass", "on 6 texts that both emit"),
        (Overcounting, ("counters",), {}, "fault", "the reference's"),
        (Overcounting, ("counters", "blocks"), {}, "pass", "on 6 texts"),
        (Never, ("counters",), {}, "fault", "tau 1.000, the reference's"),
        (Counting, ("counters",), {"budget": {"k": 4, "depth": 3, "m": 30}}, "fault", "the reference's"),
        (Counting, ("counters",), {"budget": None}, "n/a", "the shape of its draft trees"),
        (Counting, ("counters",), {"checkpoint": "eagle3"}, "n/a", "it drafts with 'eagle3'"),
        (Counting, (), {}, "n/a", "neither of the capabilities"),
    ],
)
def test_tau_beside_the_references(
    engine: type[Counting], capabilities: tuple[str, ...], about: dict[str, Any], verdict: Verdict, told: str
) -> None:
    result = heard("COUNT-3", counting(engine, *capabilities, **about), texts=SHORT, biased=False)
    assert result.verdict == verdict and told in result.summary, result.summary


def test_other_texts_have_no_common_tau() -> None:
    class Parrot(Counting):
        def generate(self, prompts: Any, params: Any, seeds: Any) -> Any:
            return [{"tokens": [3] * len(row["tokens"])} for row in super().generate(prompts, params, seeds)]

    result = heard("COUNT-3", counting(Parrot, "counters"), texts=SHORT, biased=False)
    assert result.verdict == "inconclusive" and "none of 6 texts is the reference's" in result.summary


def test_a_head_with_a_bias_needs_none() -> None:
    result = heard("COUNT-3", counting(Counting, "counters"), texts=SHORT, biased=True)
    assert result.verdict == "n/a" and "of its own" in result.summary


# --- traces --------------------------------------------------------------------------------------------------------


def test_a_trace_tells_the_same(tmp_path: Path) -> None:
    """Log-probabilities, what was counted over each call, and what the implementation said of itself."""
    tape = tmp_path / "run.jsonl"
    recorded = replace(counting(Counting, "counters", "logprobs"), tape=tape)
    checks: list[tuple[str, dict[str, Any]]] = [
        ("TOLD-1", {"call": CALL["T=1"]}),
        ("TOLD-2", {"temperature": 0.0}),
        ("COUNT-3", {"biased": False}),
    ]
    write_head(tape, recorded)
    first = [heard(name, recorded, texts=SHORT, **given) for name, given in checks]
    again = connect(f"trace:{tape}")
    second = [heard(name, again, texts=SHORT, **given) for name, given in checks]
    assert [(r.verdict, r.measured) for r in first] == [(r.verdict, r.measured) for r in second]
    assert {r.verdict for r in first} == {"pass"} and again.budget == recorded.budget

    tape.write_text("".join(line for line in tape.read_text().splitlines(keepends=True) if '"call"' not in line))
    with pytest.raises(Missing, match="lacks"):
        heard("TOLD-2", connect(f"trace:{tape}"), texts=SHORT, temperature=0.0)
