"""The pictures of a run as SVG paths. Geometry only; colours are the stylesheet's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log2

from harness.bench.against import of
from harness.bench.arms import SPECULATIVE, VANILLA
from harness.bench.figures import per_prompt
from harness.bench.record import Batched, Call, Cost, Point, Record, Reliability, Steps
from harness.bench.steps import PARTS
from harness.record.model import CountPicture
from harness.report.plots import Label, Plot, ceiling, count
from harness.report.words import number

WIDE = 640.0
FEWEST = 20


def pictures(record: Record) -> Iterator[tuple[str, str, Plot]]:
    """Name of a file, title, picture: all that the record has the lines for."""
    if steps := record.of(Steps):
        yield "steps", "Where a step’s time goes", step_time(steps)
    if costs := record.of(Cost):
        yield "costs", "A pass, by its rows", pass_cost(costs)
    if points := record.of(Point):
        yield "budgets", "Tokens per pass, by draft tokens", brought(points, record.header.settings.m)
    if batches := of(record).batches:
        yield "batches", "Times as fast as without drafts, by texts that share passes", faster(batches)
    for temperature in record.header.settings.temperatures:
        if found := [one for one in record.of(Reliability) if one.temperature == temperature]:
            yield f"reliability-{temperature:g}", f"Confidence and acceptance, at temperature {temperature:g}", reliable(found)
        if mine := [one for one in batches if one.temperature == temperature]:
            title = f"Tokens a second, by texts that share passes, at temperature {temperature:g}"
            yield f"batches-{temperature:g}", title, speeds(mine)
        calls = [call for call in record.of(Call) if call.temperature == temperature]
        if {SPECULATIVE, VANILLA} <= {call.arm for call in calls}:
            yield f"prompts-{temperature:g}", f"Each prompt, at temperature {temperature:g}", dumbbells(calls)
        ours = next((a for a in of(record).arms if a.arm == SPECULATIVE and a.temperature == temperature), None)
        if ours and ours.accepted:
            title = f"Target passes by accepted tokens, at temperature {temperature:g}"
            picture = CountPicture(title=title, xlabel="accepted tokens", counts=ours.accepted)
            yield f"accepted-{temperature:g}", title, count(picture)


def step_time(steps: Sequence[Steps]) -> Plot:
    """A stacked bar a run: milliseconds of its mean step, by part."""
    x0, wide, tall = 170.0, WIDE - 190, 46.0
    high = ceiling([sum(one.milliseconds.values()) for one in steps])
    paths = dict.fromkeys(PARTS, "")
    labels = []
    for row, one in enumerate(steps):
        x, y, total = x0, 14 + tall * row, sum(one.milliseconds.values())
        labels.append(Label(x0 - 10, y + 16, f"{one.arm}, T = {one.temperature:g}", "end"))
        for part in PARTS:
            spent = one.milliseconds.get(part, 0.0)
            across = wide * max(spent, 0.0) / high
            paths[part] += f"M{x:.1f} {y:g}h{across:.1f}v24h{-across:.1f}z"
            if across >= 34:
                labels.append(Label(x + across / 2, y + 16, f"{spent / total:.0%}"))
            x += across
        labels.append(Label(x + 6, y + 16, f"{total:.2f} ms", "start"))
    floor = 14 + tall * len(steps)
    names, at = [], x0
    for i, part in enumerate(PARTS):
        names.append((f"part{i}", f"M{at:g} {floor + 2:g}h9v9h-9z"))
        labels.append(Label(at + 13, floor + 10, part, "start"))
        at += 22 + 6.4 * len(part)
    drawn = [(f"part{i}", paths[part]) for i, part in enumerate(PARTS)]
    reading = (
        "A step is all that lies between two blocks. Taken with clocks between the parts, which make a step slower than the timed"
        " texts are. The head’s first step has a pass over the whole prompt in it."
    )
    return Plot(WIDE, floor + 18, (*drawn, *names), tuple(labels), reading)


def pass_cost(costs: Sequence[Cost]) -> Plot:
    """Median milliseconds of the target’s pass and of the head’s, whiskers from quartile to quartile."""
    most = max(cost.rows for cost in costs)
    frame = Frame(most, ceiling([cost.high for cost in costs]), "rows of the pass", "ms")
    lines, dots, whiskers, labels = "", "", "", frame.labels([1, *(r for r in (8, 16, 32, 48, 64) if r <= most)])
    for what in ("target", "head"):
        mine = sorted((cost for cost in costs if cost.what == what), key=lambda cost: cost.rows)
        if not mine:
            continue
        lines += "M" + "L".join(frame.at(cost.rows, cost.median) for cost in mine)
        dots += "".join(f"M{frame.at(cost.rows, cost.median)}h0" for cost in mine)
        whiskers += "".join(f"M{frame.at(cost.rows, cost.low)}L{frame.at(cost.rows, cost.high)}" for cost in mine)
        last, first = mine[-1], mine[0]
        x, y = map(float, frame.at(last.rows, last.median).split())
        labels.append(Label(x + 10, y + 4, f"{what}: {last.median / first.median:.1f} × one row", "start"))
    reading = (
        f"Behind a text of {costs[0].behind} tokens; medians of {number(costs[0].n)} passes, all sizes in turn, whiskers from"
        " quartile to quartile. A draft tree pays while a pass over it costs less than the passes that it saves."
    )
    paths = (("grid", frame.axes), ("whisker", whiskers), ("stairs", lines), ("dot", dots))
    return Plot(WIDE, frame.height, paths, tuple(labels), reading)


def brought(points: Sequence[Point], chosen: int) -> Plot:
    """tau against m, on a logarithmic axis; a line a temperature."""
    sizes = sorted({point.m for point in points})
    frame = Frame(log2(max(sizes)) + 0.01, ceiling([point.tau for point in points]), "draft tokens, m", "τ")
    labels = frame.labels([]) + [Label(frame.x(log2(m)), frame.floor + 15, str(m)) for m in sizes]
    lines, dots = "", ""
    for temperature in sorted({point.temperature for point in points}):
        mine = sorted((p for p in points if p.temperature == temperature), key=lambda p: p.m)
        lines += "M" + "L".join(frame.at(log2(p.m), p.tau) for p in mine)
        dots += "".join(f"M{frame.at(log2(p.m), p.tau)}h0" for p in mine)
        x, y = map(float, frame.at(log2(mine[-1].m), mine[-1].tau).split())
        labels.append(Label(x + 10, y + 4, f"T = {temperature:g}: {mine[-1].tau:.2f}", "start"))
    here = f"M{frame.at(log2(chosen), 0)}V{frame.top:g}"
    reading = "Counts alone, with coins keyed by position: all budgets emit the same texts. Dashed: the m of this run."
    paths = (("diagonal", here), ("grid", frame.axes), ("stairs", lines), ("dot", dots))
    return Plot(WIDE, frame.height, paths, tuple(labels), reading)


def faster(batches: Sequence[Batched]) -> Plot:
    """How many times as fast as vanilla against texts, on a logarithmic axis; whiskers from the least to the most repeat."""
    ours = [one for one in batches if one.arm != VANILLA]
    frame = _by_texts(batches, ceiling([one.high for one in ours]), "times as fast")
    lines, dots, labels = _curves(frame, ours, lambda one: one.ratio, "{0.arm}, T = {0.temperature:g}: {0.ratio:.2f}")
    whiskers = "".join(f"M{frame.at(log2(one.texts), one.low)}L{frame.at(log2(one.texts), one.high)}" for one in ours)
    even = f"M{frame.at(0, 1)}H{frame.left + frame.wide:g}"
    reading = (
        "Medians over repeats, whiskers from the least to the most of them. Dashed: as fast as without drafts, in the same loop."
        " A pass has the rows of all trees: where its time is that of its rows, a refused draft costs as much as a token. No text"
        " takes the place of one that is finished: the last passes serve but those that took the most of them."
    )
    paths = (("diagonal", even), ("grid", frame.axes), ("whisker", whiskers), ("stairs", lines), ("dot", dots))
    return Plot(WIDE, frame.height, paths, tuple(labels), reading)


def speeds(batches: Sequence[Batched]) -> Plot:
    """Tokens a second against texts; a line an arm."""
    frame = _by_texts(batches, ceiling([one.speed for one in batches]), "tokens a second")
    lines, dots, labels = _curves(frame, batches, lambda one: one.speed, "{0.arm}: {0.speed:,.0f}")
    reading = "Of all texts of a batch, the prompts’ passes left out."
    return Plot(WIDE, frame.height, (("grid", frame.axes), ("stairs", lines), ("dot", dots)), tuple(labels), reading)


def _by_texts(batches: Sequence[Batched], high: float, what: str) -> Frame:
    return Frame(log2(max(one.texts for one in batches)) + 0.01, high, "texts", what)


def _curves(
    frame: Frame, batches: Sequence[Batched], value: Callable[[Batched], float], name: str
) -> tuple[str, str, list[Label]]:
    """A line through each arm's points, their dots; and labels, of the axes and at the ends of the lines, where they part."""
    curves: dict[tuple[str, float], list[Batched]] = {}
    for one in batches:
        curves.setdefault((one.arm, one.temperature), []).append(one)
    points = {one: frame.at(log2(one.texts), value(one)) for one in batches}
    lines = "".join("M" + "L".join(points[one] for one in curve) for curve in curves.values())
    dots = "".join(f"M{at}h0" for at in points.values())
    sizes = sorted({one.texts for one in batches})
    labels = frame.labels([]) + [Label(frame.x(log2(n)), frame.floor + 15, str(n)) for n in sizes]
    low = frame.top - 12
    for last in sorted((curve[-1] for curve in curves.values()), key=value, reverse=True):
        x, y = map(float, points[last].split())
        low = max(y, low + 14)
        labels.append(Label(x + 10, low + 4, name.format(last), "start"))
    return lines, dots, labels


