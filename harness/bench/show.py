"""Tables: what a run comes to, on the terminal, in Markdown and on the page from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bench.against import COUNTS, Row, of
from harness.bench.arms import OURS, PAPER, STATIC, STATIC_VANILLA, TRANSFORMERS, TUNED, VANILLA
from harness.bench.bound import READS
from harness.bench.figures import OFF
from harness.bench.record import Arm, Batched, Begun, Bound, Calibrated, Campaign, Ratio, Record, Steps, Tuned
from harness.bench.steps import PARTS
from harness.report.words import number, shown

GLANCE = ("T", "arm", "ms a token", "τ", "× vanilla", "95 %", "× generate", "× control")
TIMES = ("T", "arm", "ms a token", "95 %", "first token")
SPENT = ("T", "arm", "τ", "τ by prompt", "target passes", "head passes", "rows")
RATIOS = ("T", "arm", "over", "times as fast", "95 %", "of totals")
CHOSEN = ("T", "arm", "k", "depth", "m", "head temperature", "node", "layer", "times as fast, expected", "timed")
FITTED = ("T", "head temperature", "τ", "target passes", "off", "fitted; layer by layer")
JUDGED = ("judged", "pair", "verdict", "seconds", "texts", "texts/s", "decoder", "target", "harness")
BATCHES = ("T", "texts", "arm", "tokens/s", "ms a pass", "rows", "times as fast", "of repeats")
STEP = "ms a step"
BOUNDS = ("T", "arm", "step", "least", "ratio", "GB/s", *READS)
NAMES = ("arm", "over", "moved", "judged", "pair", "verdict", "method", "model", "source", "why", "prompt", "options")
"""Columns of words, not of numbers."""
WIDTHS = {"arm": 12, "method": 12, "over": 12, "judged": 10, "verdict": 7}
"""Least widths of columns, so that our own names stay whole on a narrow terminal."""
TIMES_AS_FAST = "×: how many times as fast as decoding without drafts, as transformers' generate, and as an arm's own control."
MEDIANS = (
    "Medians over prompts, intervals by bootstrap over prompts. ms a token: decoding, without the prompt's pass; * with it, where"
    " an arm does not tell it apart. τ: tokens per target pass"
)
LEGEND = f"{MEDIANS}, of all passes, and the mean of the prompts' own."

JUDGING = (
    "Judged: seconds to the verdict of a sampling campaign at temperature 1, and whose they are: the decoder's, those of the"
    " target's passes over its texts, and the harness's own."
)


BOUND = (
    "In fixed shapes a step is one graph on CUDA, and no clock can tell its parts apart: medians of whole steps. Beside them the"
    " weights that a step’s passes read, what memory moves a second where a large tensor is copied, and how long it takes at"
    " least to read them. Below that is a model that a processor keeps to itself; far above, one of many small operations."
)


@dataclass(frozen=True)
class Cells:
    """A table: names of columns, rows of text; `heavy` rows are those that are looked for; a note on how to read it, a title."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heavy: frozenset[int] = frozenset()
    note: str = ""
    title: str = ""


def tables(record: Record) -> list[Cells]:
    """At a glance; then milliseconds, counts, ratios, and all else that the record has the lines for."""
    found = of(record).arms
    told = [arm for arm in found if arm.target_passes is not None]
    times, spent = Cells(TIMES, tuple(map(_times, found)), _ours(found)), Cells(SPENT, tuple(map(_spent, told)), _ours(told))
    drawn = [
        together(of(record).batches),
        parts(record.of(Steps)),
        bounds(record.of(Bound)),
        chosen(record.of(Tuned)),
        sharpened(record.of(Calibrated)),
        judging(record.of(Campaign)),
    ]
    return [glance(record), times, spent, ratios(record), *(cells for cells in drawn if cells.rows)]


def together(batches: Sequence[Batched]) -> Cells:
    """Texts that share passes, by how many they are. A pass is the target's, with all that goes with it."""
    told = []
    for one in batches:
        spent = f"{one.speed:,.0f}", f"{one.milliseconds:.2f}", f"{one.rows:.0f}"
        ratio = ("", "") if one.arm == VANILLA else (f"{one.ratio:.2f}", between(one.low, one.high))
        told.append((f"{one.temperature:g}", str(one.texts), one.arm, *spent, *ratio))
    return Cells(BATCHES, tuple(told), _ours(batches))


