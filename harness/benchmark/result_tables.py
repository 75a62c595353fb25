"""Tables of `eagle2 bench` and `eagle2 compare`. Terminal, page, summary and documentation show the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from harness.benchmark.arms import OFF, OURS, PAPER, STATIC, STATIC_VANILLA, TRANSFORMERS, TUNED, VANILLA
from harness.benchmark.figures import ALL, EAGLE2, OrderCheck, drafting_share, figures_of, group_by, method_figures_of
from harness.benchmark.published import Figure, published
from harness.benchmark.record import (
    ArmFigures,
    BatchFigures,
    BenchRecord,
    Call,
    CompareRecord,
    Divergence,
    Entrant,
    HeadTemperature,
    StepBound,
    StepProfile,
    TuningResult,
    VerdictLatency,
)
from harness.benchmark.regression import COUNTS, ArmChange
from harness.benchmark.roofline import READS
from harness.benchmark.step_profile import PARTS
from harness.report.tables import Column, Table
from harness.report.text import interval, number

INTERVAL = "95 % interval"
WITHOUT_DRAFTS = "without drafts"

WORDS = {"arm": 12, "method": 12, "compared with": 12, "decoder": 10, "pair": 0, "verdict": 7, "source": 0, "model": 0}
WORDS |= {"reason": 0, "prompt": 0, "options": 0, "changed": 0, "other method": 12}
WORDS |= {"tree": 12, "kind": 12, "context": 12, "shape": 6}
"""Headings of columns that hold words, with the width that a narrow terminal leaves them at least."""

SPEEDS = (
    "Medians over prompts; intervals by bootstrap over prompts. ms per token: decoding without the pass over the prompt; an"
    " asterisk marks an arm that does not show when its first token was there, so that pass is included. τ: tokens per target"
    " pass. × vanilla, × generate, × control: speed as a multiple of the same loop without drafts, of transformers' generate,"
    " and of the same implementation without speculation."
)
METHODS = (
    "τ: tokens per target pass, all passes pooled. × vanilla: speed as a multiple of ordinary decoding with the same network,"
    " without the pass over the prompt; median over prompts. Intervals by bootstrap over prompts. Rows per pass: nodes that the"
    " target computes, roots and Lookahead's window included."
)
EQUAL_BUDGET = (
    "At most m = {m} draft tokens per pass: a tree of m nodes, a chain of m tokens, or as many guesses of one length as fit."
    " Methods whose own options have this size appear with the same figures as above."
)
REPEATED = (
    "Share of the 4-grams of a text that occurred in it before, mean over texts. A text that loops is easy to draft, above all by"
    " looking up its own past: read τ next to this."
)
PUBLISHED = "Measured by others on other models and machines, quoted with the source. Means over all data of a source."
ROOFLINE = (
    "On CUDA such a step is one graph, so its parts cannot be timed; the table has medians of whole steps."
    " Lower bound: the time to read the weights of its passes once, at the bandwidth of copying a large tensor. A model that"
    " fits into the processor's cache can be faster than the bound; a model of many small operations is far slower."
)


Field = tuple[str, Callable[[Any], str]]
"""A column: its heading, and the text of its cell for a row."""


def column(heading: str, name: str, spec: str = "", unit: str = "") -> Field:
    """An attribute of the row in this format; empty if it is None."""
    return heading, lambda row: "" if (value := getattr(row, name)) is None else f"{value:{spec}}{unit}"


T, ARM, TAU = column("T", "temperature", "g"), column("arm", "arm"), column("τ", "tau", ".2f")
MS_PER_TOKEN: Field = ("ms per token", lambda row: f"{row.milliseconds:.2f}{_star(row.whole)}")
BETWEEN: Field = (INTERVAL, lambda row: interval(row.low, row.high))


# --- bench ----------------------------------------------------------------------------------------------------------------


def speed_table(record: BenchRecord) -> Table:
    """One row per arm and temperature: speed-ups, milliseconds and τ."""
    figures = figures_of(record)
    ratios = {(one.arm, one.over, one.temperature): one for one in figures.ratios}
    rows = []
    for arm in figures.arms:
        control = STATIC_VANILLA if arm.arm == STATIC else arm.arm + OFF
        found = [ratios.get((arm.arm, over, arm.temperature)) for over in (VANILLA, TRANSFORMERS, control)]
        vanilla, *others = (f"{one.median:.2f}{_star(one.whole)}" if one else "" for one in found)
        between = interval(found[0].low, found[0].high) if found[0] else ""
        tau = f"{arm.tau:.2f}" if arm.tau else ""
        rows.append(
            (f"{arm.temperature:g}", arm.arm, vanilla, between, f"{arm.milliseconds:.2f}{_star(arm.whole)}", tau, *others)
        )
    headings = ("T", "arm", "× vanilla", INTERVAL, "ms per token", "τ", "× generate", "× control")
    return _rows(headings, rows, _ours(figures.arms), caption=SPEEDS)


def time_table(record: BenchRecord) -> Table:
    """Milliseconds per token with their interval, and the time until the first token."""
    columns = (T, ARM, MS_PER_TOKEN, BETWEEN, column("first token", "prefill", ".1f", " ms"))
    return table_of(figures_of(record).arms, columns, "Time")


def count_table(record: BenchRecord) -> Table:
    """Passes and rows of the arms that report them."""
    arms = [arm for arm in figures_of(record).arms if arm.target_passes is not None]
    counts = [column(_count_name(name), name, ",") for name in ("target_passes", "head_passes", "rows")]
    caption = "Sums over all timed texts. Rows: nodes of all verified trees, roots included."
    return table_of(arms, (T, ARM, TAU, column("mean τ of prompts", "tau_mean", ".2f"), *counts), "Counts", caption)


def ratio_table(record: BenchRecord) -> Table:
    """Every ratio of speeds that was computed."""
    speedup: Field = ("speed-up", lambda one: f"{one.median:.2f}{_star(one.whole)}")
    columns = (T, ARM, column("compared with", "over"), speedup, BETWEEN, column("of totals", "totals", ".2f"))
    return table_of(figures_of(record).ratios, columns, "Speed-ups")


def batch_table(batches: Sequence[BatchFigures]) -> Table:
    """Speed by batch size."""
    rows = []
    for one in batches:
        ratio = ("", "") if one.arm == VANILLA else (f"{one.ratio:.2f}", interval(one.low, one.high))
        step = f"{one.speed:,.0f}", f"{one.milliseconds:.2f}", f"{one.rows:.0f}"
        rows.append((f"{one.temperature:g}", str(one.texts), one.arm, *step, *ratio))
    headings = ("T", "batch size", "arm", "tokens/s", "ms per step", "rows per pass", "× vanilla", "range of repeats")
    return _rows(headings, rows, _ours(batches), caption="× vanilla: speed as a multiple of the same batch without drafts.")


def batch_speedup_table(batches: Sequence[BatchFigures]) -> Table:
    """Speed-ups only: one row per batch size, one column per arm and temperature."""
    ratios = {(one.texts, one.arm, one.temperature): one.ratio for one in batches if one.arm != VANILLA}
    columns = list(dict.fromkeys((arm, temperature) for _, arm, temperature in ratios))
    rows = [
        (str(size), *(f"{ratio:.2f}" if (ratio := ratios.get((size, *key))) else "" for key in columns))
        for size in dict.fromkeys(size for size, _, _ in ratios)
    ]
    headings = ("batch size", *(f"{arm}, T = {temperature:g}" for arm, temperature in columns))
    return _rows(headings, rows, caption="Speed as a multiple of the same batch without drafts.")


def step_table(profiles: Sequence[StepProfile]) -> Table:
    """Milliseconds of a step, and the share of each part."""
    shares = [(part, partial(_share, part)) for part in PARTS]
    return table_of(profiles, (T, ARM, column("ms per step", "total", ".2f"), *shares), "Shares of a step")


def roofline_table(bounds: Sequence[StepBound]) -> Table:
    """Steps of the fixed-shape decoder next to their lower bounds."""
    columns: list[Field] = [
        T,
        ARM,
        column("step", "milliseconds", ".3f", " ms"),
        column("lower bound", "lower_bound", ".3f", " ms"),
        ("ratio", lambda one: f"{one.milliseconds / one.lower_bound:.2f}"),
        ("GB/s", lambda one: f"{one.bandwidth / 1e9:.0f}"),
        *((part, partial(_read, part)) for part in READS),
    ]
    return table_of(bounds, columns, "Step of the fixed-shape decoder and its lower bound", ROOFLINE)


def tuning_table(results: Sequence[TuningResult]) -> Table:
    """The budgets that tuning chose, with the speed-up computed from counts and the one measured on the tuning prompts."""
    rows = []
    for result in results:
        for arm, trial in ((PAPER, result.paper), (TUNED, result.chosen)):
            names = ("k", "depth", "m", "head_temperature", "node", "layer")
            budget = [f"{getattr(trial, name):g}" if trial else "–" for name in names]
            expected = f"{(trial.rate if trial else result.vanilla) / result.vanilla:.2f}"
            measured = f"{trial.timed:.2f}" if trial and trial.timed else "–"
            name = f"{result.arm}, {arm}" if result.arm else arm
            rows.append((f"{result.temperature:g}", name, *budget, expected, measured))
    headings = ("T", "arm", "k", "depth", "m", "head temperature", "node", "layer", "computed speed-up", "measured")
    return _rows(headings, rows, title="Tuned budgets", caption="A row of dashes: ordinary decoding was faster than any budget.")


def head_temperature_table(found: Sequence[HeadTemperature]) -> Table:
    """τ by temperature of the head. The row of the fitted temperature lists the fits of each layer."""
    columns: list[Field] = [
        T,
        column("head temperature", "head_temperature", "g"),
        TAU,
        column("target passes", "passes", ","),
        column("calibration error", "error", ".3f"),
        ("fitted to each layer", lambda one: " ".join(f"{layer:.2f}" for layer in one.layers)),
    ]
    caption = "Bold: the temperature fitted to other prompts."
    return table_of(found, columns, "Temperature of the head", caption, bold=lambda one: bool(one.layers))


def verdict_table(found: Sequence[VerdictLatency]) -> Table:
    """Seconds until a verdict, and how they are divided."""
    columns: list[Field] = [
        *(column(name, name) for name in ("decoder", "pair", "verdict")),
        column("seconds", "seconds", ".1f"),
        column("texts", "texts", ","),
        ("texts/s", lambda one: f"{one.texts / one.seconds:.1f}"),
        ("decoding", lambda one: f"{one.decoding / one.seconds:.0%}"),
        ("scoring", lambda one: f"{one.scoring / one.seconds:.0%}"),
        column("harness", "harness_share", ".1%"),
    ]
    caption = (
        "A sampling campaign at temperature 1. The time is divided into the decoder's own, that of the target's passes over its"
        " texts, and the rest, which is the harness's."
    )
    return table_of(found, columns, "Time until a verdict", caption)


def regression_table(rows: Sequence[ArmChange]) -> Table:
    """Counts and milliseconds of this run, each with its ratio to the earlier run in brackets."""
    cells = [
        (
            f"{row.now.temperature:g}",
            row.now.arm,
            *(_with_ratio(getattr(row.now, name), getattr(row.before, name)) for name in (*COUNTS, "milliseconds")),
            ", ".join(map(_count_name, row.changed_counts)),
        )
        for row in rows
    ]
    headings = ("T", "arm", *map(_count_name, COUNTS), "ms per token", "changed")
    return _rows(headings, cells, frozenset(i for i, row in enumerate(rows) if row.changed_counts))


# --- compare --------------------------------------------------------------------------------------------------------------


def own_options_table(record: CompareRecord) -> Table:
    """All methods with their own options."""
    entrants = [one for one in record.header.entered if one.own]
    return method_table(record, entrants, "With their own options, the defaults of this project or of a preset", METHODS)


def equal_budget_table(record: CompareRecord) -> Table:
    """All methods with the same number of draft tokens."""
    m = record.header.settings.m
    entrants = [one for one in record.header.entered if one.equal]
    return method_table(record, entrants, f"At equal budget, m = {m}", EQUAL_BUDGET.format(m=m))


def method_table(record: CompareRecord, entrants: Sequence[Entrant], title: str, caption: str) -> Table:
    """One row per method and temperature, ordinary decoding first."""
    figures = {(row.arm, row.temperature): row for row in method_figures_of(record) if row.prompts == ALL}
    rows, bold = list[tuple[str, ...]](), set[int]()
    for temperature in record.header.settings.temperatures:
        if entrants and (plain := figures.get((VANILLA, temperature))):
            rows.append((f"{temperature:g}", WITHOUT_DRAFTS, f"{plain.tau:.2f}", "", "", "", f"{plain.rows:.1f}"))
        for one in entrants:
            if row := figures.get((one.arm, temperature)):
                bold |= {len(rows)} if one.method == EAGLE2 else set()
                tau, speed = interval(row.tau_low, row.tau_high), interval(row.speed_low, row.speed_high)
                rows.append((f"{temperature:g}", one.title, f"{row.tau:.2f}", tau, f"{row.speed:.2f}", speed, f"{row.rows:.1f}"))
    headings = ("T", "method", "τ", INTERVAL, "× vanilla", INTERVAL, "rows per pass")
    return _rows(headings, rows, frozenset(bold), title, caption)


def order_table(checks: Sequence[OrderCheck]) -> Table:
    """The expected order of τ at equal budget, for each pair of neighbours."""
    verdicts = {True: "holds", False: "fails", None: "undecided"}
    columns: list[Field] = [
        T,
        ("method", lambda one: one.first.title),
        ("other method", lambda one: one.second.title),
        ("τ", lambda one: f"{one.taus[0]:.2f}"),
        ("other τ", lambda one: f"{one.taus[1]:.2f}"),
        ("difference", lambda one: f"{one.taus[0] - one.taus[1]:+.2f}"),
        (INTERVAL, lambda one: f"{one.low:+.2f} to {one.high:+.2f}"),
        ("verdict", lambda one: verdicts[one.holds]),
    ]
    title = "Expected order of τ at equal budget, by pairs of neighbours"
    caption = "The difference is taken on the same prompts. Undecided: its interval contains 0."
    return table_of(checks, columns, title, caption, bold=lambda one: one.holds is False)


def cost_table(record: CompareRecord) -> Table:
    """One row per arm and temperature: its options, passes, and cost of drafting."""
    entrants, rows = {one.arm: one for one in record.header.entered}, list[tuple[str, ...]]()
    for row in (row for row in method_figures_of(record) if row.prompts == ALL):
        one, cost = entrants.get(row.arm), drafting_share(record.of(StepProfile), row.arm, row.temperature)
        title, options = (one.title, _options(one)) if one else (WITHOUT_DRAFTS, "")
        passes = number(row.target_passes), number(row.draft_passes) if row.draft_passes else ""
        drafting = (f"{cost[0]:.0%}", f"{cost[1]:.2f}") if one and cost else ("", "")
        rows.append((f"{row.temperature:g}", title, options, *passes, *drafting))
    headings = ("T", "method", "options", "target passes", "draft passes", "drafting", "in plain steps")
    caption = (
        "Passes of all texts, those over the prompts included. Drafting: its share of a step. In plain steps: the time of"
        " drafting as a multiple of a step of ordinary decoding; on one prompt per kind, with clocks between the parts."
    )
    return _rows(headings, rows, title="Cost of drafting", caption=caption)


def kind_table(record: CompareRecord, field: str, title: str) -> Table:
    """One column per kind of prompt, and the mean over kinds. field: the figure that is shown."""
    kinds = tuple(dict.fromkeys(prompt.kind for prompt in record.header.prompts))
    entrants = [one for one in record.header.entered if one.own]
    values = {(row.arm, row.temperature, row.prompts): getattr(row, field) for row in method_figures_of(record)}
    rows = [
        (f"{t:g}", one.title, *_with_mean([values.get((one.arm, t, kind)) for kind in kinds], ".2f"))
        for t in record.header.settings.temperatures
        for one in entrants
    ]
    methods = [one.method for _ in record.header.settings.temperatures for one in entrants]
    return _rows(("T", "method", *kinds, "mean"), rows, frozenset(i for i, name in enumerate(methods) if name == EAGLE2), title)


def repetition_table(record: CompareRecord) -> Table:
    """How repetitive the texts of ordinary decoding are, by kind of prompt; no rows for records without these figures."""
    kinds, kind_of = dict.fromkeys(one.kind for one in record.header.prompts), {one.id: one.kind for one in record.header.prompts}
    plain = [call for call in record.of(Call) if call.arm == VANILLA and call.repeated is not None]
    rows = []
    for temperature, calls in group_by(plain, lambda call: call.temperature).items():
        by_kind = group_by(calls, lambda call: kind_of[call.prompt])
        means = [sum(call.repeated for call in by_kind[kind]) / len(by_kind[kind]) if kind in by_kind else None for kind in kinds]
        rows.append((f"{temperature:g}", *_with_mean(means, ".0%")))
    return _rows(("T", *kinds, "mean"), rows, title="Repeated 4-grams of the texts of ordinary decoding", caption=REPEATED)


def _with_mean(values: Sequence[float | None], spec: str) -> list[str]:
    """Cells for values, and for their mean if there is one of each kind."""
    known = [value for value in values if value is not None]
    mean = [sum(known) / len(known)] if len(known) == len(values) else [None]
    return [f"{value:{spec}}" if value is not None else "" for value in (*values, *mean)]


def left_out_table(record: CompareRecord) -> Table:
    """Methods that could not be run, with the reason."""
    return _rows(("method", "reason"), list(record.header.left_out.items()), title="Methods that were not run")


def divergence_table(found: Sequence[Divergence]) -> Table:
    """Greedy texts that differ from ordinary decoding's."""
    rows = [
        (one.arm, one.prompt, number(one.at), number(one.margin), number(one.noise), "tie" if one.is_tie else "fault")
        for one in found
    ]
    headings = ("method", "prompt", "new token", "logit distance", "rounding", "verdict")
    caption = "Logit distance: of the two tokens under the target. Rounding: how far two orders of arithmetic move them apart."
    bold = frozenset(i for i, one in enumerate(found) if not one.is_tie)
    return _rows(headings, rows, bold, "Texts at temperature 0 that differ from ordinary decoding's", caption)


