"""Where the nodes of a drawn tree lie: depth to the right, each leaf on its own line, a parent amid its children."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.record.model import TreePicture, Witness
from harness.report.words import number, token

ROOT = 0
MOST = 150  # nodes drawn
LINE, LETTER = 20.0, 6.4  # height of a leaf's line; width of a character at the tree's font size


@dataclass(frozen=True)
class Node:
    """A circle with its token beside it. `style` is one of root, path, idle, stray, emitted."""

    x: float
    y: float
    r: float
    opacity: float
    text: str
    title: str
    style: str


@dataclass(frozen=True)
class Drawing:
    """Nodes, and the strands between them: idle edges, the accepted path, and the last step to the emitted token."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: str
    path: str
    last: str
    reading: str


@dataclass(frozen=True)
class Shape:
    """A tree that can be drawn, whatever was in the picture: each node under a parent before it, or under none (a stray).

    The emitted token is one more node, the last, under the end of the accepted path.
    """

    tokens: list[str]
    parents: list[int]
    weights: list[float]
    accepted: set[int]
    strays: set[int]

    @property
    def emitted(self) -> int:
        return len(self.tokens) - 1

    def children(self) -> list[list[int]]:
        """Those of each node: what was accepted or emitted first, then by value, so that the likely is above the unlikely."""
        below: list[list[int]] = [[] for _ in self.tokens]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                below[parent].append(node)
        return [sorted(nodes, key=lambda n: (n not in self.accepted, n != self.emitted, -self.weights[n], n)) for nodes in below]


def shape(picture: TreePicture) -> Shape:
    """Take the picture as it is: a faulty tree is the one that has to be looked at."""
    size = min(len(picture.tokens), MOST)
    parents = [picture.parents[i] if i < len(picture.parents) else -1 for i in range(size)]
    strays = {i for i in range(1, size) if not 0 <= parents[i] < i}
    sound = [-1 if i == ROOT or i in strays else parents[i] for i in range(size)]
    values = [picture.values[i] if i < len(picture.values) else -math.inf for i in range(size)]
    weights = [math.exp(min(v, 0.0)) for v in values]
    accepted = [i for i in picture.path if 0 < i < size]
    end = accepted[-1] if accepted else ROOT
    return Shape(
        tokens=[token(t) for t in picture.tokens[:size]] + [token(picture.emitted)],
        parents=[*sound, end if size else -1],
        weights=[*weights, 1.0],
        accepted=set(accepted),
        strays=strays,
    )


def witness(seen: Witness) -> TreePicture | None:
    """The tree of a rule's instance, the path to the bad node as if accepted; None for a witness that is a text."""
    if seen.node is None or not seen.tokens:
        return None
    path: list[int] = []
    node = seen.node
    while 0 < node < len(seen.parents) and node not in path:  # whatever the record says, this ends
        path.insert(0, node)
        node = seen.parents[node]
    return TreePicture(
        title=f"Witness: after node {seen.node} came token {seen.emitted}",
        tokens=tuple(map(str, seen.tokens)),
        parents=seen.parents,
        values=(0.0,) * len(seen.tokens),
        path=tuple(path),
        emitted=str(seen.emitted),
    )


def places(tree: Shape) -> list[tuple[int, float]]:
    """Depth and line of every node, walking down from the root and from each stray."""
    children, at = tree.children(), [(0, 0.0)] * len(tree.tokens)
    free = 0.0

    def place(node: int, depth: int) -> float:
        nonlocal free
        lines = [place(child, depth + 1) for child in children[node]]
        line = (lines[0] + lines[-1]) / 2 if lines else free
        free += 0 if lines else 1
        at[node] = (depth, line)
        return line

    for node, parent in enumerate(tree.parents):
        if parent < 0:
            place(node, 0)
    return at


def columns(tree: Shape, at: list[tuple[int, float]]) -> list[float]:
    """The x of each depth, and at the end the width of all: a column is as wide as its longest token."""
    widest = [0] * (1 + max(depth for depth, _ in at))
    for text, (depth, _) in zip(tree.tokens, at, strict=True):
        widest[depth] = max(widest[depth], len(text))
    xs = [12.0]
    for letters in widest:
        xs.append(xs[-1] + 54 + LETTER * letters)
    return xs


def tree(picture: TreePicture) -> Drawing:
    """The draft tree of one step, the accepted path and the token emitted after it."""
    this = shape(picture)
    at = places(this)
    xs = columns(this, at)
    nodes = [node(this, i, xs[depth], 14 + LINE * line) for i, (depth, line) in enumerate(at)]
    strands = {"edges": "", "path": "", "last": ""}
    for child, parent in enumerate(this.parents):
        if parent >= 0:
            kind = "last" if child == this.emitted else "path" if child in this.accepted else "edges"
            strands[kind] += edge(nodes[parent], nodes[child])
    height = 28 + LINE * max(line for _, line in at)
    return Drawing(xs[-1] - 30, height, tuple(nodes), **strands, reading=reading(this, len(picture.tokens)))


def node(this: Shape, i: int, x: float, y: float) -> Node:
    """Area by value: the radius is its square root."""
    weight = this.weights[i]
    if i == this.emitted:
        return Node(x, y, 5.5, 1.0, this.tokens[i], "emitted after the accepted path", "emitted")
    style = "root" if i == ROOT else "stray" if i in this.strays else "path" if i in this.accepted else "idle"
    opacity = 1.0 if style != "idle" else 0.3 + 0.7 * math.sqrt(weight)
    return Node(x, y, max(2.0, 9 * math.sqrt(weight)), opacity, this.tokens[i], f"node {i}, value {number(weight)}", style)


def edge(parent: Node, child: Node) -> str:
    """From behind the parent's token to the child's circle."""
    x0, x1 = parent.x + parent.r + 6 + LETTER * len(parent.text), child.x - child.r
    middle = (x0 + x1) / 2
    return f"M{x0:.0f} {parent.y:.0f}C{middle:.0f} {parent.y:.0f} {middle:.0f} {child.y:.0f} {x1:.0f} {child.y:.0f}"


def reading(this: Shape, size: int) -> str:
    lines = "From the root at the left; the area of a node is its value. Green: accepted. Square: the token emitted after that."
    if this.strays:
        lines += f" Red: {number(len(this.strays))} without a parent before it, drawn on its own."
    return lines + (f" The first {MOST} of {number(size)} nodes are drawn." if size > MOST else "")
