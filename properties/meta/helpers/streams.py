"""Synthetic decoders: sequences sampled from random laws, with a chosen fault, for tests of the e-processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.statistics import Array
from harness.statistics.eprocess import PitSequence
from harness.statistics.pit import pit_sequence

DEPTH, CHILDREN = 3, 3
"""Shape of the draft tree: levels below the root, and children of a node."""


@dataclass(frozen=True)
class Step:
    """One position of all S sequences: laws p [S, V], previous laws, offered children [S, V] (none after a leaf)."""

    p: Array
    before: Array
    children: Array
    leaf: Array


Fault = Callable[[Step], Array]
"""The law [S, V] that the decoder samples from instead of p."""


def correct(step: Step) -> Array:
    return step.p


def bonus_at_wrong_temperature(step: Step) -> Array:
    """Children are accepted correctly; if none is, the bonus token is sampled at T = 1 / 1.3."""
    hit = (step.p * step.children).sum(axis=1, keepdims=True)
    rest = step.p**1.3 * ~step.children
    return np.where(step.children, step.p, rest / rest.sum(axis=1, keepdims=True).clip(1e-300) * (1 - hit))


def leaf_of_the_token_before(step: Step) -> Array:
    """After a leaf, half of the time, the law of the previous position: off by one. Correct elsewhere."""
    return np.where(step.leaf[:, None], (step.p + step.before) / 2, step.p)


def children_accepted_less(step: Step) -> Array:
    """Every child is accepted with 0.95 of its probability, other tokens with more."""
    hit = (step.p * step.children).sum(axis=1, keepdims=True)
    scale = np.divide(1 - 0.95 * hit, 1 - hit, out=np.ones_like(hit), where=hit < 1 - 1e-9)
    return np.where(step.children, 0.95 * step.p, step.p * scale)


def hotter(step: Step) -> Array:
    """T = 1 / 0.9 everywhere."""
    q = step.p**0.9
    law: Array = q / q.sum(axis=1, keepdims=True)
    return law


def independent(rng: np.random.Generator, sequences: int, length: int) -> Array:
    return rng.random((sequences, length))


def reused(rng: np.random.Generator, sequences: int, length: int) -> Array:
    """Every third uniform number repeats the previous one."""
    coins = rng.random((sequences, length))
    coins[:, 1::3] = coins[:, : length - 1 : 3]
    return coins


def shared(rng: np.random.Generator, sequences: int, length: int) -> Array:
    """All requests use the same generator state at every fourth token."""
    coins = rng.random((sequences, length))
    coins[:, ::4] = coins[0, ::4]
    return coins


def stream(
    seed: int,
    sequences: int = 64,
    length: int = 32,
    vocabulary: int = 8,
    fault: Fault = correct,
    coins: Callable[[np.random.Generator, int, int], Array] = independent,
    blind: bool = False,
) -> list[PitSequence]:
    """Sample all sequences step by step. blind: without blocks, as from a black box."""
    rng = np.random.default_rng(seed)
    w = coins(rng, sequences, length)
    shape = (sequences, vocabulary)
    before, depth = _laws(rng, shape), np.zeros(sequences, int)
    columns: list[list[Array]] = [[], [], [], [], []]
    for t in range(length):
        p, leaf = _laws(rng, shape), depth == DEPTH
        guess = np.argsort(p * rng.gamma(2.0, size=shape), axis=1)[:, ::-1]
        children = (np.argsort(guess, axis=1) < CHILDREN) & ~leaf[:, None]
        x = _draw(fault(Step(p, before, children, leaf)), w[:, t])
        for column, value in zip(columns, (p, x, depth, leaf, children), strict=True):
            column.append(value)
        depth = np.where(children[np.arange(sequences), x], depth + 1, 0)
        before = p
    p, x, o, leaf, c = (np.stack(column, axis=1) for column in columns)
    v = rng.random((sequences, length))
    if blind:
        return [pit_sequence(p[s], x[s], v[s]) for s in range(sequences)]
    lists = [[np.flatnonzero(row) for row in c[s]] for s in range(sequences)]
    return [pit_sequence(p[s], x[s], v[s], o[s], leaf[s], lists[s]) for s in range(sequences)]


def _laws(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Random laws, from nearly certain to nearly flat."""
    logits = rng.normal(size=shape) * rng.uniform(0.3, 4, (shape[0], 1))
    p = np.exp(logits)
    laws: Array = p / p.sum(axis=1, keepdims=True)
    return laws


def _draw(q: Array, w: Array) -> Array:
    """Tokens [S] by inverting the cumulative sum of q, the most likely token first, so that a number used twice shows."""
    order = np.argsort(-q, axis=1, kind="stable")
    rank = (np.take_along_axis(q, order, axis=1).cumsum(axis=1) <= w[:, None]).sum(axis=1).clip(max=q.shape[1] - 1)
    tokens: Array = np.take_along_axis(order, rank[:, None], axis=1)[:, 0]
    return tokens