def reliable(found: Sequence[Reliability]) -> Plot:
    """Share of accepted nodes against confidence: dots as the paper has it, rings with the head's temperature as tuned."""
    frame = Frame(1.0, 1.0, "confidence", "accepted")
    marks = {"dot": "", "ring": ""}
    labels = frame.labels([]) + [Label(frame.x(share), frame.floor + 15, f"{share:g}") for share in (0, 0.5, 1)]
    for one, mark in zip(found, ("dot", "ring"), strict=False):
        bins = [(c, a) for c, a, n in zip(one.confidence, one.accepted, one.nodes, strict=True) if n >= FEWEST]
        marks[mark] += "".join(f"M{frame.at(c, a)}h0" for c, a in bins)
        told = f"{'●' if mark == 'dot' else '○'} head temperature {one.head_temperature:g}: {one.error:.3f} off"
        labels.append(Label(frame.left + frame.wide + 8, frame.top + (20 if mark == "dot" else 40), told, "start"))
    even = f"M{frame.at(0, 0)}L{frame.at(1, 1)}"
    reading = (
        f"Of {number(sum(found[0].nodes))} drafted nodes whose parent was accepted, in ten parts by confidence, of {FEWEST}"
        " nodes or more. On the dashed line confidences are probabilities; above it the head is too modest. Off: the mean"
        " distance, by nodes."
    )
    return Plot(WIDE, frame.height, (("diagonal", even), ("grid", frame.axes), *marks.items()), tuple(labels), reading)


