"""The checks LAW-4 to LAW-8 and TREE-5 themselves: red for what an outsider could have got wrong, green for its right twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from eagle2_ref.coins import Coins
from harness.implementations import Implementation, connect, reference
from harness.implementations.engine import NotApplicable
from harness.implementations.trace import write_head
from harness.pairs import shipped
from harness.record.model import Result, Verdict
from harness.settings import Settings
from properties import test_law_sampled
from properties.cells import JOINING, Campaign, Cell
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
from properties.meta.helpers.run_check import heard

ROUGH = Settings(dtype="bfloat16")


# --- LAW-5: coins at the edge --------------------------------------------------------------------------------------

Accept = tuple[list[int], int]


def inclusive(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    """Accepts x if u <= p(x): also one of probability 0, at a coin of 0."""
    return offered(tokens, parents, p, coins, lambda u, px: not u > px)


def in_logarithms(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    """Compares log u with log p(x): there is no logarithm of a coin of 0."""
    return offered(tokens, parents, p, coins, lambda u, px: px > 0 and math.log(float(u)) < math.log(px))


def strict(tokens: list[int], parents: list[int], p: Tensor, coins: Coins) -> Accept:
    return offered(tokens, parents, p, coins, lambda u, px: u < px)


def offered(tokens: list[int], parents: list[int], p: Tensor, coins: Coins, accepts: Any) -> Accept:
    """The first child of the root alone, and what makes up for it."""
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
    ("rule", "verdict", "told"),
    [
        (inclusive, "fault", "of probability 0 was emitted"),
        (in_logarithms, "fault", "the rule raised ValueError"),
        (strict, "pass", "scripts of coins"),
    ],
)
def test_a_rule_at_the_edge(rule: Any, verdict: Verdict, told: str) -> None:
    make = partial(reference.Engine, accept=rule)
    result = heard("LAW-5", Implementation(rule.__name__, make, capabilities=reference.RULE_CAPABILITIES))
    assert result.verdict == verdict and told in result.summary, result.summary
    assert (result.witness is not None) == (rule is inclusive)


@pytest.mark.parametrize("rule", ["walk", "reject"])
def test_our_rules_hold_at_the_edge(rule: str) -> None:
    result = heard("LAW-5", connect(f"ref:rule={rule}"))
    assert result.verdict == "pass" and int(result.measured["executions"]) > 400


# --- LAW-6: unedited code ------------------------------------------------------------------------------------------

UNEDITED = Cell("coin4", {"temperature": 1.3}, 2, 2, 4)


@pytest.mark.parametrize(
    ("engine", "verdict", "told"),
    [
        (Outsider, "pass", "add up to the target's law"),
        (Transformers, "pass", "add up to the target's law"),
        (TooCold, "fault", "total variation 0."),
        (TransformersTooCold, "fault", "total variation 0."),
        (NormalNoise, "n/a", "randn"),
        (HashedSeed, "n/a", "hidden randomness"),
    ],
)
def test_unedited_code(engine: type[Outsider], verdict: Verdict, told: str) -> None:
    result = heard("LAW-6", implementation(engine), cell=UNEDITED)
    assert result.verdict == verdict and told in result.summary, result.summary
    if verdict != "n/a":
        assert 4 < int(result.measured["executions"]) < 500


@pytest.mark.parametrize("temperature", [0.15, 0.25, 0.5, 1.3])
def test_a_last_token_drawn_out_of_sight_is_no_fault(temperature: float) -> None:
    """No choice follows on it that could have other odds; sharp laws hide it even when an execution is run twice."""
    result = heard("LAW-6", implementation(HiddenLast), cell=replace(UNEDITED, params={"temperature": temperature}))
    assert result.verdict == "n/a" and "hidden randomness" in result.summary, result.summary


# --- LAW-7: streams ------------------------------------------------------------------------------------------------

BRIEF = Campaign("brief", ({"temperature": 1.0, "max_new_tokens": 12}, {"temperature": 1.4, "max_new_tokens": 9}), 600, "coin4")
FILTERED = Campaign("brief, top_k", ({"temperature": 1.0, "top_k": 2, "max_new_tokens": 12},), 600, "coin4")


def streamed(engine: type[Outsider], campaign: Campaign = BRIEF, asked: Settings | None = None) -> Result:
    return heard("LAW-7", implementation(engine, "top_k"), asked=asked, campaign=campaign)


def test_streams_of_a_right_engine() -> None:
    result = streamed(Outsider)
    assert result.verdict == "pass", result.summary
    assert 600 <= int(result.measured["tokens"]) < 1400 and result.sensitivity and result.witness is None


def test_streams_at_another_temperature() -> None:
    """Without blocks, by tokens alone; the witness is a token that was emitted, and is emitted again."""
    result = streamed(TooCold)
    assert result.verdict == "fault" and "control arm together have won 10^" in result.summary, result.summary
    witness = result.witness
    assert witness is not None and witness.p is not None and 0 < witness.p < 1
    (again,) = TooCold(str(shipped("coin4").target), "any").generate(
        [list(witness.prompt)], [witness.params], [witness.seed or 0]
    )
    assert again[witness.position or 0] == witness.emitted


@pytest.mark.parametrize(("asked", "verdict"), [(None, "inconclusive"), (ROUGH, "n/a")], ids=["float32", "bfloat16"])
def test_streams_of_another_target(asked: Settings | None, verdict: Verdict) -> None:
    result = streamed(OtherTarget, asked=asked)
    assert result.verdict == verdict and "is not this target" in result.summary, result.summary


def test_an_impossible_token_is_proof_and_witness() -> None:
    result = streamed(LosesTopK, FILTERED)
    assert result.verdict == "inconclusive" and "have probability zero" in result.summary, "the control loses it too"
    assert streamed(Outsider, FILTERED).verdict == "pass"
    with pytest.raises(NotApplicable, match="top_k"):
        heard("LAW-7", implementation(Outsider), campaign=FILTERED)


def test_an_impossible_token_of_speculation_alone() -> None:
    result = streamed(LosesTopKSpeculating, FILTERED)
    assert result.verdict == "fault" and result.witness is not None and result.witness.p == 0


LONGER = replace(BRIEF, tokens=800)
FIRST_LOOK = 1400
"""More than the budget, with its last round."""


def test_half_a_proof_takes_more_tokens() -> None:
    """E >= 1e3 at the end of the budget: four times as many, which may settle it."""
    result = streamed(Cool, LONGER, Settings(seed=1))
    assert result.verdict == "fault" and int(result.measured["tokens"]) > FIRST_LOOK, result.summary
    assert int(streamed(Outsider, LONGER, Settings(seed=1)).measured["tokens"]) < FIRST_LOOK


def test_what_more_tokens_do_not_settle_is_no_pass(tmp_path: Path) -> None:
    """It is said, and the next run goes on from there."""
    asked = Settings(evidence=str(tmp_path))
    result = streamed(Tepid, LONGER, asked)
    assert result.verdict == "inconclusive" and "--tier full" in result.summary, result.summary
    assert 3 < float(result.measured["log10 E"]) < 9 and int(result.measured["tokens"]) > 4 * 800
    again = streamed(Tepid, LONGER, asked)
    assert again.verdict == "fault" and int(again.measured["tokens"]) > int(result.measured["tokens"])


def test_evidence_goes_on_from_run_to_run(tmp_path: Path) -> None:
    asked = Settings(evidence=str(tmp_path))
    first, second = (streamed(Outsider, asked=asked) for _ in range(2))
    assert int(second.measured["tokens"]) == 2 * int(first.measured["tokens"])
    assert (
        streamed(Outsider, asked=Settings(evidence=str(tmp_path), dtype="float64")).measured["tokens"] == first.measured["tokens"]
    )


def test_a_trace_is_judged_again_as_it_was(tmp_path: Path) -> None:
    """It has no further tokens to tell: to go on from what was kept would be to miss them."""
    tape = tmp_path / "run.jsonl"
    recorded = connect("ref:k=2,depth=2,m=4", tape=tape)
    write_head(tape, recorded)
    assert heard("LAW-7", recorded, campaign=BRIEF).verdict == "pass"
    asked = Settings(evidence=str(tmp_path / "kept"))
    first, second = (heard("LAW-7", connect(f"trace:{tape}"), asked=asked, campaign=BRIEF) for _ in range(2))
    assert first.verdict == "pass" and first.measured == second.measured


# --- LAW-8: speculation against its control ------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "verdict"), [(Frozen, "fault"), (Outsider, "pass"), (OtherTarget, "pass")])
def test_arms_are_compared(engine: type[Outsider], verdict: Verdict) -> None:
    """Whatever the target is: it is the same on both sides."""
    result = heard("LAW-8", implementation(engine), window=4)
    assert result.verdict == verdict, result.summary


# --- LAW-4: first tokens, in low precision -------------------------------------------------------------------------

FIRST = Cell("coin4", {"temperature": 1.0}, 1, 1, 1)


@pytest.mark.parametrize(
    ("engine", "asked", "verdict"),
    [
        (Outsider, None, "pass"),
        (TooCold, None, "fault"),
        (OtherTarget, None, "fault"),
        (Outsider, ROUGH, "pass"),
        (TooCold, ROUGH, "fault"),
        (OtherTarget, ROUGH, "n/a"),
    ],
)
def test_first_tokens(engine: type[Outsider], asked: Settings | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    """In low precision the arithmetic may depart from the target; what departs from its own control is at fault."""
    sample = test_law_sampled._sample

    def fewer(engine: Any, prompt: Sequence[int], params: Any, n: int, seed: int) -> Any:
        return sample(engine, list(prompt), params, n // 4, seed)

    monkeypatch.setattr(test_law_sampled, "_sample", fewer)
    result = heard("LAW-4", implementation(engine, depth=1), asked=asked, cell=FIRST)
    assert result.verdict == verdict, result.summary
    if verdict == "n/a":
        assert "against its control arm" in result.summary and result.p_value is not None and result.p_value < 1e-3


@pytest.mark.parametrize(
    ("engine", "cell", "verdict"),
    [(Joining, JOINING, "fault"), (Outsider, JOINING, "pass"), (Joining, replace(JOINING, prompt=(2, 3, 2)), "pass")],
)
def test_prompts_that_join_a_running_batch(engine: type[Outsider], cell: Cell, verdict: Verdict) -> None:
    """As vLLM had it on a CPU, and as large as it was there: finding 002. Prompts of several tokens do not show it."""
    result = heard("LAW-4", implementation(engine, depth=1), cell=cell)
    assert result.verdict == verdict, result.summary


# --- TREE-5: laws of a verification --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connectable", "asked", "verdict"),
    [
        ("ref:", None, "pass"),
        ("ref:", ROUGH, "pass"),
        ("mutant:M17,", None, "fault"),
        ("mutant:M40,", None, "fault"),
        ("mutant:M37,", ROUGH, "fault"),
    ],
)
def test_laws_of_a_pass(connectable: str, asked: Settings | None, verdict: Verdict) -> None:
    """Coarse logits, wrong positions, and in bfloat16 other nodes' rows are more than the noise of the dtype."""
    result = heard("TREE-5", connect(connectable + "k=3,depth=3,m=8"), asked=asked)
    assert result.verdict == verdict, result.summary
    found, allowed = (float(result.measured[name]) for name in ("largest total variation", "allowed"))
    assert (found <= allowed) == (verdict == "pass")
