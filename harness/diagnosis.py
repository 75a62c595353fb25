"""What a fault looks like: the mutants of the gallery whose emitted laws, or whose red checks, are those that were seen."""

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
"""Share of the target's law that is mixed into a mutant's, so that one outcome it never emits does not rule it out alone."""

LIKE = 0.5
"""Least fit at which a mutant is named: it explains half of what sets the observed law apart from the target's."""

NAMED = 3

PLAIN = 3.0
"""Standard deviations by which samples must be further from the target than chance would have them."""

Law = NDArray[np.float64]


@dataclass(frozen=True)
class Signatures:
    """What each mutant of the gallery does, as `eagle2 mutants` found it.

    laws: by case, the target's probabilities of the pictured outcomes and of all others, and each mutant's. red: the
    properties that a mutant turns red. told: fault and source, by mutant.
    """

    outcomes: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, Law]
    laws: Mapping[str, Mapping[str, Law]]
    red: Mapping[str, frozenset[str]]
    told: Mapping[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path = SIGNATURES) -> Signatures:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            outcomes={case: tuple(told["outcomes"]) for case, told in kept["laws"].items()},
            targets={case: np.array(told["target"]) for case, told in kept["laws"].items()},
            laws={case: {name: np.array(law) for name, law in told["mutants"].items()} for case, told in kept["laws"].items()},
            red={name: frozenset(told["red"]) for name, told in kept["mutants"].items()},
            told={name: (told["fault"], told["source"]) for name, told in kept["mutants"].items()},
        )


@dataclass(frozen=True)
class Seen:
    """A law as it was observed on one case, over the outcomes of its signature and all others together."""

    case: str
    observed: Law
    n: int


def diagnose(results: Sequence[Result], signatures: Signatures | None = None) -> tuple[Likeness, ...]:
    """The mutants that do most nearly what was seen, the best first; none where nothing fits, or nothing is red.

    Where laws were observed, by them: fit is the share of the divergence from the target that a mutant explains,
    1 - KL(observed, mutant) / KL(observed, target), over all cases and less what is due to sampling. Else by the set of
    red properties.
    """
    red = frozenset(result.property for result in results if result.verdict == "fault")
    if not red:
        return ()
    known = signatures or _shipped()
    seen = [one for result in results if (one := _seen(result, known))]
    if any(result.verdict == "fault" for result in results if result.property in ("LAW-1", "LAW-4")) and seen:
        fits = {name: fit(name, seen, known) for name in known.told if any(name in known.laws[one.case] for one in seen)}
        basis = f"the emitted laws of {len(seen)} cases"
    else:
        fits = {name: len(red & known.red[name]) / len(red | known.red[name]) for name in known.told}
        basis = f"the red properties: {', '.join(sorted(red))}"
    best = sorted((name for name in fits if fits[name] >= LIKE), key=lambda name: -fits[name])[:NAMED]
    return tuple(
        Likeness(mutant=name, fault=known.told[name][0], source=known.told[name][1], fit=round(fits[name], 4), seen=basis)
        for name in best
    )


def fit(mutant: str, seen: Iterable[Seen], known: Signatures) -> float:
    """How much of what sets the observed laws apart from the target's a mutant explains; 1 is all. It may be negative.

    n samples of the very law diverge from it by df / 2n on average (twice n times the divergence is nearly chi-square): that
    much is nobody's to explain. 0 where the samples are no further from the target than they may be.
    """
    unexplained = total = noise = 0.0
    for one in seen:
        target = known.targets[one.case]
        law = known.laws[one.case].get(mutant, target)
        chance = (np.count_nonzero(target) - 1) / 2 if one.n else 0.0
        unexplained += (one.n or 1) * _divergence(one.observed, (1 - SMALLEST) * law + SMALLEST * target) - chance
        total += (one.n or 1) * _divergence(one.observed, target) - chance
        noise += chance
    return min(1.0, 1 - unexplained / total) if total > PLAIN * math.sqrt(noise) else 0.0


def case_of(result_case: str) -> str:
    """A case without the rule in its name: an implementation from outside has only its own."""
    return result_case.replace(", reject,", ",").replace(", walk,", ",")


def with_rest(picture: LawPicture, outcomes: Sequence[str]) -> tuple[Law, Law]:
    """Expected and observed probabilities of some outcomes, and last those of all others together."""
    laws = []
    for probabilities in (picture.expected, picture.observed):
        known = dict(zip(picture.outcomes, probabilities, strict=True))
        law = np.array([known.get(outcome, 0.0) for outcome in outcomes])
        laws.append(np.append(law, max(0.0, 1 - law.sum())))
    return laws[0], laws[1]


def _seen(result: Result, known: Signatures) -> Seen | None:
    case = case_of(result.case)
    if result.property not in ("LAW-1", "LAW-4") or case not in known.targets:
        return None
    picture = next((picture for picture in result.pictures if isinstance(picture, LawPicture)), None)
    if picture is None:
        return None
    return Seen(case, with_rest(picture, known.outcomes[case])[1], picture.n)


def _divergence(observed: Law, law: Law) -> float:
    """KL divergence; an outcome that the law excludes costs as if it had a probability of 1e-9."""
    some = observed > 0
    return float((observed[some] * np.log(observed[some] / np.maximum(law[some], 1e-9))).sum())


@cache
def _shipped() -> Signatures:
    return Signatures.read() if SIGNATURES.exists() else Signatures({}, {}, {}, {}, {})
