"""Plots as SVG, drawn by matplotlib: one function for each kind of plot, the same for a page and for a file next to it.

    drawing = lines(
        "passes", "Latency of a pass", [Series("target", x=(1, 8, 64), y=(7, 7.2, 9), low=(6, 7, 8), high=(8, 8, 10))],
        x=Axis("rows", scale="log2"), y=Axis("ms"), caption="Medians of 200 passes.",
    )
    drawing.standalone()    # the text of a file `passes.svg`; for a page, put `drawing` into a `layout.Section`

Colours are roles (`COLOURS`) that a page defines, so that a plot follows light and dark mode. The same input gives the same
bytes: no identifiers, no dates, fixed metrics of text. matplotlib is imported in `_canvas` only; it takes half a second.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from xml.etree import ElementTree

from harness.report.text import number, printable, token_label
from harness.verdict import SIGNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = ("#f08a7f", "#e6bb66", "#b9a9e0", "#d9a08c", "#8fbde8", "#7cc6a0", "#9aa4a9")
"""Colours of the verdicts in dark mode, in their order."""

COLOURS = {
    "ink": ("#20262a", "#e5e2da"),
    "muted": ("#5c676e", "#9aa4a9"),
    "line": ("#d9d4c9", "#3a4348"),
    "paper": ("#ffffff", "#1c2124"),
    **{sign.style: (f"#{sign.colour}", dark) for sign, dark in zip(SIGNS.values(), DARK, strict=True)},
}
"""Roles and their colours in light and in dark mode. Pages define a CSS variable for each; every verdict is a role."""

Align = Literal["left", "center", "right"]

PALETTE = ("tie", "open", "pass", "blocked", "known", "na")
"""Roles of series, in order."""

FONT = 'ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif'
FONT_SIZE = 8.25  # points: 11 px
WIDE, WIDTH, NARROW = 680.0, 440.0, 320.0  # px, of a plot as wide as the page, half as wide, a third as wide
ROW = 18.0  # px, of one row of a plot with a row for each thing
DOT = 4.5  # points, diameter of a dot

HEAD, TAIL = 12, 6  # outcomes drawn: the most probable ones, and of the others those that differ most
BINS = 32
WHISKER = 3.0  # standard errors
BAND = 0.01  # a correct decoder leaves the band of the p-values in one run of a hundred


@dataclass(frozen=True)
class Drawing:
    """An SVG picture.

    Args:
        name: file name without its suffix.
        title: what it shows; the accessible name, too.
        caption: how to read it, in one or two sentences.
        svg: the SVG element for a page, with every colour as a CSS variable and its light value as the fallback.
        size: a third of the width of a page, half of it, or all of it.
    """

    block: ClassVar[str] = "drawing"

    name: str
    title: str
    caption: str
    svg: str
    size: Literal["third", "half", "full"] = "half"

    def standalone(self) -> str:
        """The text of an SVG file, with its own font and its own dark mode."""
        dark = ";".join(f"--{role}:{colours[1]}" for role, colours in COLOURS.items())
        style = (
            f"<style>text{{font-family:{escape(FONT, quote=False)}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
        )
        head, body = self.svg.split(">", 1)
        return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{body}\n'


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


# --- plots of any numbers ------------------------------------------------------------------------------------------


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
    with _canvas(side, height - 40) as canvas:
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
    with _canvas(WIDE - left, ROW * len(rows) + 4) as canvas:
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
    with _canvas(WIDE - 250, 34 * len(rows) + 26) as canvas:
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
    with _canvas(WIDE - left - (60 if beyond or notes else 20), height) as canvas:
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
    with _canvas(WIDE - 170, 24 * len(rows)) as canvas:
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
    with _canvas(slot * max(len(bins), 1), 112) as canvas:
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


# --- plots of evidence ---------------------------------------------------------------------------------------------


def law(name: str, title: str, outcomes: Sequence[str], expected: Sequence[float], observed: Sequence[float], n: int) -> Drawing:
    """Observed against expected probability of each outcome; on the right the difference, on its own scale.

    Args:
        outcomes: labels, most probable first. Outcomes whose probability is not finite are left out.
        n: number of samples of `observed`; 0 if it is exact.
    """
    rows = drawn_outcomes(outcomes, expected, observed)
    errors = [WHISKER * math.sqrt(max(e * (1 - e), 0) / n) if n else 0.0 for _, e, _ in rows]
    highest = ceiling([max(e, o) for _, e, o in rows])
    farthest = ceiling([abs(o - e) + error for (_, e, o), error in zip(rows, errors, strict=True)])
    wide, middle, half = 180.0, 278.0, 62.0
    with _canvas(middle + half, 15.0 * max(len(rows), 1)) as canvas:
        canvas.rows(max(len(rows), 1))
        canvas.axes.set_xlim(0, middle + half)
        axis = [((x, -0.5), (x, len(rows) - 0.5)) for x in (0, middle)]
        canvas.segments(axis, color=canvas("line"), lw=1)
        canvas.text(0, -1.0, "0", "left", role="muted")
        ticks = {wide: number(highest), middle - half: f"−{number(farthest)}", middle: "0", middle + half: number(farthest)}
        for x, label in ticks.items():
            canvas.text(x, -1.0, label, "center", role="muted")
        canvas.text(0, -2.0, "probability", "left", role="muted")
        canvas.text(middle, -2.0, "difference", "center", role="muted")
        for y, (label, _, _) in enumerate(rows):
            canvas.text(-6, y, label, "right", role="ink")
        lengths = [wide * e / highest for _, e, _ in rows]
        canvas.axes.barh(range(len(rows)), lengths, 0.6, color=canvas("tie"), alpha=0.25, lw=0, clip_on=False)
        places = [(middle + half * (o - e) / farthest, half * w / farthest) for (_, e, o), w in zip(rows, errors, strict=True)]
        whiskers = [((x - w, y), (x + w, y)) for y, (x, w) in enumerate(places) if w]
        canvas.segments(whiskers, color=canvas("muted"), lw=1)
        canvas.marks([(wide * o / highest, y) for y, (_, _, o) in enumerate(rows)], canvas("tie"), size=3.6)
        canvas.marks([(x, y) for y, (x, _) in enumerate(places)], canvas("tie"), size=3.6)
        return canvas.drawing(name, title, law_caption(n, len(rows), len(outcomes)))


def law_caption(n: int, drawn: int, total: int) -> str:
    """How to read a plot of a law."""
    dots_ = f"observed in {number(n)} samples" if n else "computed by exact enumeration"
    scale = f", with whiskers of ±{WHISKER:g} standard errors" if n else "; note its scale"
    part = f" {drawn} of {number(total)} outcomes are drawn: the most probable, and of the others those that differ most."
    part = part if drawn < total else ""
    return f"Bars: probability under the target. Dots: probability {dots_}. Right: the difference{scale}.{part}"


def drawn_outcomes(
    outcomes: Sequence[str], expected: Sequence[float], observed: Sequence[float]
) -> list[tuple[str, float, float]]:
    """Label, expected and observed probability of the outcomes that `law` draws, in the given order."""
    rows = [
        (token_label(label, 18), e, o)
        for label, e, o in zip(outcomes, expected, observed, strict=False)
        if math.isfinite(e) and math.isfinite(o)
    ]
    tail = sorted(range(HEAD, len(rows)), key=lambda i: -abs(rows[i][1] - rows[i][2]))[:TAIL]
    return [rows[i] for i in (*range(min(HEAD, len(rows))), *sorted(tail))]


def p_values(name: str, title: str, values: Sequence[float], diagnostics: int = 0) -> Drawing:
    """Distribution function of p-values, against that of a uniform variable.

    The band is that of Dvoretzky, Kiefer and Wolfowitz with Massart's constant: half width sqrt(log(2 / BAND) / 2n). It
    assumes independent p-values; the `diagnostics` among them share samples, which the caption says.
    """
    ordered = sorted(values)
    n = len(ordered)
    half = math.sqrt(math.log(2 / BAND) / (2 * n))
    xs = (0.0, max(1 - half, 0.0), min(half, 1.0), 1.0)
    grid = sorted({*xs, *(i / 20 for i in range(21))})
    band = (grid, [max(x - half, 0) for x in grid], [min(x + half, 1) for x in grid])
    steps = [(0.0, 0.0), *((p, (i + rise) / n) for i, p in enumerate(ordered) for rise in (0, 1)), (1.0, 1.0)]
    stairs = Series("p-values", [x for x, _ in steps], [y for _, y in steps])
    caption = (
        f"Share of the {number(n)} p-values at or below each value. For a correct decoder the steps stay near the diagonal,"
        f" inside the {1 - BAND:.0%} band; steps above the band at the left mean too many small p-values. The smallest is"
        f" {number(ordered[0])}."
    )
    if diagnostics:
        caption += (
            f" {number(diagnostics)} of them are diagnostics; several of these share samples, so they may deviate together."
        )
    axis = Axis("p-value", ticks=(0, 0.5, 1), start=0, end=1)
    share = Axis("share", ticks=(0, 0.5, 1), start=0, end=1)
    return lines(
        name, title, [stairs], x=axis, y=share, caption=caption, band=band, diagonal=True, markers=False, legend=False,
        square=True, width=WIDTH,
    )  # fmt: skip


# --- the canvas ----------------------------------------------------------------------------------------------------


class Canvas:
    """Axes of a fixed size in px, to which text may be added on all sides: the picture grows to hold all of it."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes

    def __call__(self, role: str) -> str:
        """The placeholder colour of a role."""
        return COLOURS[role][0]

    def rows(self, many: float) -> None:
        """Make y the number of a row, from 0 at the top."""
        self.axes.set_ylim(many - 0.5, -0.5)
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, align: Align, role: str, gap: float = 0, down: float = 0) -> None:
        """Text at a point, moved away from it by `gap` and down by `down` px. `role` is a role or a colour."""
        shift = {"left": gap, "center": 0, "right": -gap}[align] * 0.75, -down * 0.75
        self.axes.annotate(
            _label(text), (x, y), xytext=shift, textcoords="offset points", annotation_clip=False, ha=align, va="center_baseline",
            color=COLOURS[role][0] if role in COLOURS else role, parse_math=False,  # a record's text may hold dollar signs
        )  # fmt: skip

    def dashed(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A dashed line, for what is compared with."""
        self.axes.plot(*zip(start, end, strict=True), color=self("muted"), lw=1, ls=(0, (3, 4)), clip_on=False)

    def segments(self, pairs: Iterable[tuple[tuple[float, float], tuple[float, float]]], **style: Any) -> None:
        """Straight lines, all in one path."""
        xs, ys = [], []
        for (x0, y0), (x1, y1) in pairs:
            xs += [x0, x1, math.nan]
            ys += [y0, y1, math.nan]
        if xs:
            self.axes.plot(xs, ys, clip_on=False, solid_capstyle="butt", **style)

    def marks(self, points: Sequence[tuple[float, float]], colour: str, size: float = DOT, hollow: bool = False) -> None:
        """Dots: lines of no length with round ends, all in one path."""
        for width, fill in ((size, colour), (size - 2.4, self("paper")))[: 1 + hollow]:
            xs = [v for x, _ in points for v in (x, x, math.nan)]
            ys = [v for _, y in points for v in (y, y, math.nan)]
            if xs:
                self.axes.plot(xs, ys, color=fill, lw=width, solid_capstyle="round", clip_on=False)

    def drawing(self, name: str, title: str, caption: str, width: float = WIDTH) -> Drawing:
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", pad_inches=2 / 72, metadata=nothing)
        svg = _clean(file.getvalue(), printable(title, 200))
        return Drawing(name, title, caption, svg, "full" if width >= WIDE else "half" if width >= WIDTH else "third")


@contextmanager
def _canvas(width: float, height: float) -> Iterator[Canvas]:
    """A canvas whose axes have this size in px. The settings of the user's matplotlib have no effect."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "eagle2",
        "path.simplify": False,
        "font.family": ["DejaVu Sans"],
        "font.size": FONT_SIZE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": COLOURS["line"][0],
        "axes.labelcolor": COLOURS["muted"][0],
        "xtick.labelcolor": COLOURS["muted"][0],
        "ytick.labelcolor": COLOURS["muted"][0],
        "axes.unicode_minus": True,
        "lines.scale_dashes": False,
    }
    keep = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(("backend", "interactive"))}
    with matplotlib.rc_context({**keep, **settings}):
        figure = Figure(figsize=(width / 96, height / 96), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.tick_params(length=0, which="both", labelsize=FONT_SIZE, pad=6)
        yield Canvas(figure, axes)


def _clean(svg: str, title: str) -> str:
    """The shapes and texts of matplotlib's output in one small SVG element: no groups, no identifiers, colours as roles."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by matplotlib a moment ago
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    label = escape(title)
    shapes = [f"<title>{label}</title>"]
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        style = _style(element.get("style", ""))
        if tag == "path" and style != "fill:none":  # that is an invisible background
            data = " ".join(element.attrib["d"].split())
            shapes.append(f'<path d="{NUMBER.sub(_rounded, data)}" style="{style}"/>')
        elif tag == "text":
            x, y = (_rounded(float(element.attrib[name])) for name in "xy")
            shapes.append(f'<text x="{x}" y="{y}" style="{style}">{escape(element.text or "")}</text>')
    body = "".join(shapes)
    size = f'viewBox="0 0 {width:.1f} {height:.1f}" width="{width * 96 / 72:.0f}" height="{height * 96 / 72:.0f}"'
    attributes = f'{size} role="img" aria-label="{label}" font-size="{FONT_SIZE}" stroke-linejoin="round"'
    return f"<svg {attributes}>{body}</svg>"


NUMBER = re.compile(r"-?\d+\.\d+")


def _rounded(value: float | re.Match[str]) -> str:
    return f"{float(value if isinstance(value, float) else value[0]):.1f}".removesuffix(".0")


def _style(style: str) -> str:
    """A style of matplotlib without what is the same everywhere, its colours as CSS variables."""
    pairs = [(name.strip(), value.strip()) for name, _, value in (part.partition(":") for part in style.split(";")) if value]
    same = {"font-size", "font-family", "font", "stroke-linejoin", "stroke-linecap: butt"}
    roles = {light: f"var(--{role},{light})" for role, (light, _) in COLOURS.items()}
    wanted = ((name, value) for name, value in pairs if name not in same and f"{name}: {value}" not in same)
    return ";".join(f"{name}:{roles.get(value, value)}" for name, value in wanted)


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
    axes.set_xlabel(_label(x.label), parse_math=False)
    axes.text(0, 1.04, _label(y.label), transform=axes.transAxes, ha="left", color=COLOURS["muted"][0], parse_math=False)


def ceiling(values: Iterable[float]) -> float:
    """The end of an axis: the largest value, rounded up to 1, 2, 3, 5 or 8 times a power of ten."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return float(next(f"{f * power:.6g}" for f in (1, 2, 3, 5, 8, 10, 20) if f * power >= largest * (1 - 1e-9)))


def _label(text: str) -> str:
    """One line that fits a plot."""
    return printable(text, 120).replace("\n", " ")


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
