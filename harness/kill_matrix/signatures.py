"""Signatures of mutants, for the diagnosis of faults: the exact law that each emits, and the properties that it turns red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from eagle2_ref.sampling import SamplingParams
from harness.case import Case
from harness.catalogue import catalogue
from harness.diagnosis import LIKE, Law, Observation, Signatures, case_of, fit, with_rest
from harness.distributions.exact import target_law
from harness.distributions.scoring import load_target
from harness.enumeration.coins import Unrepeatable
from harness.enumeration.emitted_law import TooManyExecutions, emitted_law
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.mutants import GALLERY
from harness.pairs import shipped
from harness.record.model import LawPicture, Trial
from harness.record.pictures import law_picture

SAMPLES = 2_000
"""Samples from each mutant's law, on which the diagnosis is tested."""

MOST_EXECUTIONS = 1_000
"""Mutants whose drafts are sampled exceed it in most cases, and are recognised by the others."""

EQUAL_LAWS = 1e-4
"""Total variation below which two laws count as equal."""


@cache
def signed_cases() -> list[Case]:
    """Cases on which the law of every mutant is stored: those of LAW-1 with the rule `reject`, and those of LAW-4 on coins."""
    exact = [case for case in _cases("LAW-1") if case.rule == "reject"]
    sampled = [case for case in _cases("LAW-4") if case.pair in ("coin4", "coin6")]
    return exact + [Case(case.pair, case.params, case.k, case.depth, case.m, "reject") for case in sampled]


def laws(mutant: str) -> dict[str, LawPicture]:
    """The exact law of a mutant on every signed case where it can be enumerated."""
    found = {}
    for case in signed_cases():
        params = {**case.params, "max_new_tokens": case.depth + 2}
        pair, prompt = shipped(case.pair), [2, 3, 2]
        try:
            engine = connect(f"mutant:{mutant}").open(pair, **case.budget, dtype="float64")
            emitted, _ = emitted_law(engine, prompt, params, MOST_EXECUTIONS)
        except (AdapterError, NotApplicable, TooManyExecutions, Unrepeatable):
            continue
        expected = target_law(_target_model(case.pair), prompt, SamplingParams.of(params))
        found[case_of(case.id)] = law_picture(case.id, expected, emitted)
    return found


def signatures(pictures: Mapping[str, Mapping[str, LawPicture]], trials: Sequence[Trial]) -> dict[str, Any]:
    """The content of harness/mutants/signatures.json, from the laws and trials of all mutants."""
    stored: dict[str, Any] = {}
    for signed in signed_cases():
        case = case_of(signed.id)
        by_mutant = {name: found[case] for name, found in pictures.items() if case in found}
        outcomes = next(iter(by_mutant.values())).outcomes
        compared = {name: with_rest(picture, outcomes) for name, picture in by_mutant.items()}
        stored[case] = {
            "outcomes": outcomes,
            "target": _rounded(next(iter(compared.values()))[0]),
            "mutants": {name: _rounded(observed) for name, (_, observed) in compared.items()},
        }
    mutants = {
        name: {
            "fault": mutant.fault,
            "source": mutant.source,
            "red": sorted({trial.property for trial in trials if trial.mutant == name and trial.verdict == "fault"}),
        }
        for name, mutant in GALLERY.items()
        if not mutant.control
    }
    return {"laws": stored, "mutants": mutants}


def diagnosed(known: Signatures, seed: int = 0) -> dict[str, str]:
    """The mutant that the diagnosis names for each mutant whose law is not the target's; "?" for none.

    The diagnosis sees SAMPLES samples of each case from the mutant's exact law. Mutants that emit the same law cannot be told
    apart: the name of either is correct, and reported as the mutant's own.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name in known.about:
        by_case = {case: laws[name] for case, laws in known.laws.items() if name in laws}
        if max((_distance(law, known.targets[case]) for case, law in by_case.items()), default=0.0) < EQUAL_LAWS:
            continue
        observed = [
            Observation(case, rng.multinomial(SAMPLES, law / law.sum()) / SAMPLES, SAMPLES) for case, law in by_case.items()
        ]
        fits = {other: fit(other, observed, known) for other in known.about}
        best = max(fits, key=lambda other: fits[other])
        twin = all(_distance(law, known.laws[case].get(best, known.targets[case])) < EQUAL_LAWS for case, law in by_case.items())
        found[name] = "?" if fits[best] < LIKE else name if twin else best
    return found


def _cases(check_id: str) -> list[Case]:
    check = catalogue()[check_id]
    return [check.cases[case] for case in check.case_ids()]


@cache
def _target_model(pair: str) -> Any:
    return load_target(shipped(pair), "float64")


def _rounded(law: Law) -> list[float]:
    return [round(float(p), 6) for p in law]


def _distance(a: Law, b: Law) -> float:
    return float(abs(a - b).sum()) / 2
