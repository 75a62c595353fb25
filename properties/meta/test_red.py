"""Every property can fail: a planted fault turns it red, on a case on which the reference decoder is green."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eagle2_ref.coins import KeyedCoins
from harness.catalogue import catalogue
from harness.evidence import Property, Result, Verdict
from harness.implementations import connect
from harness.implementations.engine import AdapterError
from harness.pairs import Pair, prompts, shipped
from harness.plugin import Judge
from harness.settings import Settings
from properties import test_count, test_law_sampled
from properties.meta import faults, tiny
from properties.subject import Subject

BUDGET = {"k": 3, "depth": 3, "m": 8}
OPTIONS = ",".join(f"{name}={value}" for name, value in BUDGET.items())

ONE_LAYER = "coin4, T=1.3, reject, k=4 depth=1 m=4"
TWO_LAYERS = "coin4, T=1.0, reject, k=2 depth=2 m=4"
TOP_K = "coin4, T=1.0 top_k=2, reject, k=2 depth=3 m=7"
FILTERS = "coin6, T=0.8 top_k=4 top_p=0.75 penalty=1.2, reject, k=3 depth=2 m=6"
ENDS = "coin4, T=1.0 eos=[0, 2], reject, k=2 depth=3 m=8"
FOUR_BEST = "coin4, k=4 depth=3 m=4"

RED = [
    ("SMOKE-1", "", ["LosesAnAnswer"]),
    ("SMOKE-2", "", ["SeedIgnored", "greedy_always"]),
    ("LAW-1", ONE_LAYER, ["keeps_the_refused", "one_coin", "accepts_all", "greedy_always", "greedy_drafts", "FirstTokenGreedy"]),
    ("LAW-1", TWO_LAYERS, ["does_not_renormalise", "reused_coin"]),
    ("LAW-1", TOP_K, ["stale_bonus", "BonusUnprocessed", "RowsAlike", "PositionsLag", "SeesSiblings", "CacheCut"]),
    ("LAW-1", FILTERS, ["TopPFirst", "RootsPenalty"]),
    ("LAW-1", ENDS, ["BlockKeptWhole"]),
    ("LAW-2", "", ["keeps_the_refused", "stale_bonus", "does_not_renormalise"]),
    ("LAW-3", "T=1.0, k=4 depth=3 m=8", ["FirstTokenGreedy", "RowsAlike"]),
    ("LAW-4", "coin4, T=0.6 top_p=0.85, k=2 depth=2 m=4", ["DefaultParameters"]),
    ("LAW-4", "coin6, T=0.8 top_k=4, k=3 depth=2 m=8", ["greedy_always"]),
    ("LAW-4", "coin4, T=1.3, k=4 depth=1 m=4", ["greedy_always"]),
    ("GREEDY-1", "plain", ["first_unseen", "RowsAlike"]),
    ("GREEDY-2", "coin6, T=0.0, k=3 depth=3 m=10", ["PositionsAlike", "CacheCut"]),
    ("GREEDY-2", "coin6, T=0.0 penalty=1.3, k=6 depth=2 m=12", ["RootsPenalty"]),
    ("GREEDY-3", "one token", ["RowsAlike"]),
    ("GREEDY-3", "long", ["RowsAlike"]),
    ("GREEDY-4", "", ["FirstRowsTemperature"]),
    ("TREE-1", "", ["OverBudget", "TwinSiblings"]),
    ("TREE-2", "", ["RowsAlike", "PositionsLag", "SeesSiblings", "SeesNoAncestors"]),
    ("TREE-3", "", ["PositionsAlike", "PositionsLag", "SeesSiblings", "SeesNoAncestors"]),
    ("TREE-4", FOUR_BEST, ["RanksByConfidence", "OrphansOfTies", "FeaturesLate", "HeadKeepsExpansion"]),
    ("CACHE-1", "", ["CacheCut", "CacheReversed"]),
    ("CACHE-2", "", ["FeaturesLate", "HeadKeepsExpansion"]),
    ("STOP-1", "", ["LastReplaced"]),
    ("STOP-2", "", ["EndSeenLast", "BlockKeptWhole"]),
    ("STOP-3", "", ["EndSeenLast", "BlockKeptWhole"]),
    ("STOP-4", "", ["StopsBeforeContext"]),
    ("COUNT-1", "", ["CountsOneTooMany", "CountsAfterEnd"]),
    ("COUNT-2", "T=0", ["FeaturesLate", "RowsAlike"]),
]
"""Property, case, and the faults of properties/meta/faults.py that must turn it red."""

BROKEN = {("SMOKE-1", "LosesAnAnswer")}
"""Answers that cannot be answers: refused before the property sees them. A run that has one ends as broken, never as a pass."""


def named(fault: str) -> str:
    return f"py:properties.meta.faults:{fault},"


@pytest.mark.parametrize(
    ("name", "case", "fault"),
    [pytest.param(name, case, fault, id=f"{name}-{fault}") for name, case, listed in RED for fault in listed],
)
def test_a_fault_turns_it_red(name: str, case: str, fault: str, scene: Scene) -> None:
    if (name, fault) in BROKEN:
        with pytest.raises(AdapterError):
            scene.verdict(name, case, named(fault))
    else:
        verdict, summary = scene.verdict(name, case, named(fault))
        assert verdict == "fault", summary


@pytest.mark.parametrize(("name", "case"), [pytest.param(name, case, id=f"{name}-{case}") for name, case, _ in RED])
def test_the_reference_is_green(name: str, case: str, scene: Scene) -> None:
    verdict, summary = scene.verdict(name, case, "ref:")
    assert verdict in ("pass", "tie"), summary


def test_the_last_of_ties_is_told_as_a_tie(scene: Scene) -> None:
    verdict, summary = scene.verdict("GREEDY-2", "coin6, T=0.0, k=3 depth=3 m=10", named("LastOfTies"))
    assert verdict == "tie", summary


def test_a_saturated_head_is_no_fault(scene: Scene) -> None:
    """What OrphansOfTies is caught at is its ties, not its head."""
    verdict, summary = scene.verdict("TREE-4", FOUR_BEST, named("SaturatedHead"))
    assert verdict == "pass", summary


def test_every_property_has_been_seen_red() -> None:
    assert {name for name, _, _ in RED} == {told.id for told in catalogue().values()}


def test_every_fault_is_used() -> None:
    planted = {name for name, value in vars(faults).items() if getattr(value, "__module__", "") == faults.__name__}
    used = {fault for _, _, listed in RED for fault in listed}
    assert planted == used | {"LastOfTies", "SaturatedHead"}


# --- a property, called as pytest would call it --------------------------------------------------------------------


class HeardError(Exception):
    """The verdict that a check came to."""

    def __init__(self, verdict: Verdict, summary: str) -> None:
        super().__init__(verdict, summary)
        self.verdict, self.summary = verdict, summary


def heard(result: Result) -> None:
    raise HeardError(result.verdict, result.summary)


@dataclass(frozen=True)
class Scene:
    """What the properties would be given, for any implementation: on the fastest pair that shows a fault.

    bytes_pair: one whose texts have several tokens that can end them, for STOP-3. COUNT-1 wants long accepted paths.
    """

    asked: Settings
    bytes_pair: Pair

    def verdict(self, name: str, case: str, connectable: str) -> tuple[Verdict, str]:
        """The verdict of a property on one of its own cases, and what it saw. The connectable still lacks its budget."""
        told, function = _properties()[name]
        places = {"STOP-3": (self.bytes_pair, "k=40,depth=2,m=40"), "COUNT-1": (shipped("stdlib"), "k=4,depth=4,m=12")}
        pair, budget = places.get(name, (shipped("coin4"), OPTIONS))
        subject = Subject.of(self.asked, connect(connectable + budget), pair)
        short = replace(subject, texts=[replace(p, tokens=t) for p, t in zip(subject.texts, _short(pair), strict=True)])
        judge = Judge(told, case, self.asked, heard)
        try:
            function(judge=judge, subject=short, **_arguments(function, case))
        except HeardError as said:
            return said.verdict, said.summary
        raise AssertionError(f"{name} came to no verdict")


@pytest.fixture
def scene(asked: Settings, bytes_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    # A tenth of the samples: these faults are gross, and what small ones need is a matter of statistics, not of wiring.
    sample = test_law_sampled._sample
    monkeypatch.setattr(
        test_law_sampled, "_sample", lambda engine, prompt, params, n, seed: sample(engine, prompt, params, n // 10, seed)
    )
    # The figure of a pair that has none: that of the reference.
    monkeypatch.setattr(test_count, "FIXTURES", tmp_path)
    _write_figure(tmp_path / "pairs" / "coin4")
    return Scene(asked, bytes_pair)


@pytest.fixture(scope="session")
def bytes_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return tiny.pair(tmp_path_factory.mktemp("bytes"), vocab_size=42)


def _short(pair: Pair) -> list[list[int]]:
    """Short prompts, so that a small context has room for several blocks."""
    return [prompt.tokens[:5] for prompt in prompts(pair)]


@cache
def _properties() -> dict[str, tuple[Property, Callable[..., None]]]:
    found = {}
    for place, told in catalogue().items():
        file, _, function = place.partition("::")
        found[told.id] = told, getattr(importlib.import_module(f"properties.{file.removesuffix('.py')}"), function)
    return found


def _arguments(function: Callable[..., None], case: str) -> dict[str, Any]:
    """What pytest.mark.parametrize gives a property for one of its cases."""
    marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
    for mark in marks:
        name, values = mark.args
        for i, value in enumerate(values):
            plainly = value.values[0] if hasattr(value, "values") else value
            if case == (getattr(value, "id", None) or mark.kwargs.get("ids", values)[i]):
                return {name: plainly}
    assert not marks and not case, f"there is no case {case!r}"
    return {}


def _write_figure(folder: Path) -> None:
    folder.mkdir(parents=True)
    figure = {"budget": BUDGET, "max_new_tokens": 20, "tau": {"0": _tau_of_the_reference()}}
    (folder / "tau.json").write_text(json.dumps(figure))


@cache
def _tau_of_the_reference() -> float:
    pair, params = shipped("coin4"), {"temperature": 0.0, "max_new_tokens": 20}
    engine = connect(f"ref:rule=walk,{OPTIONS}").open(pair)
    return test_count.tau_of([engine.decode(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(_short(pair))])
