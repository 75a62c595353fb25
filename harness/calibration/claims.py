"""What the statistics of the checks promise, and whether the simulations agree."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from harness.calibration.faults import FAULTS
from harness.calibration.figures import BOUNDED, TAIL, Calibration, quantile
from harness.statistics.eprocess import FAULT

DETECTED_FAULTS = 15
"""So many of the planted faults must be detected in most runs, at every vocabulary size."""


@dataclass(frozen=True)
class Claim:
    """Something that was promised, what the simulations showed, and whether the two agree."""

    promise: str
    found: str
    held: bool


def claims(calibration: Calibration) -> list[Claim]:
    """All promises."""
    return [
        *(false_alarms(calibration, evidence) for evidence in BOUNDED),
        support(calibration),
        tails(calibration),
        bounds(calibration),
        stated_power(calibration),
        detection(calibration),
    ]


def false_alarms(calibration: Calibration, evidence: float) -> Claim:
    """Ville's inequality: a correct decoder reaches evidence e with probability at most 1/e."""
    worst = max(calibration.alarms, key=lambda one: one.rate(evidence).value)
    rate = worst.rate(evidence)
    found = f"at most {rate.count:,} of {rate.n:,} campaigns ({rate.value:.2%}, by {worst.name} at V = {worst.vocab:,})"
    if evidence == FAULT:
        promise = f"A correct decoder is never judged faulty (E ≥ {FAULT:.0e})."
        return Claim(promise, found if rate.count else "none was", not rate.count)
    share = f"{evidence:,.0f}"
    promise = f"A correct decoder reaches evidence of {share} in at most one campaign in {share}, by any component."
    return Claim(promise, found if rate.count else "none did", rate.interval[0] <= 1 / evidence)


def support(calibration: Calibration) -> Claim:
    """No impossible token is ever counted."""
    impossible = sum(one["impossible"] for one in calibration.correct.values())
    promise = "A correct decoder emits no token to which the target gives probability zero."
    return Claim(promise, f"{impossible:,}" if impossible else "none was", not impossible)


def tails(calibration: Calibration) -> Claim:
    """No p-value is small too often, beyond chance. One that is small too rarely only loses power."""
    judged = [(one, level) for one in calibration.p_values for level in TAIL]
    wrong = [f"{one.name} at {level:g} (V = {one.vocab:,})" for one, level in judged if one.rate(level).interval[0] > level]
    found = f"{len(judged) - len(wrong)} of {len(judged)} rates agree" + (f"; not: {', '.join(wrong)}" if wrong else "")
    return Claim("p-values of correct decoders are small no more often than stated, down to 1e-4.", found, not wrong)


def bounds(calibration: Calibration) -> Claim:
    """Rigorous bounds must cover at their level; an asymptotic one may fall short, which is reported."""
    short = [(case["bound"], rate.value) for case, rate in calibration.coverage if rate.interval[1] < case["level"]]
    lowest = min(rate.value for _, rate in calibration.coverage)
    level = max(case["level"] for case, _ in calibration.coverage)
    cases = len(calibration.coverage)
    found = f"{cases - len(short)} of {cases} cases; lowest coverage {lowest:.3f}, level {level}"
    found += "".join(f"; {name} falls short: {value:.3f}" for name, value in short)
    held = all(name == "inversion" for name, _ in short)
    return Claim("Bounds cover the truth at their level; asymptotic bounds do so in the limit.", found, held)


def stated_power(calibration: Calibration) -> Claim:
    """The smallest detectable effect of a check is detected with the stated power."""
    found = ", ".join(f"{rate.value:.3f} at {case['n']:,} tokens" for case, rate in calibration.guarantees)
    held = all(rate.interval[1] >= case["power"] for case, rate in calibration.guarantees)
    return Claim("A deviation of the stated smallest detectable size is detected nine times in ten.", found, held)


def detection(calibration: Calibration) -> Claim:
    """Most planted faults lead to a verdict."""
    by_fault = {fault.name: [one for one in calibration.detections if one.fault == fault.name] for fault in FAULTS}
    detected = [name for name, runs in by_fault.items() if all(isfinite(quantile(one.verdict, 0.5)) for one in runs)]
    promise = f"At least {DETECTED_FAULTS} planted faults are detected in most runs, at each vocabulary size."
    others = ", ".join(sorted(set(by_fault) - set(detected)))
    found = f"{len(detected)} of {len(by_fault)}" + (f"; not everywhere: {others}" if others else "")
    return Claim(promise, found, len(detected) >= DETECTED_FAULTS)
