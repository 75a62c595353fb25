"""The pictures of a calibration as SVG paths. Geometry only; colours are the stylesheet's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite, log10

from scipy.stats import binom

from harness.calibration.campaigns import EVIDENCE, LEVELS
from harness.calibration.figures import CONFIDENCE, Alarms, Detection, PValues, Rate, quantile
from harness.calibration.observe import LENGTH
from harness.calibration.worlds import BUDGETS
from harness.report.plots import Label, Plot
from harness.report.words import number

SIDE = 250.0
DECADES = 4
"""Of evidence and of rates that are drawn."""

Place = Callable[[float, float], str]


def square(low: float, high: float, ticks: Sequence[tuple[float, str]], xlabel: str) -> tuple[Place, str, list[Label]]:
    """A square with the same logarithmic range on both sides: where a point lies, its frame, its labels."""
    x0, y1 = 46.0, 8.0 + SIDE

    def at(x: float, y: float) -> str:
        across, up = ((min(max(v, low), high) - low) / (high - low) for v in (x, y))
        return f"{x0 + SIDE * across:.1f} {y1 - SIDE * up:.1f}"

    labels = [Label(x0 + SIDE / 2, y1 + 32, xlabel)]
    labels += [Label(x0 + SIDE * (v - low) / (high - low), y1 + 15, text) for v, text in ticks]
    labels += [Label(x0 - 5, y1 - SIDE * (v - low) / (high - low) + 4, text, "end") for v, text in ticks]
    return at, f"M{x0:g} 8V{y1:g}H{x0 + SIDE:g}", labels


def alarms(shown: list[Alarms]) -> Plot:
    """How many campaigns of a correct decoder ever reached an evidence, by component; the dashed line is what Ville allows."""
    ticks = [(-float(i), f"{10.0**-i:g}") for i in range(DECADES + 1)]
    at, frame, labels = square(-DECADES, 0, ticks, "1 / evidence that is reached at any look")
    drawn, campaigns = sorted(e for e in EVIDENCE if e <= 10**DECADES), shown[0].campaigns
    chance = [(e, binom.isf(1 - CONFIDENCE, campaigns, 1 / e) / campaigns) for e in drawn]
    band = [at(-log10(e), log10(most)) for e, most in chance] + [at(-DECADES, -DECADES)]
    paths = [("band", "M" + "L".join(band) + "z"), ("grid", frame), ("diagonal", f"M{at(-DECADES, -DECADES)}L{at(0, 0)}")]
    for line in shown:
        points = [at(-log10(e), log10(line.rate(e).value)) for e in drawn if line.rate(e).count]
        paths.append(("stairs" if line.component == "average" else "thin", "M" + "L".join(points)))
    reading = (
        f"V = {number(shown[0].vocab)}: the share of {number(campaigns)} campaigns that ever reached it, the average in bold. The"
        f" dashed line is what is allowed, the band what chance may add to that ({CONFIDENCE:.1%})."
    )
    return Plot(SIDE + 62, SIDE + 48, tuple(paths), tuple(labels), reading)


def p_values(shown: list[PValues]) -> Plot:
    """The distribution functions of the p-values of every diagnostic, on logarithmic axes, where their tails can be seen."""
    ticks = [(-float(i), f"{10.0**-i:g}") for i in range(6)]
    at, frame, labels = square(-5, 0, ticks, "p-value")
    band = [(level, Rate(round(level * shown[0].n), shown[0].n).interval) for level in LEVELS]
    upper = [at(log10(level), log10(max(high, 1e-9))) for level, (_, high) in band]
    lower = [at(log10(level), log10(max(low, 1e-9))) for level, (low, _) in reversed(band)]
    paths = [("band", "M" + "L".join(upper + lower) + "z"), ("diagonal", f"M{at(-5, -5)}L{at(0, 0)}"), ("grid", frame)]
    for line in shown:
        points = [at(log10(level), log10(line.rate(level).value)) for level in LEVELS if line.rate(level).count]
        paths.append(("thin", "M" + "L".join(points)))
    reading = (
        f"V = {number(shown[0].vocab)}: the share of {number(shown[0].n)} p-values that lie at or below each value, a line for"
        f" each of {len(shown)} diagnostics. The dashed line is uniform, the band what chance does to it ({CONFIDENCE:.1%})."
    )
    return Plot(SIDE + 62, SIDE + 48, tuple(paths), tuple(labels), reading)


def detections(shown: list[Detection]) -> Plot:
    """A row a fault, a dot a vocabulary: tokens to a verdict, median and nine in ten; a ring where most runs came to none."""
    names = list(dict.fromkeys(one.fault for one in shown))
    x0, x1, top, step = 196.0, 800.0, 30.0, 25.0
    left, right = log10(LENGTH), log10(max(one.spent for one in shown))
    height = top + step * len(names) + 10

    def across(tokens: float) -> float:
        return x0 + (x1 - x0) * (log10(tokens) - left) / (right - left)

    powers = [10**i for i in range(2, 6) if left < i < right]
    grid = f"M{x0:g} {top - 6:g}V{height:g}" + "".join(f"M{across(t):.1f} {top - 6:g}V{height:g}" for t in powers)
    labels = [Label(across(t), 18, number(t)) for t in powers] + [Label(x1 + 8, 18, "never", "start")]
    labels += [Label(x0 - 10, top + step * (i + 0.5) + 4, name, "end") for i, name in enumerate(names)]
    paths = [("grid", grid)]
    for lane, vocab in enumerate(BUDGETS):
        dots = rings = lines = ""
        for one in (one for one in shown if one.vocab == vocab):
            y = top + step * (names.index(one.fault) + 0.5) + 6 * (lane - 1)
            median, most = quantile(one.verdict, 0.5), quantile(one.verdict, 0.9)
            if isfinite(median):
                dots += f"M{across(median):.1f} {y:g}h0"
                lines += f"M{across(median):.1f} {y:g}H{across(most) if isfinite(most) else x1 + 8:.1f}"
            else:
                rings += f"M{x1 + 14:g} {y:g}m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0"
        paths += [(f"line v{vocab}", lines), (f"point v{vocab}", dots), (f"ring v{vocab}", rings)]
    reading = (
        "Tokens to a verdict, on a logarithmic axis: the dot is the median over runs, its line reaches to nine in ten. A ring:"
        f" most runs came to no verdict in {number(max(one.spent for one in shown))} tokens."
    )
    return Plot(x1 + 60, height, tuple(paths), tuple(labels), reading)
