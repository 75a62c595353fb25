"""Tests of replay: a recorded fault is reproduced at its step while it exists, and reported as absent once it is fixed."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins, ScriptedCoins
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import Rule, reject, walk
from eagle2_ref.tree import DraftTree
from harness.catalogue import catalogue
from harness.enumeration.coins import ChoiceTrail, EnumeratedCoins, Unrepeatable, executions
from harness.implementations import connect
from harness.implementations.reference import Engine
from harness.pairs import Pair, shipped
from harness.record.model import LawPicture, Result, Witness
from harness.replay import replay
from harness.replay.recording_coins import Categorical, Comparison, RecordedTrail, RecordingCoins, decisive
from harness.settings import Settings
from harness.verdict import FAULT, INCONCLUSIVE, PASS
from properties.meta.helpers import tiny
from properties.meta.helpers.checks import result_of
from properties.meta.helpers.records import HOSTILE, record, result

STALE_BONUS = "py:harness.mutants.rules:stale_bonus"
HERE = "py:properties.meta.replay.test_replay:"
TOP_K = "coin4, T=1.0 top_k=2, reject, k=2 depth=3 m=7"
ENDS = "coin4, T=1.0 eos=[0, 2], reject, k=2 depth=3 m=8"
GREEDY = Witness(
    pair="coin4",
    prompt=(2, 3, 2),
    params={"temperature": 0.0, "max_new_tokens": 6},
    options={"k": 2, "m": 4},
    position=4,
    emitted=3,
)


# --- engines with faults -------------------------------------------------------------------------------------------


class AlwaysThree(Engine):
    """The fifth new token is always 3."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        answer["tokens"][4] = 3
        return answer


class HotterEverySecondText(Engine):
    """Every second text is sampled at a higher temperature."""

    calls = 0

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        self.calls += 1
        return super().decode(prompt, params if self.calls % 2 else {**params, "temperature": 3.0}, coins)


class NoCoins(Engine):
    """Its random numbers are its own."""

    capabilities = frozenset({"temperature"})


def breaks(_tokens: list[int], _parents: list[int], _p: Tensor, _coins: Coins) -> tuple[list[int], int]:
    """An acceptance rule that raises."""
    raise RuntimeError(HOSTILE)


# --- records and replays -------------------------------------------------------------------------------------------


@cache
def judged(connectable: str, name: str, case: str = "") -> Result:
    """The result of a check of chapter LAW, which is a fault with a witness."""
    check = catalogue()[name]
    result = result_of(check, connect(connectable), *check.arguments(case), settings=Settings(impl=connectable, pair="coin4"))
    assert result.verdict == "fault" and result.witness
    return result.model_copy(update={"case": case})


def replayed(connectable: str, seen: Result, given: Pair | None = None) -> tuple[int, str]:
    """The exit code and what is printed, for a record with this result alone."""
    of = record(seen, verdict="fault", exit_code=1, implementation=connectable)
    of = of.model_copy(update={"header": of.header.model_copy(update={"settings": {}})})
    console = Console(file=io.StringIO(), width=130, highlight=False)
    code = replay(of, f"{seen.property}.1", console, nothing, given)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def nothing(_settings: Settings) -> int:
    raise AssertionError("a fault with a witness needs no run of the whole check")


def fault(seen: Witness) -> Result:
    return result("GREEDY-1", "by hand", "fault", witness=seen)


FOUND = [
    (STALE_BONUS, "LAW-1", TOP_K),
    ("py:harness.mutants.cache:CacheCut", "LAW-1", TOP_K),
    ("py:harness.mutants.stops:BlockKeptWhole", "LAW-1", ENDS),
    (STALE_BONUS, "LAW-2", ""),
    ("py:harness.mutants.rules:inclusive_coin", "LAW-5", ""),
    ("py:harness.mutants.rules:coin_of_one", "LAW-5", ""),
]


@pytest.mark.parametrize(("connectable", "name", "case"), FOUND, ids=[f"{c.rpartition(':')[2]}-{name}" for c, name, _ in FOUND])
def test_recorded_fault_is_reproduced_until_it_is_fixed(connectable: str, name: str, case: str) -> None:
    seen = judged(connectable, name, case)
    code, printed = replayed(connectable, seen)
    assert code == FAULT and "← here" in printed
    assert replayed("ref", seen)[0] == PASS


def test_step_is_printed(snapshot: SnapshotAssertion) -> None:
    """After a sibling was rejected, the bonus token is sampled from the residual of the siblings."""
    _, printed = replayed(STALE_BONUS, judged(STALE_BONUS, "LAW-1", TOP_K))
    assert printed == snapshot


