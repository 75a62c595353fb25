"""Every mutant is killed by its first killer, every control passes, and every property kills some mutant.

This is the quick part of `eagle2 mutants`, which judges all mutants by all properties.
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
from harness.mutants import GALLERY, Mutant, find, mutant
from harness.mutants.cases import GREEDY_TREE, ONE_LAYER, TWO_LAYERS
from properties.meta.helpers.mutant_stage import SHOWN, Scene, is_dead

MUTANTS = [one for one in GALLERY.values() if not one.control]
CONTROLS = [one for one in GALLERY.values() if one.control]
GREEN = ("pass", "tie", "n/a")

FIRST = [(one.id, *next(iter(one.killers.items()))) for one in MUTANTS]
FIRST_KILLERS = {name for _, name, _ in FIRST}
# For each property that is no mutant's first killer, one mutant that it kills.
FURTHER = {name: (one.id, name, case) for one in MUTANTS for name, case in one.killers.items() if name not in FIRST_KILLERS}
KILLS = [*FIRST, *FURTHER.values()]

RULES = [("LAW-2", ""), ("LAW-5", "")]  # additional properties of acceptance rules


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.set(tmp_path_factory.mktemp("scene"))


@pytest.mark.parametrize(("label", "name", "case"), [pytest.param(*kill, id=f"{kill[0]}-{kill[1]}") for kill in KILLS])
def test_mutant_is_killed(label: str, name: str, case: str, scene: Scene) -> None:
    result = scene.verdict(name, case, f"mutant:{label}")
    assert is_dead(result), f"{find(label).fault} {result.verdict}: {result.summary}"


@pytest.mark.parametrize(("method", "name", "case"), sorted({(find(label).method, *kill) for label, *kill in KILLS}))
def test_reference_passes_the_same_case(method: str, name: str, case: str, scene: Scene) -> None:
    """Every case that kills a mutant passes for the reference with the mutant's drafting method."""
    result = scene.verdict(name, case, f"ref:drafter={method}")
    assert result.verdict in ("pass", "tie"), result.summary


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.id)
def test_control_passes(control: Mutant, scene: Scene) -> None:
    stage = replace(scene, asked=replace(scene.asked, **control.settings))
    shown = SHOWN + (RULES if control.name.islower() else [])
    results = [stage.verdict(name, case, f"mutant:{control.id}") for name, case in shown]
    assert not [f"{r.property} {r.case}: {r.verdict}: {r.summary}" for r in results if r.verdict not in GREEN]
    assert sum(r.verdict != "n/a" for r in results) > len(results) / 2


@pytest.mark.parametrize("label", [one.id for one in MUTANTS if not one.law and one.id not in ("M52", "M112")])
def test_mutant_that_keeps_the_law_passes_law_1(label: str, scene: Scene) -> None:
    """M52 and M112 are left out: they remember earlier texts, so that their executions cannot be enumerated.

    M125 has one layer: it samples its drafts and rejects many, so that two layers have thousands of executions.
    """
    result = scene.verdict("LAW-1", ONE_LAYER if label == "M125" else TWO_LAYERS, f"mutant:{label}")
    assert result.verdict == "pass", result.summary


def test_last_of_ties_is_reported_as_tie(scene: Scene) -> None:
    result = scene.verdict("GREEDY-2", GREEDY_TREE, "mutant:C09")
    assert result.verdict == "tie", result.summary


def test_least_likely_drafts_are_rejected(scene: Scene) -> None:
    tau = scene.verdict("COUNT-1", "", "mutant:C12").measured["tau"]
    assert isinstance(tau, float)
    assert tau < 1.1


def test_every_property_kills_a_mutant() -> None:
    assert {name for _, name, _ in KILLS} == {entry.id for entry in catalogue().values()}


@pytest.mark.parametrize("one", GALLERY.values(), ids=lambda one: one.id)
def test_entry_is_complete(one: Mutant) -> None:
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


def test_gallery_size() -> None:
    assert len(MUTANTS) >= 50
    assert len(CONTROLS) >= 8


def test_id_is_unique() -> None:
    with pytest.raises(AssertionError, match="M04 is stale_bonus already"):
        mutant("M04", part="", source="", killers={})(lambda: None)


def test_error_of_unknown_id_names_similar_ids() -> None:
    with pytest.raises(BadInput, match="there is no mutant 'm4'") as error:
        connect("mutant:m4")
    assert error.value.hint.startswith("near it are M04 (stale_bonus), ")


def test_options_of_mutant_are_validated() -> None:
    assert connect("mutant:M44,k=2,depth=2").options == {"k": 2, "depth": 2}
    with pytest.raises(BadInput, match="no option 'kk'"):
        connect("mutant:M44,kk=2")


def test_import_of_registry_does_not_import_torch() -> None:
    code = "import sys, harness.mutants; assert 'torch' not in sys.modules"
    assert not subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode
