"""Figures of a calibration, summed over the shards of its record, with exact intervals."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter
from scipy.stats import chi2

from eagle2_ref.errors import BadInput
from harness.calibration.campaigns import EVIDENCE, FOUND, LEVELS
from harness.calibration.toy_pairs import BUDGETS
from harness.record.jsonl import read_lines
from harness.statistics.chisquare import goodness
from harness.statistics.eprocess import FAULT
from harness.statistics.intervals import clopper_pearson

Figures = dict[str, Any]

CONFIDENCE = 0.999
"""Confidence level of an interval. There are some hundreds of intervals; at 95 %, one in twenty would miss."""
BOUNDED = (20.0, 100.0, FAULT)
"""Values of the evidence E at which rates are reported. By Ville's inequality, at most one campaign in E reaches E."""
TAIL = (0.05, 0.01, 1e-3, 1e-4)
"""Levels at which p-values are reported."""


class Header(BaseModel):
    """First line of a record: what the figures belong to. code: SHA-256 of the code that computes them."""

    tier: str
    shards: int
    code: str
    versions: dict[str, str]
    command: str
    started: str = ""


class ShardLine(BaseModel):
    """A shard (its kind and fields), its figures, and the seconds of computing."""

    shard: Figures
    figures: Figures
    seconds: float


LINES: TypeAdapter[Header | ShardLine] = TypeAdapter(Header | ShardLine)


@dataclass(frozen=True)
class Rate:
    """`count` of `n`, with the Clopper-Pearson interval of the probability."""

    count: int
    n: int

    @property
    def value(self) -> float:
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.count, self.n, CONFIDENCE)


@dataclass(frozen=True)
class Tally:
    """How many of n campaigns of correct decoders reached each evidence, or how many of n p-values were at most each level.

    name: the component of the evidence, or the diagnostic. values: EVIDENCE or LEVELS.
    """

    vocab: int
    name: str
    values: tuple[float, ...]
    counts: tuple[int, ...]
    n: int

    def rate(self, value: float) -> Rate:
        return Rate(self.counts[self.values.index(value)], self.n)


def uniformity(p_values: Tally) -> float:
    """p-value of a chi-square test, on twenty bins, that the p-values are uniform."""
    counts = np.diff([0, *p_values.counts[LEVELS.index(0.05) :]])
    statistic, df = goodness(counts, np.full(len(counts), p_values.n / len(counts)))
    return float(chi2.sf(statistic, df))


@dataclass(frozen=True)
class Detection:
    """Tokens at which the runs of a fault reached each value of FOUND, infinite where they did not in `spent` tokens.

    Args:
        traced: by evidence that uses a trace of blocks.
        black_box: by evidence that uses tokens alone.
        first: the component with the most evidence at the verdict, in most runs.
    """

    vocab: int
    fault: str
    spent: int
    traced: tuple[tuple[float, ...], ...]
    black_box: tuple[tuple[float, ...], ...]
    first: str

    @classmethod
    def of(cls, shard: Figures) -> Detection:
        traced, black_box = (
            tuple(tuple(np.inf if x is None else x for x in runs) for runs in shard["tokens"][name])
            for name in ("traced", "black box")
        )
        first = max(shard["first"], key=lambda name: shard["first"][name], default="")
        return cls(shard["vocab"], shard["fault"], shard["spent"], traced, black_box, first)

    @property
    def verdict(self) -> tuple[float, ...]:
        """Tokens to a verdict, run by run."""
        return self.traced[FOUND.index(FAULT)]


def quantile(tokens: Sequence[float], share: float) -> float:
    """The number of tokens within which this share of the runs was detected; infinite if fewer were."""
    return float(np.sort(tokens)[int(np.ceil(share * len(tokens))) - 1])


@dataclass(frozen=True)
class Calibration:
    """All figures of a record."""

    header: Header
    lines: tuple[ShardLine, ...]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read a whole record.

        Raises:
            BadInput: the record is damaged, or the run was cut off.
        """
        lines = read_lines(path, LINES, command="eagle2 calibrate")
        header, shards = (lines[0], lines[1:]) if lines else (None, [])
        different = len({json.dumps(line.shard) for line in shards})
        if not isinstance(header, Header) or not len(shards) == different == header.shards:
            raise BadInput(
                f"{path} holds {different} different shards in {len(shards)} lines, not each of them once",
                "the run was cut off; run it again",
            )
        return cls(header, tuple(shards))

    @property
    def seconds(self) -> float:
        """Time of computing, over all processes."""
        return sum(line.seconds for line in self.lines)

    def of(self, kind: str) -> list[Figures]:
        """Fields and figures of the shards of one kind."""
        return [line.shard | line.figures for line in self.lines if line.shard["kind"] == kind]

    @cached_property
    def correct(self) -> dict[int, Figures]:
        """By vocabulary size: campaigns, tokens, blocks and impossible tokens of correct decoders."""
        names = ("campaigns", "tokens", "blocks", "impossible")
        return {v: {name: sum(shard[name] for shard in shards) for name in names} for v, shards in self._by_vocabulary()}

    @cached_property
    def alarms(self) -> list[Tally]:
        return [Tally(v, name, EVIDENCE, counts, self.correct[v]["campaigns"]) for v, name, counts in self._summed("reached")]

    @cached_property
    def p_values(self) -> list[Tally]:
        return [Tally(v, name, LEVELS, counts, counts[-1]) for v, name, counts in self._summed("p_values")]

    def _summed(self, field: str) -> Iterable[tuple[int, str, tuple[int, ...]]]:
        for vocab, shards in self._by_vocabulary():
            for name in shards[0][field]:
                yield vocab, name, tuple(int(n) for n in np.sum([shard[field][name] for shard in shards], axis=0))

    def _by_vocabulary(self) -> list[tuple[int, list[Figures]]]:
        shards = self.of("Correct")
        return [(v, group) for v in BUDGETS if (group := [shard for shard in shards if shard["vocab"] == v])]

    @cached_property
    def detections(self) -> list[Detection]:
        return [Detection.of(shard) for shard in self.of("Broken")]

    @cached_property
    def coverage(self) -> list[tuple[Figures, Rate]]:
        return [(shard, Rate(shard["covered"], shard["times"])) for shard in self.of("Covered")]

    @cached_property
    def guarantees(self) -> list[tuple[Figures, Rate]]:
        """Cases of the stated power, with the rate of detected decoders. The record calls them Promised and convicted."""
        return [(shard, Rate(shard["convicted"], shard["times"])) for shard in self.of("Promised")]
