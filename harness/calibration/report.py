"""The report of a calibration, from its record alone: index.html, and summary.md for a pipeline."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from scipy.stats import binom

from harness.calibration.campaigns import EVIDENCE, LEVELS, LOOKS, SAMPLE, TEXTS
from harness.calibration.claims import Claim, claims
from harness.calibration.faults import FAULTS, NEVER
from harness.calibration.figures import BOUNDED, CONFIDENCE, TAIL, Calibration, Detection, Rate, Tally, quantile, uniformity
from harness.calibration.observations import LENGTH
from harness.calibration.toy_pairs import BUDGETS
from harness.report.canvas import NARROW, Drawing
from harness.report.layout import Command, Facts, Page, Paragraph, Section, write
from harness.report.plots import Axis, Dot, Series, dots, lines
from harness.report.tables import Cell, Table, columns, text_columns
from harness.report.text import date_and_time, number, plural, seconds
from harness.statistics.eprocess import FAULT
from harness.verdict import SIGNS

CAMPAIGN = LOOKS * TEXTS * LENGTH  # tokens
DECADES = 4  # of evidence and of rates that are drawn

SIMULATION = (
    f"Each campaign is {CAMPAIGN:,} tokens of EAGLE-2 decoding of a toy target whose distribution is a hash of the whole"
    f" preceding text, with the rules reject and walk and two kinds of sampling parameters in turn. Evidence is examined"
    f" after every {TEXTS * LENGTH:,} tokens."
)
DIAGNOSTICS = (
    f"Each diagnostic on {SAMPLE * LENGTH:,} tokens of a correct decoder. Diagnostics are approximations and decide nothing. The"
    " column “uniform” is the p-value of their own uniformity, by a chi-square test on twentieths."
)
DETECTION = (
    "Tokens until a verdict, median / ninth decile of the runs, and the component with the most evidence at that moment. 10⁶:"
    " tokens to evidence of a million. Black box: the verdict without a trace of blocks. Prototype: tokens to a million with the"
    " histogram alone, in other simulated targets, so that factors of three mean nothing."
)
COVERAGE = (
    "Samples of a distribution at a known distance from the tested one, every second outcome being too probable. Covered: the"
    " bound was at least the distance."
)
INTERVALS = f"Ranges are Clopper-Pearson intervals of {CONFIDENCE:.1%}. Red: the interval excludes what is allowed."


def render(record: Path, out: Path) -> list[Path]:
    """Write index.html and summary.md into `out`."""
    calibration = Calibration.read(record)
    return write(page(calibration), out, summary=summary(calibration))


def page(calibration: Calibration) -> Page:
    """All figures."""
    sections = (
        Section("Promises", (_claims_table(claims(calibration)),), id="promises"),
        Section("A correct decoder is not judged faulty", _alarms(calibration), id="alarms"),
        Section("p-values have the stated size", _p_values(calibration), id="p-values"),
        Section("A faulty decoder is detected", _detections(calibration), id="power"),
        Section("Bounds cover the truth", _coverage(calibration), id="bounds"),
        _provenance(calibration),
    )
    return _page(calibration, sections)


def summary(calibration: Calibration) -> Page:
    """The promises, the rates of false alarms and the planted faults."""
    sections = (
        Section("Promises", (_claims_table(claims(calibration)),)),
        Section("False alarms", (_short_alarms(calibration),)),
        Section("Planted faults", (_short_detections(calibration),)),
        Section("Run again", (Command(calibration.header.command),)),
    )
    return _page(calibration, sections)


def _page(calibration: Calibration, sections: tuple[Section, ...]) -> Page:
    results = claims(calibration)
    held = sum(claim.held for claim in results)
    campaigns, tokens = (sum(one[name] for one in calibration.correct.values()) for name in ("campaigns", "tokens"))
    scale = (
        f"{number(campaigns)} campaigns of correct decoders ({number(tokens)} tokens)",
        f"{plural(len(FAULTS), 'planted fault')}",
        f"{seconds(calibration.seconds)} of computing",
        date_and_time(calibration.header.started),
    )
    return Page(
        title="Calibration of the evidence",
        answer=f"{held} of {len(results)} promises of the statistics hold, tested on simulated decoders whose faults are known.",
        verdict="pass" if held == len(results) else "fault",
        show_verdict=False,
        eyebrow=calibration.header.command,
        meta=" · ".join(scale),
        sections=sections,
    )


def _claims_table(results: list[Claim]) -> Table:
    rows = []
    for claim in results:
        sign = SIGNS["pass" if claim.held else "fault"]
        rows.append((Cell("holds" if claim.held else "fails", sign.style, sign.symbol), claim.promise, claim.found))
    return Table(text_columns("", "promise", "found"), tuple(rows))


def _rate(rate: Rate, wrong: bool) -> Cell:
    low, high = rate.interval
    detail = f"{rate.count:,} of {rate.n:,}: {low:.5f} to {high:.5f}"
    return Cell(f"{rate.value:.4f}", "fault" if wrong else "", notes=(f"{low:.4f}–{high:.4f}",), tooltip=detail)


def _alarms(calibration: Calibration) -> tuple[Paragraph | Table | Drawing, ...]:
    drawings = (alarm_plot([one for one in calibration.alarms if one.vocab == vocab]) for vocab in BUDGETS)
    by_component: dict[str, list[Tally]] = {}
    for one in calibration.alarms:
        by_component.setdefault(one.name, []).append(one)
    shown = BOUNDED[:2]
    rows: list[tuple[Cell | str, ...]] = [
        (name, *(_rate(one.rate(e), one.rate(e).interval[0] > 1 / e) for one in alarms for e in shown))
        for name, alarms in by_component.items()
    ]
    rows.append(("allowed", *(f"{1 / e:g}" for _ in BUDGETS for e in shown)))
    headings = [f"V = {vocab:,}: E ≥ {e:g}" for vocab in BUDGETS for e in shown]
    caption = f"Share of the campaigns that ever reached the evidence. {INTERVALS}"
    table = Table(columns("component", *headings, left=("component",)), tuple(rows), caption=caption)
    return (*drawings, table, Paragraph(SIMULATION, "note"))


def alarm_plot(alarms: list[Tally]) -> Drawing:
    """Share of campaigns of a correct decoder that ever reached an evidence, a line for each component."""
    vocab, n = alarms[0].vocab, alarms[0].n
    nominal = {e: 1 / e for e in sorted(EVIDENCE, reverse=True) if e <= 10**DECADES}
    chance = [binom.isf(1 - CONFIDENCE, n, rate) / n for rate in nominal.values()]
    caption = (
        f"Share of {number(n)} campaigns that ever reached the evidence, a line for each component. Dashed: allowed."
        f" Grey: what chance may add ({CONFIDENCE:.1%})."
    )
    name, title = f"alarms-{vocab}", f"V = {vocab:,}: false alarms"
    return _rates_plot(name, title, alarms, nominal, "1 / evidence", ([1e-9] * len(nominal), chance), caption)


def _rates_plot(
    name: str,
    title: str,
    tallies: list[Tally],
    nominal: dict[float, float],
    label: str,
    chance: tuple[list[float], list[float]],
    caption: str,
) -> Drawing:
    """Rates against the nominal rate of each value on logarithmic axes, with a band of what chance may do."""
    horizontal, vertical = (Axis(text, "log10", start=min(nominal.values()), end=1) for text in (label, "rate"))
    series = []
    for one in tallies:
        points = [(rate, found) for value, rate in nominal.items() if (found := one.rate(value).value) > 0]
        series.append(Series(one.name, [x for x, _ in points], [y for _, y in points]))
    return lines(
        name, title, series, x=horizontal, y=vertical, band=([*nominal.values()], *chance), diagonal=True, markers=False,
        legend=False, alike=True, caption=caption, square=True, width=NARROW,
    )  # fmt: skip


def _p_values(calibration: Calibration) -> tuple[Paragraph | Table | Drawing, ...]:
    drawings = (p_value_plot([one for one in calibration.p_values if one.vocab == vocab]) for vocab in BUDGETS)
    rows: list[tuple[Cell | str, ...]] = []
    for one in sorted(calibration.p_values, key=lambda one: one.name):
        cells = (_rate(one.rate(level), one.rate(level).interval[0] > level) for level in TAIL)
        rows.append((one.name, number(one.vocab), *cells, f"{uniformity(one):.2g}"))
    headings = ("diagnostic", "V", *(f"p ≤ {level:g}" for level in TAIL), "uniform")
    table = Table(columns(*headings, left=("diagnostic",)), tuple(rows), caption=f"Share of p-values. {INTERVALS}")
    return (*drawings, table, Paragraph(DIAGNOSTICS, "note"))


def p_value_plot(p_values: list[Tally]) -> Drawing:
    """Distribution functions of the p-values of every diagnostic, on logarithmic axes, which show their tails."""
    vocab, n = p_values[0].vocab, p_values[0].n
    intervals = [Rate(round(level * n), n).interval for level in LEVELS]
    low, high = ([max(end, 1e-9) for end in ends] for ends in zip(*intervals, strict=True))
    caption = (
        f"Share of {number(n)} p-values at or below each value, a line for each of {len(p_values)} diagnostics. Dashed: uniform."
        f" Grey: what chance may do ({CONFIDENCE:.1%})."
    )
    name, title = f"p-values-{vocab}", f"V = {vocab:,}: p-values"
    return _rates_plot(name, title, p_values, dict(zip(LEVELS, LEVELS, strict=True)), "p-value", (low, high), caption)


def _detections(calibration: Calibration) -> tuple[Paragraph | Table | Drawing, ...]:
    by_fault = {(one.fault, one.vocab): one for one in calibration.detections}
    rows = []
    for fault in FAULTS:
        cells = [_detection_cell(by_fault[fault.name, v], fault.prototype, i) for i, v in enumerate(BUDGETS)]
        rows.append((Cell(fault.name, notes=(fault.description,)), *cells))
    table = Table(text_columns("fault", *(f"V = {v:,}" for v in BUDGETS)), tuple(rows), caption=DETECTION)
    return (detection_plot(calibration.detections), table)


def detection_plot(detections: list[Detection]) -> Drawing:
    """Tokens to a verdict, a row for each fault, a dot for each vocabulary size."""
    most = max(one.spent for one in detections)
    rows: dict[str, list[Dot]] = {}
    for one in detections:
        dot = Dot(f"V = {one.vocab:,}", quantile(one.verdict, 0.5), quantile(one.verdict, 0.9))
        rows.setdefault(one.fault, []).append(dot)
    order = {f"V = {vocab:,}": i for i, vocab in enumerate(BUDGETS)}
    rows = {fault: sorted(row, key=lambda dot: order[dot.series]) for fault, row in rows.items()}
    caption = (
        "The dot is the median over runs, its line reaches to the ninth decile. A ring: most runs reached no verdict in"
        f" {number(most)} tokens."
    )
    axis = Axis("tokens", "log10", start=LENGTH, end=most)
    return dots("detections", "Tokens until a fault is detected", rows, axis, caption=caption, beyond="never")


def _detection_cell(one: Detection, prototype: tuple[float, ...] | None, place: int) -> Cell:
    earlier = "–" if prototype is None else "never" if prototype[place] == NEVER else number(int(prototype[place]))
    notes = (f"10⁶: {spread(one.traced[0])}", f"black box: {spread(one.black_box[-1])}", f"prototype: {earlier}")
    return Cell(" ".join(part for part in (spread(one.verdict), _first(one)) if part), notes=notes)


def _first(one: Detection) -> str:
    """The component that had the most evidence, if most runs reached a verdict."""
    return one.first if isfinite(quantile(one.verdict, 0.5)) else ""


def spread(tokens: tuple[float, ...]) -> str:
    """Median and ninth decile; 'never' for what was not reached."""
    shares = [quantile(tokens, share) for share in (0.5, 0.9)]
    return " / ".join(number(int(x)) if isfinite(x) else "never" for x in shares) if isfinite(shares[0]) else "never"


def _coverage(calibration: Calibration) -> tuple[Paragraph | Table | Drawing, ...]:
    rows = [
        (
            case["bound"],
            number(case["size"]) if case["size"] > 1 else "",
            number(case["n"]),
            f"{case['deviation']:g}",
            _rate(rate, rate.interval[1] < case["level"]),
            f"{case['level']}",
        )
        for case, rate in calibration.coverage
    ]
    headings = ("bound", "outcomes", "samples", "distance", "covered", "level")
    covered = Table(columns(*headings, left=("bound",)), tuple(rows), caption=f"{COVERAGE} {INTERVALS}")
    promised = [
        (number(case["n"]), f"{case['deviation']:.4f}", _rate(rate, rate.interval[1] < case["power"]), f"{case['power']}")
        for case, rate in calibration.guarantees
    ]
    power = Table(columns("tokens", "smallest detectable deviation", "detected", "promised"), tuple(promised))
    return (covered, power)


def _provenance(calibration: Calibration) -> Section:
    header = calibration.header
    record = f"calibration.jsonl, {plural(header.shards, 'shard')}; the seed of a shard is its fields"
    facts = (("record", record), *header.versions.items(), ("SHA-256 of the code", header.code))
    return Section("Provenance", (Command(header.command), Facts(facts)), id="provenance")


def _short_alarms(calibration: Calibration) -> Table:
    rows = [(number(a.vocab), a.name, *(f"{a.rate(e).value:.4f}" for e in BOUNDED)) for a in calibration.alarms]
    headings = ("V", "component", *(f"E ≥ {e:,.0f}" for e in BOUNDED))
    caption = f"Share of campaigns of a correct decoder, {CAMPAIGN:,} tokens each, that ever reached the evidence."
    return Table(columns(*headings, left=("component",)), tuple(rows), caption=caption)


def _short_detections(calibration: Calibration) -> Table:
    by_fault = {(one.fault, one.vocab): one for one in calibration.detections}
    rows = [(fault.name, *(_in_short(by_fault[fault.name, v]) for v in BUDGETS)) for fault in FAULTS]
    most = max(one.spent for one in calibration.detections)
    caption = (
        "Tokens until a verdict, median / ninth decile of the runs, and the component with the most evidence; in brackets tokens"
        f" to evidence of 10⁶. Never: not within {number(most)} tokens. A verdict needs evidence of {FAULT:.0e}."
    )
    return Table(text_columns("fault", *(f"V = {v:,}" for v in BUDGETS)), tuple(rows), caption=caption)


def _in_short(one: Detection) -> str:
    return " ".join(part for part in (spread(one.verdict), _first(one), f"({spread(one.traced[0])})") if part)
