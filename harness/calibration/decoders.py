"""A vectorised EAGLE-2 decoder in numpy, which simulates thousands of texts at once.

It repeats draft trees, acceptance rules and the decoding loop of `eagle2_ref` on a toy pair instead of a model. The first axis
of every array is the text. A test compares it with `eagle2_ref` for the same random numbers, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.calibration.toy_pairs import Bools, Floats, Ints, Laws, Texts, ToyPair, follow

NONE = -1


@dataclass(frozen=True)
class Trees:
    """A draft tree for each of B texts. Node 0 is the root; the others are all candidates, of which `kept` are in the tree.

    Args:
        tokens: token of each node, [B, N].
        confidence: log of the head's probability of each node, [B, N].
        texts: text up to and including each node, [B, N].
        first: first child of each expanded node, 0 for any other, [B, N]; its k children are consecutive,
            the most confident first.
        kept: whether reranking kept the node, [B, N].
    """

    tokens: Ints
    confidence: Floats
    texts: Texts
    first: Ints
    kept: Bools

    @classmethod
    def grow(cls, pair: ToyPair, texts: Texts) -> Trees:
        """Expand by value, then rerank, as in `eagle2_ref.drafters.eagle2`."""
        k, depth, m = pair.budget.k, pair.budget.depth, pair.budget.m
        shape = (len(texts), 1 + pair.budget.pool)
        tree = cls(np.zeros(shape, int), np.zeros(shape), np.zeros(shape, np.uint64), np.zeros(shape, int), np.zeros(shape, bool))
        values = np.zeros(shape)
        tree.texts[:, 0] = texts
        expanded, end = np.zeros((len(texts), 1), int), 1
        for _ in range(depth):
            start, end = end, end + k * expanded.shape[1]
            here = np.take_along_axis(tree.texts, expanded, 1)
            tokens, confidence = pair.draft(here)
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
    """The m highest values of each row; the earlier of equal ones, so that a kept child has its parent."""
    bar = np.partition(values, -m, axis=1)[:, -m, None]
    above, level = values > bar, values == bar
    free = m - above.sum(axis=1, keepdims=True)
    kept: Bools = above | (level & (level.cumsum(axis=1) <= free))
    return kept


@dataclass(frozen=True)
class Node:
    """The current nodes of n decoders, all at the same depth, with their children.

    Args:
        text: text up to and including the node, [n].
        tokens: token of each child, [n, k].
        confidence: log of the head's probability of each child, [n, k].
        offered: whether the child is in the tree, [n, k].
        coins: uniform numbers, one for each child and one for the last token, [n, k + 1].
        above: the parent nodes; None at the root.
        refused: probability that was removed with the children rejected at the parent, [n, k].
    """

    pair: ToyPair
    depth: int
    text: Texts
    tokens: Ints
    confidence: Floats
    offered: Bools
    coins: Floats
    above: Node | None
    refused: Floats

    def at(self, rows: Ints) -> Node:
        """The nodes of some of the decoders."""
        arrays: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, above=self.above and self.above.at(rows), **arrays)


class Reject:
    """Recursive rejection sampling, `eagle2_ref.rules.reject`, in methods that a fault overrides one at a time."""

    def coins(self, rng: np.random.Generator, shape: tuple[int, ...], _step: int, _before: Floats | None) -> Floats:
        """Uniform numbers for a block, [B, depth + 1, k + 1]; `before` are those of the previous block."""
        return rng.random(shape)

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        """The child accepted at each node, or NONE, and the probability removed with the rejected children, [n, k]."""
        p = self.p(node)
        chosen, lost = np.full(len(p), NONE), np.zeros(p.shape)
        for i in range(p.shape[1]):
            examined = node.offered[:, i] & (chosen == NONE)
            accepted = self.accepts(node, i, p, 1 - lost.sum(axis=1))
            chosen[examined & accepted] = i
            lost[:, i] = np.where(examined & ~accepted, self.loses(node, p)[:, i], 0)
        return chosen, lost

    def p(self, node: Node) -> Floats:
        """The target's probability of each child, [n, k]."""
        return node.pair.p(node.text[:, None], node.tokens)

    def accepts(self, node: Node, i: int, p: Floats, remaining: Floats) -> Bools:
        """Whether child i is accepted: u < p / remaining. Strict, so that a token of probability 0 is never accepted."""
        return node.coins[:, i] * remaining < p[:, i]

    def loses(self, _node: Node, p: Floats) -> Floats:
        """The probability that a rejected token loses."""
        return p

    def last(self, node: Node, lost: Floats) -> Ints:
        """The recovered or bonus token, sampled from the residual distribution."""
        return sample_token(node, node.pair.target, node.coins[:, -1], lost)


