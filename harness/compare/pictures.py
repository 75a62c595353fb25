"""The pictures of a comparison as SVG paths. Geometry only; colours are the stylesheet's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2

from harness.bench.pictures import WIDE, Frame, reliable
from harness.bench.record import Point, Reliability
from harness.compare.figures import ALL, of
from harness.compare.published import Figure, published
from harness.compare.record import Entered, Record
from harness.report.plots import Label, Plot, ceiling
from harness.report.words import number

Named = tuple[str, str, Plot]
"""Name of a file, title, picture."""

HUES = 5
TREES = {
    "dynamic": ("stairs", "EAGLE-2"),
    "deep": ("whisker", "EAGLE-2, any depth"),
    "static": ("second", "EAGLE’s tree"),
    "chain": ("third", "chain"),
}
"""Styles and names of the ways to make a tree of m tokens."""


@dataclass(frozen=True)
class Bar:
    """A method's tau and speed, each with the ends of its interval, which are None where nobody tells them."""

    name: str
    tau: float
    speed: float
    taus: tuple[float, float] | None = None
    speeds: tuple[float, float] | None = None


Group = tuple[str, Sequence[Bar]]
"""Bars under one heading."""


def pictures(record: Record) -> Iterator[Named]:
    """All that the record has the lines for."""
    settings, entered = record.header.settings, record.header.entered
    yield (
        "methods",
        "Every method with its own options",
        bars(groups(record, [one for one in entered if one.own]), "own", MEASURED),
    )
    if equal := [one for one in entered if one.equal]:
        title = f"Every method with {settings.m} draft tokens a pass"
        yield "equal", title, bars(groups(record, equal), "own", MEASURED)
    for temperature in settings.temperatures:
        if heat := kinds(record, [one for one in entered if one.own], temperature):
            yield f"kinds-{temperature:g}", f"τ by kind of prompt, at temperature {temperature:g}", heat
        if points := [one for one in record.of(Point) if one.temperature == temperature]:
            title = f"Tokens per pass by draft tokens, with one head, at temperature {temperature:g}"
            yield f"budgets-{temperature:g}", title, curves(points)
        if found := [one for one in record.of(Reliability) if one.temperature == temperature]:
            yield f"reliability-{temperature:g}", f"Confidence and acceptance, at temperature {temperature:g}", reliable(found)


MEASURED = (
    "Left: tokens per target pass. Right: times as fast as ordinary decoding with the same network, the dashed line. Measured"
    " here, on this pair and machine; whiskers are intervals of 95 % over prompts."
)
QUOTED = (
    "Left: tokens per target pass. Right: times as fast as ordinary decoding. Quoted, not measured here: other models, other"
    " machines, other prompts, the mean over all data of the source."
)


def quoted() -> Iterator[Named]:
    """Means over all data of a source, that others published: the paper's own table, and an independent measurement."""
    for name, where, model in (
        ("published-paper", "EAGLE-2, table 1", "Vicuna 13B"),
        ("published-spec-bench", "Spec-Bench, A100", "Vicuna 13B"),
    ):
        found = [one for one in published(model=model) if where in (one.source.where, one.source.name)]
        temperatures = dict.fromkeys(one.temperature for one in found)
        told = [(f"T = {t:g}", [_bar(one) for one in found if one.temperature == t]) for t in temperatures]
        yield name, f"Published: {where}, {model}", bars(told, "quoted", QUOTED)


def _bar(figure: Figure) -> Bar:
    return Bar(figure.label, figure.tau, figure.speedup)


def groups(record: Record, entered: Sequence[Entered]) -> list[Group]:
    """A heading a temperature, a bar an arm."""
    rows = {(row.arm, row.temperature): row for row in of(record) if row.prompts == ALL}
    found = list[Group]()
    for temperature in record.header.settings.temperatures:
        mine = [(one, rows[one.arm, temperature]) for one in entered if (one.arm, temperature) in rows]
        told = [
            Bar(one.title, row.tau, row.speed, (row.tau_low, row.tau_high), (row.speed_low, row.speed_high)) for one, row in mine
        ]
        found.append((f"T = {temperature:g}", told))
    return found


