"""One layout for every report: a `Page` of sections, written as HTML and as Markdown.

    page = Page(
        title="Decoding speed",
        answer="EAGLE-2 decodes 2.1 times as fast as ordinary decoding.",
        verdict="tie",
        sections=(Section("At a glance", (table, drawing)), Section("Settings", (Facts((("pair", "stdlib"),)),))),
    )
    html(page)       # one file: no scripts, nothing fetched, light and dark
    markdown(page)   # the same for a pipeline's summary; drawings are links to the files next to it

A page starts with its answer in one sentence. A block of a section is a `tables.Table`, a `plots.Drawing`, or one of the
values below. All text is escaped here; nothing but a `Drawing` may hold markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias, Union

from harness.files import write_together
from harness.record.model import Verdict
from harness.report import text
from harness.report.canvas import COLOURS, Drawing
from harness.report.tables import Mark, Table
from harness.verdict import SIGNS

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@dataclass(frozen=True)
class Paragraph:
    """Sentences. kind: 'note' is smaller and grey, 'requirement' larger."""

    block: ClassVar[str] = "paragraph"
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair a line."""

    block: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True)
class Command:
    """A shell command."""

    block: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Item:
    """An item of a list: a bold start, which may be a link, the text after it, and commands below it."""

    text: str
    lead: str = ""
    link: str = ""
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    style: str = ""


@dataclass(frozen=True)
class Items:
    """A list. most: how many items Markdown shows; the rest is counted."""

    block: ClassVar[str] = "items"
    items: tuple[Item, ...]
    most: int = 50


@dataclass(frozen=True)
class Legend:
    """What the marks of a table mean."""

    block: ClassVar[str] = "legend"
    marks: tuple[tuple[Mark, str], ...]
    note: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks folded below a summary line. HTML only."""

    block: ClassVar[str] = "details"
    summary: str
    blocks: tuple[Block, ...]
    mark: Mark | None = None


Block: TypeAlias = Union[Table, Drawing, Paragraph, Facts, Command, Items, Legend, Details, "Section"]


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; a section inside a section is a subsection.

    Args:
        id: anchor of the section.
        note: shown small after the heading.
        markdown: whether the Markdown summary has this section.
    """

    block: ClassVar[str] = "section"

    heading: str
    blocks: tuple[Block, ...]
    id: str = ""
    note: str = ""
    markdown: bool = True


@dataclass(frozen=True)
class Page:
    """A report.

    Args:
        title: heading of the page.
        answer: the result, in one sentence.
        verdict: gives the answer its colour and symbol.
        show_verdict: whether the word of the verdict is shown; a measurement has none.
        eyebrow: small line above the title, such as the command.
        subtitle: shown small after the title, such as a version.
        counts: how many results have each verdict, for a bar of shares.
        meta: settings in one line.
        warning: what a reader must know first, such as that the run was cut off.
    """

    title: str
    answer: str
    sections: tuple[Section, ...]
    verdict: Verdict = "tie"
    show_verdict: bool = True
    eyebrow: str = ""
    subtitle: str = ""
    counts: tuple[tuple[Verdict, int], ...] = ()
    meta: str = ""
    warning: str = ""

    def drawings(self) -> list[Drawing]:
        """Every drawing, in the order of the page."""
        return list(_drawings(self.sections))


def html(page: Page) -> str:
    """The page as one HTML file. It runs no script and fetches nothing, and its policy forbids both."""
    template = _templates().get_template("layout.html")
    return template.render(page=page, sign=SIGNS[page.verdict], signs=SIGNS, colours=COLOURS).lstrip()


