"""Tables of a comparison: on the terminal, in Markdown and on the page from the same cells."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from harness.bench.arms import VANILLA
from harness.bench.record import Steps
from harness.bench.show import Cells, between, machine, table
from harness.compare.figures import ALL, DYNAMIC, Ordered, drafting, of, ordered
from harness.compare.published import Figure, published
from harness.compare.record import Entered, Parted, Record
from harness.compare.words import asked, broken, greedy, order, sentence
from harness.report.words import number, shown

BARE = "without drafts"
SHAPE = ("ngram", "k", "depth", "m", "window", "phrase")
GLANCE = ("T", "method", "τ", "95 %", "× vanilla", "95 %", "rows a pass")
SPENT = ("T", "method", "options", "target passes", "draft passes", "drafting", "in steps")
PARTED = ("method", "prompt", "new token", "logits apart", "arithmetic", "verdict")
NEIGHBOURS = ("T", "method", "over", "τ", "τ of the other", "difference", "95 %", "verdict")
PUBLISHED = ("source", "model", "T", "method", "τ", "× vanilla")

LEGEND = (
    "τ: tokens per target pass, of all passes together. × vanilla: times as fast as ordinary decoding with the same network,"
    " without the prompt's pass; medians over prompts. Intervals of 95 %, by bootstrap over prompts. Rows a pass: nodes of all"
    " trees that the target verified, roots and Lookahead's window included."
)
COSTS = (
    "Passes are of all texts, the prompts' included. Drafting: its share of a step, and what it takes in steps of"
    " ordinary decoding, on one prompt a kind and with clocks between the parts."
)
OWN = "With their own options, the defaults of this project or a preset's"
EQUAL = (
    "With m = {m} draft tokens a pass at most: trees of m nodes, chains of m tokens, or as many guesses of one length as make no"
    " more. Own options that make as many stand here as they are."
)
QUOTED = "Published elsewhere, on other models and machines: quoted, not measured here. Means over all data of a source."


def tables(record: Record) -> list[Cells]:
    """Everything that was measured."""
    entered, m = record.header.entered, record.header.settings.m
    kinds = tuple(dict.fromkeys(prompt.kind for prompt in record.header.prompts))
    own, equal = [one for one in entered if one.own], [one for one in entered if one.equal]
    found = [
        glance(record, own, OWN, LEGEND),
        glance(record, equal, f"At equal budget, m = {m}", EQUAL.format(m=m)),
        neighbours(ordered(record)),
        costs(record),
        by_kind(record, own, kinds, "tau", "τ by kind of prompt"),
        by_kind(record, own, kinds, "speed", "Times as fast as ordinary decoding, by kind of prompt"),
        Cells(("method", "why"), tuple(record.header.left_out.items()), title="Left out"),
        parted(record.of(Parted)),
    ]
    return [cells for cells in found if cells.rows]


def glance(record: Record, entered: Sequence[Entered], title: str, note: str) -> Cells:
    """A row a method and temperature, ordinary decoding in front: what it brings."""
    rows = {(row.arm, row.temperature): row for row in of(record) if row.prompts == ALL}
    lines, heavy = list[tuple[str, ...]](), set[int]()
    for temperature in record.header.settings.temperatures:
        if entered and (plain := rows.get((VANILLA, temperature))):
            lines.append((f"{temperature:g}", BARE, f"{plain.tau:.2f}", "", "", "", f"{plain.rows:.1f}"))
        for one in entered:
            if row := rows.get((one.arm, temperature)):
                heavy |= {len(lines)} if one.method == DYNAMIC else set()
                tau, speed = between(row.tau_low, row.tau_high), between(row.speed_low, row.speed_high)
                lines.append((f"{temperature:g}", one.title, f"{row.tau:.2f}", tau, f"{row.speed:.2f}", speed, f"{row.rows:.1f}"))
    return Cells(GLANCE, tuple(lines), frozenset(heavy), note, title)


def neighbours(found: Sequence[Ordered]) -> Cells:
    """The expected order of tau at equal budget, pair by pair."""
    said = {True: "holds", False: "fails", None: "open"}
    rows = [
        (
            f"{one.temperature:g}",
            one.first.title,
            one.second.title,
            *(f"{tau:.2f}" for tau in one.taus),
            f"{one.taus[0] - one.taus[1]:+.2f}",
            f"{one.low:+.2f} to {one.high:+.2f}",
            said[one.holds],
        )
        for one in found
    ]
    note = "The difference of both on the same prompts; open where its interval holds 0."
    heavy = frozenset(i for i, one in enumerate(found) if one.holds is False)
    return Cells(NEIGHBOURS, tuple(rows), heavy, note, "The expected order of τ at equal budget, neighbour by neighbour")


def costs(record: Record) -> Cells:
    """A row an arm and temperature: with which options, and what it took."""
    entered, lines = {one.arm: one for one in record.header.entered}, list[tuple[str, ...]]()
    for row in (row for row in of(record) if row.prompts == ALL):
        one, spent = entered.get(row.arm), drafting(record.of(Steps), row.arm, row.temperature)
        title, shape = (one.title, options(one)) if one else (BARE, "")
        shares = (f"{spent[0]:.0%}", f"{spent[1]:.2f}") if one and spent else ("", "")
        passes = number(row.target_passes), number(row.draft_passes) if row.draft_passes else ""
        lines.append((f"{row.temperature:g}", title, shape, *passes, *shares))
    return Cells(SPENT, tuple(lines), note=COSTS, title="What it took")


def options(one: Entered) -> str:
    """What bounds its drafts."""
    return ", ".join(f"{name} {one.options[name]}" for name in SHAPE if name in one.options)


def by_kind(record: Record, entered: Sequence[Entered], kinds: Sequence[str], what: str, title: str) -> Cells:
    """A column a kind."""
    values = {(row.arm, row.temperature, row.prompts): getattr(row, what) for row in of(record)}
    lines = [
        (f"{t:g}", one.title, *(f"{value:.2f}" if (value := values.get((one.arm, t, kind))) else "" for kind in kinds))
        for t in record.header.settings.temperatures
        for one in entered
    ]
    heavy = frozenset(i for i, one in enumerate([*entered] * len(record.header.settings.temperatures)) if one.method == DYNAMIC)
    return Cells(("T", "method", *kinds), tuple(lines), heavy, title=title)


def parted(found: Sequence[Parted]) -> Cells:
    """Greedy texts that are not ordinary decoding's."""
    rows = [
        (one.arm, one.prompt, number(one.at), number(one.margin), number(one.noise), "tie" if one.tie else "fault")
        for one in found
    ]
    note = "Logits apart: of the two tokens, as the target has them. Arithmetic: by how much two orders of it may differ there."
    heavy = frozenset(i for i, one in enumerate(found) if not one.tie)
    return Cells(PARTED, tuple(rows), heavy, note, "Texts of temperature 0 that part from ordinary decoding's")


def quoted() -> Cells:
    """What others measured of the methods that are here."""
    rows = [_quoted(figure) for figure in published() if figure.method]
    return Cells(PUBLISHED, tuple(rows), note=QUOTED)


def _quoted(figure: Figure) -> tuple[str, ...]:
    doubt = f" ({figure.doubt})" if figure.doubt else ""
    figures = f"{figure.tau:.2f}", f"{figure.speedup:.2f}"
    return f"{figure.source.where}{doubt}", figure.model, f"{figure.temperature:g}", figure.label, *figures


def show(record: Record, console: Console) -> None:
    """What was measured here, and in words what it shows."""
    console.print()
    if record.footer is None:
        console.print("this run was cut off: figures are of what there is", style="yellow")
    for cells in tables(record):
        console.print(Text(shown(cells.title)))
        console.print(table(cells))
        console.print(Text(shown(cells.note), style="dim"))
        console.print()
    for told in filter(None, (sentence(record), order(record))):
        console.print(Text(shown(told)))
    console.print(Text(shown(greedy(record)), style="red" if broken(record) else ""))
    console.print(Text(shown(f"{asked(record)}\n{machine(record.header)}"), style="dim"))
