"""Tests of TOLD and COUNT-3: a fault for each wrong number, a pass for the correct twin and for every convention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.case import by_id
from harness.catalogue import Check
from harness.context import run_check
from harness.implementations import Implementation, connect
from harness.implementations.engine import AdapterError, BlockTrace, Counters, Missing, NotApplicable, Output
from harness.implementations.reference import Engine as Reference
from harness.implementations.trace import write_head
from harness.pairs import prompts, shipped
from harness.record.model import Verdict
from properties.meta.helpers.checks import context, result_of
from properties.meta.helpers.fake_engines import Outsider, implementation
from properties.test_count import acceptance_length_of_reference
from properties.test_logprob import (
    LOGPROB_CASES,
    _counters_unlike_blocks,
    _impossible_counters,
    reported_counters,
    reported_logprobs,
)

CASES = by_id(LOGPROB_CASES)
COIN = shipped("coin4")
SHORT = [replace(prompt, tokens=prompt.tokens[: 4 + i % 3]) for i, prompt in enumerate(prompts(COIN)[:8])]

Texts = list[list[float]]


# --- log-probabilities ---------------------------------------------------------------------------------------------


class Reporting(Outsider):
    """Ordinary sampling that reports log-probabilities of the law at its temperature; subclasses change the numbers."""

    context = 24

    def __init__(self, target: str, draft: str | None = None, depth: int = 1) -> None:
        super().__init__(target, draft, depth)
        self.speculates = draft is not None

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[Any]:
        left = [self.context - len(prompt) for prompt in prompts]
        clipped = [
            {"temperature": row["temperature"] or 1e-9, "max_new_tokens": min(row["max_new_tokens"], n)}
            for row, n in zip(params, left, strict=True)
        ]
        texts = super().generate(prompts, clipped, seeds)
        logprobs = [self.logprobs(*row) for row in zip(prompts, texts, params, strict=True)]
        return [{"tokens": text, "logprobs": row} for text, row in zip(texts, self.reported(logprobs), strict=True)]

    @torch.inference_mode()
    def logprobs(self, prompt: list[int], text: list[int], params: dict[str, Any]) -> list[float]:
        logits = self.model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
        law = (logits / (params["temperature"] or 1.0)).log_softmax(-1)
        return [float(x) for x in law.gather(-1, torch.tensor(text)[:, None])[:, 0]]

    def reported(self, logprobs: Texts) -> Texts:
        return logprobs


def misreporting(change: Callable[[Texts], Texts], both: bool = False) -> type[Reporting]:
    """An engine that changes the numbers with speculation, or in both arms."""

    class Misreporting(Reporting):
        def reported(self, logprobs: Texts) -> Texts:
            return change(logprobs) if self.speculates or both else logprobs

    return Misreporting


def each(change: Callable[[float], float]) -> Callable[[Texts], Texts]:
    return lambda logprobs: [[change(x) for x in row] for row in logprobs]


def late(logprobs: Texts) -> Texts:
    return [row[:1] + row[:-1] for row in logprobs]


class Raw(Reporting):
    """The model's log-probabilities, at any temperature."""

    def logprobs(self, prompt: list[int], text: list[int], params: dict[str, Any]) -> list[float]:
        return super().logprobs(prompt, text, {**params, "temperature": 1.0})


SPECULATION, NOT_SPECULATION = "the control arm reports other numbers", "speculation is not the cause"


@pytest.mark.parametrize(
    ("engine", "case", "verdict", "reason"),
    [
        (Reporting, "T=0", "pass", ""),
        (Reporting, "T=1", "pass", ""),
        (Reporting, "mixed temperatures", "pass", ""),
        (misreporting(each(lambda _: 0.0)), "T=1", "fault", SPECULATION),
        (misreporting(each(lambda _: 0.0)), "T=0", "fault", SPECULATION),
        (misreporting(each(lambda _: 0.0), both=True), "T=0", "n/a", "point mass"),
        (misreporting(each(lambda _: 0.0), both=True), "mixed temperatures", "fault", NOT_SPECULATION),
        (misreporting(each(lambda x: x + 0.01)), "T=1", "fault", SPECULATION),
        (misreporting(each(lambda x: x + 0.01), both=True), "T=1", "n/a", "another arithmetic"),
        (misreporting(each(lambda x: x + 0.2), both=True), "T=1", "fault", NOT_SPECULATION),
        (misreporting(each(lambda x: x + 1e-5)), "T=1", "pass", ""),
        (misreporting(each(lambda _: -math.inf)), "T=1", "fault", "reported -inf"),
        (misreporting(each(lambda x: -x)), "T=1", "fault", SPECULATION),
        (misreporting(late), "T=1", "fault", "the values are those of the previous tokens"),
        (misreporting(lambda logprobs: logprobs[::-1]), "T=1", "fault", SPECULATION),
        (Raw, "T=1", "pass", ""),
        (Raw, "mixed temperatures", "fault", "the values are those of the model before sampling parameters; "),
    ],
)
def test_reported_logprobs(engine: type[Outsider], case: str, verdict: Verdict, reason: str) -> None:
    result = result_of(reported_logprobs, implementation(engine, "logprobs"), CASES[case], prompts=equally_long())
    assert result.verdict == verdict and reason in result.summary, result.summary


