"""Draft trees as SVG: depth to the right, each leaf on its own line, a parent in the middle of its children.

A record may hold a tree that is not one, since a faulty tree is the one that has to be looked at. `TreeLayout.of` accepts
anything: a node whose parent does not come before it is drawn as a root of its own, in red.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from html import escape

from harness.record.model import TreePicture, Witness
from harness.report.canvas import COLOURS, FONT_SIZE, Drawing
from harness.report.text import number, printable, token_label

ROOT = 0
MOST = 150  # nodes drawn
LINE, LETTER = 20.0, 6.4  # px: height of a leaf's line, width of a character
ROLES = {"root": "pass", "accepted": "pass", "proposed": "muted", "orphan": "fault", "emitted": "ink"}
"""Colour of a node by its kind."""


@dataclass(frozen=True)
class TreeLayout:
    """Nodes and their places. The emitted token is one more node, the last, below the end of the accepted path.

    Args:
        labels: text of each node.
        parents: parent of each node; -1 for the root and for orphans.
        weights: value of each node, 0 to 1.
        accepted: nodes of the accepted path.
        orphans: nodes without a parent before them.
    """

    labels: list[str]
    parents: list[int]
    weights: list[float]
    accepted: frozenset[int]
    orphans: frozenset[int]

    @classmethod
    def of(cls, picture: TreePicture) -> TreeLayout:
        size = min(len(picture.tokens), MOST)
        parents = [picture.parents[i] if i < len(picture.parents) else -1 for i in range(size)]
        orphans = frozenset(i for i in range(1, size) if not 0 <= parents[i] < i)
        parents = [-1 if i == ROOT or i in orphans else parents[i] for i in range(size)]
        values = [picture.values[i] if i < len(picture.values) else -math.inf for i in range(size)]
        accepted = [i for i in picture.path if 0 < i < size]
        end = (accepted[-1] if accepted else ROOT) if size else -1
        labels = [token_label(token) for token in (*picture.tokens[:size], picture.emitted)]
        weights = [*(0.0 if math.isnan(value) else math.exp(min(value, 0.0)) for value in values), 1.0]
        return cls(labels, [*parents, end], weights, frozenset(accepted), orphans)

    @property
    def emitted(self) -> int:
        return len(self.labels) - 1

    def kind(self, node: int) -> str:
        """What a node is: emitted, root, orphan, accepted or proposed."""
        if node == self.emitted:
            return "emitted"
        if node == ROOT:
            return "root"
        return "orphan" if node in self.orphans else "accepted" if node in self.accepted else "proposed"

    def radius(self, node: int) -> float:
        """The area of a node is its value."""
        return 5.5 if node == self.emitted else max(2.0, 9 * math.sqrt(self.weights[node]))

    @cached_property
    def places(self) -> list[tuple[float, float]]:
        """x and y of each node."""
        children: list[list[int]] = [[] for _ in self.labels]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        rank = {
            node: (node not in self.accepted, node != self.emitted, -self.weights[node], node) for node in range(len(children))
        }
        depths, lines, free = [0] * len(children), [0.0] * len(children), 0

        def place(node: int, depth: int) -> float:
            nonlocal free
            below = [place(child, depth + 1) for child in sorted(children[node], key=rank.__getitem__)]
            depths[node], lines[node] = depth, (below[0] + below[-1]) / 2 if below else float(free)
            free += not below
            return lines[node]

        for node, parent in enumerate(self.parents):
            if parent < 0:
                place(node, 0)
        xs = [12.0]
        for depth in range(max(depths) + 1):  # a column is as wide as its longest label
            xs.append(xs[-1] + 54 + LETTER * max(len(t) for t, d in zip(self.labels, depths, strict=True) if d == depth))
        return [(xs[depth], 14 + LINE * line) for depth, line in zip(depths, lines, strict=True)]


def tree(name: str, picture: TreePicture) -> Drawing:
    """The draft tree of one step, with the accepted path and the token emitted after it."""
    layout = TreeLayout.of(picture)
    nodes = range(len(layout.labels))
    width = max(x + layout.radius(i) + 12 + LETTER * len(layout.labels[i]) for i, (x, _) in enumerate(layout.places))
    height = 14 + max(y for _, y in layout.places)
    label = escape(printable(picture.title, 200))
    body = "".join(_edge(layout, node) for node in nodes if layout.parents[node] >= 0) + "".join(_node(layout, i) for i in nodes)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    svg = f'<svg class="tree" {size} role="img" aria-label="{label}" font-size="{FONT_SIZE / 0.75 - 0.5}">{body}</svg>'
    return Drawing(name, picture.title, _caption(layout, len(picture.tokens)), svg, "full")


def witness_tree(witness: Witness) -> TreePicture | None:
    """The tree of a rule's instance, with the path to the bad node as the accepted path; None for a witness that is a text."""
    if witness.node is None or not witness.tokens:
        return None
    path: list[int] = []
    node = witness.node
    while 0 < node < len(witness.parents) and node not in path:  # ends for any record, even where parents form a cycle
        path.insert(0, node)
        node = witness.parents[node]
    return TreePicture(
        title=f"Witness: after node {witness.node} came token {witness.emitted}",
        tokens=tuple(map(str, witness.tokens)),
        parents=witness.parents,
        values=(0.0,) * len(witness.tokens),
        path=tuple(path),
        emitted=str(witness.emitted),
    )