def dumbbells(calls: Sequence[Call]) -> Plot:
    """A row a prompt: a ring where decoding without drafts is, a dot where speculation is."""
    bare, ours = (per_prompt([call for call in calls if call.arm == arm], False) for arm in (VANILLA, SPECULATIVE))
    rows = [(name, bare[name], ours[name]) for name in ours if name in bare]
    high, x0, step = ceiling([max(a, b) for _, a, b in rows]), 110.0, 15.0
    wide, top = WIDE - x0 - 70, 34.0
    rings, dots, bars, labels = "", "", "", [Label(x0, 14, "0", "start"), Label(x0 + wide, 14, f"{number(high)} ms a token")]
    for i, (name, without, with_) in enumerate(rows):
        y = top + step * i
        a, b = (x0 + wide * value / high for value in (without, with_))
        bars += f"M{a:.1f} {y:g}H{b:.1f}"
        rings += f"M{a:.1f} {y:g}h0"
        dots += f"M{b:.1f} {y:g}h0"
        labels += [Label(x0 - 10, y + 4, name[:16], "end"), Label(x0 + wide + 14, y + 4, f"× {without / with_:.2f}", "start")]
    height = top + step * len(rows) + 2
    paths = (("grid", f"M{x0:g} 22V{height:g}"), ("whisker", bars), ("ring", rings), ("dot", dots))
    reading = (
        "Milliseconds a token of decoding, medians over repeats. Ring: without drafts. Dot: with the head. Right: how many"
        " times as fast."
    )
    return Plot(WIDE, height, paths, tuple(labels), reading)


class Frame:
    """Two axes from 0; `at` places a point."""

    def __init__(self, most: float, high: float, xlabel: str, ylabel: str) -> None:
        self.left, self.top, self.floor = 44.0, 26.0, 236.0
        self.wide, self.most, self.high = WIDE - 220, most, high
        self.xlabel, self.ylabel, self.height = xlabel, ylabel, 272.0
        self.axes = f"M{self.left:g} {self.top:g}V{self.floor:g}H{self.left + self.wide:g}"

    def x(self, value: float) -> float:
        return self.left + self.wide * value / self.most

    def at(self, x: float, y: float) -> str:
        return f"{self.x(x):.1f} {self.floor - (self.floor - self.top) * min(y / self.high, 1):.1f}"

    def labels(self, ticks: Sequence[int]) -> list[Label]:
        """Names of the axes, ticks in halves upwards, and those given along."""
        down = self.floor + 30
        found = [Label(self.left + self.wide / 2, down, self.xlabel), Label(self.left, 14, self.ylabel)]
        found += [Label(self.x(tick), self.floor + 15, str(tick)) for tick in ticks]
        heights = [(self.high * share, self.floor - (self.floor - self.top) * share) for share in (0, 0.5, 1)]
        return found + [Label(self.left - 6, y + 4, f"{value:g}", "end") for value, y in heights]
