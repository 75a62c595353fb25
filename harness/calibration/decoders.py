"""EAGLE-2 in lockstep: draft trees, the rule and the loop, for thousands of texts at once in numpy.

What `eagle2_ref` does for one text with torch, without a model. Arrays have a row a text; a test compares the two coin for coin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.calibration.worlds import Bools, Floats, Ints, Laws, Texts, World, follow

NONE = -1


@dataclass(frozen=True)
class Trees:
    """A draft tree for each of B texts. Node 0 is the root; then come all candidates, of which `kept` are in the tree.

    tokens, confidence  [B, N]  of a node; confidence is the log of the head's probability
    texts               [B, N]  the text up to and including the node
    first               [B, N]  its first child, if it was expanded (else 0, nobody's child); all k stand side by side, the most
                                confident first
    kept                [B, N]
    """

    tokens: Ints
    confidence: Floats
    texts: Texts
    first: Ints
    kept: Bools

    @classmethod
    def grow(cls, world: World, texts: Texts) -> Trees:
        """Expansion by value, then reranking, as in `eagle2_ref.drafters.eagle2`."""
        k, depth, m = world.budget.k, world.budget.depth, world.budget.m
        shape = (len(texts), 1 + world.budget.pool)
        tree = cls(np.zeros(shape, int), np.zeros(shape), np.zeros(shape, np.uint64), np.zeros(shape, int), np.zeros(shape, bool))
        values = np.zeros(shape)
        tree.texts[:, 0] = texts
        expanded, end = np.zeros((len(texts), 1), int), 1
        for _ in range(depth):
            start, end = end, end + k * expanded.shape[1]
            here = np.take_along_axis(tree.texts, expanded, 1)
            tokens, confidence = world.draft(here)
            tree.tokens[:, start:end] = tokens.reshape(len(texts), -1)
            tree.confidence[:, start:end] = confidence.reshape(len(texts), -1)
            tree.texts[:, start:end] = follow(here[..., None], tokens).reshape(len(texts), -1)
            layer = (np.take_along_axis(values, expanded, 1)[..., None] + confidence).reshape(len(texts), -1)
            values[:, start:end] = layer
            np.put_along_axis(tree.first, expanded, start + k * np.arange(expanded.shape[1])[None], 1)
            expanded = start + np.argsort(-layer, axis=1, kind="stable")[:, :k]
        tree.kept[:, 1:] = highest(values[:, 1:], m)
        return tree


def highest(values: Floats, m: int) -> Bools:
    """The m highest of each row; of equals the earlier, so that a parent comes with its child. (Half the time of a sort.)"""
    bar = np.partition(values, -m, axis=1)[:, -m, None]
    above, level = values > bar, values == bar
    room = m - above.sum(axis=1, keepdims=True)
    kept: Bools = above | (level & (level.cumsum(axis=1) <= room))
    return kept


@dataclass(frozen=True)
class Node:
    """Where n decoders stand: at a node each, all at the same depth, with its children on offer.

    text     [n]         the text up to and including the node
    tokens, confidence, offered  [n, k]  of its children; offered: it is in the tree
    coins    [n, k + 1]  uniform: one a child, one for the last token
    above                the node above; None at the root
    refused  [n, k]      the mass that the children refused there took with them
    """

    world: World
    depth: int
    text: Texts
    tokens: Ints
    confidence: Floats
    offered: Bools
    coins: Floats
    above: Node | None
    refused: Floats

    def at(self, rows: Ints) -> Node:
        """The same for some of the decoders."""
        arrays: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, above=self.above and self.above.at(rows), **arrays)


class Reject:
    """EAGLE-2's rule, `eagle2_ref.rules.reject`, in parts that a fault replaces one at a time."""

    def coins(self, rng: np.random.Generator, shape: tuple[int, ...], _step: int, _before: Floats | None) -> Floats:
        """Uniform numbers [B, depth + 1, k + 1] for a block; `before` are those of the block before."""
        return rng.random(shape)

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        """The child accepted at each node, or NONE; and the mass [n, k] that the refused took with them."""
        p = self.p(node)
        chosen, lost = np.full(len(p), NONE), np.zeros(p.shape)
        for i in range(p.shape[1]):
            asked = node.offered[:, i] & (chosen == NONE)
            accepted = self.accepts(node, i, p, 1 - lost.sum(axis=1))
            chosen[asked & accepted] = i
            lost[:, i] = np.where(asked & ~accepted, self.loses(node, p)[:, i], 0)
        return chosen, lost

    def p(self, node: Node) -> Floats:
        """The target's probability of each child [n, k]."""
        return node.world.p(node.text[:, None], node.tokens)

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        """Whether child i is taken: u < p / remaining; strictly, for a p of 0."""
        taken: Bools = node.coins[:, i] * remaining < p[:, i]
        return taken

    def loses(self, _node: Node, p: Floats) -> Floats:
        """The mass that a token loses by being refused."""
        return p

    def last(self, node: Node, lost: Floats) -> Ints:
        """The recovered or bonus token, drawn from what remains of the target's law."""
        return draw(node, node.world.target, node.coins[:, -1], lost)


class Walk(Reject):
    """`eagle2_ref.rules.walk`: draw a token of the target, and follow the tree if it has it."""

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        hit = node.offered & (node.tokens == self.last(node, np.zeros(node.offered.shape))[:, None])
        return np.where(hit.any(axis=1), hit.argmax(axis=1), NONE), np.zeros(hit.shape)


def draw(node: Node, laws: Laws, u: Floats, lost: Floats) -> Ints:
    """Tokens [n] from the law of each node's text, less the mass [n, k] that its children lost; u [n] is uniform.

    u is a place on what is left of the law's line. Each piece that was cut out, from left to right, moves the places behind it.
    """
    world, kind = node.world, node.world.kind(node.text)
    starts = laws.before(kind[:, None], world.rank(node.text[:, None], node.tokens))
    order = np.argsort(starts, axis=1)
    starts, lost = np.take_along_axis(starts, order, 1), np.take_along_axis(lost, order, 1)
    place = u * (1 - lost.sum(axis=1))
    for i in range(lost.shape[1]):
        place = place + np.where(place >= starts[:, i], lost[:, i], 0)
    return world.token(node.text, laws.draw(kind, place))


@dataclass(frozen=True)
class Written:
    """What decoders wrote, a row each and a column a token, with what a trace of their blocks tells.

    tokens, offset  [B, T]     offset: place of the token in its block
    texts           [B, T]     the text before the token
    children        [B, T, k]  tokens offered after the node that the token was drawn at, NONE where there are fewer
    """

    tokens: Ints
    offset: Ints
    texts: Texts
    children: Ints

    @classmethod
    def empty(cls, b: int, t: int, k: int) -> Written:
        texts = np.zeros((b, t), np.uint64)
        return cls(np.full((b, t), NONE), np.tile(np.arange(t), (b, 1)), texts, np.full((b, t, k), NONE))


def write(world: World, rule: Reject, texts: Texts, length: int, rng: np.random.Generator) -> Written:
    """Continue each text by `length` tokens; the last block is cut."""
    out = Written.empty(len(texts), length, world.budget.k)
    texts, written = texts.copy(), np.zeros(len(texts), int)
    shape, coins, step = (len(texts), world.budget.depth + 1, world.budget.k + 1), None, 0
    while len(unfinished := np.flatnonzero(written < length)):
        coins = rule.coins(rng, shape, step, coins)
        one, texts[unfinished] = block(world, rule, Trees.grow(world, texts[unfinished]), coins[unfinished])
        place = written[unfinished, None] + one.offset
        row, column = np.nonzero((one.tokens != NONE) & (place < length))
        here = unfinished[row], place[row, column]
        for name, values in vars(one).items():
            getattr(out, name)[here] = values[row, column]
        written[unfinished] += (one.tokens != NONE).sum(axis=1)
        step += 1
    return out


def block(world: World, rule: Reject, trees: Trees, coins: Floats) -> tuple[Written, Texts]:
    """One target pass: the blocks of n decoders, depth + 1 columns that end in NONE; and their texts after it."""
    n, k, depth = len(coins), world.budget.k, world.budget.depth
    out, after = Written.empty(n, depth + 1, k), np.zeros(n, np.uint64)
    rows, at = np.arange(n), np.zeros(n, int)
    above, refused = None, np.zeros((n, k))
    for level in range(depth + 1):
        node, children = stand(world, trees, rows, at, level, coins[rows, level], above, refused)
        chosen, lost = rule.judge(node)
        tokens = node.tokens[np.arange(len(rows)), chosen]
        ends = np.flatnonzero(chosen == NONE)
        if len(ends):
            tokens[ends] = rule.last(node.at(ends), lost[ends])
        out.tokens[rows, level], out.texts[rows, level] = tokens, node.text
        out.children[rows, level] = np.where(node.offered, node.tokens, NONE)
        after[rows[ends]] = follow(node.text[ends], tokens[ends])
        on = np.flatnonzero(chosen != NONE)
        rows, at = rows[on], children[on, chosen[on]]
        above, refused = replace(node, above=None).at(on), lost[on]
    return out, after


def stand(
    world: World, trees: Trees, rows: Ints, at: Ints, depth: int, coins: Floats, above: Node | None, refused: Floats
) -> tuple[Node, Ints]:
    """The nodes `at` [n] of the trees in these rows; and the numbers [n, k] of their children."""
    first = trees.first[rows, at][:, None]
    children, side = first + np.arange(world.budget.k), rows[:, None]
    offered = trees.kept[side, children] & (first > 0)
    tokens, confidence = trees.tokens[side, children], trees.confidence[side, children]
    return Node(world, depth, trees.texts[rows, at], tokens, confidence, offered, coins, above, refused), children