def published_table() -> Table:
    """What others published about the methods of this project."""
    rows = [_published_row(figure) for figure in published() if figure.method]
    return _rows(("source", "model", "T", "method", "τ", "× vanilla"), rows, caption=PUBLISHED)


# --- shared ---------------------------------------------------------------------------------------------------------------


def table_of(
    found: Sequence[Any],
    columns: Iterable[Field],
    title: str = "",
    caption: str = "",
    bold: Callable[[Any], bool] = lambda row: getattr(row, "arm", "") in OURS,
) -> Table:
    """A row for each thing that was found; those of the reference decoder with a drafter are bold by default."""
    headings, texts = zip(*columns, strict=True)
    rows = [tuple(text(row) for text in texts) for row in found]
    return _rows(headings, rows, frozenset(i for i, row in enumerate(found) if bold(row)), title, caption)


def _rows(
    headings: Sequence[str],
    rows: Iterable[tuple[str, ...]],
    bold: frozenset[int] = frozenset(),
    title: str = "",
    caption: str = "",
) -> Table:
    columns = (Column(_in_two_lines(name), "left" if name in WORDS else "right", WORDS.get(name, 0)) for name in headings)
    return Table(tuple(columns), tuple(rows), bold, title, caption)


def _in_two_lines(heading: str) -> str:
    """A long heading, broken at the space next to its middle: a terminal of 80 columns has no room for it in one line.

    HTML and Markdown show the line break as a space.
    """
    spaces = [i for i, character in enumerate(heading) if character == " "]
    if len(heading) <= 8 or not spaces:
        return heading
    middle = min(spaces, key=lambda i: abs(2 * i + 1 - len(heading)))
    return f"{heading[:middle]}\n{heading[middle + 1 :]}"


