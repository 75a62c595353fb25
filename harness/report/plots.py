"""Plots as SVG, drawn by matplotlib: one function for each kind of plot, the same for a page and for a file next to it.

    drawing = lines(
        "passes", "Latency of a pass", [Series("target", x=(1, 8, 64), y=(7, 7.2, 9), low=(6, 7, 8), high=(8, 8, 10))],
        x=Axis("rows", scale="log2"), y=Axis("ms"), caption="Medians of 200 passes.",
    )
    drawing.standalone()    # the text of a file `passes.svg`; for a page, put `drawing` into a `layout.Section`

See canvas.py for colours and reproducible bytes, and evidence_plots.py for the plots of laws and p-values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Literal

from harness.report.canvas import COLOURS, WIDE, WIDTH, Canvas, Drawing, new_canvas, one_line
from harness.report.text import number, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = ("tie", "open", "pass", "blocked", "known", "na")
"""Roles of series, in order."""

ROW = 18.0  # px, of one row of a plot with a row for each thing
BINS = 32


@dataclass(frozen=True)
class Series:
    """A curve: y over x, with the ends of an interval for each point, if there are any."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """An axis. ticks: values that are labelled; chosen from the data if empty. end: last value; chosen from the data if None."""

    label: str
    scale: Literal["linear", "log2", "log10"] = "linear"
    ticks: Sequence[float] = ()
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Bar:
    """A bar in each panel of `bars`: a value, and the ends of its interval or None."""

    label: str
    values: Sequence[float]
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Dot:
    """A dot in a row of `dots`: which series it belongs to, its value, the end of a whisker that starts there."""

    series: str
    value: float
    end: float | None = None


def lines(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    caption: str = "",
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None,
    diagonal: bool = False,
    level: float | None = None,
    at: float | None = None,
    markers: bool = True,
    connected: bool = True,
    legend: bool = True,
    alike: bool = False,
    square: bool = False,
    width: float = WIDE,
) -> Drawing:
    """Curves with intervals.

    Args:
        series: the curves; each is named at its right end.
        band: x, low and high of a grey band, such as what chance allows.
        diagonal: dash the line y = x.
        level: dash a horizontal line here.
        at: dash a vertical line here.
        markers: draw a dot at each point.
        connected: join the points of a curve.
        legend: name the curves.
        alike: one colour and a thin line for all curves, where there are many.
        square: both axes of the same length.
        width: of the whole picture, px.
    """
    height = 268.0
    side = height - 40 if square else width - (190 if legend else 60)
    with new_canvas(side, height - 40) as canvas:
        axes = canvas.axes
        _scale(axes, x, y, series)
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        if band:
            xs, low, high = band
            edge = [*zip(xs, high, strict=True), *reversed([*zip(xs, low, strict=True)])]
            polygon = [(min(max(a, x0), x1), min(max(b, y0), y1)) for a, b in edge]
            axes.fill(*zip(*polygon, strict=True), color=canvas("na"), alpha=0.16, lw=0, clip_on=False)
        if diagonal:
            canvas.dashed((max(x0, y0), max(x0, y0)), (min(x1, y1), min(x1, y1)))
        if level is not None:
            canvas.dashed((x0, level), (x1, level))
        if at is not None:
            canvas.dashed((at, y0), (at, y1))
        for one, colour in zip(series, repeat(canvas("tie")) if alike else _cycle(canvas), strict=False):
            points = [(a, b) for a, b in zip(one.x, one.y, strict=True) if x0 <= a <= x1 and y0 <= b <= y1]
            whiskers = zip(one.x, one.low, one.high, strict=True) if one.low else ()
            canvas.segments([((a, max(lo, y0)), (a, min(hi, y1))) for a, lo, hi in whiskers], color=canvas("muted"), lw=1)
            if connected and points:
                axes.plot(*zip(*points, strict=True), color=colour, lw=0.8 if alike else 1.4, clip_on=False)
            if markers:
                canvas.marks(points, colour)
        if legend:
            _name_curves(canvas, series, y1)
        return canvas.drawing(name, title, caption, width)


def bars(
    name: str,
    title: str,
    groups: Mapping[str, Sequence[Bar]],
    panels: Sequence[str],
    *,
    caption: str = "",
    references: Sequence[float | None] = (),
    quoted: bool = False,
) -> Drawing:
    """Horizontal bars with intervals: a row for each bar under the heading of its group, a panel for each of its values.

    Args:
        panels: the label of each panel; each has its own axis, from 0.
        references: where a panel has a dashed line, or None.
        quoted: grey bars, for figures that others published.
    """
    rows: list[tuple[str, Bar | None]]
    rows = [row for heading, group in groups.items() for row in ((heading, None), *((bar.label, bar) for bar in group))]
    every = [bar for group in groups.values() for bar in group]
    left, gap = 150.0, 70.0
    wide = (WIDE - left - gap * len(panels)) / len(panels)
    with new_canvas(WIDE - left, ROW * len(rows) + 4) as canvas:
        axes = canvas.axes
        canvas.rows(len(rows))
        axes.set_xlim(0, WIDE - left)
        for panel, label in enumerate(panels):
            start = panel * (wide + gap)
            ends = [max(bar.values[panel], *(_interval(bar, panel) or (0, 0))) for bar in every]
            unit = wide / ceiling(ends)
            canvas.text(start, -0.9, label, "left", role="muted")
            canvas.segments([((start, -0.4), (start, len(rows) - 0.5))], color=canvas("line"), lw=1)
            if panel < len(references) and (at := references[panel]) is not None:
                canvas.dashed((start + unit * at, -0.4), (start + unit * at, len(rows) - 0.5))
            for row, (_, bar) in enumerate(rows):
                if bar is None:
                    continue
                value, ends_ = bar.values[panel], _interval(bar, panel)
                fill, alpha = (canvas("na"), 0.3) if quoted else (canvas("tie"), 0.75)
                axes.barh(row, unit * value, 0.62, left=start, color=fill, alpha=alpha, lw=0, clip_on=False)
                if ends_:
                    canvas.segments([((start + unit * ends_[0], row), (start + unit * ends_[1], row))], color=canvas("ink"), lw=1)
                canvas.text(start + unit * max(value, *(ends_ or (0, 0))) + 6, row, f"{value:.2f}", "left", role="muted")
        for row, (label, bar) in enumerate(rows):
            canvas.text(-8 if bar else -left, row, label, "right" if bar else "left", role="ink" if bar else "muted")
        return canvas.drawing(name, title, caption, WIDE)


def stacked_bars(name: str, title: str, rows: Mapping[str, Mapping[str, float]], unit: str, *, caption: str = "") -> Drawing:
    """A horizontal bar for each row, divided into its parts, with the share of each part and the total in `unit`."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    longest = ceiling([sum(row.values()) for row in rows.values()])
    with new_canvas(WIDE - 250, 34 * len(rows) + 26) as canvas:
        canvas.rows(len(rows) + 0.7)
        canvas.axes.set_xlim(0, longest)
        for y, (label, row) in enumerate(rows.items()):
            canvas.text(-longest / 60, y, label, "right", role="ink")
            start, total = 0.0, sum(row.values())
            for part, colour in zip(parts, _cycle(canvas), strict=False):
                value = max(row.get(part, 0.0), 0.0)
                canvas.axes.barh(y, value, 0.6, left=start, color=colour, alpha=0.6, lw=0, clip_on=False)
                if value > longest * 0.07:
                    canvas.text(start + value / 2, y, f"{value / total:.0%}", "center", role="ink")
                start += value
            canvas.text(start + longest / 60, y, f"{total:.2f} {unit}", "left", role="muted")
        _key(canvas, parts, len(rows) - 0.3)
        return canvas.drawing(name, title, caption, WIDE)


