"""Diagnosis of faults: the mutants of the gallery whose emitted laws, or whose red checks, match the observed ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.record.model import LawPicture, Likeness, Result

SIGNATURES = Path(str(files("harness.mutants"))) / "signatures.json"

SMALLEST = 1e-3
"""Share of the target's law that is mixed into a mutant's: a single outcome that the mutant never emits must not exclude it."""

LIKE = 0.5
"""Smallest fit at which a mutant is named: it explains half of the divergence of the observed law from the target's."""

MOST_NAMED = 3

MIN_DEVIATIONS = 3.0
"""Standard deviations by which the divergence of samples must exceed its expectation under the target."""

Law = NDArray[np.float64]


@dataclass(frozen=True)
class Signatures:
    """Behaviour of each mutant of the gallery, as `eagle2 mutants --sign` measured it.

    Args:
        outcomes: case -> the outcomes that probabilities are stored for.
        targets: case -> the target's probabilities of these outcomes, and last of all others together.
        laws: case -> mutant -> its probabilities of the same.
        red: mutant -> the properties that it turns red.
        about: mutant -> its fault and source.
    """

    outcomes: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, Law]
    laws: Mapping[str, Mapping[str, Law]]
    red: Mapping[str, frozenset[str]]
    about: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path = SIGNATURES) -> Signatures:
        stored = json.loads(path.read_text(encoding="utf-8"))
        laws, mutants = stored["laws"], stored["mutants"]
        return cls(
            outcomes={case: tuple(entry["outcomes"]) for case, entry in laws.items()},
            targets={case: np.array(entry["target"]) for case, entry in laws.items()},
            laws={case: {name: np.array(law) for name, law in entry["mutants"].items()} for case, entry in laws.items()},
            red={name: frozenset(mutant["red"]) for name, mutant in mutants.items()},
            about={name: (mutant["fault"], mutant["source"]) for name, mutant in mutants.items()},
        )


@dataclass(frozen=True)
class Observation:
    """The observed law of one case, over the outcomes of its signature and all others together. n: samples, 0 if exact."""

    case: str
    observed: Law
    n: int


def diagnose(results: Sequence[Result], signatures: Signatures | None = None) -> tuple[Likeness, ...]:
    """The mutants that match the observed faults best, the best first; none if nothing fits or nothing is red.

    Where laws were observed, the fit is the share of the divergence from the target that a mutant explains,
    1 - KL(observed, mutant) / KL(observed, target), over all cases and corrected for sampling noise. Otherwise it is the
    overlap of the sets of red properties among those that ran. A single red property fits many mutants, and so does a set
    whose best fits are all equal: they name none.
    """
    red = frozenset(result.property for result in results if result.verdict == "fault")
    if not red:
        return ()
    known = signatures or _shipped()
    seen = [observation for result in results if (observation := _observation(result, known))]
    by_law = any(result.verdict == "fault" for result in results if result.property in ("LAW-1", "LAW-4")) and bool(seen)
    if by_law:
        fits = {name: fit(name, seen, known) for name in known.about if any(name in known.laws[each.case] for each in seen)}
        basis = f"the emitted laws of {len(seen)} cases"
    elif len(red) > 1:
        ran = {result.property for result in results}
        fits = {name: len(red & known.red[name]) / len(red | known.red[name] & ran) for name in known.about}
        basis = f"the red properties: {', '.join(sorted(red))}"
    else:
        return ()
    best = sorted((name for name in fits if fits[name] >= LIKE), key=lambda name: -fits[name])[:MOST_NAMED]
    if not by_law and len(best) > 1 and len({fits[name] for name in best}) == 1:
        return ()
    return tuple(
        Likeness(mutant=name, fault=known.about[name][0], source=known.about[name][1], fit=round(fits[name], 4), seen=basis)
        for name in best
    )


def fit(mutant: str, seen: Iterable[Observation], known: Signatures) -> float:
    """Share of the divergence of the observed laws from the target's that a mutant explains; 1 is all. It may be negative.

    n samples of a law diverge from it by df / 2n on average (2n times the divergence is nearly chi-square), which no mutant
    explains. 0 if the samples fit the target.
    """
    unexplained = total = noise = 0.0
    for each in seen:
        target = known.targets[each.case]
        law = known.laws[each.case].get(mutant, target)
        chance = (np.count_nonzero(target) - 1) / 2 if each.n else 0.0
        unexplained += (each.n or 1) * _divergence(each.observed, (1 - SMALLEST) * law + SMALLEST * target) - chance
        total += (each.n or 1) * _divergence(each.observed, target) - chance
        noise += chance
    return min(1.0, 1 - unexplained / total) if total > MIN_DEVIATIONS * math.sqrt(noise) else 0.0


def case_of(result_case: str) -> str:
    """Name of a case without the rule: an implementation from outside has only its own rule."""
    return result_case.replace(", reject,", ",").replace(", walk,", ",")


def with_rest(picture: LawPicture, outcomes: Sequence[str]) -> tuple[Law, Law]:
    """Expected and observed probabilities of some outcomes, and last those of all others together."""
    laws = []
    for probabilities in (picture.expected, picture.observed):
        known = dict(zip(picture.outcomes, probabilities, strict=True))
        law = np.array([known.get(outcome, 0.0) for outcome in outcomes])
        laws.append(np.append(law, max(0.0, 1 - law.sum())))
    return laws[0], laws[1]


def _observation(result: Result, known: Signatures) -> Observation | None:
    case = case_of(result.case)
    if result.property not in ("LAW-1", "LAW-4") or case not in known.targets:
        return None
    picture = next((picture for picture in result.pictures if isinstance(picture, LawPicture)), None)
    if picture is None:
        return None
    return Observation(case, with_rest(picture, known.outcomes[case])[1], picture.n)


def _divergence(observed: Law, law: Law) -> float:
    """KL divergence; an outcome that the law excludes costs as if it had a probability of 1e-9."""
    some = observed > 0
    return float((observed[some] * np.log(observed[some] / np.maximum(law[some], 1e-9))).sum())


@cache
def _shipped() -> Signatures:
    return Signatures.read() if SIGNATURES.exists() else Signatures({}, {}, {}, {}, {})