def equally_long() -> list[Any]:
    """Prompts of one length, so that texts have equal lengths too."""
    return [replace(prompt, tokens=prompt.tokens[:4]) for prompt in SHORT]


def test_logprobs_declared_raw_must_be_raw() -> None:
    raw, processed = (
        result_of(
            reported_logprobs,
            replace(implementation(engine, "logprobs"), logprobs="raw"),
            CASES["mixed temperatures"],
            prompts=SHORT,
        )
        for engine in (Raw, Reporting)
    )
    assert (raw.verdict, processed.verdict) == ("pass", "fault")
    assert "not those of the model before" in processed.summary and "the values are those of the law after" in processed.summary


def test_missing_logprobs_are_not_a_pass() -> None:
    with pytest.raises(NotApplicable, match="logprobs"):
        result_of(reported_logprobs, implementation(Outsider), CASES["T=1"])
    silent = implementation(misreporting(lambda logprobs: [None, *logprobs[1:]]), "logprobs")  # type: ignore[list-item]
    with pytest.raises(AdapterError, match="text 0"):
        result_of(reported_logprobs, silent, CASES["T=1"], prompts=SHORT)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [([0.0], "1 numbers for"), ([math.nan] * 20, "is nan"), ([math.inf] * 20, "is inf"), ("x" * 20, "not a list")],
)
def test_invalid_logprobs_are_refused(values: Any, wrong: str) -> None:
    engine = implementation(misreporting(lambda logprobs: [values] * len(logprobs)), "logprobs").open(COIN)
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
    ("counted", "output", "budget", "wrong"),
    [
        # Two passes of three tokens after the prompt's, by every convention.
        ((2, 6, 4), text(7), BUDGET, ""),
        ((3, 6, 4), text(8), BUDGET, ""),  # a pass without drafts is counted
        ((2, 6, 4), text(8), BUDGET, ""),  # or it is not
        ((2, 6, 4), text(6), BUDGET, ""),  # the prompt's pass has drafts and is one of the two
        ((2, 6, 4), text(5), BUDGET, ""),  # the end of the text cuts the last block
        ((2, 6, 4), text(7), {}, ""),
        ((0, 0, 0), text(7), BUDGET, ""),
        ((2, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), BUDGET, ""),
        ((3, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, ""),
        ((2, 6, 5), text(6, PROMPTS, CHAIN, CHAIN), {}, ""),
        # Impossible by any convention.
        ((2, 4, 6), text(9), {}, "6 tokens were accepted, but only 4 drafted"),
        ((2, -6, 4), text(9), {}, "decreased"),
        ((0, 6, 0), text(9), {}, "0 passes over 6"),
        ((9, 9, 9), text(8), {}, "9 passes over 9"),
        ((2, 7, 4), text(9), BUDGET, "7 tokens were drafted in 2 passes, of 3 at most"),
        ((4, 12, 8), text(8), BUDGET, "emit 12, but the texts have 8"),
        ((2, 8, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "by the blocks, 4 of 6"),
        ((2, 6, 5), text(7, PROMPTS, CHAIN, CHAIN), {}, "by the blocks, 4 of 6"),
        ((1, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "1 passes were counted, and 3 blocks reported"),
        ((4, 6, 4), text(7, PROMPTS, CHAIN, CHAIN), {}, "4 passes were counted, and 3 blocks reported"),
    ],
)
def test_counters_of_one_text(counted: tuple[int, int, int], output: Output, budget: dict[str, int], wrong: str) -> None:
    found = _impossible_counters(Counters(*counted), [output], budget)
    found = found or (_counters_unlike_blocks(Counters(*counted), [output]) if output.blocks else "")
    assert (wrong in found) if wrong else not found, found


class Counting(Reference):
    """The reference's decoder with a chain of two drafts and few capabilities."""

    factor = 1

    def __init__(self, target: str, draft: str | None = None, dtype: str = "float32") -> None:
        super().__init__(target, draft, k=1, depth=2, m=2, dtype=dtype)

    def counters(self) -> dict[str, int]:
        counted = super().counters()
        return counted | {"accepted": self.factor * counted["accepted"]}


class Overcounting(Counting):
    """Reports twice as many accepted tokens."""

    factor = 2


class Never(Counting):
    """Reports that nothing was drafted."""

    def counters(self) -> dict[str, int]:
        return {"passes": 0, "drafted": 0, "accepted": 0}


def counting(engine: type[Counting], *capabilities: str, **about: Any) -> Implementation:
    description = {"budget": {"k": 1, "depth": 2, "m": 2}, **about}
    return Implementation(engine.__name__, engine, {}, frozenset({"temperature", *capabilities}), **description)


@pytest.mark.parametrize(
    ("engine", "more", "verdict"),
    [(Counting, (), "pass"), (Counting, ("blocks",), "pass"), (Overcounting, ("blocks",), "fault"), (Never, (), "inconclusive")],
)
def test_reported_counters(engine: type[Counting], more: tuple[str, ...], verdict: Verdict) -> None:
    assert result_of(reported_counters, counting(engine, "counters", *more), 1.0, prompts=SHORT).verdict == verdict


@pytest.mark.parametrize("answer", [{}, None, {"passes": 1, "drafted": 2}, {"passes": 1.5, "drafted": 2, "accepted": 1}])
def test_invalid_counters_are_refused(answer: Any) -> None:
    class Odd(Counting):
        def counters(self) -> Any:
            return answer

    with pytest.raises(AdapterError, match=r"counters\(\) returned"):
        counting(Odd, "counters").open(COIN).counters()
    assert counting(Odd).open(COIN).counters() is None


# --- tau of the reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "capabilities", "about", "verdict", "reason"),
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
def test_tau_is_compared_with_the_reference(
    engine: type[Counting], capabilities: tuple[str, ...], about: dict[str, Any], verdict: Verdict, reason: str
) -> None:
    given = context(counting(engine, *capabilities, **about), prompts=SHORT)
    result = run_check(acceptance_length_of_reference, "the pair's head", given)
    assert result.verdict == verdict and reason in result.summary, result.summary


def test_tau_of_different_texts_is_not_compared() -> None:
    class Parrot(Counting):
        def generate(self, prompts: Any, params: Any, seeds: Any) -> Any:
            return [{"tokens": [3] * len(row["tokens"])} for row in super().generate(prompts, params, seeds)]

    result = result_of(acceptance_length_of_reference, counting(Parrot, "counters"), False, prompts=SHORT)
    assert result.verdict == "inconclusive" and "none of 6 texts is the reference's" in result.summary


def test_head_with_a_bias_is_not_given_another() -> None:
    result = run_check(acceptance_length_of_reference, "with a bias", context(counting(Counting, "counters"), prompts=SHORT))
    assert result.verdict == "n/a" and "of its own" in result.summary


# --- traces --------------------------------------------------------------------------------------------------------


def test_trace_gives_the_same_results(tmp_path: Path) -> None:
    """A trace stores log-probabilities, the counters of each call, and the description of the implementation."""
    tape = tmp_path / "run.jsonl"
    recorded = replace(counting(Counting, "counters", "logprobs"), tape=tape)
    checks: list[tuple[Check, Any]] = [
        (reported_logprobs, CASES["T=1"]),
        (reported_counters, 0.0),
        (acceptance_length_of_reference, False),
    ]
    write_head(tape, recorded)
    first = [result_of(check, recorded, case, prompts=SHORT) for check, case in checks]
    again = connect(f"trace:{tape}")
    second = [result_of(check, again, case, prompts=SHORT) for check, case in checks]
    assert [(r.verdict, r.measured) for r in first] == [(r.verdict, r.measured) for r in second]
    assert {r.verdict for r in first} == {"pass"} and again.budget == recorded.budget

    tape.write_text("".join(line for line in tape.read_text().splitlines(keepends=True) if '"call"' not in line))
    with pytest.raises(Missing, match="lacks the counters of 1 of 1 calls"):
        result_of(reported_counters, connect(f"trace:{tape}"), 0.0, prompts=SHORT)
