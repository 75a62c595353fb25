"""The page of `eagle2 acceptance`, with its tables and plots. Terminal, page and summary show the same values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from eagle2_ref.methods import METHODS
from harness.benchmark.acceptance_figures import (
    TauChange,
    below_floor,
    disagreements,
    figures_of,
    judged_cells,
    unchecked,
    without_figures,
)
from harness.benchmark.acceptance_record import (
    FEWEST_CHECKED,
    AcceptanceFigures,
    AcceptanceRecord,
    Cell,
    CellFigures,
    CheckFigures,
    GroupFigures,
    Rate,
    TextAcceptance,
)
from harness.benchmark.figures import group_by
from harness.benchmark.pages import markdown_section, reliability_plots, result_page, section_of
from harness.benchmark.result_plots import Groups
from harness.benchmark.result_tables import INTERVAL, Field, T, column, table_of
from harness.report.canvas import Drawing
from harness.report.layout import Page, Paragraph
from harness.report.plots import Axis, Bar, Series, bars, heatmap, lines
from harness.report.tables import Table
from harness.report.text import interval, join_names, join_sentences, plural, printable

JUDGED = "τ: tokens per target pass, without the pass over the prompt; intervals by bootstrap over prompts."
CEILING = (
    "The same texts, decoded with trees of the same size by a head that knows the target's distribution: what training can bring"
    " at most with chosen draft tokens. At temperature 0 it proposes the text itself, and only the depth limits τ. Sampled draft"
    " tokens have another limit."
)


def acceptance_page(record: AcceptanceRecord) -> Page:
    """The page of `eagle2 acceptance`."""
    figures, header = figures_of(record), record.header
    judged, depths = tau_table(judged_cells(record), caption=JUDGED), depth_table(figures)
    every = section_of("All trees", tau_table(figures.cells))
    known = [(text.temperature, text.repeated) for text in record.of(TextAcceptance) if text.repeated is not None]
    shares = [
        f"{sum(share for _, share in found) / len(found):.0%} at temperature {t:g}"
        for t, found in group_by(known, lambda one: one[0]).items()
    ]
    sentence = f"Of the 4-grams of a text, {join_names(shares, len(shares))} occurred in it before."
    sections = (
        section_of(
            "The tree that is judged",
            judged,
            *([Paragraph(sentence)] if shares else []),
            *acceptance_plots(figures, header.budget),
        ),
        section_of("Estimate and decoding", check_table(figures.checks)),
        *(section_of("A perfect head", table) for table in ceiling_tables(figures)),
        section_of("Acceptance by depth", *([depth_plot(figures)] if figures.depths else []), depths),
        section_of("Confidence of the head", *reliability_plots(record)),
        section_of(
            "Kinds of prompts",
            *([group_plot("kinds", "τ by kind of prompt", figures.kinds)] if figures.kinds else []),
            group_table(figures.kinds, "kind"),
        ),
        section_of(
            "Length of the context",
            *([group_plot("contexts", "τ by tokens of context", figures.contexts)] if figures.contexts else []),
            group_table(figures.contexts, "context"),
        ),
        replace(every, markdown=False),
    )
    page = result_page("Acceptance", acceptance_answer(record), acceptance_settings(record), record, sections, {})
    warning = join_sentences(page.warning, *_acceptance_warnings(record))
    if disagreements(record) or unchecked(record) or (without_figures(record) and not below_floor(record)):
        return replace(page, verdict="inconclusive", warning=warning)
    return replace(page, verdict="fault", warning=warning) if below_floor(record) else page


def acceptance_answer(record: AcceptanceRecord) -> str:
    """The result in one sentence: τ of the tree that is judged."""
    parts = [
        f"{one.tau.value:.2f} ({interval(one.tau.low, one.tau.high)}) at temperature {one.temperature:g}"
        for one in judged_cells(record)
    ]
    title = METHODS[record.header.head].title if record.header.head in METHODS else record.header.head
    tree = f"with {title}'s tree of {record.header.budget}"
    return f"Tokens per target pass {tree}: {join_names(parts, len(parts))}." if parts else "No text has two tokens."


def _acceptance_warnings(record: AcceptanceRecord) -> Iterator[str]:
    for one in disagreements(record):
        yield (
            f"At temperature {one.temperature:g} decoding with {one.cell} has τ = {one.decoded:.3f}, the estimate is"
            f" {one.estimated:.3f}: the figures cannot be relied on."
        )
    for t, missing in unchecked(record):
        yield f"At temperature {t:g} too few texts were decoded with {missing}: the estimate is not checked."
    for cell, floor in below_floor(record):
        yield f"At temperature {cell.temperature:g} τ is below the floor of {floor:g}."
    for t in without_figures(record):
        yield f"At temperature {t:g} there is no τ to compare with the floor."


def acceptance_section(record: AcceptanceRecord) -> str:
    """The section of a model card, in Markdown: τ of the tree that is judged, on all prompts and by kind."""
    figures, judged = figures_of(record), tau_table(judged_cells(record), caption=JUDGED)
    tables = judged, group_table(figures.kinds, "kind"), *ceiling_tables(figures)
    return markdown_section(record, acceptance_settings(record), tables)


def acceptance_mark(record: AcceptanceRecord) -> str:
    """The name of this section: a card has one for each kind of head."""
    return f"acceptance-{record.header.head}"


def model_card(record: AcceptanceRecord) -> Path:
    """The page of the pair of a record, relative to the root of the repository."""
    return Path("fixtures/pairs") / record.header.settings.pair / "README.md"


def acceptance_settings(record: AcceptanceRecord) -> str:
    """The settings in one line."""
    settings, prompts = record.header.settings, record.header.prompts
    kinds = len({prompt.kind for prompt in prompts})
    return (
        f"Pair {settings.pair}, {plural(len(prompts), 'prompt')} of {plural(kinds, 'kind')} ({settings.prompts}), the target's"
        f" own texts of up to {settings.tokens} tokens; seed {settings.seed}. Estimated along the texts, without decoding."
    )


def show_changes(changes: Sequence[TauChange], record: AcceptanceRecord, before: AcceptanceRecord, console: Console) -> None:
    """The comparison with an earlier run on the terminal."""
    header, prompts = before.header, len(record.header.prompts)
    console.print(Text(printable(f"\nCompared with commit {header.commit}, {header.started[:10]}, paired by prompt.")))
    console.print(change_table(changes).terminal())
    for t, found in group_by((one for one in changes if one.judged), lambda one: one.temperature).items():
        if (texts := found[0].texts) < prompts:
            console.print(
                Text(f"At temperature {t:g} {texts} of {prompts} texts are the same in both runs; others are left out.")
            )
    lower = [one for one in changes if one.judged and one.is_lower]
    what = "significantly lower" if lower else "not significantly lower"
    console.print(Text(f"τ of the tree that is judged is {what}."), style="red" if lower else "")


# --- tables ---------------------------------------------------------------------------------------------------------------


def tau_table(cells: Sequence[CellFigures], title: str = "", caption: str = "") -> Table:
    """τ of cells of the grid."""
    tree: Field = ("tree", lambda one: str(one.cell))
    columns = (T, tree, *_rate("τ", "tau"), column("tokens", "tokens", ","), column("passes", "passes", ","))
    return table_of(cells, columns, title, caption)


def group_table(groups: Sequence[GroupFigures], what: str, caption: str = "") -> Table:
    """τ of parts of the prompts or of the passes. what: heading of their names."""
    columns = (T, column(what, "group"), *_rate("τ", "tau"), column("texts", "texts", ","), column("passes", "passes", ","))
    return table_of(groups, columns, caption=caption)


def depth_table(figures: AcceptanceFigures) -> Table:
    """Acceptance by depth."""
    columns = (T, column("shape", "shape"), column("depth", "depth"), *_rate("accepted", "accepted"))
    return table_of(figures.depths, (*columns, column("positions", "positions", ",")))


def ceiling_tables(figures: AcceptanceFigures) -> tuple[Table, ...]:
    """τ of a perfect head, if it was measured."""
    return (group_table(figures.ceilings, "kind", CEILING),) if figures.ceilings else ()


def check_table(checks: Sequence[CheckFigures]) -> Table:
    """The estimate next to decoding."""
    columns: tuple[Field, ...] = (
        T,
        ("tree", lambda one: str(one.cell)),
        column("estimated τ", "estimated", ".3f"),
        column("decoded τ", "decoded", ".3f"),
        *_rate("difference", "difference", 3, "+"),
        ("same texts", lambda one: f"{one.same} of {one.texts}"),
        ("agrees", lambda one: "yes" if one.agrees else "NO"),
    )
    caption = (
        "Decoded: the same texts, decoded with these trees under the rule walk, with coins keyed by position. Texts that rounding"
        f" changed are left out, unless fewer than {FEWEST_CHECKED} would remain. The two agree if the 95 % interval of the"
        " difference, Student's t over texts, contains 0, or if it is below 1 %."
    )
    return table_of(checks, columns, caption=caption)


def change_table(changes: Sequence[TauChange]) -> Table:
    """τ of every cell in two runs."""
    columns: tuple[Field, ...] = (
        T,
        ("tree", lambda one: str(one.cell)),
        column("τ before", "before", ".2f"),
        column("τ now", "now", ".2f"),
        *_rate("difference", "difference", sign="+"),
    )
    return table_of(changes, columns, bold=lambda one: one.judged)


def _rate(heading: str, name: str, digits: int = 2, sign: str = "") -> tuple[Field, Field]:
    """A figure, and its interval."""

    def rate(row: Any) -> Rate:
        found: Rate = getattr(row, name)
        return found

    figure: Field = (heading, lambda row: f"{rate(row).value:{sign}.{digits}f}")
    return figure, (INTERVAL, lambda row: interval(rate(row).low, rate(row).high, digits))


# --- plots ----------------------------------------------------------------------------------------------------------------


def acceptance_plots(figures: AcceptanceFigures, budget: Cell) -> Iterator[Drawing]:
    """For each temperature τ by draft tokens for every k, and by depth at the k of the run."""
    for t, found in group_by(figures.cells, lambda one: one.temperature).items():
        deepest = max(one.cell.depth for one in found)
        by_k = group_by((one for one in found if one.cell.depth == deepest), lambda one: one.cell.k)
        series = [_cell_curve(f"k = {k}: {cells[-1].tau.value:.2f}", cells) for k, cells in by_k.items()]
        caption = f"Trees of depth {deepest}; intervals are 95 %, over prompts. Dashed: the m of the tree that is judged."
        title, x = f"τ by number of draft tokens, temperature {t:g}", Axis("draft tokens m", "log2")
        yield lines(f"grid-{t:g}", title, series, x=x, y=Axis("τ"), caption=caption, at=budget.m)
        by_depth = group_by((one for one in found if one.cell.k == budget.k), lambda one: one.cell.depth)
        rows = {f"depth = {d}": {f"m = {one.cell.m}": one.tau.value for one in cells} for d, cells in by_depth.items()}
        title = f"τ by depth and m at k = {budget.k}, temperature {t:g}"
        yield heatmap(f"depths-{t:g}", title, rows, base=1.0, caption="Ordinary decoding has 1.")


def _cell_curve(label: str, cells: Sequence[CellFigures]) -> Series:
    taus = [one.tau for one in cells]
    intervals = [one.low for one in taus], [one.high for one in taus]
    return Series(label, [one.cell.m for one in cells], [one.value for one in taus], *intervals)


def depth_plot(figures: AcceptanceFigures) -> Drawing:
    """Acceptance by depth, of a chain and of the tree that is judged, at each temperature."""
    series = []
    for (t, shape), found in group_by(figures.depths, lambda one: (one.temperature, one.shape)).items():
        rates = [one.accepted for one in found]
        intervals = [one.low for one in rates], [one.high for one in rates]
        series.append(Series(f"{shape}, T = {t:g}", [one.depth for one in found], [one.value for one in rates], *intervals))
    deepest = max((one.depth for one in figures.depths), default=1)
    caption = (
        "Share of positions at which the token at a depth is accepted, of those at which its parent was; over all positions of"
        " the texts, not only those that decoding visits. A chain has the head's first choice, a tree several."
    )
    depth = Axis("depth", ticks=range(1, deepest + 1), start=0.5, end=deepest + 0.5)
    rate = Axis("acceptance rate", ticks=(0, 0.5, 1), start=0, end=1)
    return lines("acceptance", "Acceptance by depth", series, x=depth, y=rate, caption=caption)


def group_plot(name: str, title: str, groups: Sequence[GroupFigures]) -> Drawing:
    """τ of parts of the prompts or of the passes, by temperature."""
    found: Groups = {
        f"T = {t:g}": [Bar(printable(one.group, 40), (one.tau.value,), ((one.tau.low, one.tau.high),)) for one in parts]
        for t, parts in group_by(groups, lambda one: one.temperature).items()
    }
    return bars(
        name, title, found, ("τ",), caption="Tokens per target pass of the tree that is judged; intervals are 95 %, over prompts."
    )
