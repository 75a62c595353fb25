"""What a run has shown about the distance between an implementation and its target, in three lines that are never merged.

It is computed from the typed fields of results (`work`, `effect`, `detectable`) and the named measurements below. Results of
records from before these fields add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.record.model import Quantity, Result, Statement
from harness.statistics.bounds import LEVEL
from harness.statistics.budget import error_budget
from harness.verdict import JUDGED

MEAN_DISTANCE = "mean total variation"
LOG10_E, DKW_BOUND, PIT_BOUND = "log10 E", "dkw bound", "pit tv"
"""Names of measurements in `Result.measured`, shared by the checks that store them and the statement that reads them.

LOG10_E: evidence of all bets together. DKW_BOUND: rigorous bound on the distribution function of ranks. PIT_BOUND: asymptotic
bound on their total variation from uniform.
"""


EVIDENCE = {"exact": ("LAW-1", "LAW-2", "LAW-6"), "logits": ("TREE-5",), "sampled": ("LAW-4", "LAW-7", "LAW-8")}
"""Properties from which each line of the statement is computed."""


def statement(results: Sequence[Result]) -> Statement:
    """Three kinds of evidence: what was enumerated, how rounding changes logits, and what samples would have detected."""
    judged = _judged(results)
    return Statement(
        exact=_exact(_of(judged, "LAW-1", "LAW-6"), _of(judged, "LAW-2")),
        logits=_logits(_of(judged, "TREE-5")),
        sampled=_sampled(_of(judged, "LAW-4"), _of(judged, "LAW-7"), _of(judged, "LAW-8")),
    )


def sampled_evidence(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """For each property that sampled: its id, the amount, and the effect that its least sensitive case would have detected."""
    rows = []
    for name in EVIDENCE["sampled"]:
        if work := _work(found := _of(_judged(results), name)):
            least = _least_sensitive(found)
            effect = f"{least.unit} of {least.value:.3f} or more" if least else found[0].sensitivity or "not stated"
            rows.append((name, f"{work} in {_several(len(found), 'case')}{_faults(found)}", effect))
    return rows


def false_alarm(results: Iterable[Result]) -> float:
    """Bound on the probability that a run calls a correct implementation a fault: the sum over its checks."""
    return error_budget(result.false_alarm for result in results)


def _exact(decoders: list[Result], rules: list[Result]) -> str:
    """Enumerated: whole decoders, and acceptance rules alone."""
    whole = [
        f"{_work(decoders)} of whole decoders, in {_several(len(decoders), 'case')}",
        f"total variation at most {_largest_effect(decoders)}",
    ]
    alone = [f"the rule alone on {_work(rules)} of tree and law", f"at most {_largest_effect(rules)} at any node"]
    parts = [", ".join(words) for words, seen in ((whole, decoders), (alone, rules)) if seen and _work(seen)]
    text = f"Enumerated: {'; '.join(parts)}{_faults([*decoders, *rules])}."
    return text if parts else "Not shown: nothing was enumerated."


def _logits(seen: list[Result]) -> str:
    """Measured on particular texts, and true of those alone."""
    if not seen or not _work(seen):
        return "Not shown: the logits were not compared."
    mean, largest = _largest_measured(seen, MEAN_DISTANCE), _largest_effect(seen)
    return (
        f"Measured: total variation of {mean} per token on average, {largest} at most, over {_work(seen)}, on these texts only."
    )


def _sampled(fits: list[Result], streams: list[Result], arms: list[Result]) -> str:
    """What would have been detected, and bounds. A rigorous bound and an asymptotic one are never mixed."""
    parts = []
    if _work(fits):
        parts.append(f"First tokens of {_work(fits)} in {_several(len(fits), 'case')}{_detectable(fits)}{_faults(fits)}.")
    if _work(streams):
        evidence = f"evidence against it at most 10^{_largest_measured(streams, LOG10_E)}"
        evidence += f" in any of {_several(len(streams), 'stream')}"
        parts.append(f"{_work(streams)}, {evidence}{_detectable(streams)}{_faults(streams)}{_bounds(streams)}.")
    if _work(arms):
        words = arms[0].sensitivity
        parts.append(f"{_work(arms)} against its own control{f'; would have detected {words}' if words else ''}{_faults(arms)}.")
    return " ".join(parts) or "Not shown: nothing was sampled."


def _detectable(results: list[Result]) -> str:
    """The effect that the least sensitive of these checks would have detected."""
    least = _least_sensitive(results)
    if least is None:
        return ""
    different = len({result.detectable.value for result in results if result.detectable}) > 1
    many = ", in the least sensitive case" if different else ""
    return f"; would have detected a {least.unit} of {least.value:.3f} or more (power 0.9){many}"


def _least_sensitive(results: list[Result]) -> Quantity | None:
    """The largest of the smallest detectable effects."""
    return max((result.detectable for result in results if result.detectable), key=lambda effect: effect.value, default=None)


def _bounds(streams: list[Result]) -> str:
    """The weakest bounds of any stream on the ranks of tokens (their probability integral transforms)."""
    rigorous = f"rigorous at {LEVEL:.1%} if ranks are independent and their number was fixed: distribution function within"
    kinds = {DKW_BOUND: rigorous, PIT_BOUND: f"asymptotic at {LEVEL:.1%}: total variation within"}
    found = [f"{words} {_largest_measured(streams, key)} of uniform" for key, words in kinds.items() if _measured(streams, key)]
    return "".join(f"; {bound}" for bound in found)


def _faults(results: list[Result]) -> str:
    """How many of the results are faults, known ones included: they contradict the line."""
    red = [result for result in results if result.verdict in ("fault", "known")]
    return f" ({len(red)} of {len(results)} are faults)" if red else ""


def _judged(results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result.verdict in JUDGED and not result.broken]


def _of(results: Iterable[Result], *properties: str) -> list[Result]:
    return [result for result in results if result.property in properties]


def _work(results: Iterable[Result]) -> str:
    """The work of all results together, or "" if none is stored."""
    found = [result.work for result in results if result.work]
    return str(Quantity(value=sum(work.value for work in found), unit=found[0].unit)) if found else ""


def _largest_effect(results: Iterable[Result]) -> str:
    return _largest([result.effect.value for result in results if result.effect])


def _largest_measured(results: Iterable[Result], key: str) -> str:
    return _largest(_measured(results, key))


def _measured(results: Iterable[Result], key: str) -> list[float]:
    found = (result.measured.get(key) for result in results)
    return [value for value in found if isinstance(value, int | float)]


def _largest(values: list[float]) -> str:
    return f"{max(values):.2g}" if values else "an unknown value"


def _several(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
