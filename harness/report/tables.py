"""One table value, shown on a terminal, in Markdown and in HTML.

    table = Table(columns("method", "τ", "ms per token", left=("method",)), (("eagle2", "3.41", "7.2"), ("vanilla", "1", "18")))
    table.markdown()      # lines of a Markdown table
    table.terminal()      # a rich.table.Table
    # in HTML: put the table into a `layout.Section`

A cell is a string, or a `Cell` where it has a verdict, a link, notes or commands. All text is escaped by each of the three.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.report.text import code_span, escape_markdown, printable

if TYPE_CHECKING:
    import rich.table

Align = Literal["left", "right"]


@dataclass(frozen=True)
class Column:
    """A column: its heading, its alignment, and the width that a narrow terminal leaves to it at least."""

    heading: str
    align: Align = "right"
    min_width: int = 0


@dataclass(frozen=True)
class Mark:
    """A coloured square with a symbol: one case of a property, or one pair of a mutant and a property."""

    symbol: str
    style: str
    link: str = ""
    tooltip: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell that is more than a string.

    Args:
        text: what the cell says.
        style: style of a verdict (see `harness.verdict`), which colours the cell; empty for none.
        symbol: symbol of that verdict, shown before the text.
        link: where the text leads: '#anchor' or a relative path, never text of a record.
        notes: further lines, shown smaller; Markdown and the terminal leave them out.
        commands: shell commands, shown after the notes and easy to copy.
        marks: coloured squares, shown after the text.
        tooltip: text under the pointer.
    """

    text: str = ""
    style: str = ""
    symbol: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    marks: tuple[Mark, ...] = ()
    tooltip: str = ""

    @property
    def label(self) -> str:
        """Symbol and text."""
        return f"{self.symbol} {self.text}".strip()


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells.

    Args:
        columns: see `columns` for a short way to write them.
        rows: one cell for each column.
        bold: indices of the emphasised rows.
        title: a heading above the table.
        caption: how to read it, one or two sentences below the table.
        ids: an anchor for each row, or none at all.
        kind: class of the table in the stylesheet, for a table of marks ('grid') or of cases ('cases').
    """

    block: ClassVar[str] = "table"

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    bold: frozenset[int] = frozenset()
    title: str = ""
    caption: str = ""
    ids: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row of {self.title or 'a table'} needs {len(self.columns)} cells")

    @property
    def cells(self) -> list[tuple[Cell, ...]]:
        """The rows, with every string as a `Cell`."""
        return [tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in self.rows]

    def markdown(self, limit: int = 300) -> list[str]:
        """Lines of a Markdown table. Bold rows are bold; title and caption are the caller's to place."""
        lines = [[escape_markdown(column.heading, 60) for column in self.columns]]
        lines.append(["---" if column.align == "left" else "--:" for column in self.columns])
        for i, row in enumerate(self.cells):
            lines.append([_markdown_cell(cell, i in self.bold, limit) for cell in row])
        return [f"| {' | '.join(line)} |" for line in lines]

    def terminal(self) -> rich.table.Table:
        """A table for a `rich` console: no frame, long words folded."""
        import rich.table
        from rich.text import Text

        from harness.verdict import SIGNS

        styles = {sign.style: sign.terminal for sign in SIGNS.values()}
        table = rich.table.Table(box=None, pad_edge=False, header_style="dim", title=self.title or None, title_justify="left")
        for column in self.columns:
            width = column.min_width or None
            table.add_column(Text(column.heading), justify=column.align, overflow="fold", min_width=width)
        for i, row in enumerate(self.cells):
            texts = []
            for cell in row:
                text = Text(printable(cell.text), style=styles.get(cell.style, ""))
                texts.append(text + Text("".join(f"\n{printable(command)}" for command in cell.commands), style="dim"))
            table.add_row(*texts, style="bold" if i in self.bold else None)
        return table


def columns(*headings: str, left: Iterable[str] = ()) -> tuple[Column, ...]:
    """Columns by their headings: those in `left` hold words, all others numbers, which are aligned to the right."""
    words = frozenset(left)
    return tuple(Column(heading, "left" if heading in words else "right") for heading in headings)


def text_columns(*headings: str) -> tuple[Column, ...]:
    """Columns of words."""
    return columns(*headings, left=headings)


def _markdown_cell(cell: Cell, bold: bool, limit: int) -> str:
    text = escape_markdown(" ".join(part for part in (cell.label, *(mark.symbol for mark in cell.marks)) if part), limit).strip()
    text = f"**{text}**" if bold and text else text
    text = f"[{text}]({cell.link})" if cell.link and not cell.link.startswith("#") and text else text
    return " ".join(part for part in (text, *(code_span(command).replace("|", "\\|") for command in cell.commands)) if part)
