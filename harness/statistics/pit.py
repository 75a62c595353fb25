"""From the target's laws at the positions of a text to its strand: uniform numbers, if the text was drawn from those laws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.statistics.eprocess import TILTS, Array, PitSequence

CELLS = 2**16
"""Probabilities handled at a time: a few rows, so that what is computed from them stays in the processor's cache."""
ROUNDING = 1e-4
"""A row may miss 1 by this much (float32 rounding over a large vocabulary) and is scaled; by more, it is no law."""


def pit_sequence(
    p: Array,
    tokens: Array,
    v: Array,
    offsets: Array | None = None,
    leaves: Array | None = None,
    children: Sequence[Sequence[int] | Array | None] | None = None,
) -> PitSequence:
    """The strand of one sequence.

    p [n, V] the processed target's law at every position, tokens [n], v [n] uniform numbers from the harness's own generator,
    which the decoder cannot know. offsets and leaves [n], where known (-1 where not); children: the tokens offered after the
    node at which each token was drawn, an empty list after a leaf, None where unknown.
    """
    n, vocabulary = p.shape
    tokens, v = np.asarray(tokens, int), np.asarray(v, float)
    offsets, leaves = (np.full(n, -1) if known is None else np.asarray(known, int) for known in (offsets, leaves))
    children = [None] * n if children is None else children
    if not {(n,)} == {tokens.shape, v.shape, offsets.shape, leaves.shape, (len(children),)}:
        raise ValueError(f"{n} laws need {n} tokens and coins, and where known {n} offsets, leaves and lists of children")
    if not (np.all((tokens >= 0) & (tokens < vocabulary)) and np.all((v >= 0) & (v < 1))):
        raise ValueError(f"tokens must be 0 to {vocabulary - 1}, and coins at least 0 and below 1")
    step = max(1, CELLS // vocabulary)
    parts = [_measure(p[i : i + step], tokens[i : i + step]) for i in range(0, max(n, 1), step)]
    above, px, tilt, score, variance = (np.concatenate(column) for column in zip(*parts, strict=True))
    hit, mass = _children(p, tokens, children)
    return PitSequence(
        u=np.clip(above + v * px, 0, 1),
        p=px,
        tilt=tilt,
        score=score,
        variance=variance,
        offset=offsets,
        leaf=leaves,
        is_child=hit,
        child_mass=mass,
    )


def _measure(rows: Array, tokens: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Of laws [b, V] and their tokens [b]: probability of all likelier tokens, of the token, tilts, score and its variance."""
    p = np.asarray(rows, float)
    total = p.sum(axis=1, keepdims=True)
    if not (p.min(initial=0) >= 0 and np.all(abs(total - 1) <= ROUNDING)):
        raise ValueError(f"a law must be non-negative and sum to 1; found a sum of {total.flat[abs(total - 1).argmax()]:.6g}")
    p = p / total
    at = (np.arange(len(p)), tokens)
    px = p[at][:, None]
    # Sums instead of a sort: a token's rank needs only what is likelier, and of the equally likely those of lower id.
    tied = np.count_nonzero((p == px) & (np.arange(p.shape[1]) < tokens[:, None]), axis=1)
    above = (p * (p > px)).sum(axis=1) + tied * px[:, 0]
    logs = np.log(np.where(p > 0, p, 1))
    mean, square = (p * logs).sum(axis=1), (p * logs * logs).sum(axis=1)
    return above, px[:, 0], _tilts(p, logs, logs[at]), logs[at] - mean, square - mean**2


def _tilts(p: Array, logs: Array, own: Array) -> Array:
    """Log factors [b, 8]: tilt log p(x) - log sum(p^(1 + tilt)).

    The powers .01, .03, .1 and .3 of p are products of the first: one exponential a probability instead of eight.
    """
    a = np.exp(TILTS[0] * logs)
    b = a * a * a
    c = b * b * b * a
    powers = (a, b, c, c * c * c)
    sums = np.stack([side for power in powers for side in ((p * power).sum(axis=1), (p / power).sum(axis=1))], axis=1)
    tilts: Array = own[:, None] * np.array(TILTS) - np.log(sums)
    return tilts


def _children(p: Array, tokens: Array, children: Sequence[Sequence[int] | Array | None]) -> tuple[Array, Array]:
    """Whether each token is among the children of its node, and their probability: [n] and [n]."""
    hit, mass = np.full(len(tokens), -1), np.full(len(tokens), np.nan)
    known = [i for i, offered in enumerate(children) if offered is not None]
    hit[known], mass[known] = 0, 0.0
    pairs = [(i, int(child)) for i in known for child in {*children[i]}]  # type: ignore[misc]
    if pairs:
        rows, columns = np.array(pairs).T
        hit[rows[columns == tokens[rows]]] = 1
        np.add.at(mass, rows, p[rows, columns])
    return hit, np.minimum(mass, 1)
