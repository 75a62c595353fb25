"""Randomised probability integral transforms: from the target's distributions along a text to its PitSequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.statistics import Array
from harness.statistics.eprocess import TILTS, PitSequence

CELLS = 2**16
"""Probabilities processed at once, so that intermediate results stay in the processor's cache."""
ROUNDING = 1e-4
"""A row may sum to 1 up to this much (float32 rounding over a large vocabulary) and is rescaled; beyond it, it is refused."""


def pit_sequence(
    p: Array,
    tokens: Array,
    v: Array,
    offsets: Array | None = None,
    leaves: Array | None = None,
    children: Sequence[Sequence[int] | Array | None] | None = None,
) -> PitSequence:
    """The PIT values of one text, and the sums that bets on it need.

    Args:
        p: [n, V] distribution of the processed target at every position.
        tokens: [n] emitted tokens.
        v: [n] uniform numbers from a generator of the harness, unknown to the decoder.
        offsets: [n] offset of each token in its block, -1 where unknown.
        leaves: [n] 1 after a leaf, 0 after an inner node, -1 where unknown.
        children: the tokens proposed after the node at which each token was sampled, empty after a leaf, None where unknown.

    Raises:
        ValueError: for shapes that do not match, tokens outside the vocabulary, or rows of p that are no distribution.
    """
    n, vocabulary = p.shape
    tokens, v = np.asarray(tokens, int), np.asarray(v, float)
    offsets, leaves = (np.full(n, -1) if known is None else np.asarray(known, int) for known in (offsets, leaves))
    children = [None] * n if children is None else children
    if not {(n,)} == {tokens.shape, v.shape, offsets.shape, leaves.shape, (len(children),)}:
        raise ValueError(f"{n} rows of p need {n} tokens and uniform numbers, and if known {n} offsets, leaves and child lists")
    if not (np.all((tokens >= 0) & (tokens < vocabulary)) and np.all((v >= 0) & (v < 1))):
        raise ValueError(f"tokens must be 0 to {vocabulary - 1}, and uniform numbers at least 0 and below 1")
    step = max(1, CELLS // vocabulary)
    parts = [_measure(p[i : i + step], tokens[i : i + step]) for i in range(0, max(n, 1), step)]
    above, px, tilt, score, variance = (np.concatenate(column) for column in zip(*parts, strict=True))
    is_child, child_mass = _children(p, tokens, children)
    return PitSequence(
        u=np.clip(above + v * px, 0, 1),
        p=px,
        tilt=tilt,
        score=score,
        variance=variance,
        offset=offsets,
        leaf=leaves,
        is_child=is_child,
        child_mass=child_mass,
    )


def _measure(rows: Array, tokens: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Probability of all likelier tokens [b], of the token [b], tilts [b, 8], score [b] and its variance [b], for rows [b, V]."""
    p = np.asarray(rows, float)
    total = p.sum(axis=1, keepdims=True)
    if not (p.min(initial=0) >= 0 and np.all(abs(total - 1) <= ROUNDING)):
        wrong = total.flat[abs(total - 1).argmax()]
        raise ValueError(f"a distribution must be non-negative and sum to 1; found a sum of {wrong:.6g}")
    p = p / total
    at = (np.arange(len(p)), tokens)
    px = p[at][:, None]
    # Sums instead of a sort: the PIT value needs only the likelier tokens, and the equally likely ones of lower id.
    tied = np.count_nonzero((p == px) & (np.arange(p.shape[1]) < tokens[:, None]), axis=1)
    above = (p * (p > px)).sum(axis=1) + tied * px[:, 0]
    logs = np.log(np.where(p > 0, p, 1))
    mean, square = (p * logs).sum(axis=1), (p * logs * logs).sum(axis=1)
    return above, px[:, 0], _tilts(p, logs, logs[at]), logs[at] - mean, square - mean**2


def _tilts(p: Array, logs: Array, own: Array) -> Array:
    """Log factors [b, 8]: tilt log p(x) - log sum(p^(1 + tilt)).

    The powers .01, .03, .1 and .3 of p are products of the first: one exponential per probability instead of eight.
    """
    a = np.exp(TILTS[0] * logs)
    b = a * a * a
    c = b * b * b * a
    powers = (a, b, c, c * c * c)
    sums = np.stack([side for power in powers for side in ((p * power).sum(axis=1), (p / power).sum(axis=1))], axis=1)
    tilts: Array = own[:, None] * np.array(TILTS) - np.log(sums)
    return tilts


def _children(p: Array, tokens: Array, children: Sequence[Sequence[int] | Array | None]) -> tuple[Array, Array]:
    """Whether each token is among the children of its node [n], and the probability of those children [n]."""
    is_child, child_mass = np.full(len(tokens), -1), np.full(len(tokens), np.nan)
    known = [i for i, proposed in enumerate(children) if proposed is not None]
    is_child[known], child_mass[known] = 0, 0.0
    pairs = [(i, int(child)) for i in known for child in {*children[i]}]  # type: ignore[misc]
    if pairs:
        rows, columns = np.array(pairs).T
        is_child[rows[columns == tokens[rows]]] = 1
        np.add.at(child_mass, rows, p[rows, columns])
    return is_child, np.minimum(child_mass, 1)