def dots(
    name: str,
    title: str,
    rows: Mapping[str, Sequence[Dot]],
    x: Axis,
    *,
    caption: str = "",
    notes: Sequence[str] = (),
    beyond: str = "",
    joined: bool = False,
) -> Drawing:
    """A row of dots for each thing, one dot for each series.

    Args:
        rows: label of a row, and its dots. A value that is infinite is drawn as a ring in the column `beyond`.
        notes: text at the right end of each row.
        joined: join the dots of a row; otherwise the dots of a row lie one below the other.
    """
    series = list(dict.fromkeys(dot.series for row in rows.values() for dot in row))
    rows = {label[:40]: row for label, row in rows.items()}
    left = 30.0 + 5.6 * max(map(len, rows), default=0)
    height = (ROW if joined or len(series) < 3 else 1.4 * ROW) * len(rows)
    finite = [v for row in rows.values() for dot in row for v in (dot.value, dot.end or dot.value) if math.isfinite(v)]
    with new_canvas(WIDE - left - (60 if beyond or notes else 20), height) as canvas:
        axes = canvas.axes
        _scale(axes, x, Axis(""), [Series("", finite, finite)])
        ticks = [float(tick) for tick in axes.get_xticks()]
        canvas.rows(len(rows))
        (first, last), outside = axes.get_xlim(), _beyond(axes, 0.06)
        canvas.segments([((tick, -0.5), (tick, len(rows) - 0.5)) for tick in ticks], color=canvas("line"), lw=0.8)
        for tick in ticks:
            canvas.text(tick, -0.9, _tick(tick), "center", role="muted")
        canvas.text(last, -1.9, x.label, "right", role="muted")
        if beyond:
            canvas.text(outside, -0.9, beyond, "center", role="muted")
        for y, (label, row) in enumerate(rows.items()):
            canvas.text(first, y, label, "right", role="ink", gap=10)
            if joined and len(row) > 1:
                canvas.segments([((row[0].value, y), (row[-1].value, y))], color=canvas("muted"), lw=1)
            if y < len(notes):
                canvas.text(last, y, notes[y], "left", role="muted", gap=10)
        for i, (one, colour) in enumerate(zip(series, _cycle(canvas), strict=False)):
            lane = 0.0 if joined or len(series) == 1 else 0.28 * (2 * i / (len(series) - 1) - 1)
            places = [(dot, y + lane) for y, row in enumerate(rows.values()) for dot in row if dot.series == one]
            ends = [
                (dot.value, dot.end if math.isfinite(dot.end) else outside, y)
                for dot, y in places
                if dot.end is not None and math.isfinite(dot.value)
            ]
            canvas.segments([((a, y), (b, y)) for a, b, y in ends], color=colour, lw=1.3, alpha=0.6)
            canvas.marks([(dot.value, y) for dot, y in places if math.isfinite(dot.value)], colour)
            canvas.marks([(outside, y) for dot, y in places if not math.isfinite(dot.value)], colour, hollow=True)
        if len(series) > 1:
            _key(canvas, series, len(rows) - 0.3)
        return canvas.drawing(name, title, caption, WIDE)