def _colour(role: str) -> str:
    return f"var(--{role},{COLOURS[role][0]})"


def _node(layout: TreeLayout, node: int) -> str:
    kind, (x, y), r = layout.kind(node), layout.places[node], layout.radius(node)
    title = "emitted after the accepted path" if kind == "emitted" else f"node {node}, value {number(layout.weights[node])}"
    fade = f' opacity="{0.3 + 0.7 * math.sqrt(layout.weights[node]):.2f}"' if kind == "proposed" else ""
    shape = (
        f'<path d="M{x - r:.0f} {y - r:.0f}h11v11h-11z"/>'
        if kind == "emitted"
        else f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{r:.1f}"{fade}/>'
    )
    weight = ' font-weight="700"' if kind in ("accepted", "emitted") else ""
    text = f'<text x="{x + r + 4:.0f}" y="{y + 4:.0f}" fill="{_colour("ink")}"{weight}>{escape(layout.labels[node])}</text>'
    return f'<g class="{kind}" fill="{_colour(ROLES[kind])}"><title>{title}</title>{shape}{text}</g>'


def _edge(layout: TreeLayout, node: int) -> str:
    """A curve from the end of the parent's label to the child."""
    parent = layout.parents[node]
    (x0, y0), (x1, y1) = layout.places[parent], layout.places[node]
    x0 += layout.radius(parent) + 6 + LETTER * len(layout.labels[parent])
    x1 -= layout.radius(node)
    middle = (x0 + x1) / 2
    kind = layout.kind(node)
    style = {"emitted": ("ink", '1.6" stroke-dasharray="2 3'), "accepted": ("pass", "2.4")}.get(kind, ("line", "1.2"))
    curve = f"M{x0:.0f} {y0:.0f}C{middle:.0f} {y0:.0f} {middle:.0f} {y1:.0f} {x1:.0f} {y1:.0f}"
    return f'<path class="edge {kind}" d="{curve}" fill="none" stroke="{_colour(style[0])}" stroke-width="{style[1]}"/>'


def _caption(layout: TreeLayout, size: int) -> str:
    caption = "The root is at the left; the area of a node is its value. Green: accepted. Square: the token emitted after that."
    if layout.orphans:
        caption += f" Red: {number(len(layout.orphans))} without a parent before it, drawn separately."
    return caption + (f" The first {MOST} of {number(size)} nodes are drawn." if size > MOST else "")
