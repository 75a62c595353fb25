"""A drawing, and the canvas that makes one: shapes and texts drawn by matplotlib, as one small SVG element.

Colours are roles (`COLOURS`) that a page defines, so that a plot follows light and dark mode. The same input gives the same
bytes: no identifiers, no dates, fixed metrics of text. matplotlib is imported in `new_canvas` only; it takes half a second.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from xml.etree import ElementTree

from harness.report.text import printable
from harness.verdict import SIGNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK = ("#f08a7f", "#e6bb66", "#b9a9e0", "#d9a08c", "#8fbde8", "#7cc6a0", "#9aa4a9")
"""Colours of the verdicts in dark mode, in their order."""

COLOURS = {
    "ink": ("#20262a", "#e5e2da"),
    "muted": ("#5c676e", "#9aa4a9"),
    "line": ("#d9d4c9", "#3a4348"),
    "paper": ("#ffffff", "#1c2124"),
    **{sign.style: (f"#{sign.colour}", dark) for sign, dark in zip(SIGNS.values(), DARK, strict=True)},
}
"""Roles and their colours in light and in dark mode. Pages define a CSS variable for each; every verdict is a role."""

Align = Literal["left", "center", "right"]

FONT = 'ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif'
FONT_SIZE = 8.25  # points: 11 px
WIDE, WIDTH, NARROW = 680.0, 440.0, 320.0  # px, of a plot as wide as the page, half as wide, a third as wide
DOT = 4.5  # points, diameter of a dot


@dataclass(frozen=True)
class Drawing:
    """An SVG picture.

    Args:
        name: file name without its suffix.
        title: what it shows; the accessible name, too.
        caption: how to read it, in one or two sentences.
        svg: the SVG element for a page, with every colour as a CSS variable and its light value as the fallback.
        size: a third of the width of a page, half of it, or all of it.
    """

    block: ClassVar[str] = "drawing"

    name: str
    title: str
    caption: str
    svg: str
    size: Literal["third", "half", "full"] = "half"

    def standalone(self) -> str:
        """The text of an SVG file, with its own font and its own dark mode."""
        dark = ";".join(f"--{role}:{colours[1]}" for role, colours in COLOURS.items())
        style = (
            f"<style>text{{font-family:{escape(FONT, quote=False)}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
        )
        head, body = self.svg.split(">", 1)
        return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{body}\n'


class Canvas:
    """Axes of a fixed size in px, to which text may be added on all sides: the picture grows to hold all of it."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        self.figure, self.axes = figure, axes

    def __call__(self, role: str) -> str:
        """The placeholder colour of a role."""
        return COLOURS[role][0]

    def rows(self, many: float) -> None:
        """Make y the number of a row, from 0 at the top."""
        self.axes.set_ylim(many - 0.5, -0.5)
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, align: Align, role: str, gap: float = 0, down: float = 0) -> None:
        """Text at a point, moved away from it by `gap` and down by `down` px. `role` is a role or a colour."""
        shift = {"left": gap, "center": 0, "right": -gap}[align] * 0.75, -down * 0.75
        self.axes.annotate(
            one_line(text), (x, y), xytext=shift, textcoords="offset points", annotation_clip=False, ha=align,
            va="center_baseline",
            color=COLOURS[role][0] if role in COLOURS else role, parse_math=False,  # a record's text may hold dollar signs
        )  # fmt: skip

    def dashed(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A dashed line, for what is compared with."""
        self.axes.plot(*zip(start, end, strict=True), color=self("muted"), lw=1, ls=(0, (3, 4)), clip_on=False)

    def segments(self, pairs: Iterable[tuple[tuple[float, float], tuple[float, float]]], **style: Any) -> None:
        """Straight lines, all in one path."""
        xs, ys = [], []
        for (x0, y0), (x1, y1) in pairs:
            xs += [x0, x1, math.nan]
            ys += [y0, y1, math.nan]
        if xs:
            self.axes.plot(xs, ys, clip_on=False, solid_capstyle="butt", **style)

    def marks(self, points: Sequence[tuple[float, float]], colour: str, size: float = DOT, hollow: bool = False) -> None:
        """Dots: lines of no length with round ends, all in one path."""
        for width, fill in ((size, colour), (size - 2.4, self("paper")))[: 1 + hollow]:
            xs = [v for x, _ in points for v in (x, x, math.nan)]
            ys = [v for _, y in points for v in (y, y, math.nan)]
            if xs:
                self.axes.plot(xs, ys, color=fill, lw=width, solid_capstyle="round", clip_on=False)

    def drawing(self, name: str, title: str, caption: str, width: float = WIDTH) -> Drawing:
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        self.figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", pad_inches=2 / 72, metadata=nothing)
        svg = _clean(file.getvalue(), printable(title, 200))
        return Drawing(name, title, caption, svg, "full" if width >= WIDE else "half" if width >= WIDTH else "third")


@contextmanager
def new_canvas(width: float, height: float) -> Iterator[Canvas]:
    """A canvas whose axes have this size in px. The settings of the user's matplotlib have no effect."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "eagle2",
        "path.simplify": False,
        "font.family": ["DejaVu Sans"],
        "font.size": FONT_SIZE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": COLOURS["line"][0],
        "axes.labelcolor": COLOURS["muted"][0],
        "xtick.labelcolor": COLOURS["muted"][0],
        "ytick.labelcolor": COLOURS["muted"][0],
        "axes.unicode_minus": True,
        "lines.scale_dashes": False,
    }
    keep = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith(("backend", "interactive"))}
    with matplotlib.rc_context({**keep, **settings}):
        figure = Figure(figsize=(width / 96, height / 96), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.tick_params(length=0, which="both", labelsize=FONT_SIZE, pad=6)
        yield Canvas(figure, axes)


def _clean(svg: str, title: str) -> str:
    """The shapes and texts of matplotlib's output in one small SVG element: no groups, no identifiers, colours as roles."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by matplotlib a moment ago
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    label = escape(title)
    shapes = [f"<title>{label}</title>"]
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        style = _style(element.get("style", ""))
        if tag == "path" and style != "fill:none":  # that is an invisible background
            data = " ".join(element.attrib["d"].split())
            shapes.append(f'<path d="{NUMBER.sub(_rounded, data)}" style="{style}"/>')
        elif tag == "text":
            x, y = (_rounded(float(element.attrib[name])) for name in "xy")
            shapes.append(f'<text x="{x}" y="{y}" style="{style}">{escape(element.text or "")}</text>')
    body = "".join(shapes)
    size = f'viewBox="0 0 {width:.1f} {height:.1f}" width="{width * 96 / 72:.0f}" height="{height * 96 / 72:.0f}"'
    attributes = f'{size} role="img" aria-label="{label}" font-size="{FONT_SIZE}" stroke-linejoin="round"'
    return f"<svg {attributes}>{body}</svg>"


NUMBER = re.compile(r"-?\d+\.\d+")


def _rounded(value: float | re.Match[str]) -> str:
    return f"{float(value if isinstance(value, float) else value[0]):.1f}".removesuffix(".0")


def _style(style: str) -> str:
    """A style of matplotlib without what is the same everywhere, its colours as CSS variables."""
    pairs = [(name.strip(), value.strip()) for name, _, value in (part.partition(":") for part in style.split(";")) if value]
    same = {"font-size", "font-family", "font", "stroke-linejoin", "stroke-linecap: butt"}
    roles = {light: f"var(--{role},{light})" for role, (light, _) in COLOURS.items()}
    wanted = ((name, value) for name, value in pairs if name not in same and f"{name}: {value}" not in same)
    return ";".join(f"{name}:{roles.get(value, value)}" for name, value in wanted)


def one_line(text: str) -> str:
    """One line that fits a plot."""
    return printable(text, 120).replace("\n", " ")