class Walk(Reject):
    """`eagle2_ref.rules.walk`: sample a token from the target, and follow the tree if it has this child."""

    def judge(self, node: Node) -> tuple[Ints, Floats]:
        hit = node.offered & (node.tokens == self.last(node, np.zeros(node.offered.shape))[:, None])
        return np.where(hit.any(axis=1), hit.argmax(axis=1), NONE), np.zeros(hit.shape)


def sample_token(node: Node, laws: Laws, u: Floats, lost: Floats) -> Ints:
    """Sample tokens [n] from the residual distribution of each node.

    A uniform number is a place on the unit interval without the pieces of the rejected children. Each removed piece, from left
    to right, shifts the places after it.

    Args:
        laws: the distributions, those of the target or the raw ones.
        u: uniform numbers, [n].
        lost: probability removed from each child, [n, k].
    """
    pair, kind = node.pair, node.pair.kind(node.text)
    starts = laws.before(kind[:, None], pair.rank(node.text[:, None], node.tokens))
    order = np.argsort(starts, axis=1)
    starts, lost = np.take_along_axis(starts, order, 1), np.take_along_axis(lost, order, 1)
    place = u * (1 - lost.sum(axis=1))
    for i in range(lost.shape[1]):
        place = place + np.where(place >= starts[:, i], lost[:, i], 0)
    return pair.token(node.text, laws.draw(kind, place))


@dataclass(frozen=True)
class Transcript:
    """The output of B decoders, with a trace of their blocks.

    Args:
        tokens: emitted tokens, [B, T].
        offset: position of each token in its block, [B, T].
        texts: text before each token, [B, T].
        children: tokens of the children of the node at which the token was sampled, padded with NONE, [B, T, k].
    """

    tokens: Ints
    offset: Ints
    texts: Texts
    children: Ints

    @classmethod
    def empty(cls, b: int, t: int, k: int) -> Transcript:
        texts = np.zeros((b, t), np.uint64)
        return cls(np.full((b, t), NONE), np.tile(np.arange(t), (b, 1)), texts, np.full((b, t, k), NONE))


def decode(pair: ToyPair, rule: Reject, texts: Texts, length: int, rng: np.random.Generator) -> Transcript:
    """Continue each text by `length` tokens; the last block is truncated."""
    out = Transcript.empty(len(texts), length, pair.budget.k)
    texts, lengths = texts.copy(), np.zeros(len(texts), int)
    shape, coins, step = (len(texts), pair.budget.depth + 1, pair.budget.k + 1), None, 0
    while len(unfinished := np.flatnonzero(lengths < length)):
        coins = rule.coins(rng, shape, step, coins)
        one, texts[unfinished] = decode_block(pair, rule, Trees.grow(pair, texts[unfinished]), coins[unfinished])
        place = lengths[unfinished, None] + one.offset
        row, column = np.nonzero((one.tokens != NONE) & (place < length))
        here = unfinished[row], place[row, column]
        for name, values in vars(one).items():
            getattr(out, name)[here] = values[row, column]
        lengths[unfinished] += (one.tokens != NONE).sum(axis=1)
        step += 1
    return out


def decode_block(pair: ToyPair, rule: Reject, trees: Trees, coins: Floats) -> tuple[Transcript, Texts]:
    """One target pass: the blocks of n decoders, depth + 1 columns padded with NONE, and their texts after it."""
    n, k, depth = len(coins), pair.budget.k, pair.budget.depth
    out, after = Transcript.empty(n, depth + 1, k), np.zeros(n, np.uint64)
    rows, at = np.arange(n), np.zeros(n, int)
    above, refused = None, np.zeros((n, k))
    for level in range(depth + 1):
        node, children = nodes_at(pair, trees, rows, at, level, coins[rows, level], above, refused)
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


def nodes_at(
    pair: ToyPair, trees: Trees, rows: Ints, at: Ints, depth: int, coins: Floats, above: Node | None, refused: Floats
) -> tuple[Node, Ints]:
    """The nodes `at` [n] of the trees in these rows, and the indices of their children, [n, k]."""
    first = trees.first[rows, at][:, None]
    children, side = first + np.arange(pair.budget.k), rows[:, None]
    offered = trees.kept[side, children] & (first > 0)
    tokens, confidence = trees.tokens[side, children], trees.confidence[side, children]
    return Node(pair, depth, trees.texts[rows, at], tokens, confidence, offered, coins, above, refused), children
