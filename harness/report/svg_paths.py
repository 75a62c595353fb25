"""Where the marks of a plot lie: laws, counts and p-values as SVG paths. Geometry only; colours are the stylesheet's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.record.model import CountPicture, LawPicture
from harness.report.words import number, shown, token

HEAD, TAIL = 12, 6  # outcomes drawn: the most probable, and of the rest those that differ most
BINS = 32
WHISKER = 3.0  # standard errors
BAND = 0.01  # the band of the p-values is left by one run of a correct decoder in a hundred


@dataclass(frozen=True)
class Label:
    """Text at a point; `anchor` is SVG's text-anchor."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Plot:
    """Paths by style, then text over them."""

    width: float
    height: float
    paths: tuple[tuple[str, str], ...]
    labels: tuple[Label, ...]
    reading: str


Outcome = tuple[str, float, float]  # label, expected, observed


def law(picture: LawPicture) -> Plot:
    """Left, bars for the law and dots for what was observed; right, their difference on its own scale."""
    rows = outcomes(picture)
    top, step, x1, middle = 30.0, 15.0, 262.0, 358.0
    x0 = 16 + 6.2 * max((len(name) for name, _, _ in rows), default=0)
    height = top + step * len(rows) + 6
    high = ceiling([max(e, o) for _, e, o in rows])
    errors = [WHISKER * math.sqrt(max(e * (1 - e), 0) / picture.n) if picture.n else 0.0 for _, e, _ in rows]
    far = ceiling([abs(o - e) + w for (_, e, o), w in zip(rows, errors, strict=True)])
    wide, half = x1 - x0, 62.0
    bars = dots = gaps = whiskers = ""
    labels = [Label(x0, 10, "probability", "start"), Label(middle, 10, "difference")]
    labels += [Label(x0, 23, "0", "start"), Label(x1, 23, number(high))]
    labels += [Label(middle - half, 23, f"−{number(far)}"), Label(middle, 23, "0"), Label(middle + half, 23, number(far))]
    for i, ((name, e, o), w) in enumerate(zip(rows, errors, strict=True)):
        y, d = top + step * i + step / 2, o - e
        labels.append(Label(x0 - 8, y + 3.5, name, "end"))
        bars += f"M{x0:g} {y - 4.5:g}h{wide * e / high:.1f}v9H{x0:g}z"
        dots += f"M{x0 + wide * o / high:.1f} {y:g}h0"
        gaps += f"M{middle + half * d / far:.1f} {y:g}h0"
        whiskers += f"M{middle + half * (d - w) / far:.1f} {y:g}H{middle + half * (d + w) / far:.1f}" if w else ""
    axes = f"M{x0:g} {top - 3:g}V{height:g}M{middle:g} {top - 3:g}V{height:g}"
    paths = (("grid", axes), ("bar", bars), ("whisker", whiskers), ("dot", dots), ("dot", gaps))
    return Plot(440, height, paths, tuple(labels), law_reading(picture.n, len(rows), len(picture.outcomes)))


def law_reading(n: int, drawn: int, known: int) -> str:
    seen = f"observed in {number(n)} samples" if n else "emitted, by exact enumeration"
    spread = f", whiskers ±{WHISKER:g} standard errors" if n else "; mind its scale"
    some = f" Drawn are {drawn} of {number(known)} outcomes: the most probable and, of the others, those that differ most."
    return f"Bars: the target’s law. Dots: what was {seen}. Right: dot minus bar{spread}.{some if drawn < known else ''}"


def outcomes(picture: LawPicture) -> list[Outcome]:
    """The outcomes that are drawn, in the picture's order. What is no number cannot be drawn."""
    rows = [
        (token(name, 18), e, o)
        for name, e, o in zip(picture.outcomes, picture.expected, picture.observed, strict=False)
        if math.isfinite(e) and math.isfinite(o)
    ]
    tail = sorted(range(HEAD, len(rows)), key=lambda i: -abs(rows[i][1] - rows[i][2]))[:TAIL]
    kept = [*range(min(HEAD, len(rows))), *sorted(tail)]
    return [rows[i] for i in kept]