def glance(record: Record) -> Cells:
    """A row an arm: how many times as fast it is as decoding without drafts, as transformers, and as its own control."""
    found = of(record)
    medians = {(one.arm, one.over, one.temperature): one for one in found.ratios}
    rows = []
    for arm in found.arms:
        own = STATIC_VANILLA if arm.arm == STATIC else arm.arm + OFF
        over = [medians.get((arm.arm, name, arm.temperature)) for name in (VANILLA, TRANSFORMERS, own)]
        times = [f"{one.median:.2f}{'*' if one.whole else ''}" if one else "" for one in over]
        interval = between(over[0].low, over[0].high) if over[0] else ""
        spent = f"{arm.milliseconds:.2f}{'*' if arm.whole else ''}", f"{arm.tau:.2f}" if arm.tau else ""
        rows.append((f"{arm.temperature:g}", arm.arm, *spent, times[0], interval, *times[1:]))
    heavy = frozenset(i for i, arm in enumerate(found.arms) if arm.arm in OURS)
    return Cells(GLANCE, tuple(rows), heavy, TIMES_AS_FAST)


def chosen(tuned: Sequence[Tuned]) -> Cells:
    """The budgets that tuning chose, what it expected of them, and what the clock said on its own prompts."""
    told = []
    for one in tuned:
        for arm, budget in ((PAPER, one.paper), (TUNED, one.chosen)):
            names = ("k", "depth", "m", "head_temperature", "node", "layer")
            shape = [f"{getattr(budget, name):g}" if budget else "–" for name in names]
            expected = f"{(budget.rate if budget else one.vanilla) / one.vanilla:.2f}"
            told.append(
                (f"{one.temperature:g}", arm, *shape, expected, f"{budget.timed:.2f}" if budget and budget.timed else "–")
            )
    return Cells(CHOSEN, tuple(told))


def sharpened(found: Sequence[Calibrated]) -> Cells:
    """What temperatures of the head bring, on prompts to which none was fitted; the paper's is 1, the fitted one's row tells
    what each layer's own would be."""
    told = [
        (
            f"{one.temperature:g}",
            f"{one.head_temperature:g}",
            f"{one.tau:.2f}",
            number(one.passes),
            f"{one.error:.3f}",
            " ".join(f"{layer:.2f}" for layer in one.layers),
        )
        for one in found
    ]
    return Cells(FITTED, tuple(told), frozenset(i for i, one in enumerate(found) if one.layers))


def parts(steps: Sequence[Steps]) -> Cells:
    """Milliseconds of a step, and the share of each part."""
    told = []
    for one in steps:
        total = sum(one.milliseconds.values())
        shares = [f"{one.milliseconds[part] / total:.0%}" if part in one.milliseconds else "" for part in PARTS]
        told.append((f"{one.temperature:g}", one.arm, f"{total:.2f}", *shares))
    return Cells(("T", "arm", STEP, *PARTS), tuple(told), _ours(steps))


def bounds(found: Sequence[Bound]) -> Cells:
    """Steps in fixed shapes, whole, beside the least that reading their weights takes."""
    told = []
    for one in found:
        spent = (f"{one.milliseconds:.3f} ms", f"{one.least:.3f} ms", f"{one.milliseconds / one.least:.2f}")
        weights = (f"{size / 1e6:.1f} MB" if (size := one.weights.get(part)) else "" for part in READS)
        told.append((f"{one.temperature:g}", one.arm, *spent, f"{one.bandwidth / 1e9:.0f}", *weights))
    return Cells(BOUNDS, tuple(told), _ours(found), BOUND)


def judging(campaigns: Sequence[Campaign]) -> Cells:
    """Seconds to a verdict, and what they were spent on."""
    told = []
    for one in campaigns:
        spent = [f"{seconds / one.seconds:.0%}" for seconds in (one.decoding, one.scoring)]
        counts = (number(one.texts), f"{one.texts / one.seconds:.1f}")
        told.append((one.decoder, one.pair, one.verdict, f"{one.seconds:.1f}", *counts, *spent, f"{one.overhead:.1%}"))
    return Cells(JUDGED, tuple(told), note=JUDGING)


