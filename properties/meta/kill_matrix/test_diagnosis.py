"""The diagnosis: whoever emits a mutant's law is named, through noise and from outside; whoever does not is not."""

from __future__ import annotations

import numpy as np

from harness.diagnosis import Seen, Signatures, diagnose, fit
from harness.mutants import GALLERY
from harness.record.model import LawPicture, Result, Verdict
from properties.meta.helpers.signatures import named

CASE = "coin4, T=1.0, k=1 depth=1 m=1"
TARGET = np.array([0.5, 0.3, 0.1, 0.1])
LAWS = {"M01": np.array([0.6, 0.2, 0.1, 0.1]), "M02": np.array([0.5, 0.1, 0.3, 0.1])}
KNOWN = Signatures(
    outcomes={CASE: ("0", "1", "2")},
    targets={CASE: TARGET},
    laws={CASE: LAWS},
    red={"M01": frozenset({"LAW-1"}), "M02": frozenset({"LAW-1", "LAW-4"}), "M03": frozenset({"TREE-3", "TREE-2"})},
    told={"M01": ("too greedy", "a thread"), "M02": ("skips", "another"), "M03": ("sees siblings", "a third")},
)


def judged(law: list[float], verdict: Verdict = "fault", name: str = "LAW-1", case: str = "reject", n: int = 0) -> Result:
    picture = LawPicture(title="", outcomes=("0", "1", "2", "3"), expected=tuple(TARGET), observed=tuple(law), n=n)
    whole = f"coin4, T=1.0, {case}, k=1 depth=1 m=1" if case else CASE
    return Result(property=name, case=whole, verdict=verdict, summary="", pictures=(picture,))


def test_a_mutants_law_is_recognised() -> None:
    (like,) = diagnose([judged([0.6, 0.2, 0.1, 0.1])], KNOWN)
    assert (like.mutant, like.fault, like.source) == ("M01", "too greedy", "a thread")
    assert like.fit > 0.99


def test_it_is_recognised_in_samples_and_under_another_rules_name() -> None:
    (like,) = diagnose([judged([0.49, 0.11, 0.31, 0.09], name="LAW-4", case="", n=2_000)], KNOWN)
    assert like.mutant == "M02" and 0.8 < like.fit < 1


def test_an_unknown_law_looks_like_nobody() -> None:
    assert diagnose([judged([0.3, 0.3, 0.1, 0.3])], KNOWN) == ()


def test_without_a_fault_nothing_is_named() -> None:
    assert diagnose([judged([0.6, 0.2, 0.1, 0.1], "pass")], KNOWN) == ()


def test_what_is_right_on_another_case_counts_against_a_mutant() -> None:
    """It explains one case, and would have been seen on the other."""
    other = "coin4, T=2.0, k=1 depth=1 m=1"
    known = Signatures(
        {**KNOWN.outcomes, other: ("0", "1", "2")},
        {**KNOWN.targets, other: TARGET},
        {CASE: LAWS, other: {name: law[::-1].copy() for name, law in LAWS.items()}},
        KNOWN.red,
        KNOWN.told,
    )
    right = judged(list(TARGET), "pass").model_copy(update={"case": "coin4, T=2.0, walk, k=1 depth=1 m=1"})
    assert diagnose([judged([0.6, 0.2, 0.1, 0.1]), right], known) == ()


def test_a_fault_without_a_law_is_known_by_the_checks_it_turns_red() -> None:
    results = [Result(property=name, case="", verdict="fault", summary="") for name in ("TREE-2", "TREE-3")]
    (like,) = diagnose(results, KNOWN)
    assert like.mutant == "M03" and like.fit == 1 and "TREE-2, TREE-3" in like.seen


def test_an_excluded_outcome_weighs_but_does_not_forbid() -> None:
    """Else one stray sample would acquit the only mutant there is."""
    law = np.array([0.6, 0.4, 0.0, 0.0])
    known = Signatures(KNOWN.outcomes, KNOWN.targets, {CASE: {"M01": law}}, KNOWN.red, KNOWN.told)
    assert 0.5 < fit("M01", [Seen(CASE, np.array([0.6, 0.395, 0.005, 0.0]), 2_000)], known) < 1


def test_mutants_are_told_apart() -> None:
    """At least 80 % of those whose law is not the target's, from samples; twins with one law may stand for each other."""
    known = Signatures.read()
    found = named(known)
    assert len(found) >= 30
    assert sum(name == other for name, other in found.items()) / len(found) >= 0.8


def test_every_mutant_has_a_signature() -> None:
    """`eagle2 mutants --sign` keeps them; one that has changed its fault or its source since is out of date."""
    known = Signatures.read()
    assert known.told == {name: (told.fault, told.source) for name, told in GALLERY.items() if not told.control}
