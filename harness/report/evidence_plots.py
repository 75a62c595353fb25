"""Plots of evidence: an observed law against the expected one, and the p-values of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.report.canvas import WIDTH, Drawing, new_canvas
from harness.report.plots import Axis, Series, ceiling, lines
from harness.report.text import number, token_label

HEAD, TAIL = 12, 6  # outcomes drawn: the most probable ones, and of the others those that differ most
WHISKER = 3.0  # standard errors
BAND = 0.01  # a correct decoder leaves the band of the p-values in one run of a hundred


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
    with new_canvas(middle + half, 15.0 * max(len(rows), 1)) as canvas:
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