def _ours(rows: Sequence[ArmFigures | BatchFigures]) -> frozenset[int]:
    """Rows of the reference decoder with a drafter, which are bold."""
    return frozenset(i for i, row in enumerate(rows) if row.arm in OURS)


def _star(whole: bool) -> str:
    return "*" if whole else ""


def _share(part: str, one: StepProfile) -> str:
    return f"{one.milliseconds[part] / one.total:.0%}" if part in one.milliseconds else ""


def _read(part: str, one: StepBound) -> str:
    return f"{size / 1e6:.1f} MB" if (size := one.weights.get(part)) else ""


def _count_name(count: str) -> str:
    return "τ" if count == "tau" else count.replace("_", " ")


def _with_ratio(now: float | int | None, before: float | int | None) -> str:
    if now is None or before is None:
        return "" if now is before else "reported once"
    text = f"{now:,}" if isinstance(now, int) else f"{now:.2f}"
    return f"{text}\n({now / before:.3f})" if before else text


def _options(one: Entrant) -> str:
    """The options that bound the size of its drafts."""
    names = ("ngram", "k", "depth", "m", "window", "phrase")
    return ", ".join(f"{name} {one.options[name]}" for name in names if name in one.options)


def _published_row(figure: Figure) -> tuple[str, ...]:
    doubt = f" ({figure.doubt})" if figure.doubt else ""
    source = f"{figure.source.where}{doubt}"
    return source, figure.model, f"{figure.temperature:g}", figure.label, f"{figure.tau:.2f}", f"{figure.speedup:.2f}"
