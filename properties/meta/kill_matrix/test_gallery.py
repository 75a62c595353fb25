"""Every mutant dies by the property that is meant to see it, every control lives, and every property can turn red.

The quick part of `eagle2 mutants`, which shows all mutants all properties.
"""

from __future__ import annotations

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
SEEN = {name for _, name, _ in FIRST}
FURTHER = {name: (one.id, name, case) for one in MUTANTS for name, case in one.killers.items() if name not in SEEN}
"""Of each property that is the first killer of nothing, one mutant that it kills too."""

KILLS = [*FIRST, *FURTHER.values()]

RULES = [("LAW-2", ""), ("LAW-5", "")]
"""What bare rules are shown besides."""


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.set(tmp_path_factory.mktemp("scene"))


@pytest.mark.parametrize(("label", "name", "case"), [pytest.param(*kill, id=f"{kill[0]}-{kill[1]}") for kill in KILLS])
def test_a_mutant_dies(label: str, name: str, case: str, scene: Scene) -> None:
    result = scene.verdict(name, case, f"mutant:{label}")
    assert is_dead(result), f"{find(label).fault} {result.verdict}: {result.summary}"


@pytest.mark.parametrize(("method", "name", "case"), sorted({(find(label).method, *kill) for label, *kill in KILLS}))
def test_the_reference_lives(method: str, name: str, case: str, scene: Scene) -> None:
    """On every case that killed a mutant, by the mutant's own method."""
    result = scene.verdict(name, case, f"ref:drafter={method}")
    assert result.verdict in ("pass", "tie"), result.summary


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.id)
def test_a_control_lives(control: Mutant, scene: Scene) -> None:
    stage = replace(scene, asked=replace(scene.asked, **control.settings))
    shown = SHOWN + (RULES if control.name.islower() else [])
    results = [stage.verdict(name, case, f"mutant:{control.id}") for name, case in shown]
    assert not [f"{r.property} {r.case}: {r.verdict}: {r.summary}" for r in results if r.verdict not in GREEN]
    assert sum(r.verdict != "n/a" for r in results) > len(results) / 2


@pytest.mark.parametrize("label", [one.id for one in MUTANTS if not one.law and one.id not in ("M52", "M112")])
def test_what_ruins_speed_leaves_the_law(label: str, scene: Scene) -> None:
    """M52 and M112 are left out: they remember earlier texts, so that their executions cannot be enumerated. M125 draws its
    drafts and refuses many: of two layers it has thousands."""
    result = scene.verdict("LAW-1", ONE_LAYER if label == "M125" else TWO_LAYERS, f"mutant:{label}")
    assert result.verdict == "pass", result.summary


def test_the_last_of_ties_is_told_as_a_tie(scene: Scene) -> None:
    result = scene.verdict("GREEDY-2", GREEDY_TREE, "mutant:C09")
    assert result.verdict == "tie", result.summary


def test_a_useless_drafter_is_a_slow_one(scene: Scene) -> None:
    """C12 is the control that it is meant to be: hardly a draft of it is accepted."""
    tau = scene.verdict("COUNT-1", "", "mutant:C12").measured["tau"]
    assert isinstance(tau, float)
    assert tau < 1.1


def test_every_property_has_been_seen_red() -> None:
    assert {name for _, name, _ in KILLS} == {told.id for told in catalogue().values()}


@pytest.mark.parametrize("one", GALLERY.values(), ids=lambda one: one.id)
def test_every_entry_is_told(one: Mutant) -> None:
    assert re.fullmatch(r"C\d\d" if one.control else r"M\d{2,3}", one.id)
    assert 20 < len(one.fault) < 160
    assert re.search(r"\w/\w.*(issue|PR|commit|/cnets\.py)|arXiv", one.source), "a public source"
    assert bool(one.killers) != one.control


def test_there_are_as_many_as_are_promised() -> None:
    assert len(MUTANTS) >= 50
    assert len(CONTROLS) >= 8


def test_an_id_is_taken_once() -> None:
    with pytest.raises(AssertionError, match="M04 is stale_bonus already"):
        mutant("M04", part="", source="", killers={})(lambda: None)


def test_an_unknown_mutant_is_told_its_neighbours() -> None:
    with pytest.raises(BadInput, match="there is no mutant 'm4'") as told:
        connect("mutant:m4")
    assert told.value.hint.startswith("near it are M04 (stale_bonus), ")


def test_options_of_a_mutant_are_looked_at() -> None:
    assert connect("mutant:M44,k=2,depth=2").options == {"k": 2, "depth": 2}
    with pytest.raises(BadInput, match="no option 'kk'"):
        connect("mutant:M44,kk=2")


def test_the_registry_alone_imports_no_torch() -> None:
    code = "import sys, harness.mutants; assert 'torch' not in sys.modules"
    assert not subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode
