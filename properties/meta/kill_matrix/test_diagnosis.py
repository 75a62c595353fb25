"""Tests of the diagnosis: a law is recognised exactly, from samples and under the rule of another implementation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from harness.diagnosis import Observation, Signatures, diagnose, fit
from harness.kill_matrix.signatures import diagnosed
from harness.mutants import GALLERY
from harness.pairs import FIXTURES
from harness.record.model import LawPicture, Result, Trial, Verdict
from harness.report.sentences import LEAST_FIT

CASE = "coin4, T=1.0, k=1 depth=1 m=1"
TARGET = np.array([0.5, 0.3, 0.1, 0.1])
LAWS = {"M01": np.array([0.6, 0.2, 0.1, 0.1]), "M02": np.array([0.5, 0.1, 0.3, 0.1])}
KNOWN = Signatures(
    outcomes={CASE: ("0", "1", "2")},
    targets={CASE: TARGET},
    laws={CASE: LAWS},
    red={"M01": frozenset({"LAW-1"}), "M02": frozenset({"LAW-1", "LAW-4"}), "M03": frozenset({"TREE-3", "TREE-2"})},
    about={"M01": ("too greedy", "a thread"), "M02": ("skips", "another"), "M03": ("sees siblings", "a third")},
)


def judged(law: list[float], verdict: Verdict = "fault", name: str = "LAW-1", case: str = "reject", n: int = 0) -> Result:
    picture = LawPicture(title="", outcomes=("0", "1", "2", "3"), expected=tuple(TARGET), observed=tuple(law), n=n)
    whole = f"coin4, T=1.0, {case}, k=1 depth=1 m=1" if case else CASE
    return Result(property=name, case=whole, verdict=verdict, summary="", pictures=(picture,))


def test_law_of_a_mutant_is_recognised() -> None:
    (like,) = diagnose([judged([0.6, 0.2, 0.1, 0.1])], KNOWN)
    assert (like.mutant, like.fault, like.source) == ("M01", "too greedy", "a thread")
    assert like.fit > 0.99


def test_samples_of_a_law_are_recognised_on_a_case_without_a_rule() -> None:
    (like,) = diagnose([judged([0.49, 0.11, 0.31, 0.09], name="LAW-4", case="", n=2_000)], KNOWN)
    assert like.mutant == "M02" and 0.8 < like.fit < 1


def test_unknown_law_names_no_mutant() -> None:
    assert diagnose([judged([0.3, 0.3, 0.1, 0.3])], KNOWN) == ()


def test_green_run_names_no_mutant() -> None:
    assert diagnose([judged([0.6, 0.2, 0.1, 0.1], "pass")], KNOWN) == ()


def test_mutant_must_fit_all_cases() -> None:
    """It explains one case, but would have shown on the other."""
    other = "coin4, T=2.0, k=1 depth=1 m=1"
    known = Signatures(
        {**KNOWN.outcomes, other: ("0", "1", "2")},
        {**KNOWN.targets, other: TARGET},
        {CASE: LAWS, other: {name: law[::-1].copy() for name, law in LAWS.items()}},
        KNOWN.red,
        KNOWN.about,
    )
    correct = judged(list(TARGET), "pass").model_copy(update={"case": "coin4, T=2.0, walk, k=1 depth=1 m=1"})
    assert diagnose([judged([0.6, 0.2, 0.1, 0.1]), correct], known) == ()


def test_fault_without_a_law_is_recognised_by_its_red_properties() -> None:
    results = [Result(property=name, case="", verdict="fault", summary="") for name in ("TREE-2", "TREE-3")]
    (like,) = diagnose(results, KNOWN)
    assert like.mutant == "M03" and like.fit == 1 and "TREE-2, TREE-3" in like.seen


def test_red_properties_are_compared_among_those_that_ran() -> None:
    """M03 also turns TREE-4 red, which did not run: the fit is 1, and lower where it ran and is green."""
    known = Signatures({}, {}, {}, {**KNOWN.red, "M03": frozenset({"TREE-2", "TREE-3", "TREE-4"})}, KNOWN.about)
    results = [Result(property=name, case="", verdict="fault", summary="") for name in ("TREE-2", "TREE-3")]
    green = Result(property="TREE-4", case="", verdict="pass", summary="")
    assert [like.fit for like in diagnose(results, known)] == [1.0]
    assert [like.fit for like in diagnose([*results, green], known)] == [0.6667]


def test_lone_red_property_and_equal_fits_name_no_mutant() -> None:
    red = {name: frozenset({"TREE-2", "TREE-3"}) for name in KNOWN.about}
    tied = Signatures({}, {}, {}, red, KNOWN.about)
    results = [Result(property=name, case="", verdict="fault", summary="") for name in ("TREE-2", "TREE-3")]
    assert diagnose(results[:1], KNOWN) == ()
    assert diagnose(results, tied) == ()
    assert diagnose(results, Signatures({}, {}, {}, {**red, "M01": frozenset()}, KNOWN.about)) == ()


def test_impossible_outcome_lowers_the_fit_but_does_not_exclude() -> None:
    """A single stray sample must not exclude the only mutant that fits."""
    law = np.array([0.6, 0.4, 0.0, 0.0])
    known = Signatures(KNOWN.outcomes, KNOWN.targets, {CASE: {"M01": law}}, KNOWN.red, KNOWN.about)
    assert 0.5 < fit("M01", [Observation(CASE, np.array([0.6, 0.395, 0.005, 0.0]), 2_000)], known) < 1


def test_most_mutants_are_recognised_from_samples() -> None:
    """At least 80 % of those whose law is not the target's; mutants with equal laws count as recognised."""
    known = Signatures.read()
    found = diagnosed(known)
    assert len(found) >= 30
    assert sum(name == other for name, other in found.items()) / len(found) >= 0.8


def test_every_mutant_has_a_signature() -> None:
    """`eagle2 mutants --sign` writes them; one with another fault or source is out of date."""
    known = Signatures.read()
    assert known.about == {name: (mutant.fault, mutant.source) for name, mutant in GALLERY.items() if not mutant.control}


def test_leads_below_the_threshold_are_mostly_wrong() -> None:
    """Each mutant of the committed trials, diagnosed without itself: a lead is right if it names the same part of a decoder."""
    signatures = Signatures.read()
    below: list[bool] = []
    above: list[bool] = []
    for name in signatures.about:
        others = replace(signatures, about={other: about for other, about in signatures.about.items() if other != name})
        for like in diagnose(_trials_of(name), others):
            (below if like.fit < LEAST_FIT else above).append(GALLERY[like.mutant].part == GALLERY[name].part)
    assert len(below) > 40 and len(above) > 40
    assert sum(below) / len(below) < 0.4 < sum(above) / len(above)


def _trials_of(mutant: str) -> list[Result]:
    """The results of a mutant in the committed kill matrix. They have no pictures, so that red properties are compared."""
    return [
        Result(property=trial.property, case=trial.case, verdict=trial.verdict, summary="")
        for trial in committed_trials()
        if trial.mutant == mutant
    ]


@cache
def committed_trials() -> list[Trial]:
    path = FIXTURES.parent / "reports" / "mutants" / "trials.jsonl"
    return [Trial.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
