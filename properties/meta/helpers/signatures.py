"""What every mutant does, kept for the diagnosis of faults: the exact law it emits, and the properties that it turns red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from eagle2_ref.sampling import SamplingParams
from harness.diagnosis import LIKE, Law, Seen, Signatures, case_of, fit, with_rest
from harness.distributions.exact import target_law
from harness.distributions.teacher import load_plain
from harness.enumeration.coins import Unrepeatable
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.mutants import GALLERY
from harness.pairs import shipped
from harness.record.model import LawPicture, Trial
from properties.cells import EXACT, SAMPLED, Cell
from properties.pictures import law_picture
from properties.test_law import TooManyError, emitted_law

SIGNED = [cell for cell in EXACT if cell.rule == "reject" and not cell.full] + [
    Cell(c.pair, c.params, c.k, c.depth, c.m, "reject") for c in SAMPLED if not c.full
]
"""Cases on which the law of every mutant is kept."""

SAMPLES = 2_000
"""Samples from each mutant's law by which the diagnosis is put to the test."""

MOST = 1_000
"""Executions that a law may take: a mutant whose drafts are sampled takes more on most cases, and is known by the others."""

SAME = 1e-4
"""Total variation below which a mutant's law counts as the target's."""


def laws(mutant: str) -> dict[str, LawPicture]:
    """The exact law of a mutant on every signed case that it can be enumerated on."""
    found = {}
    for cell in SIGNED:
        params = {**cell.params, "max_new_tokens": cell.depth + 2}
        pair, prompt = shipped(cell.pair), [2, 3, 2]
        try:
            engine = connect(f"mutant:{mutant}").open(pair, **cell.budget, dtype="float64")
            emitted, _ = emitted_law(engine, prompt, params, MOST)
        except (AdapterError, NotApplicable, TooManyError, Unrepeatable):
            continue
        expected = target_law(_plain(cell.pair), prompt, SamplingParams.of(params))
        found[case_of(cell.id)] = law_picture(cell.id, expected, emitted)
    return found


@cache
def _plain(pair: str) -> Any:
    return load_plain(shipped(pair), "float64")


def signatures(pictures: Mapping[str, Mapping[str, LawPicture]], done: Sequence[Trial]) -> dict[str, Any]:
    """What harness/mutants/signatures.json holds, from the laws and trials of all mutants."""
    kept: dict[str, Any] = {}
    for cell in SIGNED:
        case = case_of(cell.id)
        mine = {name: found[case] for name, found in pictures.items() if case in found}
        outcomes = next(iter(mine.values())).outcomes
        compared = {name: with_rest(picture, outcomes) for name, picture in mine.items()}
        kept[case] = {
            "outcomes": outcomes,
            "target": _rounded(next(iter(compared.values()))[0]),
            "mutants": {name: _rounded(observed) for name, (_, observed) in compared.items()},
        }
    mutants = {
        name: {
            "fault": told.fault,
            "source": told.source,
            "red": sorted({trial.property for trial in done if trial.mutant == name and trial.verdict == "fault"}),
        }
        for name, told in GALLERY.items()
        if not told.control
    }
    return {"laws": kept, "mutants": mutants}


def _rounded(law: np.ndarray[Any, Any]) -> list[float]:
    return [round(float(p), 6) for p in law]


def named(known: Signatures, seed: int = 0) -> dict[str, str]:
    """Whom the diagnosis names for each mutant whose law is not the target's, given samples from its exact law; ? for nobody.

    Two thousand samples a case, so that mutants have to be told apart through noise. Twins that emit the same law cannot be:
    the name of one stands for both.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name in known.told:
        mine = {case: laws[name] for case, laws in known.laws.items() if name in laws}
        if max((_apart(law, known.targets[case]) for case, law in mine.items()), default=0.0) < SAME:
            continue
        seen = [Seen(case, rng.multinomial(SAMPLES, law / law.sum()) / SAMPLES, SAMPLES) for case, law in mine.items()]
        fits = {other: fit(other, seen, known) for other in known.told}
        best = max(fits, key=lambda other: fits[other])
        twin = all(_apart(law, known.laws[case].get(best, known.targets[case])) < SAME for case, law in mine.items())
        found[name] = "?" if fits[best] < LIKE else name if twin else best
    return found


def _apart(a: Law, b: Law) -> float:
    return float(abs(a - b).sum()) / 2