def ceiling(values: Iterable[float]) -> float:
    """The largest value rounded up to 1, 2, 3, 5 or 8 times a power of ten, for the end of an axis."""
    largest = max(values, default=0.0)
    if not largest > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return float(next(f"{f * power:.6g}" for f in (1, 2, 3, 5, 8, 10, 20) if f * power >= largest * (1 - 1e-9)))


def count(picture: CountPicture) -> Plot:
    """A bar for each number; beyond the last bin all are counted together."""
    bins = list(picture.counts[:BINS])
    names = [str(i) for i in range(len(bins))]
    if rest := picture.counts[BINS:]:
        bins, names = [*bins, sum(rest)], [*names, f"{BINS}+"]
    slot = min(44.0, 432 / max(len(bins), 1))
    high, floor, tall = ceiling(bins), 128.0, 104.0
    bars, labels = "", [Label(4, 160, shown(picture.xlabel, 60), "start")]
    for i, (name, n) in enumerate(zip(names, bins, strict=True)):
        x, y = 4 + slot * (i + 0.5), floor - tall * max(n, 0) / high
        bars += f"M{x - slot * 0.36:.1f} {floor:g}V{y:.1f}h{slot * 0.72:.1f}V{floor:g}z"
        labels += [Label(x, y - 5, number(n))] if slot >= 30 else []
        labels += [Label(x, floor + 15, name)] if slot >= 18 or i % 4 == 0 else []
    axes = f"M2 {floor:g}H{6 + slot * len(bins):g}"
    reading = f"Height and figure: how often that number was seen, {number(sum(picture.counts))} in all."
    return Plot(440, 166, (("solid", bars), ("grid", axes)), tuple(labels), reading)


def uniform(p_values: Sequence[float], diagnostics: int = 0) -> Plot:
    """The distribution function of the p-values beside that of a uniform variable.

    The band is Dvoretzky, Kiefer and Wolfowitz's, with Massart's constant: half width sqrt(log(2 / BAND) / 2n). Of the
    p-values some may be of `diagnostics`, several on the same tokens: for these the band is too narrow, and that is said.
    """
    seen = sorted(p_values)
    x0, y1, side = 34.0, 306.0, 296.0
    half = math.sqrt(math.log(2 / BAND) / (2 * len(seen)))

    def at(p: float, share: float) -> str:
        return f"{x0 + side * p:.1f} {y1 - side * min(max(share, 0), 1):.1f}"

    upper, lower = [at(0, half), at(max(1 - half, 0), 1), at(1, 1)], [at(1, 1 - half), at(min(half, 1), 0), at(0, 0)]
    steps = [at(p, (i + rise) / len(seen)) for i, p in enumerate(seen) for rise in (0, 1)]
    stairs = "M" + "L".join([at(0, 0), *steps, at(1, 1)])
    grid = f"M{x0:g} {y1 - side:g}V{y1:g}H{x0 + side:g}"
    labels = [Label(x0 + side * t, y1 + 15, f"{t:g}") for t in (0, 0.5, 1)] + [Label(x0 + side / 2, y1 + 30, "p-value")]
    labels += [Label(x0 - 6, y1 - side * t + 4, f"{t:g}", "end") for t in (0.5, 1)]
    diagonal = f"M{at(0, 0)}L{at(1, 1)}"
    paths = (("band", f"M{'L'.join(upper + lower)}z"), ("diagonal", diagonal), ("grid", grid), ("stairs", stairs))
    reading = (
        f"The share of the {number(len(seen))} p-values that lie below each value. Those of a correct decoder keep to the"
        f" diagonal, inside the {1 - BAND:.0%} band; stairs that leave it at the upper left are too many small ones."
        f" The smallest is {number(seen[0])}."
    )
    if diagnostics:
        reading += f" Diagnostics among them: {number(diagnostics)}; several rest on the same tokens, and may lean together."
    return Plot(344, 342, paths, tuple(labels), reading)
