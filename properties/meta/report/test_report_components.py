"""The components of every report: text, tables, plots, trees and the page layout. Untrusted text never has an effect."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from harness.record.model import TreePicture
from harness.report import canvas, evidence_plots, layout, plots, text, trees
from harness.report.canvas import Drawing
from harness.report.plots import Axis, Bar, Dot, Series
from harness.report.tables import Cell, Mark, Table, columns
from properties.meta.helpers.records import HOSTILE, INSTANCE, TEXT, TREE, Page

SVG = "{http://www.w3.org/2000/svg}"

# --- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [(20000, "20,000"), (6e-17, "6e-17"), (0.0341234, "0.03412"), (math.nan, "nan"), ("x\x00", "x\\x00")],
)
def test_number_has_four_digits(value: float | str, written: str) -> None:
    assert text.number(value) == written


def test_markdown_of_hostile_text_has_no_effect() -> None:
    escaped = re.sub(r"\\.", "", text.escape_markdown(HOSTILE))
    assert not re.search(r"[<>|`*\[\]]|://", escaped) and "\n" not in escaped
    assert all(c.isprintable() for c in text.escape_markdown(HOSTILE))


@pytest.mark.parametrize("code", ["a", "`", "a``b`", HOSTILE, ""])
def test_code_span_ends_only_at_its_fence(code: str) -> None:
    span = text.code_span(code)
    fence = re.match("`*", span)
    assert fence is not None
    inside = span[len(fence[0]) : len(span) - len(fence[0])]
    assert not span or (fence[0] and fence[0] not in re.findall("`+", inside))


# --- tables ------------------------------------------------------------------------------------------------------------

TABLE = Table(
    columns("method", "τ", left=("method",)),
    (("eagle2", "3.41"), (Cell(HOSTILE, "fault", "✗", commands=("eagle2 replay LAW-1.1",), marks=(Mark("✗", "fault"),)), "1")),
    bold=frozenset({0}),
)


def test_markdown_table_keeps_its_columns() -> None:
    lines = TABLE.markdown()
    assert lines[:3] == ["| method | τ |", "| --- | --: |", "| **eagle2** | **3.41** |"]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


def test_terminal_table_fits_80_columns_and_has_no_control_characters() -> None:
    console = Console(width=80, record=True, force_terminal=False)
    console.print(TABLE.terminal())
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80 and all(c.isprintable() for line in lines for c in line)
    assert "eagle2 replay LAW-1.1" in "\n".join(lines)


def test_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Table(columns("a", "b"), (("1",),))


# --- plots -------------------------------------------------------------------------------------------------------------

AXIS = Axis("x")
PLOTS: dict[str, Callable[[str], Drawing]] = {
    "lines": lambda t: plots.lines(
        "n", t, [Series(t, (1, 2), (1, 3), (0, 2), (2, 4))], x=Axis(t), y=Axis(t), level=2, diagonal=True
    ),
    "log lines": lambda t: plots.lines(
        "n", t, [Series(t, (1, 8), (0.1, 1))], x=Axis(t, "log2"), y=Axis(t, "log10"), band=((1, 8), (0.1, 0.2), (1, 1))
    ),
    "bars": lambda t: plots.bars("n", t, {t: [Bar(t, (1, 2), ((0.5, 2), None))]}, (t, t), references=(None, 1)),
    "stacked bars": lambda t: plots.stacked_bars("n", t, {t: {t: 1.0, "other": 2.0}}, t),
    "dots": lambda t: plots.dots("n", t, {t: [Dot(t, 1, 5), Dot("b", math.inf)]}, Axis(t, "log10", end=9), beyond=t, notes=[t]),
    "heatmap": lambda t: plots.heatmap("n", t, {t: {t: 1.0}}),
    "histogram": lambda t: plots.histogram("n", t, (3, 0, 5), t),
    "law": lambda t: evidence_plots.law("n", t, (t, "b"), (0.5, 0.5), (0.4, 0.6), 9),
    "p-values": lambda t: evidence_plots.p_values("n", t, [0.1, 0.5]),
    "tree": lambda t: trees.tree("n", TREE.model_copy(update={"title": t, "tokens": (t, "b", t, "c"), "emitted": t})),
}


def shapes(drawing: Drawing) -> ElementTree.Element:
    return ElementTree.fromstring(drawing.standalone())  # noqa: S314 - our own text


def texts(drawing: Drawing) -> list[str]:
    return [element.text or "" for element in shapes(drawing).iter(f"{SVG}text")]


@pytest.mark.parametrize("kind", PLOTS)
def test_same_input_gives_same_bytes(kind: str) -> None:
    import matplotlib

    first = PLOTS[kind]("title").standalone()
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        assert PLOTS[kind]("title").standalone() == first


@pytest.mark.parametrize("kind", PLOTS)
def test_plot_is_plain_svg_with_a_name_and_colours_of_the_page(kind: str) -> None:
    drawing = PLOTS[kind]("A <b> & $x_1$")
    root = shapes(drawing)
    names = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert names <= {"svg", "style", "title", "path", "text", "g", "circle"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not attributes & {"id", "href", "clip-path"} and root.get("aria-label") == "A <b> & $x_1$"
    outside = re.sub(r"var\(--[a-z]+,#[0-9a-f]{6}\)", "", drawing.svg)
    assert not re.search("#[0-9a-f]{6}", outside), "every colour is a variable"
    assert not re.search(r'="[^"]*\b(nan|inf)\b', drawing.svg)


@pytest.mark.parametrize("kind", PLOTS)
def test_hostile_text_of_a_plot_is_text(kind: str) -> None:
    drawing = PLOTS[kind](text.printable(HOSTILE))
    assert "<script" not in drawing.svg and "<img" not in drawing.svg
    assert shapes(drawing).tag == f"{SVG}svg"


def test_curves_that_end_together_have_labels_apart() -> None:
    series = [Series(f"curve {i}", (0, 1), (0, 1 + i / 1000)) for i in range(4)]
    labels = [e for e in shapes(plots.lines("n", "t", series, x=AXIS, y=AXIS)).iter(f"{SVG}text") if "curve" in (e.text or "")]
    heights = sorted(float(label.attrib["y"]) for label in labels)
    assert len(heights) == 4 and all(b - a >= 9 for a, b in pairwise(heights))


def test_picture_holds_its_longest_label() -> None:
    drawing = plots.lines("n", "t", [Series("W" * 60, (0, 1), (0, 1))], x=AXIS, y=AXIS)
    width = float(shapes(drawing).attrib["viewBox"].split()[2])
    (label,) = (e for e in shapes(drawing).iter(f"{SVG}text") if e.text == "W" * 60)
    assert float(label.attrib["x"]) + 60 * canvas.FONT_SIZE * 0.9 < width


def bar_lengths(drawing: Drawing) -> list[float]:
    """Length of each rectangle."""
    found = []
    for path in shapes(drawing).iter(f"{SVG}path"):
        numbers = [float(x) for x in re.findall(r"-?[0-9.]+", path.attrib["d"])]
        if path.attrib["d"].endswith(("z", "Z")):
            found.append(max(max(numbers[0::2]) - min(numbers[0::2]), max(numbers[1::2]) - min(numbers[1::2])))
    return found


def test_bars_of_a_law_are_in_proportion() -> None:
    drawing = evidence_plots.law("n", "t", ("a", "b"), (0.5, 0.25), (0.5, 0.25), 0)
    long, short = bar_lengths(drawing)
    assert long == pytest.approx(2 * short, abs=0.3) and "exact enumeration" in drawing.caption
    assert "900 samples" in evidence_plots.law("n", "t", ("a",), (1.0,), (1.0,), 900).caption


def test_histogram_collects_its_tail() -> None:
    long = plots.histogram("n", "t", (1,) * 40, "tokens")
    lengths = bar_lengths(long)
    assert len(lengths) == plots.BINS + 1 and lengths[-1] == pytest.approx(8 * lengths[0], rel=0.05)
    assert "32+" in texts(long) and "40 in all" in long.caption


def test_law_that_is_not_drawn_in_full_says_so() -> None:
    observed = [0.01] * 100
    observed[90] = 0.05
    drawing = evidence_plots.law("n", "t", [str(i) for i in range(100)], [0.01] * 100, observed, 50)
    assert "18 of 100 outcomes" in drawing.caption and "90" in texts(drawing)
    assert evidence_plots.drawn_outcomes(("a", "b", "c"), (math.nan, 1.0), (0.0, math.inf)) == []
    assert "0 of 3 outcomes" in evidence_plots.law("n", "t", ("a", "b", "c"), (math.nan, 1.0), (0.0, math.inf), 0).caption


# --- trees -------------------------------------------------------------------------------------------------------------


def test_emitted_token_hangs_on_the_end_of_the_accepted_path() -> None:
    tree = trees.TreeLayout.of(TREE)
    assert tree.parents[tree.emitted] == 3 and tree.places[tree.emitted][0] > tree.places[3][0]
    assert [tree.kind(i) for i in range(5)] == ["root", "accepted", "proposed", "accepted", "emitted"]
    assert tree.labels[1:3] == ["␣f", "\\n"]
    assert tree.radius(1) ** 2 / tree.radius(0) ** 2 == pytest.approx(math.exp(-0.3))


def test_invalid_tree_is_drawn() -> None:
    """Parents out of range, too few values, a path that leads nowhere, no node at all, a long chain."""

    def picture(tokens: int, parents: tuple[int, ...], values: tuple[float, ...], path: tuple[int, ...]) -> TreePicture:
        return TreePicture(title="Odd", tokens=("a",) * tokens, parents=parents, values=values, path=path, emitted="")

    wrong = picture(6, (3, 2, 1, 99, -5, 0), (5.0, math.inf, math.nan), (0, 77, -3, 5))
    kinds = [trees.TreeLayout.of(wrong).kind(i) for i in range(7)]
    assert kinds == ["root", "orphan", "proposed", "orphan", "orphan", "accepted", "emitted"]
    for odd in (wrong, picture(0, (), (), ()), picture(2000, tuple(range(-1, 1999)), (0.0,) * 2000, tuple(range(2000)))):
        svg = trees.tree("n", odd).svg
        assert not re.search(r'="[^"]*\b(nan|inf)\b', svg) and svg.count('<g class="emitted"') == 1


def test_tree_of_a_witness_ends_at_the_bad_node() -> None:
    picture = trees.witness_tree(INSTANCE)
    assert picture is not None and (picture.path, picture.emitted) == ((1, 2), "1")
    assert trees.witness_tree(TEXT) is None


@pytest.mark.parametrize("parents", [(), (1, 2, 1), (-9, 99, 2), (2, 2, 2)], ids=str)
def test_witness_without_a_valid_tree_is_drawn(parents: tuple[int, ...]) -> None:
    picture = trees.witness_tree(INSTANCE.model_copy(update={"parents": parents}))
    assert picture is not None and "Witness" in trees.tree("n", picture).svg


# --- pages -------------------------------------------------------------------------------------------------------------

PAGE = layout.Page(
    title="Title",
    answer="The answer is 42.",
    counts=(("fault", 1), ("pass", 2)),
    verdict="fault",
    sections=(
        layout.Section("Tables", (Table(columns("a"), (("1",),), title="First", caption="How to read it."),)),
        layout.Section("Drawings", (PLOTS["histogram"]("Counts"), PLOTS["tree"]("Tree"))),
        layout.Section(
            "Text",
            (
                layout.Paragraph("A paragraph."),
                layout.Facts((("pair", "stdlib"),)),
                layout.Items((layout.Item("text", "LAW-1", "#LAW-1.1", ("a note",), ("eagle2 replay LAW-1.1",)),)),
                layout.Command("eagle2 verify"),
                layout.Details("more", (layout.Paragraph("hidden"),)),
                layout.Section("Inner", (layout.Paragraph("deep"),), id="inner"),
            ),
        ),
    ),
)


def test_page_as_markdown(snapshot: SnapshotAssertion) -> None:
    assert layout.markdown(PAGE) == snapshot


def test_page_as_html_holds_every_block() -> None:
    page = Page(layout.html(PAGE))
    words = "".join(page.words)
    for block in ("The answer is 42.", "How to read it.", "A paragraph.", "stdlib", "a note", "eagle2 verify", "hidden", "deep"):
        assert block in words
    assert words.index("The answer is 42.") < words.index("Tables") and page.tags["svg"] == 2 and page.tags["h3"] == 2


def test_backticks_are_code_in_html_and_never_markup() -> None:
    words = "the rule `walk`, `a<b`, <b>, one ` alone"
    page = layout.html(layout.Page(title="", answer=words, sections=()))
    assert "<code>walk</code>, <code>a&lt;b</code>, &lt;b&gt;, one ` alone" in page


def test_lead_of_an_item_is_separated_from_its_text() -> None:
    items = layout.Items((layout.Item("3 differ", "LAW-1 coin4"), layout.Item("", "alone")))
    page = layout.html(layout.Page(title="", answer="", sections=(layout.Section("", (items,)),)))
    assert "<b>LAW-1 coin4</b>: 3 differ" in page and "<b>alone</b></li>" in page


def test_markdown_states_how_many_items_are_missing() -> None:
    items = layout.Items(tuple(layout.Item(str(i)) for i in range(7)), most=5)
    page = layout.Page("t", "a", (layout.Section("s", (items,)),))
    assert "- 4\n- and 2 more, in index.html" in layout.markdown(page)
