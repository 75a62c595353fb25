"""Counts of a text: passes, rows, accepted tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.bench.record import Counts


def counted(trees: Sequence[tuple[int, int]], target_passes: int, head_passes: int | None) -> Counts:
    """From (rows, accepted tokens) of each pass after the prompt's."""
    return Counts(
        target_passes=target_passes,
        head_passes=head_passes,
        rows=sum(rows for rows, _ in trees),
        accepted=histogram(Counter(accepted for _, accepted in trees)),
    )


def histogram(seen: Counter[int]) -> tuple[int, ...]:
    return tuple(seen[i] for i in range(max(seen, default=-1) + 1))


def added(counts: Iterable[Counts]) -> Counts:
    """Sums. head_passes is None if one is."""
    found = list(counts)
    heads = [one.head_passes for one in found]
    accepted = Counter[int]()
    for one in found:
        accepted.update(dict(enumerate(one.accepted)))
    return Counts(
        target_passes=sum(one.target_passes for one in found),
        head_passes=None if None in heads else sum(head for head in heads if head is not None),
        rows=sum(one.rows for one in found),
        accepted=histogram(accepted),
    )
