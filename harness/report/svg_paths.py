"""Where the marks of a plot lie: laws, counts and p-values as SVG paths. Geometry only; colours are the stylesheet's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.record.model import CountPicture
from harness.report.text import number
from harness.report.text import printable as shown

BINS = 32


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