def heatmap(name: str, title: str, rows: Mapping[str, Mapping[str, float]], *, base: float = 0.0, caption: str = "") -> Drawing:
    """A cell for each row and column, the darker the larger its value; `base` is the value of an empty cell."""
    names = list(dict.fromkeys(column for row in rows.values() for column in row))
    highest = max((value for row in rows.values() for value in row.values()), default=1.0)
    with new_canvas(WIDE - 170, 24 * len(rows)) as canvas:
        canvas.rows(len(rows))
        canvas.axes.set_xlim(-0.5, len(names) - 0.5)
        for column, label in enumerate(names):
            canvas.text(column, -0.85, label[:14], "center", role="muted")
        for y, (label, row) in enumerate(rows.items()):
            canvas.text(-0.6, y, label, "right", role="ink")
            for column, heading in enumerate(names):
                if heading in row:
                    shade = 0.04 + 0.5 * max(row[heading] - base, 0) / max(highest - base, 1e-9)
                    canvas.axes.barh(y, 0.95, 0.9, left=column - 0.475, color=canvas("tie"), alpha=round(shade, 2), lw=0)
                    canvas.text(column, y, f"{row[heading]:.2f}", "center", role="ink")
        return canvas.drawing(name, title, caption, WIDE)


def histogram(name: str, title: str, counts: Sequence[int], xlabel: str, *, caption: str = "") -> Drawing:
    """A bar for each whole number, from 0; all counts from `BINS` on share the last bar."""
    bins, labels = list(counts[:BINS]), [str(i) for i in range(len(counts[:BINS]))]
    if rest := counts[BINS:]:
        bins, labels = [*bins, sum(rest)], [*labels, f"{BINS}+"]
    slot = min(44.0, (WIDTH - 8) / max(len(bins), 1))
    with new_canvas(slot * max(len(bins), 1), 112) as canvas:
        axes = canvas.axes
        axes.set_xlim(-0.5, max(len(bins), 1) - 0.5)
        axes.set_ylim(0, ceiling(bins))
        axes.set_axis_off()
        axes.bar(range(len(bins)), [max(n, 0) for n in bins], 0.72, color=canvas("tie"), alpha=0.8, lw=0, clip_on=False)
        canvas.segments([((-0.5, 0), (len(bins) - 0.5, 0))], color=canvas("line"), lw=1)
        up = axes.get_ylim()[1]
        for i, (label, n) in enumerate(zip(labels, bins, strict=True)):
            if slot >= 30:
                canvas.text(i, max(n, 0) + 0.06 * up, number(n), "center", role="muted")
            if slot >= 18 or i % 4 == 0:
                canvas.text(i, -0.09 * up, label, "center", role="muted")
        canvas.text(-0.5, -0.26 * up, printable(xlabel, 60), "left", role="muted")
        caption = caption or f"How often each number occurred, {number(sum(counts))} in all."
        return canvas.drawing(name, title, caption)


