"""Every mutant dies by the property that is meant to kill it, every control passes, and every property can turn red.

The quick part of `eagle2 mutants`, which checks all mutants by all properties.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from harness.catalogue import catalogue
from harness.implementations import connect
from harness.kill_matrix.stage import QUICK, Stage, is_dead
from harness.mutants import GALLERY, Mutant, find, mutant
from harness.mutants.cases import GREEDY_TREE, ONE_LAYER, TWO_LAYERS

MUTANTS = [one for one in GALLERY.values() if not one.control]
CONTROLS = [one for one in GALLERY.values() if one.control]
GREEN = ("pass", "tie", "n/a")

FIRST = [(one.id, *next(iter(one.killers.items()))) for one in MUTANTS]
SEEN = {name for _, name, _ in FIRST}
FURTHER = {name: (one.id, name, case) for one in MUTANTS for name, case in one.killers.items() if name not in SEEN}
"""For each property that is never the first killer, one mutant that it kills."""

KILLS = [*FIRST, *FURTHER.values()]

RULES = [("LAW-2", ""), ("LAW-5", "")]
"""More checks for controls that are rules alone."""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.build(tmp_path_factory.mktemp("stage"))


@pytest.mark.parametrize(("label", "name", "case"), [pytest.param(*kill, id=f"{kill[0]}-{kill[1]}") for kill in KILLS])
def test_mutant_dies(label: str, name: str, case: str, stage: Stage) -> None:
    result = stage.result(name, case, f"mutant:{label}")
    assert is_dead(result), f"{find(label).fault} {result.verdict}: {result.summary}"


@pytest.mark.parametrize(("method", "name", "case"), sorted({(find(label).method, *kill) for label, *kill in KILLS}))
def test_reference_passes(method: str, name: str, case: str, stage: Stage) -> None:
    """On every case that kills a mutant, with the mutant's method."""
    result = stage.result(name, case, f"ref:drafter={method}")
    assert result.verdict in ("pass", "tie"), result.summary


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.id)
def test_control_passes(control: Mutant, stage: Stage) -> None:
    stage = replace(stage, settings=replace(stage.settings, **control.settings))
    checks = QUICK + (RULES if control.name.islower() else [])
    results = [stage.result(name, case, f"mutant:{control.id}") for name, case in checks]
    assert not [f"{r.property} {r.case}: {r.verdict}: {r.summary}" for r in results if r.verdict not in GREEN]
    assert sum(r.verdict != "n/a" for r in results) > len(results) / 2


@pytest.mark.parametrize("label", [one.id for one in MUTANTS if not one.law and one.id not in ("M52", "M112")])
def test_fault_of_speed_alone_keeps_the_law(label: str, stage: Stage) -> None:
    """M52 and M112 remember earlier texts, so that their executions cannot be enumerated. M125 samples its drafts and rejects
    many: two layers would take thousands of executions."""
    result = stage.result("LAW-1", ONE_LAYER if label == "M125" else TWO_LAYERS, f"mutant:{label}")
    assert result.verdict == "pass", result.summary


def test_last_of_two_tied_tokens_is_a_tie(stage: Stage) -> None:
    result = stage.result("GREEDY-2", GREEDY_TREE, "mutant:C09")
    assert result.verdict == "tie", result.summary


def test_useless_drafter_is_slow(stage: Stage) -> None:
    """C12 is as wasteful as described: hardly a draft token is accepted."""
    tau = stage.result("COUNT-1", "", "mutant:C12").measured["tau"]
    assert isinstance(tau, float)
    assert tau < 1.1


def test_every_property_has_been_seen_red() -> None:
    assert {name for _, name, _ in KILLS} == set(catalogue())


@pytest.mark.parametrize("one", GALLERY.values(), ids=lambda one: one.id)
def test_every_entry_has_a_description_and_a_public_source(one: Mutant) -> None:
    assert re.fullmatch(r"C\d\d" if one.control else r"M\d{2,3}", one.id)
    assert 20 < len(one.fault) < 160
    assert re.search(r"\w/\w.*(issue|PR|commit|/cnets\.py)|arXiv", one.source), "a public source"
    assert bool(one.killers) != one.control


@pytest.mark.parametrize("one", GALLERY.values(), ids=lambda one: one.id)
def test_faulty_class_overrides_existing_methods(one: Mutant) -> None:
    """A method that overrides nothing, for instance after a rename, would make a mutant correct."""
    for name in ("FaultyDecoder", "FaultyTarget", "FaultyDrafter", "FaultySequence"):
        faulty = getattr(one.make, name, None)
        if faulty and faulty.__module__.startswith("harness.mutants"):
            methods = [method for method, value in vars(faulty).items() if inspect.isfunction(value)]
            assert not [method for method in methods if not hasattr(faulty.__base__, method)]


def test_id_is_used_once() -> None:
    with pytest.raises(AssertionError, match="M04 is stale_bonus already"):
        mutant("M04", part="", source="", killers={})(lambda: None)


def test_unknown_mutant_is_answered_with_similar_ones() -> None:
    with pytest.raises(BadInput, match="there is no mutant 'm4'") as error:
        connect("mutant:m4")
    assert error.value.hint.startswith("similar ids: M04, ")


def test_options_of_a_mutant_are_checked() -> None:
    assert connect("mutant:M44,k=2,depth=2").options == {"k": 2, "depth": 2}
    with pytest.raises(BadInput, match="no option 'kk'"):
        connect("mutant:M44,kk=2")


def test_registry_imports_no_torch() -> None:
    code = "import sys, harness.mutants; assert 'torch' not in sys.modules"
    assert not subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode
