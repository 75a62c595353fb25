"""The figures of a calibration, added up from its shards. Each claim stands beside what was promised, with an interval."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta, chi2

from harness.calibration.campaigns import EVIDENCE, FOUND, LEVELS
from harness.calibration.worlds import BUDGETS
from harness.statistics.chisquare import goodness
from harness.statistics.eprocess import FAULT

Line = dict[str, Any]

CONFIDENCE = 0.999
"""Of an interval: there are some hundreds, of which one in twenty would otherwise miss."""
BOUNDED = (20.0, 100.0, FAULT)
"""Evidence at which rates are told: Ville allows one in so many."""
TAIL = (0.05, 0.01, 1e-3, 1e-4)
"""Levels at which p-values are told."""


@dataclass(frozen=True)
class Rate:
    """`count` of `n`, and Clopper and Pearson's interval for the probability."""

    count: int
    n: int

    @property
    def value(self) -> float:
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        tail = (1 - CONFIDENCE) / 2
        low = beta.ppf(tail, self.count, self.n - self.count + 1) if self.count else 0.0
        high = beta.isf(tail, self.count + 1, self.n - self.count) if self.count < self.n else 1.0
        return float(low), float(high)


@dataclass(frozen=True)
class Alarms:
    """Campaigns of a correct decoder in which a component ever reached each of EVIDENCE."""

    vocab: int
    component: str
    reached: tuple[int, ...]
    campaigns: int

    def rate(self, evidence: float) -> Rate:
        return Rate(self.reached[EVIDENCE.index(evidence)], self.campaigns)


@dataclass(frozen=True)
class PValues:
    """p-values of a diagnostic on correct decoders: how many were at most each of LEVELS."""

    vocab: int
    test: str
    below: tuple[int, ...]

    @property
    def n(self) -> int:
        return self.below[-1]

    def rate(self, level: float) -> Rate:
        return Rate(self.below[LEVELS.index(level)], self.n)

    @cached_property
    def uniform(self) -> float:
        """p-value of their own uniformity: chi-square of twentieths."""
        counts = np.diff([0, *self.below[LEVELS.index(0.05) :]])
        statistic, df = goodness(counts, np.full(len(counts), self.n / len(counts)))
        return float(chi2.sf(statistic, df))


@dataclass(frozen=True)
class Detection:
    """Tokens at which the runs of a fault reached each of FOUND, run by run; infinite where they did not in `spent` tokens.

    traced: with a trace of blocks; black_box: without. first: what saw most, in most runs, when the evidence convicted.
    """

    vocab: int
    fault: str
    spent: int
    traced: tuple[tuple[float, ...], ...]
    black_box: tuple[tuple[float, ...], ...]
    first: str

    @property
    def verdict(self) -> tuple[float, ...]:
        return self.traced[FOUND.index(FAULT)]


def quantile(tokens: Sequence[float], share: float) -> float:
    """The number of tokens by which this share of the runs was found out; infinite where fewer were."""
    return float(np.sort(tokens)[int(np.ceil(share * len(tokens))) - 1])


@dataclass(frozen=True)
class Calibration:
    """All figures of a record."""

    header: Line
    lines: tuple[Line, ...]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        header, *lines = whole_lines(path)
        if len(lines) != header["shards"]:
            raise ValueError(f"{path} holds {len(lines)} of {header['shards']} shards: the run was cut off; run it again")
        return cls(header, tuple(lines))

    @property
    def seconds(self) -> float:
        """Of computing, over all processes."""
        return float(sum(line["seconds"] for line in self.lines))

    def of(self, kind: str) -> list[Line]:
        return [line["shard"] | line["figures"] for line in self.lines if line["shard"]["kind"] == kind]

    @cached_property
    def correct(self) -> dict[int, Line]:
        """By vocabulary: campaigns, tokens, blocks and impossible tokens of correct decoders."""
        names = ("campaigns", "tokens", "blocks", "impossible")
        return {v: {name: sum(shard[name] for shard in shards) for name in names} for v, shards in self._by_vocabulary()}

    @cached_property
    def alarms(self) -> list[Alarms]:
        return [Alarms(v, name, counts, self.correct[v]["campaigns"]) for v, name, counts in self._added("reached")]

    @cached_property
    def p_values(self) -> list[PValues]:
        return [PValues(v, name, counts) for v, name, counts in self._added("p_values")]

    def _added(self, field: str) -> Iterable[tuple[int, str, tuple[int, ...]]]:
        for vocab, shards in self._by_vocabulary():
            for name in shards[0][field]:
                yield vocab, name, tuple(int(n) for n in np.sum([shard[field][name] for shard in shards], axis=0))

    def _by_vocabulary(self) -> list[tuple[int, list[Line]]]:
        shards = self.of("Correct")
        return [(v, mine) for v in BUDGETS if (mine := [shard for shard in shards if shard["vocab"] == v])]

    @cached_property
    def detections(self) -> list[Detection]:
        return [detection(shard) for shard in self.of("Broken")]

    @cached_property
    def coverage(self) -> list[tuple[Line, Rate]]:
        return [(shard, Rate(shard["covered"], shard["times"])) for shard in self.of("Covered")]

    @cached_property
    def promises(self) -> list[tuple[Line, Rate]]:
        return [(shard, Rate(shard["convicted"], shard["times"])) for shard in self.of("Promised")]


def detection(shard: Line) -> Detection:
    traced, blind = (
        tuple(tuple(np.inf if x is None else x for x in runs) for runs in shard["tokens"][name])
        for name in ("traced", "black box")
    )
    first = max(shard["first"], key=lambda name: shard["first"][name], default="")
    return Detection(shard["vocab"], shard["fault"], shard["spent"], traced, blind, first)


def whole_lines(path: Path) -> Iterator[Line]:
    """The lines of a record, without what a run that was killed left half written."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
