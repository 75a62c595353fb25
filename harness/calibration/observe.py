"""What the instrument sees of decoders in lockstep: strands and counts, as for one text, over whole arrays of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.calibration.decoders import NONE, Reject, Written, write
from harness.calibration.worlds import Bools, Floats, Ints, World
from harness.statistics.eprocess import EDGES, GRID, OFFSETS, TILTS, WIDTHS, Counts, PitSequence, child_factors
from harness.statistics.pit import pit_sequence

LENGTH = 32
"""Tokens of a text."""
CHUNK = 2048
"""Texts written at once: their trees fit the processor's cache."""


@dataclass(frozen=True)
class Oracle:
    """Scores texts with the target's law, given what depends on the law alone, per kind.

    entropy, variance [K] of log p; partition [K, L], log of the sum of p^(1 + tilt)
    """

    world: World
    entropy: Floats
    variance: Floats
    partition: Floats

    @classmethod
    def of(cls, world: World) -> Oracle:
        """Read off the instrument's own strand of each law's likeliest token."""
        zeros = np.zeros(len(world.target.p), int)
        first = pit_sequence(world.target.p, zeros, zeros)
        log = np.log(first.p)
        return cls(world, first.score - log, first.variance, np.array(TILTS) * log[:, None] - first.tilt)

    def strands(self, written: Written, rng: np.random.Generator) -> PitSequence:
        """As harness.statistics.pit.pit_sequence, with a leading axis for texts: fields are [B, T] and [B, T, L]."""
        world, kind, tokens = self.world, self.world.kind(written.texts), written.tokens
        rank = world.rank(written.texts, tokens)
        p = world.target.p[kind, rank]
        log = np.log(np.where(p > 0, p, 1))
        offered = written.children != NONE
        mass = np.where(offered, world.p(written.texts[..., None], np.maximum(written.children, 0)), 0).sum(axis=-1)
        return PitSequence(
            u=np.clip(world.target.before(kind, rank) + rng.random(p.shape) * p, 0, 1),
            p=p,
            tilt=np.array(TILTS) * log[..., None] - self.partition[kind],
            score=log + self.entropy[kind],
            variance=self.variance[kind],
            offset=written.offset,
            leaf=(~offered.any(axis=-1)).astype(int),
            is_child=(written.children == tokens[..., None]).any(axis=-1).astype(int),
            child_mass=np.minimum(mass, 1),
        )


def sample(oracle: Oracle, rule: Reject, texts: int, rng: np.random.Generator) -> PitSequence:
    """The strands of so many fresh texts of LENGTH tokens."""
    starts = rng.integers(0, 2**64, texts, dtype=np.uint64)
    chunks = (starts[i : i + CHUNK] for i in range(0, texts, CHUNK))
    return joined([oracle.strands(write(oracle.world, rule, chunk, LENGTH, rng), rng) for chunk in chunks])


def joined(parts: Sequence[PitSequence]) -> PitSequence:
    """The texts of one after those of the other."""
    return PitSequence(*(np.concatenate(column) for column in zip(*(vars(part).values() for part in parts), strict=True)))


def tally(strands: PitSequence, campaigns: int, looks: int) -> Counts:
    """As harness.statistics.eprocess.counts, for the texts of many campaigns in order: fields get the axes [campaigns, looks].

    Row b of the strands belongs to group b // (texts a look); what is paired over texts is paired within a look.
    """
    groups = campaigns * looks
    group = np.repeat(np.arange(groups), len(strands.u) // groups)[:, None]
    possible = strands.p > 0
    bins = np.where(possible, np.searchsorted(EDGES, strands.u, side="right"), NONE)
    grid = np.where(possible, np.minimum((strands.u * GRID).astype(int), GRID - 1), NONE)
    stratum = np.minimum(strands.offset, OFFSETS - 1)
    same = group[1:] == group[:-1]
    first, second = consecutive(strands.offset == 0)
    factors = np.where(
        possible[..., None], child_factors(strands.is_child.ravel(), strands.child_mass.ravel()).reshape(*bins.shape, -1), 0
    )
    one = np.where(possible, 1, NONE)
    sums = {
        "tokens": np.bincount(group.ravel(), minlength=groups) * strands.u.shape[1],
        "sequences": np.bincount(group.ravel(), minlength=groups),
        "impossible": (~possible).reshape(groups, -1).sum(axis=1),
        "histogram": table(group, one * 0, bins, (groups, 1, len(WIDTHS)))[:, 0],
        "leaf": table(group, strands.leaf, bins, (groups, 2, len(WIDTHS))),
        "offset": table(group, stratum, bins, (groups, OFFSETS, len(WIDTHS))),
        "lag": table(group, grid[:, :-1], grid[:, 1:], (groups, GRID, GRID)),
        "block": table(
            group.repeat(grid.shape[1], axis=1).ravel()[first], grid.ravel()[first], grid.ravel()[second], (groups, GRID, GRID)
        ),
        "cross": table(group[1:], grid[:-1], np.where(same, grid[1:], NONE), (groups, GRID, GRID)),
        "tilt": np.where(possible[..., None], strands.tilt, 0).reshape(groups, -1, len(TILTS)).sum(axis=1),
        "child": factors.reshape(groups, -1, factors.shape[-1]).sum(axis=1),
        "score": np.stack(
            [np.where(possible, x, 0).reshape(groups, -1).sum(axis=1) for x in (strands.score, strands.variance)], 1
        ),
    }
    return Counts(**{name: array.reshape(campaigns, looks, *array.shape[1:]) for name, array in sums.items()})


def table(group: Ints, rows: Ints, columns: Ints, shape: tuple[int, int, int]) -> Ints:
    """How often each (group, row, column) occurs; what is NONE on either side is left out."""
    group, rows, columns = (part.ravel() for part in np.broadcast_arrays(group, rows, columns))
    seen = (rows >= 0) & (columns >= 0)
    cells = (group[seen] * shape[1] + rows[seen]) * shape[2] + columns[seen]
    return np.bincount(cells, minlength=shape[0] * shape[1] * shape[2]).reshape(shape)


def consecutive(marked: Bools) -> tuple[Ints, Ints]:
    """Flat places of consecutive marks in the same row of [B, T]."""
    places = np.flatnonzero(marked)
    together = places[1:] // marked.shape[1] == places[:-1] // marked.shape[1]
    return places[:-1][together], places[1:][together]


def zero(*axes: int) -> Counts:
    """No tokens, on leading axes."""
    arrays: dict[str, Any] = {name: np.zeros((*axes, *a.shape), a.dtype) for name, a in Counts.zero().arrays().items()}
    return Counts(**arrays)


def running(sums: Counts) -> Counts:
    """What had been counted at each look [campaigns, looks]."""
    return replace(sums, **{name: array.cumsum(axis=1) for name, array in sums.arrays().items()})