def ratios(record: Record) -> Cells:
    found = of(record).ratios
    return Cells(RATIOS, tuple(map(_ratio, found)), _ours(found))


def moved(rows: Sequence[Row]) -> Cells:
    """Counts and milliseconds, each with its ratio to the earlier run's in brackets."""
    names = ("T", "arm", *map(_named, COUNTS), "ms a token", "moved")
    told = [
        (
            f"{row.now.temperature:g}",
            row.now.arm,
            *(_beside(getattr(row.now, name), getattr(row.before, name)) for name in COUNTS),
            _beside(row.now.milliseconds, row.before.milliseconds),
            ", ".join(map(_named, row.moved)),
        )
        for row in rows
    ]
    return Cells(names, tuple(told), frozenset(i for i, row in enumerate(rows) if row.moved))


def show(record: Record, console: Console) -> None:
    """The two tables, and on what machine they were made."""
    console.print()
    if record.footer is None:
        console.print("this run was cut off: figures are of what there is", style="yellow")
    for cells in tables(record):
        console.print(table(cells))
        if cells.note:
            console.print(Text(cells.note, style="dim"))
        console.print()
    console.print(Text(LEGEND, style="dim"))
    console.print(Text(machine(record.header), style="dim"))


def show_moved(rows: Sequence[Row], before: Record, console: Console) -> None:
    """Then and now."""
    console.print(Text(f"\nagainst {before.header.commit}, {before.header.started[:10]}: in brackets now / then"))
    console.print(table(moved(rows), "red"))
    told = "a count moved by more than 2 %" if any(row.moved for row in rows) else "no count moved by more than 2 %"
    console.print(Text(f"{told}; milliseconds are not judged"))


def table(cells: Cells, style: str = "bold") -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for name in cells.columns:
        side: Literal["left", "right"] = "left" if name in NAMES else "right"
        title = name.replace(" ", "\n") if STEP in cells.columns and name in PARTS else name
        drawn.add_column(Text(shown(title, 60)), justify=side, overflow="fold", min_width=WIDTHS.get(name))
    for i, row in enumerate(cells.rows):
        drawn.add_row(*(Text(shown(cell, 200)) for cell in row), style=style if i in cells.heavy else None)
    return drawn


def machine(header: Begun) -> str:
    """One line: processor, threads, versions, commit."""
    told = header.machine
    where = [told.get("processor", ""), told.get("gpu", ""), f"{told.get('threads')} of {told.get('cores')} cores"]
    versions = ", ".join(f"{name} {value}" for name, value in header.versions.items())
    dtype = f"{header.settings.dtype} on {header.settings.device}"
    return f"{', '.join(filter(None, where))}; {dtype}; {versions}; commit {header.commit}"


def _ours(rows: Sequence[Arm | Ratio | Steps | Bound | Batched]) -> frozenset[int]:
    return frozenset(i for i, row in enumerate(rows) if row.arm in OURS)


def _times(arm: Arm) -> tuple[str, ...]:
    spent, prefill = f"{arm.milliseconds:.2f}{'*' if arm.whole else ''}", "" if arm.prefill is None else f"{arm.prefill:.1f} ms"
    return f"{arm.temperature:g}", arm.arm, spent, between(arm.low, arm.high), prefill


def _spent(arm: Arm) -> tuple[str, ...]:
    taus = ["" if tau is None else f"{tau:.2f}" for tau in (arm.tau, arm.tau_mean)]
    counts = ["" if n is None else number(n) for n in (arm.target_passes, arm.head_passes, arm.rows)]
    return f"{arm.temperature:g}", arm.arm, *taus, *counts


def _ratio(one: Ratio) -> tuple[str, ...]:
    median = f"{one.median:.2f}{'*' if one.whole else ''}"
    return f"{one.temperature:g}", one.arm, one.over, median, between(one.low, one.high), f"{one.totals:.2f}"


def _named(count: str) -> str:
    return "τ" if count == "tau" else count.replace("_", " ")


def between(low: float, high: float) -> str:
    return f"{low:.2f}–{high:.2f}"


def _beside(now: float | int | None, before: float | int | None) -> str:
    if now is None or before is None:
        return "" if now is before else "told once"
    told = f"{now:,}" if isinstance(now, int) else f"{now:.2f}"
    return f"{told} ({now / before:.3f})" if before else told