def markdown(page: Page) -> str:
    """The page as Markdown. Its drawings are links to `NAME.svg` next to it."""
    sign = SIGNS[page.verdict]
    title = (
        f"{sign.symbol} {page.verdict}: {text.escape_markdown(page.title, 200)}"
        if page.show_verdict
        else text.escape_markdown(page.title)
    )
    subtitle = f" {text.escape_markdown(page.subtitle, 80)}" if page.subtitle else ""
    lines = [f"## {title}{subtitle}", "", text.escape_markdown(page.answer, 2400)]
    tally = " · ".join(f"{text.number(n)} {verdict}" for verdict, n in page.counts)
    for line in (page.warning, tally, page.meta):
        lines += ["", text.escape_markdown(line, 1000)] if line else []
    for section in page.sections:
        lines += _markdown_block(section, 3)
    return "\n".join(lines).rstrip() + "\n"


def write(page: Page, out: Path, *, summary: Page | None = None, files: bool = False) -> list[Path]:
    """Write index.html and summary.md into `out`, and return their paths.

    Args:
        summary: a shorter page for summary.md; the same page by default.
        files: also write every drawing of the summary as an SVG file.
    """
    summary = summary or page
    texts = {"index.html": html(page), "summary.md": markdown(summary)}
    texts |= {f"{one.name}.svg": one.standalone() for one in summary.drawings()} if files else {}
    out.mkdir(parents=True, exist_ok=True)
    return write_together({out / name: body for name, body in texts.items()})


def verdict_mark(verdict: Verdict, link: str = "", tooltip: str = "") -> Mark:
    """The coloured square of a verdict."""
    return Mark(SIGNS[verdict].symbol, SIGNS[verdict].style, link, tooltip)


def verdict_legend(note: str = "") -> Legend:
    """All verdicts."""
    return Legend(tuple((verdict_mark(verdict), verdict) for verdict in SIGNS), note)


def _drawings(blocks: Iterable[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Section | Details):
            yield from _drawings(block.blocks)


def _markdown_block(block: Block, level: int) -> Sequence[str]:
    """Lines of a block, the first of them empty."""
    match block:
        case Section():
            if not block.markdown:
                return ()
            inner = [line for one in block.blocks for line in _markdown_block(one, level + 1)]
            return ("", f"{'#' * level} {text.escape_markdown(block.heading)}", *inner) if inner or not block.blocks else ()
        case Table():
            heading = ("", f"{'#' * level} {text.escape_markdown(block.title)}") if block.title else ()
            caption = ("", text.escape_markdown(block.caption, 1200)) if block.caption else ()
            return (*heading, "", *block.markdown(), *caption)
        case Drawing():
            title = text.escape_markdown(block.title)
            return (
                "",
                f"{'#' * level} {title}",
                "",
                f"![{title}]({block.name}.svg)",
                "",
                text.escape_markdown(block.caption, 1200),
            )
        case Paragraph():
            return ("", text.escape_markdown(block.text, 2400)) if block.text else ()
        case Facts():
            return (
                "",
                *(f"- {text.escape_markdown(name, 60)}: {text.escape_markdown(value, 1000)}" for name, value in block.pairs),
            )
        case Command():
            return ("", f"Command: {text.code_span(block.text)}")
        case Items():
            more = len(block.items) - block.most
            lines = [line for item in block.items[: block.most] for line in _markdown_item(item)]
            return ("", *lines, *([f"- and {text.number(more)} more, in index.html"] if more > 0 else []))
        case _:
            return ()


def _markdown_item(item: Item) -> Iterator[str]:
    lead = f"**{text.escape_markdown(item.lead, 200)}**" if item.lead else ""
    lead = f"[{lead}]({item.link})" if item.link and not item.link.startswith("#") else lead
    yield f"- {': '.join(part for part in (lead, text.escape_markdown(item.text, 800)) if part)}"
    yield from (f"  {text.escape_markdown(note, 800)}" for note in item.notes)
    yield from (f"  {text.code_span(command)}" for command in item.commands if command)


def _prose(words: str, limit: int = 2000) -> Markup:
    """Escaped text in which `words between backticks` are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text.printable(words, limit)))))  # noqa: S704 - escaped


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(printable=text.printable, number=text.number, prose=_prose)
    return environment