def bars(told: Sequence[Group], style: str, reading: str) -> Plot:
    """A row a bar: tau to the left, speed to the right, each on its own axis from 0."""
    name, left, right, wide, tall = 150.0, 160.0, 415.0, 180.0, 20.0
    every = [bar for _, group in told for bar in group]
    high = ceiling([max((bar.tau, *(bar.taus or ()))) for bar in every])
    fast = ceiling([max((bar.speed, *(bar.speeds or ()))) for bar in every])
    drawn, whiskers, axes, even, y = "", "", "", "", 24.0
    labels = [Label(left, 12, "τ", "start"), Label(right, 12, "times as fast", "start")]
    for heading, group in told:
        labels.append(Label(8, y + 12, heading, "start"))
        top, y = y, y + 18
        for bar in group:
            labels.append(Label(name, y + 12, bar.name, "end"))
            for x0, value, ends, most in ((left, bar.tau, bar.taus, high), (right, bar.speed, bar.speeds, fast)):
                drawn += f"M{x0:g} {y + 2:g}h{wide * value / most:.1f}v12h{-wide * value / most:.1f}z"
                low, far = ends or (value, value)
                whiskers += f"M{x0 + wide * low / most:.1f} {y + 8:g}H{x0 + wide * far / most:.1f}" if ends else ""
                labels.append(Label(x0 + wide * max(value, far) / most + 5, y + 12, f"{value:.2f}", "start"))
            y += tall
        axes += "".join(f"M{x:g} {top + 16:g}V{y:g}" for x in (left, right))
        even += f"M{right + wide / fast:.1f} {top + 16:g}V{y:g}"
        y += 6
    paths = ((style, drawn), ("whisker", whiskers), ("grid", axes), ("diagonal", even))
    return Plot(WIDE, y, paths, tuple(labels), reading)


def kinds(record: Record, entered: Sequence[Entered], temperature: float) -> Plot | None:
    """A row a method, a column a kind: the darker, the more tokens a pass."""
    names = list(dict.fromkeys(prompt.kind for prompt in record.header.prompts))
    values = {(row.arm, row.prompts): row.tau for row in of(record) if row.temperature == temperature and row.prompts != ALL}
    methods = [one for one in entered if any((one.arm, kind) in values for kind in names)]
    if not methods:
        return None
    left, top, wide, tall, high = 160.0, 26.0, (WIDE - 170) / len(names), 24.0, max(values.values())
    cells, labels = dict.fromkeys(range(HUES), ""), list[Label]()
    for column, kind in enumerate(names):
        labels.append(Label(left + wide * (column + 0.5), 16, kind[:14]))
        for row, one in enumerate(methods):
            if (value := values.get((one.arm, kind))) is None:
                continue
            x, y = left + wide * column, top + tall * row
            hue = min(int(HUES * (value - 1) / max(high - 1, 1e-9)), HUES - 1)
            cells[max(hue, 0)] += f"M{x + 1:.1f} {y + 1:g}h{wide - 2:.1f}v{tall - 2:g}h{2 - wide:.1f}z"
            labels.append(Label(x + wide / 2 + 13, y + 16, f"{value:.2f}", "end"))
    labels += [Label(left - 10, top + tall * row + 16, one.title, "end") for row, one in enumerate(methods)]
    reading = "Tokens per target pass, of each method with its own options. The darker, the more; without drafts it is 1."
    drawn = tuple((f"heat{hue}", path) for hue, path in cells.items())
    return Plot(WIDE, top + tall * len(methods) + 4, drawn, tuple(labels), reading)


def curves(points: Sequence[Point]) -> Plot:
    """tau against m, on a logarithmic axis; a line a kind of tree."""
    sizes = sorted({point.m for point in points})
    frame = Frame(log2(max(sizes)) + 0.01, ceiling([point.tau for point in points]), "draft tokens, m", "τ")
    labels = frame.labels([]) + [Label(frame.x(log2(m)), frame.floor + 15, str(m)) for m in sizes]
    paths, dots, low = [("grid", frame.axes)], "", frame.top - 12
    last = {tree: [p for p in points if p.tree == tree][-1] for tree in TREES if any(p.tree == tree for p in points)}
    for tree, end in sorted(last.items(), key=lambda one: -one[1].tau):
        mine = sorted((p for p in points if p.tree == tree), key=lambda p: p.m)
        style, told = TREES[tree]
        paths.append((style, "M" + "L".join(frame.at(log2(p.m), p.tau) for p in mine)))
        dots += "".join(f"M{frame.at(log2(p.m), p.tau)}h0" for p in mine)
        low = max(float(frame.at(log2(end.m), end.tau).split()[1]), low + 14)
        labels.append(Label(frame.left + frame.wide + 8, low + 4, f"{told}: {end.tau:.2f}", "start"))
    reading = (
        f"Counts alone, on one prompt a kind, {number(max(point.passes for point in points))} passes at most. The same head"
        " drafts all of them; at temperature 0 all emit the same texts. Of EAGLE’s tree the first m nodes, layer by layer; chains"
        " are as deep as they are long; EAGLE-2’s trees are as deep as asked for, or of any depth."
    )
    return Plot(WIDE, frame.height, (*paths, ("dot", dots)), tuple(labels), reading)