def test_correct_decoder_that_emits_the_same_token_has_no_fault() -> None:
    code, printed = replayed("ref", judged(STALE_BONUS, "LAW-1", TOP_K))
    assert code == PASS and "0.2171 over all random numbers, 0.9873 in the record" in printed


@pytest.mark.parametrize("coins", [{"seed": 5}, {"seed": 5, "keyed": True}], ids=["own", "keyed"])
def test_seed_reproduces_its_text(coins: dict[str, Any]) -> None:
    seen = fault(GREEDY.model_copy(update=coins))
    code, printed = replayed(HERE + "AlwaysThree", seen)
    assert code == FAULT and "3 after node" in printed and "which is the correct one" in printed
    assert ("no numbers at temperature 0" in printed) != ("keyed" in coins)
    code, printed = replayed("ref", seen)
    assert code == PASS and "token 3 was not emitted" in printed


def test_keyed_random_numbers_are_shown() -> None:
    sampled = {"temperature": 1.0, "max_new_tokens": 6}
    seen = fault(
        GREEDY.model_copy(update={"seed": 5, "keyed": True, "params": sampled, "options": {"rule": "walk", "k": 2, "m": 4}})
    )
    code, printed = replayed(HERE + "AlwaysThree", seen)
    engine = connect("ref:rule=walk,k=2,m=4").open(shipped("coin4"))
    true = engine.decode([2, 3, 2], sampled, KeyedCoins(5)).tokens[4]
    assert code == FAULT and true != 3 and f"the outcome is {true}  ← decided it" in printed


def test_state_carried_over_between_texts_is_a_fault() -> None:
    seen = judged(STALE_BONUS, "LAW-1", TOP_K)
    code, printed = replayed(HERE + "HotterEverySecondText", seen)
    assert code == FAULT and "over all random numbers" not in printed


def test_choice_that_no_longer_exists_is_not_reproduced() -> None:
    seen = judged(STALE_BONUS, "LAW-1", TOP_K)
    assert seen.witness
    gone = seen.model_copy(update={"witness": seen.witness.model_copy(update={"choices": (1, 99)})})
    code, printed = replayed("ref", gone)
    assert code == PASS and "recorded choice 2" in printed


def test_pair_of_the_user_is_used(tmp_path: Path) -> None:
    made = tiny.pair(tmp_path, vocab_size=16)
    seen = fault(GREEDY.model_copy(update={"pair": made.name, "seed": 1}))
    assert replayed(HERE + "AlwaysThree", seen, made)[0] == FAULT
    with pytest.raises(BadInput, match="give --target and --draft"):
        replayed(HERE + "AlwaysThree", seen)


@pytest.mark.parametrize(
    ("connectable", "seen", "reason"),
    [
        ("trace:run.jsonl", GREEDY.model_copy(update={"seed": 1}), "a trace holds answers"),
        (
            HERE + "NoCoins",
            GREEDY.model_copy(update={"seed": 1, "keyed": True}),
            "the implementation does not declare the capability 'coins'",
        ),
        (HERE + "breaks", GREEDY.model_copy(update={"seed": 1}), "the implementation raised"),
        (HERE + "breaks", Witness(tokens=(0, 1), parents=(-1, 0), law=((0.5, 0.5),) * 2, node=0, emitted=0), "the rule raised"),
        ("ref", GREEDY, "neither choices nor a seed"),
        ("ref", GREEDY.model_copy(update={"seed": 1, "emitted": 4}), "the witness is invalid"),
        (
            "ref",
            Witness(tokens=(0, 1, 1), parents=(-1, 2, 1), law=((0.5, 0.5),) * 3, node=2, emitted=0),
            "the witness is invalid",
        ),
    ],
    ids=["trace", "no coins", "raises", "rule raises", "no seed", "no such token", "no tree"],
)
def test_fault_that_cannot_be_reproduced_is_inconclusive(connectable: str, seen: Witness, reason: str) -> None:
    code, printed = replayed(connectable, fault(seen))
    assert code == INCONCLUSIVE and reason in " ".join(printed.split())


def test_unknown_id_is_answered_with_the_known_ones() -> None:
    of = record(fault(GREEDY), result("LAW-1", "x", "fault"), result("LAW-2", "y"))
    with pytest.raises(BadInput, match=r"no result 'LAW-7.1'\n +its faults are LAW-1.1 and GREEDY-1.1$"):
        replay(of, "LAW-7.1", Console(file=io.StringIO()), nothing)


