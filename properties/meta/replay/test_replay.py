"""A fault in a record is seen again, at its own step, for as long as it is there; and once it is gone, that is told."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from eagle2_ref.coins import Coins, KeyedCoins, ScriptedCoins
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import Rule, reject, walk
from eagle2_ref.tree import DraftTree
from harness.enumeration.coins import EnumeratedCoins, Trail, Unrepeatable, executions
from harness.implementations import connect
from harness.implementations.reference import Engine
from harness.pairs import Pair, shipped
from harness.pytest_plugin import Judge
from harness.record.model import Result, Witness
from harness.replay import replay
from harness.replay.coins import Comparison, Draw, Recorded, TellingCoins, decisive
from harness.settings import Settings
from harness.verdict import FAULT, INCONCLUSIVE, PASS
from properties import test_law
from properties.cells import EXACT
from properties.meta.helpers import tiny
from properties.meta.helpers.records import HOSTILE, record, result
from properties.subject import Subject

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


# --- faults of our own ---------------------------------------------------------------------------------------------


class AlwaysThree(Engine):
    """The fifth new token is 3, whatever the target says."""

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        answer = super().decode(prompt, params, coins)
        answer["tokens"][4] = 3
        return answer


class LeavesHeatBehind(Engine):
    """Every second text is sampled hotter."""

    calls = 0

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        self.calls += 1
        return super().decode(prompt, params if self.calls % 2 else {**params, "temperature": 3.0}, coins)


class NoCoins(Engine):
    """Its coins are its own."""

    capabilities = frozenset({"temperature"})


def breaks(_tokens: list[int], _parents: list[int], _p: Tensor, _coins: Coins) -> tuple[list[int], int]:
    """It raises."""
    raise RuntimeError(HOSTILE)


# --- what is replayed, and what was said ---------------------------------------------------------------------------


class HeardError(Exception):
    """A check came to its verdict."""


@cache
def judged(connectable: str, name: str, case: str = "") -> Result:
    """The result, with its witness, that a property of chapter LAW writes."""
    properties: dict[str, Callable[..., None]] = {
        "LAW-1": test_law.test_whole_continuations,
        "LAW-2": test_law.test_every_tree_and_every_law,
        "LAW-5": test_law.test_boundary_coins,
    }
    settings = Settings(impl=connectable, pair="coin4")
    subject = Subject.of(settings, connect(connectable), shipped("coin4"))
    told = record(result(name, case)).header.properties[0]
    heard: list[Result] = []

    def hear(one: Result) -> None:
        heard.append(one)
        raise HeardError

    cells = [("cell", cell) for cell in EXACT if cell.id == case]
    with pytest.raises(HeardError):
        properties[name](judge=Judge(told, case, settings, hear), subject=subject, **dict(cells))
    assert heard[0].verdict == "fault" and heard[0].witness
    return heard[0]


def replayed(connectable: str, seen: Result, given: Pair | None = None) -> tuple[int, str]:
    """The exit code, and what the terminal was told, by a record whose only result is this one."""
    of = record(seen, verdict="fault", exit_code=1, implementation=connectable)
    of = of.model_copy(update={"header": of.header.model_copy(update={"settings": {}})})
    console = Console(file=io.StringIO(), width=130, highlight=False)
    code = replay(of, f"{seen.property}.1", console, nothing, given)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def nothing(_settings: Settings) -> int:
    raise AssertionError("a fault with a witness needs no other run")


def fault(seen: Witness) -> Result:
    return result("GREEDY-1", "by hand", "fault", witness=seen)


FOUND = [
    ("py:harness.mutants.rules:stale_bonus", "LAW-1", TOP_K),
    ("py:harness.mutants.cache:CacheCut", "LAW-1", TOP_K),
    ("py:harness.mutants.stops:BlockKeptWhole", "LAW-1", ENDS),
    ("py:harness.mutants.rules:stale_bonus", "LAW-2", ""),
    ("py:harness.mutants.rules:inclusive_coin", "LAW-5", ""),
    ("py:harness.mutants.rules:coin_of_one", "LAW-5", ""),
]


@pytest.mark.parametrize(("connectable", "name", "case"), FOUND, ids=[f"{c.rpartition(':')[2]}-{name}" for c, name, _ in FOUND])
def test_what_a_property_saw_comes_again_until_it_is_mended(connectable: str, name: str, case: str) -> None:
    seen = judged(connectable, name, case)
    code, said = replayed(connectable, seen)
    assert code == FAULT and said.endswith("The same token came again.\n") and "← here" in said
    code, said = replayed("ref", seen)
    assert code == PASS and "It did not come again: " in said


def test_the_step_is_told_whole() -> None:
    """The stale bonus: after a sibling was refused, the last draw is made from what remained of the siblings."""
    _, said = replayed("py:harness.mutants.rules:stale_bonus", judged("py:harness.mutants.rules:stale_bonus", "LAW-1", TOP_K))
    assert said.splitlines() == [
        f"LAW-1     fault  {TOP_K}",
        "recorded  total variation 0.418; after [1, 0, 1, 0] token 0 has probability 0.987332, the target gives 0.217064",
        "witness   After the prompt 2 3 2 (3 tokens), at new token 4 (the first is 0), token 0 came: the target gives it 0.2171, "
        "the ",
        "implementation gives it 0.9873.",
        "opened    py:harness.mutants.rules:stale_bonus on coin4, k=2, depth=3, m=7, dtype=float64",
        "asked     temperature=1.0, top_k=2, max_new_tokens=5",
        "coins     branches 1 0 1 0 of an enumerated execution",
        "",
        "1  node 0",
        "├── 1  node 1",
        "└── 0  node 2",
        "    └── 0  ← here",
        "",
        "token     0 after node 2, 0",
        "coins     a uniform number of [0, 1) ≥ 0",
        "          a uniform number of [0, 1) < 0.9873",
        "          a draw in which token 0 has probability 0.9873  ← brought it",
        "target    p = 0.2171; its likeliest there is 1, of 0.7829",
        "it        q = 0.9873 over all coins, 0.9873 in the record",
        "The same token came again.",
    ]


def test_a_right_decoder_that_emits_the_same_token_is_no_fault() -> None:
    _, said = replayed("ref", judged("py:harness.mutants.rules:stale_bonus", "LAW-1", TOP_K))
    assert "q = 0.2171 over all coins, 0.9873 in the record" in said and "emitted as often as is due" in said


@pytest.mark.parametrize("coins", [{"seed": 5}, {"seed": 5, "keyed": True}], ids=["own coins", "keyed"])
def test_a_seed_brings_its_text_again(coins: dict[str, Any]) -> None:
    seen = fault(GREEDY.model_copy(update=coins))
    code, said = replayed(HERE + "AlwaysThree", seen)
    assert code == FAULT and "3 after node" in said and "; its likeliest there, which is due, is " in said
    assert ("none are needed at temperature 0" in said) != ("keyed" in coins)
    code, said = replayed("ref", seen)
    assert code == PASS and "It did not come again: token 3 was not emitted" in said


def test_keyed_coins_are_told() -> None:
    sampled = {"temperature": 1.0, "max_new_tokens": 6}
    seen = fault(
        GREEDY.model_copy(update={"seed": 5, "keyed": True, "params": sampled, "options": {"rule": "walk", "k": 2, "m": 4}})
    )
    code, said = replayed(HERE + "AlwaysThree", seen)
    engine = connect("ref:rule=walk,k=2,m=4").open(shipped("coin4"))
    true = engine.decode([2, 3, 2], sampled, KeyedCoins(5)).tokens[4]
    assert code == FAULT and true != 3 and f"; {true} came  ← brought it" in said


def test_what_is_left_over_between_texts_is_a_fault() -> None:
    seen = judged("py:harness.mutants.rules:stale_bonus", "LAW-1", TOP_K)
    code, said = replayed(HERE + "LeavesHeatBehind", seen)
    assert code == FAULT and "over all coins" not in said


def test_choices_that_are_not_there_any_more() -> None:
    seen = judged("py:harness.mutants.rules:stale_bonus", "LAW-1", TOP_K)
    assert seen.witness
    gone = seen.model_copy(update={"witness": seen.witness.model_copy(update={"choices": (1, 99)})})
    code, said = replayed("ref", gone)
    assert code == PASS and "It did not come again: choice 2 of the recorded ones is no longer possible." in said


def test_a_pair_of_ones_own_is_given(tmp_path: Path) -> None:
    made = tiny.pair(tmp_path, vocab_size=16)
    seen = fault(GREEDY.model_copy(update={"pair": made.name, "seed": 1}))
    assert replayed(HERE + "AlwaysThree", seen, made)[0] == FAULT
    with pytest.raises(BadInput, match="give --target and --draft"):
        replayed(HERE + "AlwaysThree", seen)


@pytest.mark.parametrize(
    ("connectable", "seen", "why"),
    [
        ("trace:run.jsonl", GREEDY.model_copy(update={"seed": 1}), "a trace holds answers"),
        (
            HERE + "NoCoins",
            GREEDY.model_copy(update={"seed": 1, "keyed": True}),
            "the implementation does not declare the capability 'coins'",
        ),
        (HERE + "breaks", GREEDY.model_copy(update={"seed": 1}), "the implementation raised"),
        (HERE + "breaks", Witness(tokens=(0, 1), parents=(-1, 0), law=((0.5, 0.5),) * 2, node=0, emitted=0), "the rule raised"),
        ("ref", GREEDY, "the witness tells neither coins nor a seed"),
        ("ref", GREEDY.model_copy(update={"seed": 1, "emitted": 4}), "the witness makes no sense"),
        (
            "ref",
            Witness(tokens=(0, 1, 1), parents=(-1, 2, 1), law=((0.5, 0.5),) * 3, node=2, emitted=0),
            "the witness makes no sense",
        ),
    ],
    ids=["trace", "no coins", "raises", "rule raises", "no seed", "no such token", "no tree"],
)
def test_what_cannot_be_reproduced_is_never_told_as_gone(connectable: str, seen: Witness, why: str) -> None:
    code, said = replayed(connectable, fault(seen))
    assert code == INCONCLUSIVE and f"It cannot be reproduced: {why}" in said.replace("\n", " ").replace("  ", " ")


def test_an_unknown_id_is_told_with_those_that_are_known() -> None:
    of = record(fault(GREEDY), result("LAW-1", "x", "fault"), result("LAW-2", "y"))
    with pytest.raises(BadInput, match=r"no result 'LAW-7.1'\n +its faults are LAW-1.1 and GREEDY-1.1$"):
        replay(of, "LAW-7.1", Console(file=io.StringIO()), nothing)


@pytest.mark.parametrize("code", [PASS, FAULT, INCONCLUSIVE])
def test_a_fault_without_a_witness_has_its_whole_check_run_again(code: int, tmp_path: Path) -> None:
    """Exactly that check, with the settings of the record."""
    of = record(
        result("CACHE-1", "", "fault"), result("LAW-4", "coin4, T=1.0", "fault"), implementation="mutant:M45", pair="mine"
    )
    asked: list[Settings] = []

    def rerun(settings: Settings) -> int:
        asked.append(settings)
        return code

    given = Pair("mine", tmp_path / "target", tmp_path / "draft")
    for name in ("CACHE-1.1", "LAW-4.1"):
        assert replay(of, name, Console(file=io.StringIO()), rerun, given) == code
    common = {"impl": "mutant:M45", "pair": "mine", "target": str(given.target), "draft": str(given.draft), "seed": 7}
    assert asked == [Settings(only="CACHE-1", **common), Settings(only="LAW-4[coin4, T=1.0]", **common)]  # type: ignore[arg-type]


def test_hostile_text_of_a_record_reaches_no_terminal() -> None:
    seen = GREEDY.model_copy(update={"seed": 1})
    _, said = replayed(HERE + "breaks", fault(seen).model_copy(update={"summary": HOSTILE, "case": HOSTILE}))
    assert "alert(1)" in said and not [c for c in said if not c.isprintable() and c != "\n"]


# --- coins that tell -----------------------------------------------------------------------------------------------

TREE = DraftTree.of([0, 1, 2, 3], [-1, 0, 0, 1])
P = torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 4, dtype=torch.float64)


@pytest.mark.parametrize("rule", [reject, walk])
def test_to_tell_changes_nothing(rule: Rule) -> None:
    plain = [(a.path, weight) for a, weight in executions(lambda coins: rule(TREE, P, coins))]
    assert plain == [(a.path, weight) for a, weight in executions(lambda coins: rule(TREE, P, TellingCoins(coins)))]


def test_coins_tell_what_they_were_asked() -> None:
    coins = TellingCoins(ScriptedCoins([0.5, 0.1, 0.95]))
    coins.seek(7)
    reject(TREE, P, coins)
    refused, accepted, drawn = coins.told
    assert refused == Comparison(7, 0.0, 1.0, "≥", 0.2)
    assert isinstance(accepted, Comparison) and accepted.sign == "<" and accepted.threshold == pytest.approx(0.3 / 0.8)
    assert isinstance(drawn, Draw) and int(drawn.token) == 3
    assert [decisive(coins.told, offset) for offset in range(3)] == [accepted, drawn, None]


def test_a_uniform_number_that_is_asked_twice_tells_what_was_known() -> None:
    coins = TellingCoins(EnumeratedCoins(Trail([(0, None), (1, None)])))
    coin = coins.uniform()
    assert coin < 0.5 and coin >= 0.25 and coin > 0.25 and not coin <= 0.25
    assert [(c.low, c.high, c.sign, c.threshold) for c in coins.told if isinstance(c, Comparison)] == [
        (0.0, 1.0, "<", 0.5),
        (0.0, 0.5, "≥", 0.25),
        (0.25, 0.5, ">", 0.25),
        (0.25, 0.5, ">", 0.25),
    ]
    assert not hasattr(coin, "__float__"), "code may look whether a coin is a number"
    assert float(TellingCoins(ScriptedCoins([0.5])).uniform()) == 0.5  # type: ignore[arg-type]


def test_recorded_choices_are_taken_or_missed() -> None:
    trail = Recorded((1, 0))
    assert trail.choose([0.5, 0.5]) == 1 and trail.choose([0.5, 0.5]) == 0 and trail.choose([0.0, 0.5]) == 1
    for weights in ([1.0, 0.0], [1.0]):
        with pytest.raises(Unrepeatable, match="choice 1 of the recorded ones"):
            Recorded((1,)).choose(weights)