def _scale(axes: Axes, x: Axis, y: Axis, series: Sequence[Series]) -> None:
    """Set scales, limits, ticks and labels of both axes."""
    for axis, one, values in (
        (axes.xaxis, x, [v for s in series for v in s.x]),
        (axes.yaxis, y, [v for s in series for v in (*s.y, *s.high)]),
    ):
        finite = [v for v in values if math.isfinite(v)]
        if one.scale == "linear":
            start = 0.0 if one.start is None else one.start
            end = ceiling(finite) if one.end is None else one.end
            ticks = one.ticks or [start + (end - start) * share for share in (0, 0.5, 1)]
        else:
            start = min(finite, default=1.0) if one.start is None else one.start
            end = max(finite, default=10.0) if one.end is None else one.end
            end = end if end > start else 2 * start
            powers = [10.0**i for i in range(math.floor(math.log10(start)), math.ceil(math.log10(end)) + 1)]
            ticks = one.ticks or (sorted(set(finite)) if one.scale == "log2" else [p for p in powers if start <= p <= end])
        set_scale, set_limits = (axes.set_xscale, axes.set_xlim) if one is x else (axes.set_yscale, axes.set_ylim)
        if one.scale != "linear":
            set_scale("log", base=2 if one.scale == "log2" else 10)
        set_limits(start, end)
        axis.set_ticks(list(ticks), labels=[_tick(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set_xlabel(one_line(x.label), parse_math=False)
    axes.text(0, 1.04, one_line(y.label), transform=axes.transAxes, ha="left", color=COLOURS["muted"][0], parse_math=False)


def ceiling(values: Iterable[float]) -> float:
    """The end of an axis: the largest value, rounded up to 1, 2, 3, 5 or 8 times a power of ten."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return float(next(f"{f * power:.6g}" for f in (1, 2, 3, 5, 8, 10, 20) if f * power >= largest * (1 - 1e-9)))


def _tick(value: float) -> str:
    return number(int(value)) if value == int(value) else f"{value:g}"


def _name_curves(canvas: Canvas, series: Sequence[Series], top: float) -> None:
    """Name each curve at the right of its last point; names that would overlap are moved down."""
    axes = canvas.axes
    ends = [
        (one.x[-1], min(one.y[-1], top), one.label, colour)
        for one, colour in zip(series, _cycle(canvas), strict=False)
        if len(one.x)
    ]
    right = axes.get_xlim()[1]
    placed = math.inf
    for _, y, label, colour in sorted(ends, key=lambda end: -end[1]):
        height = min(float(axes.transData.transform((right, y))[1]), placed - 10)
        placed = height
        at = axes.transData.inverted().transform((0, height))[1]
        canvas.text(right, at, label, "left", colour, gap=10)


def _key(canvas: Canvas, names: Sequence[str], y: float) -> None:
    """The names of the series in one line at the left of y, each after a dot of its colour."""
    left, x = canvas.axes.get_xlim()[0], 0.0
    for label, colour in zip(names, _cycle(canvas), strict=False):
        canvas.text(left, y, "●", "left", colour, gap=x, down=8)
        canvas.text(left, y, label, "left", "muted", gap=x + 13, down=8)
        x += 34 + 6.4 * len(label)


def _cycle(canvas: Canvas) -> Iterator[str]:
    return cycle([canvas(role) for role in PALETTE])


def _interval(bar: Bar, panel: int) -> tuple[float, float] | None:
    return bar.intervals[panel] if panel < len(bar.intervals) else None


def _beyond(axes: Axes, share: float) -> float:
    """The x of a place to the right of the axes, in data coordinates."""
    return float(axes.transData.inverted().transform(axes.transAxes.transform((1 + share, 0)))[0])
