"""Tests of LAW-4 to LAW-8 and TREE-5: a fault for each wrong engine from outside, a pass for its correct twin."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from eagle2_ref.coins import Coins
from harness.case import Case
from harness.context import Reduction
from harness.equivalence import LOG10_E
from harness.implementations import Implementation, connect, reference
from harness.implementations.engine import NotApplicable
from harness.implementations.trace import write_head
from harness.pairs import shipped
from harness.record.model import Result, Verdict
from harness.settings import Settings
from properties.cases import JOINING, StreamCase
from properties.meta.helpers.checks import result_of
from properties.meta.helpers.fake_engines import (
    Cool,
    Frozen,
    HashedSeed,
    HiddenLast,
    Joining,
    LosesTopK,
    LosesTopKSpeculating,
    NormalNoise,
    OtherTarget,
    Outsider,
    Tepid,
    TooCold,
    Transformers,
    TransformersTooCold,
    implementation,
)
from properties.test_law import rule_at_boundary_numbers
from properties.test_law_sampled import first_tokens_of_samples, speculation_against_control, streams_of_tokens
from properties.test_law_unedited import law_of_generate
from properties.test_tree import laws_in_own_dtype

ROUGH = Settings(dtype="bfloat16")


# --- LAW-5: boundary numbers ---------------------------------------------------------------------------------------

Accept = tuple[list[int], int]


def inclusive(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    """Accept x if u <= p(x), which accepts a token of probability 0 for u = 0."""
    return offered(tokens, parents, p, coins, lambda u, px: not u > px)


def in_logarithms(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    """Compare log u with log p(x), which fails for u = 0."""
    return offered(tokens, parents, p, coins, lambda u, px: px > 0 and math.log(float(u)) < math.log(px))


def strict(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    return offered(tokens, parents, p, coins, lambda u, px: u < px)


def offered(tokens: list[int], parents: list[int], p: Tensor, coins: Coins, accepts: Any) -> Accept:
    """Offer the first child of the root only, and sample from the residual if it is rejected."""
    r, child = p[0], next((node for node, parent in enumerate(parents) if parent == 0), None)
    if child is not None:
        x = tokens[child]
        if accepts(coins.uniform(), float(r[x])):
            return [child], coins.categorical(p[child])
        r = r.clone()
        r[x] = 0
        r = r / r.sum()
    return [], coins.categorical(r)


@pytest.mark.parametrize(
    ("rule", "verdict", "reason"),
    [
        (inclusive, "fault", "of probability 0 was emitted"),
        (in_logarithms, "fault", "the rule raised ValueError"),
        (strict, "pass", ""),
    ],
)
def test_boundary_numbers_expose_wrong_comparisons(rule: Any, verdict: Verdict, reason: str) -> None:
    make = partial(reference.Engine, accept=rule)
    implementation = Implementation(rule.__name__, make, capabilities=reference.RULE_CAPABILITIES)
    result = result_of(rule_at_boundary_numbers, implementation)
    assert result.verdict == verdict and reason in result.summary, result.summary
    assert (result.witness is not None) == (rule is inclusive)
    assert rule is not strict or (result.work and result.work.value > 400)


# --- LAW-6: third-party code ---------------------------------------------------------------------------------------

UNEDITED = Case("coin4", {"temperature": 1.3}, 2, 2, 4)


@pytest.mark.parametrize(
    ("engine", "verdict", "reason"),
    [
        (Outsider, "pass", ""),
        (Transformers, "pass", ""),
        (TooCold, "fault", ""),
        (TransformersTooCold, "fault", ""),
        (NormalNoise, "n/a", "randn"),
        (HashedSeed, "n/a", "cannot be enumerated"),
    ],
)
def test_third_party_code_is_enumerated(engine: type[Outsider], verdict: Verdict, reason: str) -> None:
    result = result_of(law_of_generate, implementation(engine), UNEDITED)
    assert result.verdict == verdict and reason in result.summary, result.summary
    if verdict != "n/a":
        assert result.work and result.effect and 4 < result.work.value < 500
        assert (result.effect.value > 0.01) == (verdict == "fault")


@pytest.mark.parametrize("temperature", [0.15, 0.25, 0.5, 1.3])
def test_last_token_sampled_from_the_seed_is_not_a_fault(temperature: float) -> None:
    """No later choice depends on it; with a sharp law it is even the same when an execution is repeated."""
    result = result_of(law_of_generate, implementation(HiddenLast), replace(UNEDITED, params={"temperature": temperature}))
    assert result.verdict == "n/a" and "cannot be enumerated" in result.summary, result.summary


# --- LAW-7: streams ------------------------------------------------------------------------------------------------

BRIEF = StreamCase("brief", ({"temperature": 1.0, "max_new_tokens": 12}, {"temperature": 1.4, "max_new_tokens": 9}), 600, "coin4")
FILTERED = StreamCase("brief, top_k", ({"temperature": 1.0, "top_k": 2, "max_new_tokens": 12},), 600, "coin4")


def streamed(engine: type[Outsider], case: StreamCase = BRIEF, settings: Settings | None = None) -> Result:
    return result_of(streams_of_tokens, implementation(engine, "top_k"), case, settings=settings)


def tokens(result: Result) -> int:
    return int(result.measured["tokens"])


def test_stream_of_a_correct_engine_passes() -> None:
    result = streamed(Outsider)
    assert result.verdict == "pass", result.summary
    assert 600 <= tokens(result) < 1400 and result.detectable and result.sensitivity and result.witness is None


def test_stream_at_another_temperature_is_a_fault() -> None:
    """Without blocks, by tokens alone; the witness is an emitted token, and is emitted again."""
    result = streamed(TooCold)
    assert result.verdict == "fault" and "control arm" in result.summary, result.summary
    witness = result.witness
    assert witness is not None and witness.p is not None and 0 < witness.p < 1
    (again,) = TooCold(str(shipped("coin4").target), "any").generate(
        [list(witness.prompt)], [witness.params], [witness.seed or 0]
    )
    assert again[witness.position or 0] == witness.emitted


@pytest.mark.parametrize(("settings", "verdict"), [(None, "inconclusive"), (ROUGH, "n/a")], ids=["float32", "bfloat16"])
def test_stream_of_another_target_is_not_a_fault(settings: Settings | None, verdict: Verdict) -> None:
    result = streamed(OtherTarget, settings=settings)
    assert result.verdict == verdict and "is not this target" in result.summary, result.summary


def test_impossible_token_of_both_arms_is_inconclusive() -> None:
    result = streamed(LosesTopK, FILTERED)
    assert result.verdict == "inconclusive" and "have probability zero" in result.summary, "the control loses it too"
    assert streamed(Outsider, FILTERED).verdict == "pass"
    with pytest.raises(NotApplicable, match="top_k"):
        result_of(streams_of_tokens, implementation(Outsider), FILTERED)


def test_impossible_token_of_speculation_is_fault_and_witness() -> None:
    result = streamed(LosesTopKSpeculating, FILTERED)
    assert result.verdict == "fault" and result.witness is not None and result.witness.p == 0


LONGER = replace(BRIEF, tokens=800)
FIRST_LOOK = 1400
"""More than the budget and its last round."""


def test_strong_evidence_extends_the_stream() -> None:
    """E >= 1e3 at the end of the budget extends the stream fourfold, which may suffice for a verdict."""
    result = streamed(Cool, LONGER, Settings(seed=1))
    assert result.verdict == "fault" and tokens(result) > FIRST_LOOK, result.summary
    assert tokens(streamed(Outsider, LONGER, Settings(seed=1))) < FIRST_LOOK


def test_undecided_stream_is_inconclusive_and_continues_in_the_next_run(tmp_path: Path) -> None:
    settings = Settings(evidence=str(tmp_path))
    result = streamed(Tepid, LONGER, settings)
    assert result.verdict == "inconclusive" and "--tier full" in result.summary, result.summary
    assert 3 < float(result.measured[LOG10_E]) < 9 and tokens(result) > 4 * 800
    again = streamed(Tepid, LONGER, settings)
    assert again.verdict == "fault" and tokens(again) > tokens(result)


def test_evidence_accumulates_over_runs_of_equal_settings(tmp_path: Path) -> None:
    settings = Settings(evidence=str(tmp_path))
    first, second = (streamed(Outsider, settings=settings) for _ in range(2))
    assert tokens(second) == 2 * tokens(first)
    assert tokens(streamed(Outsider, settings=Settings(evidence=str(tmp_path), dtype="float64"))) == tokens(first)


def test_trace_does_not_accumulate_evidence(tmp_path: Path) -> None:
    """A trace holds no further tokens: a run that continued after the first one would find them missing."""
    tape = tmp_path / "run.jsonl"
    recorded = connect("ref:k=2,depth=2,m=4", tape=tape)
    write_head(tape, recorded)
    assert result_of(streams_of_tokens, recorded, BRIEF).verdict == "pass"
    settings = Settings(evidence=str(tmp_path / "evidence"))
    first, second = (result_of(streams_of_tokens, connect(f"trace:{tape}"), BRIEF, settings=settings) for _ in range(2))
    assert first.verdict == "pass" and first.measured == second.measured


# --- LAW-8: speculation against its control ------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "verdict"), [(Frozen, "fault"), (Outsider, "pass"), (OtherTarget, "pass")])
def test_two_arms_are_compared(engine: type[Outsider], verdict: Verdict) -> None:
    """Another target does not matter: both arms have it."""
    result = result_of(speculation_against_control, implementation(engine), 4)
    assert result.verdict == verdict, result.summary


# --- LAW-4: first tokens, in low precision -------------------------------------------------------------------------

FIRST = Case("coin4", {"temperature": 1.0}, 1, 1, 1)


@pytest.mark.parametrize(
    ("engine", "settings", "verdict"),
    [
        (Outsider, None, "pass"),
        (TooCold, None, "fault"),
        (OtherTarget, None, "fault"),
        (Outsider, ROUGH, "pass"),
        (TooCold, ROUGH, "fault"),
        (OtherTarget, ROUGH, "n/a"),
    ],
)
def test_first_tokens_are_compared(engine: type[Outsider], settings: Settings | None, verdict: Verdict) -> None:
    """In low precision rounding may depart from the target; a departure from the own control arm is a fault."""
    few = Reduction(samples=4)
    result = result_of(first_tokens_of_samples, implementation(engine, depth=1), FIRST, settings=settings, reduction=few)
    assert result.verdict == verdict, result.summary
    if verdict == "n/a":
        assert "against its control arm" in result.summary and result.p_value is not None and result.p_value < 1e-3


@pytest.mark.parametrize(
    ("engine", "case", "verdict"),
    [(Joining, JOINING, "fault"), (Outsider, JOINING, "pass"), (Joining, replace(JOINING, prompt=(2, 3, 2)), "pass")],
)
def test_prompt_of_one_token_that_joins_a_batch(engine: type[Outsider], case: Case, verdict: Verdict) -> None:
    """The fault of vLLM on a CPU, of its size: finding 002. Prompts of several tokens do not show it."""
    result = result_of(first_tokens_of_samples, implementation(engine, depth=1), case)
    assert result.verdict == verdict, result.summary


# --- TREE-5: laws of a verification --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connectable", "settings", "verdict"),
    [
        ("ref:", None, "pass"),
        ("ref:", ROUGH, "pass"),
        ("mutant:M17,", None, "fault"),
        ("mutant:M40,", None, "fault"),
        ("mutant:M37,", ROUGH, "fault"),
    ],
)
def test_wrong_logits_exceed_the_noise_of_the_dtype(connectable: str, settings: Settings | None, verdict: Verdict) -> None:
    """Coarse logits, wrong positions, and in bfloat16 the rows of other nodes."""
    result = result_of(laws_in_own_dtype, connect(connectable + "k=3,depth=3,m=8"), settings=settings)
    assert result.verdict == verdict, result.summary
    assert result.effect and result.detectable
    assert (result.effect.value <= result.detectable.value) == (verdict == "pass")
