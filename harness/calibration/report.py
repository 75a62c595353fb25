"""What a calibration showed, drawn from its record alone: index.html for a reader, summary.md for a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from harness.calibration.campaigns import LOOKS, SAMPLE, TEXTS
from harness.calibration.drawings import alarms, detections, p_values
from harness.calibration.faults import FAULTS, NEVER
from harness.calibration.figures import BOUNDED, TAIL, Calibration, Detection, quantile
from harness.calibration.observe import LENGTH
from harness.calibration.worlds import BUDGETS
from harness.files import write_atomic
from harness.report.page import templates
from harness.report.words import number
from harness.statistics.eprocess import FAULT

CAMPAIGN = LOOKS * TEXTS * LENGTH
SAMPLED = SAMPLE * LENGTH


def render(record: Path, out: Path) -> list[Path]:
    """Write index.html and summary.md into `out`."""
    calibration = Calibration.read(record)
    return [write_atomic(out / "index.html", page(calibration)), write_atomic(out / "summary.md", summary(calibration))]


@dataclass(frozen=True)
class Claim:
    """Something that was promised, what was found, and whether the two agree."""

    promised: str
    found: str
    held: bool


def claims(calibration: Calibration) -> list[Claim]:
    """All that is promised."""
    return [
        *(false_alarms(calibration, evidence) for evidence in BOUNDED),
        support(calibration),
        tails(calibration),
        bounds(calibration),
        sight(calibration),
        power(calibration),
    ]


def false_alarms(calibration: Calibration, evidence: float) -> Claim:
    worst = max(calibration.alarms, key=lambda one: one.rate(evidence).value)
    rate = worst.rate(evidence)
    found = f"at most {rate.count:,} of {rate.n:,} campaigns ({rate.value:.2%}, by {worst.component} at V = {worst.vocab:,})"
    promised = (
        f"A correct decoder reaches evidence of {evidence:,.0f} in at most one campaign in {evidence:,.0f}, by any component."
    )
    if evidence == FAULT:
        return Claim(
            f"A correct decoder is never convicted (E ≥ {FAULT:.0e}).", found if rate.count else "none was", not rate.count
        )
    return Claim(promised, found if rate.count else "none did", rate.interval[0] <= 1 / evidence)


def support(calibration: Calibration) -> Claim:
    seen = sum(one["impossible"] for one in calibration.correct.values())
    return Claim(
        "A correct decoder emits no token that the target gives probability zero.", f"{seen:,}" if seen else "none was", not seen
    )


def tails(calibration: Calibration) -> Claim:
    """Too many small ones, beyond chance; too few make a test blunt, not wrong."""
    judged = [(one, level) for one in calibration.p_values for level in TAIL]
    wrong = [f"{one.test} at {level:g} (V = {one.vocab:,})" for one, level in judged if one.rate(level).interval[0] > level]
    found = f"{len(judged) - len(wrong)} of {len(judged)} rates agree" + (f"; not: {', '.join(wrong)}" if wrong else "")
    return Claim("p-values of correct decoders are as small as they say, down to 1e-4.", found, not wrong)


def bounds(calibration: Calibration) -> Claim:
    """An asymptotic bound may fall short of its level; that it does is told."""
    short = [(case["bound"], rate.value) for case, rate in calibration.coverage if rate.interval[1] < case["level"]]
    lowest = min(rate.value for _, rate in calibration.coverage)
    level = max(case["level"] for case, _ in calibration.coverage)
    cases = len(calibration.coverage)
    found = f"{cases - len(short)} of {cases} cases; lowest coverage {lowest:.3f}, asked {level}"
    told = "".join(f"; {name} falls short: {value:.3f}" for name, value in short)
    held = all(name == "inversion" for name, _ in short)
    return Claim("Bounds cover the truth at their level; asymptotic ones in the limit.", found + told, held)


def sight(calibration: Calibration) -> Claim:
    found = ", ".join(f"{rate.value:.3f} at {case['n']:,} tokens" for case, rate in calibration.promises)
    held = all(rate.interval[1] >= case["power"] for case, rate in calibration.promises)
    return Claim("A deviation that a pass says it would have seen is convicted nine times in ten.", found, held)


def power(calibration: Calibration) -> Claim:
    found = {fault: [one for one in calibration.detections if one.fault == fault] for fault in (fault.name for fault in FAULTS)}
    seen = [name for name, runs in found.items() if all(isfinite(quantile(one.verdict, 0.5)) for one in runs)]
    promised = "At least 15 planted faults come to a verdict in most runs, at each vocabulary."
    return Claim(
        promised, f"{len(seen)} of {len(found)}; not everywhere: {', '.join(sorted(set(found) - set(seen)))}", len(seen) >= 15
    )


def page(calibration: Calibration) -> str:
    """index.html: no scripts, nothing fetched."""
    return (
        templates()
        .get_template("calibration.html")
        .render(
            calibration=calibration,
            claims=claims(calibration),
            alarms=[alarms([one for one in calibration.alarms if one.vocab == v]) for v in BUDGETS],
            p_values=[p_values([one for one in calibration.p_values if one.vocab == v]) for v in BUDGETS],
            detections=detections(calibration.detections),
            rows=rows(calibration),
            vocabularies=list(BUDGETS),
            bounded=BOUNDED[:2],
            tail=TAIL,
            campaign=CAMPAIGN,
            look=TEXTS * LENGTH,
            sampled=SAMPLED,
        )
    )


@dataclass(frozen=True)
class Cell:
    """A fault at one vocabulary, in words."""

    verdict: str
    first: str
    sooner: str
    black_box: str
    prototype: str


def rows(calibration: Calibration) -> list[tuple[str, str, list[Cell]]]:
    """A row a fault: name, what it is, a cell a vocabulary."""
    found = {(one.fault, one.vocab): one for one in calibration.detections}
    return [
        (
            fault.name,
            fault.told,
            [cell(found[fault.name, v], fault.prototype and fault.prototype[i]) for i, v in enumerate(BUDGETS)],
        )
        for fault in FAULTS
    ]


def cell(one: Detection, prototype: float | None) -> Cell:
    """Median and nine in ten; a run that did not get there has no number."""
    return Cell(
        spread(one.verdict),
        one.first if isfinite(quantile(one.verdict, 0.5)) else "",
        spread(one.traced[0]),
        spread(one.black_box[-1]),
        "–" if prototype is None else "never" if prototype == NEVER else number(int(prototype)),
    )


def spread(tokens: tuple[float, ...]) -> str:
    shares = [quantile(tokens, share) for share in (0.5, 0.9)]
    return " / ".join(number(int(x)) if isfinite(x) else "never" for x in shares) if isfinite(shares[0]) else "never"


def summary(calibration: Calibration) -> str:
    """Markdown: the promises, the faults, the rates."""
    kept = claims(calibration)
    counted = [sum(one[name] for one in calibration.correct.values()) for name in ("campaigns", "tokens")]
    return "\n".join(
        [
            "## Calibration of the evidence",
            "",
            f"{counted[0]:,} campaigns of correct decoders ({counted[1]:,} tokens), {len(FAULTS)} planted faults;"
            f" {calibration.seconds:,.0f} s of computing, by `{calibration.header['command']}`.",
            "",
            *table(["", "promised", "found"], [["✓" if c.held else "✗", c.promised, c.found] for c in kept]),
            "",
            f"A correct decoder, {CAMPAIGN:,} tokens a campaign: rate at which E ever reached",
            "",
            *table(["V", "component", *(f"{e:,.0f}" for e in BOUNDED)], alarm_rows(calibration)),
            "",
            "Tokens to a verdict, median / nine runs of ten, and the component that saw most; in brackets those to E = 1e6."
            f" Never: not in {max(one.spent for one in calibration.detections):,} tokens",
            "",
            *table(
                ["fault", *(f"V = {v:,}" for v in BUDGETS)],
                [[name, *map(in_short, cells)] for name, _, cells in rows(calibration)],
            ),
            "",
        ]
    )


def alarm_rows(calibration: Calibration) -> list[list[str]]:
    return [[f"{a.vocab:,}", a.component, *(f"{a.rate(e).value:.4f}" for e in BOUNDED)] for a in calibration.alarms]


def in_short(cell: Cell) -> str:
    return " ".join(part for part in (cell.verdict, cell.first, f"({cell.sooner})") if part)


def table(head: list[str], body: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
