"""Plots of `eagle2 bench` and `eagle2 compare`, from the figures of a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.benchmark.arms import SPECULATIVE, VANILLA
from harness.benchmark.figures import ALL, figures_of, group_by, method_figures_of, ms_per_token
from harness.benchmark.published import published
from harness.benchmark.record import (
    BatchFigures,
    BenchRecord,
    BudgetPoint,
    Call,
    CompareRecord,
    Entrant,
    PassLatency,
    Reliability,
    StepProfile,
    TreeShape,
)
from harness.benchmark.step_profile import PARTS
from harness.report.canvas import Drawing
from harness.report.plots import Axis, Bar, Dot, Series, bars, dots, heatmap, histogram, lines, stacked_bars
from harness.report.text import number, printable

FEWEST_NODES = 20
"""Bins of the reliability plot with fewer nodes are left out."""

TREES: dict[TreeShape, str] = {"dynamic": "EAGLE-2", "deep": "EAGLE-2, any depth", "static": "EAGLE's tree", "chain": "chain"}

MEASURED = (
    "Left: tokens per target pass. Right: speed as a multiple of ordinary decoding with the same network, the dashed line."
    " Lines show 95 % intervals over prompts."
)
QUOTED = (
    "Left: tokens per target pass. Right: speed as a multiple of ordinary decoding. Published by others, for other models,"
    " machines and prompts; means over all data of the source."
)

Groups = Mapping[str, Sequence[Bar]]


# --- bench ----------------------------------------------------------------------------------------------------------------


def step_plot(profiles: Sequence[StepProfile]) -> Drawing:
    """The parts of a step, one bar per arm and temperature."""
    rows = {
        printable(f"{one.arm}, T = {one.temperature:g}", 60): {
            part: one.milliseconds[part] for part in PARTS if part in one.milliseconds
        }
        for one in profiles
    }
    caption = (
        "A step is all that happens between two blocks. The clocks between the parts make a step slower than in the timed"
        " texts. The head's first step includes a pass over the whole prompt."
    )
    return stacked_bars("steps", "Parts of a step", rows, "ms", caption=caption)


def latency_plot(latencies: Sequence[PassLatency]) -> Drawing:
    """Latency of a pass by its rows, for the target and the head."""
    series = []
    for what, found in group_by(latencies, lambda one: one.what).items():
        found.sort(key=lambda one: one.rows)
        label = f"{what}: {found[-1].median / found[0].median:.1f} × one row"
        series.append(_curve(label, found, "rows", "median", "low", "high"))
    caption = (
        f"With {latencies[0].behind} tokens in the cache; medians and quartiles of {number(latencies[0].n)} passes, all sizes in"
        " turn. Drafting pays while a pass over a tree costs less than the passes that it saves."
    )
    rows = Axis("rows of the pass", ticks=(1, 8, 16, 32, 48, 64), end=max(one.rows for one in latencies))
    return lines("costs", "Latency of a pass by its rows", series, x=rows, y=Axis("ms"), caption=caption)


def budget_plot(points: Sequence[BudgetPoint], m: int) -> Drawing:
    """τ by number of draft tokens, one curve per temperature. m: that of the run."""
    by_temperature = group_by(sorted(points, key=lambda one: one.m), lambda one: one.temperature)
    series = [_curve(f"T = {t:g}: {found[-1].tau:.2f}", found, "m", "tau") for t, found in sorted(by_temperature.items())]
    caption = "Counts only, with coins keyed by position: all budgets emit the same texts. Dashed: the m of this run."
    return lines(
        "budgets", "τ by number of draft tokens", series, x=Axis("draft tokens m", "log2"), y=Axis("τ"), caption=caption, at=m
    )


def batch_plots(batches: Sequence[BatchFigures]) -> Iterator[Drawing]:
    """Speed-up by batch size with the range over repeats, then tokens per second at each temperature."""
    size = Axis("batch size", "log2")
    if ours := group_by((one for one in batches if one.arm != VANILLA), lambda one: (one.arm, one.temperature)):
        series = [
            _curve(f"{arm}, T = {t:g}: {found[-1].ratio:.2f}", found, "texts", "ratio", "low", "high")
            for (arm, t), found in ours.items()
        ]
        title = "Speed as a multiple of the same batch without drafts"
        caption = (
            "Medians and range over repeats; dashed: as fast as the same batch without drafts. In a large batch the time of a"
            " pass grows with its rows, so a rejected draft token costs as much as an emitted one. Finished texts are not"
            " replaced, so the last passes serve only the texts that need the most of them."
        )
        yield lines("batches", title, series, x=size, y=Axis("× vanilla"), caption=caption, level=1.0)
    for t, found in group_by(batches, lambda one: one.temperature).items():
        arms = group_by(found, lambda one: one.arm)
        series = [_curve(f"{arm}: {own[-1].speed:,.0f}", own, "texts", "speed") for arm, own in arms.items()]
        title = f"Tokens per second by batch size, temperature {t:g}"
        caption = "All texts of a batch together, without the passes over the prompts."
        yield lines(f"batches-{t:g}", title, series, x=size, y=Axis("tokens/s"), caption=caption)


def reliability_plot(found: Sequence[Reliability]) -> Drawing:
    """Acceptance rate by confidence, at each temperature of the head."""
    series = []
    for one in found:
        bins = [(c, a) for c, a, n in zip(one.confidence, one.accepted, one.nodes, strict=True) if n >= FEWEST_NODES]
        label = f"head temperature {one.head_temperature:g}: error {one.error:.3f}"
        series.append(Series(label, [c for c, _ in bins], [a for _, a in bins]))
    temperature = found[0].temperature
    caption = (
        f"{number(sum(found[0].nodes))} drafted nodes whose parent was accepted, in ten bins by confidence; bins with at least"
        f" {FEWEST_NODES} nodes. On the dashed line a confidence is the acceptance rate. Error: mean distance from it, weighted"
        " by nodes."
    )
    confidence = Axis("confidence", ticks=(0, 0.5, 1), start=0, end=1)
    rate = Axis("acceptance rate", ticks=(0, 0.5, 1), start=0, end=1)
    title = f"Confidence and acceptance, temperature {temperature:g}"
    return lines(
        f"reliability-{temperature:g}", title, series, x=confidence, y=rate, caption=caption, diagonal=True, connected=False
    )


def prompt_plot(calls: Sequence[Call], temperature: float) -> Drawing:
    """Milliseconds per token of each prompt, without drafts and with the head."""
    found = [call for call in calls if call.temperature == temperature]
    plain, ours = (ms_per_token([call for call in found if call.arm == arm], False) for arm in (VANILLA, SPECULATIVE))
    both = [name for name in ours if name in plain]
    rows = {_label(name, both): [Dot(VANILLA, plain[name]), Dot(SPECULATIVE, ours[name])] for name in both}
    notes = [f"× {plain[name] / ours[name]:.2f}" for name in both]
    caption = "Milliseconds per token of decoding, medians over repeats; at the right, the speed-up."
    title = f"Each prompt, temperature {temperature:g}"
    return dots(f"prompts-{temperature:g}", title, rows, Axis("ms per token", start=0), caption=caption, notes=notes, joined=True)


def prompt_plots(record: BenchRecord) -> Iterator[Drawing]:
    """One plot per temperature at which both arms were timed."""
    for temperature in record.header.settings.temperatures:
        calls = [call for call in record.of(Call) if call.temperature == temperature]
        if {SPECULATIVE, VANILLA} <= {call.arm for call in calls}:
            yield prompt_plot(calls, temperature)


def accepted_plots(record: BenchRecord) -> Iterator[Drawing]:
    """Target passes by number of accepted draft tokens, of the arm with the budget of the run; one plot per temperature."""
    for arm in figures_of(record).arms:
        if arm.arm == SPECULATIVE and arm.accepted:
            title = f"Target passes by accepted tokens, temperature {arm.temperature:g}"
            yield histogram(f"accepted-{arm.temperature:g}", title, arm.accepted, "accepted draft tokens")


# --- compare --------------------------------------------------------------------------------------------------------------


def method_plot(record: CompareRecord, name: str, title: str, entrants: Sequence[Entrant]) -> Drawing:
    """τ and speed of every method, by temperature."""
    figures = {(row.arm, row.temperature): row for row in method_figures_of(record) if row.prompts == ALL}
    groups = {
        f"T = {t:g}": [
            Bar(printable(one.title, 40), (row.tau, row.speed), ((row.tau_low, row.tau_high), (row.speed_low, row.speed_high)))
            for one in entrants
            if (row := figures.get((one.arm, t)))
        ]
        for t in record.header.settings.temperatures
    }
    return bars(name, title, groups, ("τ", "× vanilla"), caption=MEASURED, references=(None, 1.0))


def kind_plot(record: CompareRecord, temperature: float) -> Drawing | None:
    """τ by method and kind of prompt; None if no text was decoded at this temperature."""
    figures = {(row.arm, row.prompts): row.tau for row in method_figures_of(record) if row.temperature == temperature}
    kinds = dict.fromkeys(prompt.kind for prompt in record.header.prompts)
    rows = {
        printable(one.title, 40): {printable(kind, 40): figures[one.arm, kind] for kind in kinds if (one.arm, kind) in figures}
        for one in record.header.entered
        if one.own
    }
    rows = {title: row for title, row in rows.items() if row}
    caption = "Tokens per target pass of each method with its own options. Ordinary decoding has 1."
    title = f"τ by kind of prompt, temperature {temperature:g}"
    return heatmap(f"kinds-{temperature:g}", title, rows, base=1.0, caption=caption) if rows else None


def tree_plot(points: Sequence[BudgetPoint], temperature: float) -> Drawing:
    """τ by number of draft tokens, one curve per shape of tree."""
    ordered = sorted((one for one in points if one.temperature == temperature), key=lambda one: one.m)
    by_tree = group_by(ordered, lambda one: one.tree)
    series = [
        _curve(f"{label}: {by_tree[tree][-1].tau:.2f}", by_tree[tree], "m", "tau")
        for tree, label in TREES.items()
        if tree in by_tree
    ]
    caption = (
        f"Counts only, on one prompt per kind, at most {number(max(point.passes for point in ordered))} passes, all with the"
        " same head. Of EAGLE's tree the first m nodes, layer by layer; a chain is as deep as it is long."
    )
    title = f"τ by number of draft tokens, temperature {temperature:g}"
    return lines(f"budgets-{temperature:g}", title, series, x=Axis("draft tokens m", "log2"), y=Axis("τ"), caption=caption)


def published_plots() -> Iterator[Drawing]:
    """Means that others published: the table of the paper, and an independent measurement."""
    for name, where, model in (
        ("published-paper", "EAGLE-2, table 1", "Vicuna 13B"),
        ("published-spec-bench", "Spec-Bench, A100", "Vicuna 13B"),
    ):
        found = [one for one in published(model=model) if where in (one.source.where, one.source.name)]
        by_temperature = group_by(found, lambda one: one.temperature)
        groups: Groups = {
            f"T = {t:g}": [Bar(one.label, (one.tau, one.speedup)) for one in ones] for t, ones in by_temperature.items()
        }
        yield bars(name, f"Published: {where}, {model}", groups, ("τ", "× vanilla"), caption=QUOTED, quoted=True)


def _label(name: str, names: Sequence[str]) -> str:
    """The start of a name; with its number in the list if another name starts alike."""
    short = printable(name[:16])
    return short if [one[:16] for one in names].count(name[:16]) == 1 else f"{short} ({names.index(name) + 1})"


def _curve(label: str, points: Sequence[object], *names: str) -> Series:
    """A series of attributes of the points: x and y, then the ends of intervals if they have any."""
    return Series(printable(label, 60), *([getattr(one, name) for one in points] for name in names))
