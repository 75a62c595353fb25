"""Statistics of simulated texts: those of `harness.statistics`, computed for whole arrays of texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.calibration.decoders import NONE, Reject, Transcript, decode
from harness.calibration.toy_pairs import Bools, Floats, Ints, ToyPair
from harness.statistics.eprocess import EDGES, GRID, OFFSETS, TILTS, WIDTHS, Counts, PitSequence, child_factors
from harness.statistics.pit import pit_sequence

LENGTH = 32
"""Tokens of a text."""
CHUNK = 2048
"""Texts decoded at once: their trees fit into the processor's cache."""


@dataclass(frozen=True)
class Scorer:
    """Scores texts with the target's distributions; what depends on a distribution alone is computed once.

    Args:
        entropy: entropy of each distribution, [K].
        variance: variance of log p under each distribution, [K].
        partition: log of the sum of p^(1 + tilt), [K, L].
    """

    pair: ToyPair
    entropy: Floats
    variance: Floats
    partition: Floats

    @classmethod
    def of(cls, pair: ToyPair) -> Scorer:
        """Take them from `harness.statistics.pit.pit_sequence` of the most likely token of each distribution."""
        zeros = np.zeros(len(pair.target.p), int)
        first = pit_sequence(pair.target.p, zeros, zeros)
        log = np.log(first.p)
        return cls(pair, first.score - log, first.variance, np.array(TILTS) * log[:, None] - first.tilt)

    def sequences(self, transcript: Transcript, rng: np.random.Generator) -> PitSequence:
        """As `harness.statistics.pit.pit_sequence`, with a first axis for texts: fields are [B, T] and [B, T, L]."""
        pair, kind, tokens = self.pair, self.pair.kind(transcript.texts), transcript.tokens
        rank = pair.rank(transcript.texts, tokens)
        p = pair.target.p[kind, rank]
        log = np.log(np.where(p > 0, p, 1))
        offered = transcript.children != NONE
        mass = np.where(offered, pair.p(transcript.texts[..., None], np.maximum(transcript.children, 0)), 0).sum(axis=-1)
        return PitSequence(
            u=np.clip(pair.target.before(kind, rank) + rng.random(p.shape) * p, 0, 1),
            p=p,
            tilt=np.array(TILTS) * log[..., None] - self.partition[kind],
            score=log + self.entropy[kind],
            variance=self.variance[kind],
            offset=transcript.offset,
            leaf=(~offered.any(axis=-1)).astype(int),
            is_child=(transcript.children == tokens[..., None]).any(axis=-1).astype(int),
            child_mass=np.minimum(mass, 1),
        )


def sample(scorer: Scorer, rule: Reject, texts: int, rng: np.random.Generator) -> PitSequence:
    """The sequences of new texts of LENGTH tokens."""
    starts = rng.integers(0, 2**64, texts, dtype=np.uint64)
    chunks = (starts[i : i + CHUNK] for i in range(0, texts, CHUNK))
    return concatenate([scorer.sequences(decode(scorer.pair, rule, chunk, LENGTH, rng), rng) for chunk in chunks])


def concatenate(parts: Sequence[PitSequence]) -> PitSequence:
    """All texts, in order."""
    return PitSequence(*(np.concatenate(column) for column in zip(*(vars(part).values() for part in parts), strict=True)))


def count_campaigns(sequences: PitSequence, campaigns: int, looks: int) -> Counts:
    """As `harness.statistics.eprocess.Counts.of`, for the texts of many campaigns in order.

    Text b belongs to look b // (texts per look); pairs of texts are formed within a look.

    Returns:
        Counts whose fields have the first axes [campaigns, looks].
    """
    groups = campaigns * looks
    group = np.repeat(np.arange(groups), len(sequences.u) // groups)[:, None]
    possible = sequences.p > 0
    bins = np.where(possible, np.searchsorted(EDGES, sequences.u, side="right"), NONE)
    grid = np.where(possible, np.minimum((sequences.u * GRID).astype(int), GRID - 1), NONE)
    stratum = np.minimum(sequences.offset, OFFSETS - 1)
    same = group[1:] == group[:-1]
    first, second = consecutive_marks(sequences.offset == 0)
    factors = np.where(
        possible[..., None], child_factors(sequences.is_child.ravel(), sequences.child_mass.ravel()).reshape(*bins.shape, -1), 0
    )
    one = np.where(possible, 1, NONE)
    sums = {
        "tokens": np.bincount(group.ravel(), minlength=groups) * sequences.u.shape[1],
        "sequences": np.bincount(group.ravel(), minlength=groups),
        "impossible": (~possible).reshape(groups, -1).sum(axis=1),
        "histogram": count_cells(group, one * 0, bins, (groups, 1, len(WIDTHS)))[:, 0],
        "leaf": count_cells(group, sequences.leaf, bins, (groups, 2, len(WIDTHS))),
        "offset": count_cells(group, stratum, bins, (groups, OFFSETS, len(WIDTHS))),
        "lag": count_cells(group, grid[:, :-1], grid[:, 1:], (groups, GRID, GRID)),
        "block": count_cells(
            group.repeat(grid.shape[1], axis=1).ravel()[first], grid.ravel()[first], grid.ravel()[second], (groups, GRID, GRID)
        ),
        "cross": count_cells(group[1:], grid[:-1], np.where(same, grid[1:], NONE), (groups, GRID, GRID)),
        "tilt": np.where(possible[..., None], sequences.tilt, 0).reshape(groups, -1, len(TILTS)).sum(axis=1),
        "child": factors.reshape(groups, -1, factors.shape[-1]).sum(axis=1),
        "score": np.stack(
            [np.where(possible, x, 0).reshape(groups, -1).sum(axis=1) for x in (sequences.score, sequences.variance)], 1
        ),
    }
    return Counts(**{name: array.reshape(campaigns, looks, *array.shape[1:]) for name, array in sums.items()})


def count_cells(group: Ints, rows: Ints, columns: Ints, shape: tuple[int, int, int]) -> Ints:
    """How often each (group, row, column) occurs; pairs with NONE are left out."""
    group, rows, columns = (part.ravel() for part in np.broadcast_arrays(group, rows, columns))
    seen = (rows >= 0) & (columns >= 0)
    cells = (group[seen] * shape[1] + rows[seen]) * shape[2] + columns[seen]
    return np.bincount(cells, minlength=shape[0] * shape[1] * shape[2]).reshape(shape)


def consecutive_marks(marked: Bools) -> tuple[Ints, Ints]:
    """Flat indices of consecutive marks in the same row of [B, T]."""
    places = np.flatnonzero(marked)
    together = places[1:] // marked.shape[1] == places[:-1] // marked.shape[1]
    return places[:-1][together], places[1:][together]


def no_counts(*axes: int) -> Counts:
    """Counts of no tokens, with these first axes."""
    arrays: dict[str, Any] = {name: np.zeros((*axes, *a.shape), a.dtype) for name, a in Counts.zero().arrays().items()}
    return Counts(**arrays)


def cumulative(sums: Counts) -> Counts:
    """Counts up to and including each look."""
    return replace(sums, **{name: array.cumsum(axis=1) for name, array in sums.arrays().items()})