@pytest.mark.parametrize("code", [PASS, FAULT, INCONCLUSIVE])
def test_fault_without_a_witness_repeats_its_check(code: int, tmp_path: Path) -> None:
    """That check alone, with the settings of the record."""
    of = record(
        result("CACHE-1", "", "fault"), result("LAW-4", "coin4, T=1.0", "fault"), implementation="mutant:M45", pair="mine"
    )
    repeated: list[Settings] = []

    def rerun(settings: Settings) -> int:
        repeated.append(settings)
        return code

    given = Pair("mine", tmp_path / "target", tmp_path / "draft")
    for name in ("CACHE-1.1", "LAW-4.1"):
        assert replay(of, name, Console(file=io.StringIO()), rerun, given) == code
    common = {"impl": "mutant:M45", "pair": "mine", "target": str(given.target), "draft": str(given.draft), "seed": 7}
    assert repeated == [Settings(only="CACHE-1", **common), Settings(only="LAW-4[coin4, T=1.0]", **common)]  # type: ignore[arg-type]


def test_fault_without_a_witness_shows_its_law() -> None:
    picture = LawPicture(title="", outcomes=("0", "1"), expected=(0.25, 0.75), observed=(0.4, 0.6), n=500)
    of = record(result("LAW-4", "coin4", "fault", pictures=(picture,)))
    console = Console(file=io.StringIO(), width=130, highlight=False)
    assert replay(of, "LAW-4.1", console, lambda _: FAULT) == FAULT
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert {"outcome expected observed in 500 samples", "0 0.25 0.4", "1 0.75 0.6"} <= set(lines)
    assert any("LAW-4 stores no witness" in line for line in lines)


def test_hostile_text_of_a_record_is_escaped() -> None:
    seen = GREEDY.model_copy(update={"seed": 1})
    _, printed = replayed(HERE + "breaks", fault(seen).model_copy(update={"summary": HOSTILE, "case": HOSTILE}))
    assert "alert(1)" in printed and not [c for c in printed if not c.isprintable() and c != "\n"]


# --- recording coins -----------------------------------------------------------------------------------------------

TREE = DraftTree.of([0, 1, 2, 3], [-1, 0, 0, 1])
P = torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 4, dtype=torch.float64)


@pytest.mark.parametrize("rule", [reject, walk])
def test_recording_changes_nothing(rule: Rule) -> None:
    plain = [(a.path, weight) for a, weight in executions(lambda coins: rule(TREE, P, coins))]
    assert plain == [(a.path, weight) for a, weight in executions(lambda coins: rule(TREE, P, RecordingCoins(coins)))]


def test_uses_of_random_numbers_are_recorded() -> None:
    coins = RecordingCoins(ScriptedCoins([0.5, 0.1, 0.95]))
    coins.seek(7)
    reject(TREE, P, coins)
    rejected, accepted, sampled = coins.draws
    assert rejected == Comparison(7, 0.0, 1.0, "≥", 0.2)
    assert isinstance(accepted, Comparison) and accepted.sign == "<" and accepted.threshold == pytest.approx(0.3 / 0.8)
    assert isinstance(sampled, Categorical) and int(sampled.token) == 3
    assert [decisive(coins.draws, offset) for offset in range(3)] == [accepted, sampled, None]


def test_interval_of_a_compared_number_is_recorded() -> None:
    coins = RecordingCoins(EnumeratedCoins(ChoiceTrail([(0, None), (1, None)])))
    coin = coins.uniform()
    assert coin < 0.5 and coin >= 0.25 and coin > 0.25 and not coin <= 0.25
    assert [(c.low, c.high, c.sign, c.threshold) for c in coins.draws if isinstance(c, Comparison)] == [
        (0.0, 1.0, "<", 0.5),
        (0.0, 0.5, "≥", 0.25),
        (0.25, 0.5, ">", 0.25),
        (0.25, 0.5, ">", 0.25),
    ]
    assert not hasattr(coin, "__float__")
    assert float(RecordingCoins(ScriptedCoins([0.5])).uniform()) == 0.5  # type: ignore[arg-type]


def test_recorded_choices_are_repeated_or_refused() -> None:
    trail = RecordedTrail((1, 0))
    assert trail.choose([0.5, 0.5]) == 1 and trail.choose([0.5, 0.5]) == 0 and trail.choose([0.0, 0.5]) == 1
    for weights in ([1.0, 0.0], [1.0]):
        with pytest.raises(Unrepeatable, match="recorded choice 1"):
            RecordedTrail((1,)).choose(weights)
