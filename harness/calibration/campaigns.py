"""What is simulated: correct decoders by the thousand, broken ones until they are found out, bounds on known deviations.

Each shard is a pure function of its fields, and returns counts, which add.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from harness.calibration.decoders import Reject, Walk
from harness.calibration.faults import FAULTS
from harness.calibration.observe import LENGTH, Oracle, joined, running, sample, tally, zero
from harness.calibration.worlds import PROCESSINGS, Floats, World
from harness.statistics.diagnostics import child, ks, neyman, score, tails
from harness.statistics.eprocess import FAULT, Counts, PitSequence, log10_average, log10_components

CAMPAIGNS, LOOKS, TEXTS = 64, 32, 8
"""Of a shard of correct decoders: campaigns, looks at the evidence of each, texts from one look to the next."""
SAMPLE = 64
"""Texts that a p-value is made of: 2,048 tokens."""
EVIDENCE = (*(round(10 ** (0.2 * i), 4) for i in range(21)), 20.0, FAULT)
"""E at which campaigns are counted that ever reached it: by Ville at most one in E of them."""
LEVELS = (1e-5, 1e-4, 1e-3, 0.01, *(round(0.05 * i, 2) for i in range(1, 21)))
"""Where p-values are counted that are at most as large."""
RUNS, WORLDS = 20, 4
"""Of a fault."""
BITE = 8192
"""Texts simulated at once."""
FOUND = (1e6, FAULT)
"""Evidence to which tokens are counted: what statistics of this kind are usually told for, and what convicts."""
TRACED = ("leaf", "offset", "block", "child")
"""Components that need a trace of blocks; a black box that tells nothing but tokens is judged without them."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Correct:
    """Campaigns of a correct decoder: every second shard by the other rule, every second pair of shards processed otherwise."""

    vocab: int
    number: int

    def run(self) -> Figures:
        rule, processing = (Reject, Walk)[self.number % 2], list(PROCESSINGS)[self.number // 2 % 2]
        oracle = Oracle.of(World.build(self.vocab, processing, self.number))
        rng = np.random.default_rng([1, self.vocab, self.number])
        strands = sample(oracle, rule(), CAMPAIGNS * LOOKS * TEXTS, rng)
        sums = running(tally(strands, CAMPAIGNS, LOOKS))
        each = log10_components(sums)
        highest = {name: log10.max(axis=1) for name, log10 in (each | {"average": log10_average(each)}).items()}
        return {
            "campaigns": CAMPAIGNS,
            "tokens": CAMPAIGNS * LOOKS * TEXTS * LENGTH,
            "blocks": int((strands.offset == 0).sum()),
            "impossible": int(sums.impossible[:, -1].sum()),
            "reached": {name: at_least(values, np.log10(EVIDENCE)) for name, values in highest.items()},
            "p_values": {name: at_least(-np.array(values), -np.array(LEVELS)) for name, values in p_values(strands).items()},
        }


def at_least(values: Floats, thresholds: Any) -> list[int]:
    """How many values reach each threshold."""
    return [int(n) for n in (values[:, None] >= np.asarray(thresholds)).sum(axis=0)]


def p_values(strands: PitSequence) -> dict[str, list[float]]:
    """Those of every diagnostic, on every SAMPLE texts."""
    samples = len(strands.u) // SAMPLE
    sums = tally(strands, samples, 1)
    found: dict[str, list[float]] = {}
    for i in range(samples):
        one = PitSequence(**{f.name: getattr(strands, f.name)[i * SAMPLE : (i + 1) * SAMPLE] for f in fields(PitSequence)})
        own = Counts(**{name: array[i, 0] for name, array in sums.arrays().items()})
        u, hit, mass = one.u.ravel(), one.is_child.ravel(), one.child_mass.ravel()
        each = {"Kolmogorov-Smirnov": ks(u), "Neyman": neyman(u), "score": score(own), "child": child(hit, mass)} | tails(own)
        for name, p_value in each.items():
            found.setdefault(name, []).extend([p_value] if p_value is not None else [])
    return found


@dataclass(frozen=True)
class Broken:
    """Runs of a fault, side by side, some in each of WORLDS worlds, until all are convicted or have had `limit` texts."""

    vocab: int
    fault: int
    limit: int
    runs: int = RUNS

    def run(self) -> Figures:
        fault = FAULTS[self.fault]
        oracles = [Oracle.of(World.build(self.vocab, fault.processing, world)) for world in range(WORLDS)]
        rng = np.random.default_rng([2, self.vocab, self.fault])
        race = Race.of(self.runs)
        while race.texts < self.limit and not race.over:
            looks, texts = self.stretch(race.texts)
            strands = joined([sample(o, fault.rule(), self.runs // WORLDS * looks * texts, rng) for o in oracles])
            race.advance(tally(strands, self.runs, looks), texts)
        return {"fault": fault.name, "runs": self.runs, "spent": race.texts * LENGTH, **race.figures()}

    def stretch(self, done: int) -> tuple[int, int]:
        """Looks to come, and texts a look: a sixteenth of what there was at the last doubling, in bites that fit memory."""
        texts = 2 ** int(np.log2(max(done, 16))) // 16
        return max(1, min(16, BITE // (self.runs * texts), (self.limit - done) // texts)), texts


@dataclass
class Race:
    """Runs on their way to conviction: what they have counted, and the tokens at which they reached each of FOUND.

    An impossible token is evidence without limit. first: the component that had most when the evidence convicted.
    """

    sums: Counts
    texts: int
    found: dict[str, Floats]
    first: list[str]

    @classmethod
    def of(cls, runs: int) -> Race:
        return cls(zero(runs, 1), 0, {name: np.full((runs, len(FOUND)), np.nan) for name in ("traced", "black box")}, [""] * runs)

    @property
    def over(self) -> bool:
        return not any(np.isnan(tokens).any() for tokens in self.found.values())

    def advance(self, new: Counts, texts: int) -> None:
        """Take the counts [runs, looks] of further texts, and note who reached what."""
        after = running(new)
        sums = replace(after, **{name: array + self.sums.arrays()[name] for name, array in after.arrays().items()})
        each = log10_components(sums) | {"support": np.where(sums.impossible > 0, np.inf, -np.inf)}
        told = {name: np.zeros_like(log10) if name in TRACED else log10 for name, log10 in each.items()}
        evidence = {"traced": combined(each), "black box": combined(told)}
        for look in range(new.tokens.shape[1]):
            self.texts += texts
            for name, tokens in self.found.items():
                reached = np.isnan(tokens) & (evidence[name][:, look, None] >= np.log10(FOUND))
                tokens[reached] = self.texts * LENGTH
                for run in np.flatnonzero(reached[:, -1]) if name == "traced" else ():
                    self.first[run] = max(each, key=lambda name: each[name][run, look])
        self.sums = replace(sums, **{name: array[:, -1:] for name, array in sums.arrays().items()})

    def figures(self) -> Figures:
        """Tokens to what, run by run; None where it was not reached."""
        tokens = {name: [[None if np.isnan(x) else int(x) for x in column] for column in t.T] for name, t in self.found.items()}
        convicted = [name for name in self.first if name]
        return {"tokens": tokens, "first": {name: convicted.count(name) for name in sorted(set(convicted))}}


def combined(each: dict[str, Floats]) -> Floats:
    """What the verdict rests on: the average of the bets, unless the support has been left."""
    bets = {name: log10 for name, log10 in each.items() if name != "support"}
    return np.maximum(log10_average(bets), each["support"])
