"""Simulated campaigns: thousands of correct decoders, and faulty ones until they are detected.

A shard is a pure function of its fields. It returns counts, which can be summed over shards.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from harness.calibration.decoders import Reject, Walk
from harness.calibration.faults import FAULTS
from harness.calibration.observations import LENGTH, Scorer, concatenate, count_campaigns, cumulative, no_counts, sample
from harness.calibration.toy_pairs import PROCESSING, Floats, ToyPair
from harness.statistics.diagnostics import child, ks, neyman, score, tails
from harness.statistics.eprocess import FAULT, Counts, PitSequence, log10_average, log10_components

CAMPAIGNS, LOOKS, TEXTS = 64, 32, 8
"""Of a shard of correct decoders: campaigns, examinations of the evidence in each, texts between two examinations."""
SAMPLE = 64
"""Texts of a p-value: 2,048 tokens."""
EVIDENCE = (*(round(10 ** (0.2 * i), 4) for i in range(21)), 20.0, FAULT)
"""Evidence E for which campaigns are counted that ever reached it: at most one in E by Ville's inequality."""
LEVELS = (1e-5, 1e-4, 1e-3, 0.01, *(round(0.05 * i, 2) for i in range(1, 21)))
"""Levels for which p-values at or below are counted."""
RUNS, PAIRS = 20, 4
"""Runs of a fault, and toy pairs over which they are divided."""
MOST_TEXTS = 8192
"""Texts simulated at once."""
FOUND = (1e6, FAULT)
"""Evidence for which tokens are counted: the usual one for such statistics, and the one that gives a verdict."""
TRACED = ("leaf", "offset", "block", "child")
"""Components that need a trace of blocks. An implementation that returns tokens alone is judged without them."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Correct:
    """Campaigns of a correct decoder. Both rules and both kinds of processing take turns over the shards."""

    vocab: int
    number: int

    def run(self) -> Figures:
        rule, processing = (Reject, Walk)[self.number % 2], list(PROCESSING)[self.number // 2 % 2]
        scorer = Scorer.of(ToyPair.build(self.vocab, processing, self.number))
        rng = np.random.default_rng([1, self.vocab, self.number])
        sequences = sample(scorer, rule(), CAMPAIGNS * LOOKS * TEXTS, rng)
        sums = cumulative(count_campaigns(sequences, CAMPAIGNS, LOOKS))
        each = log10_components(sums)
        highest = {name: log10.max(axis=1) for name, log10 in (each | {"average": log10_average(each)}).items()}
        return {
            "campaigns": CAMPAIGNS,
            "tokens": CAMPAIGNS * LOOKS * TEXTS * LENGTH,
            "blocks": int((sequences.offset == 0).sum()),
            "impossible": int(sums.impossible[:, -1].sum()),
            "reached": {name: at_least(values, np.log10(EVIDENCE)) for name, values in highest.items()},
            "p_values": {name: at_least(-np.array(values), -np.array(LEVELS)) for name, values in p_values(sequences).items()},
        }


def at_least(values: Floats, thresholds: Any) -> list[int]:
    """How many values are at or above each threshold."""
    return [int(n) for n in (values[:, None] >= np.asarray(thresholds)).sum(axis=0)]


def p_values(sequences: PitSequence) -> dict[str, list[float]]:
    """p-values of every diagnostic, one for every SAMPLE texts."""
    samples = len(sequences.u) // SAMPLE
    sums = count_campaigns(sequences, samples, 1)
    found: dict[str, list[float]] = {}
    for i in range(samples):
        one = PitSequence(**{f.name: getattr(sequences, f.name)[i * SAMPLE : (i + 1) * SAMPLE] for f in fields(PitSequence)})
        own = Counts(**{name: array[i, 0] for name, array in sums.arrays().items()})
        u, hit, mass = one.u.ravel(), one.is_child.ravel(), one.child_mass.ravel()
        each = {"Kolmogorov-Smirnov": ks(u), "Neyman": neyman(u), "score": score(own), "child": child(hit, mass)} | tails(own)
        for name, p_value in each.items():
            found.setdefault(name, []).extend([p_value] if p_value is not None else [])
    return found


@dataclass(frozen=True)
class Broken:
    """Runs of a fault, divided over PAIRS toy pairs, until all are detected or have had `limit` texts."""

    vocab: int
    fault: int
    limit: int
    runs: int = RUNS

    def run(self) -> Figures:
        fault = FAULTS[self.fault]
        scorers = [Scorer.of(ToyPair.build(self.vocab, fault.processing, seed)) for seed in range(PAIRS)]
        rng = np.random.default_rng([2, self.vocab, self.fault])
        state = Runs.of(self.runs)
        while state.texts < self.limit and not state.over:
            looks, texts = self.next_looks(state.texts)
            sequences = concatenate([sample(o, fault.rule(), self.runs // PAIRS * looks * texts, rng) for o in scorers])
            state.advance(count_campaigns(sequences, self.runs, looks), texts)
        return {"fault": fault.name, "runs": self.runs, "spent": state.texts * LENGTH, **state.figures()}

    def next_looks(self, done: int) -> tuple[int, int]:
        """The next looks, and texts per look: a sixteenth of the texts at the last power of two, as many as fit into memory."""
        texts = 2 ** int(np.log2(max(done, 16))) // 16
        return max(1, min(16, MOST_TEXTS // (self.runs * texts), (self.limit - done) // texts)), texts


@dataclass
class Runs:
    """Runs of a fault so far. An impossible token is infinite evidence.

    Args:
        sums: counts of each run.
        texts: texts of each run.
        found: tokens at which each run reached each value of FOUND, with a trace and as a black box; nan before.
        first: component with the most evidence when a run was detected.
    """

    sums: Counts
    texts: int
    found: dict[str, Floats]
    first: list[str]

    @classmethod
    def of(cls, runs: int) -> Runs:
        return cls(
            no_counts(runs, 1), 0, {name: np.full((runs, len(FOUND)), np.nan) for name in ("traced", "black box")}, [""] * runs
        )

    @property
    def over(self) -> bool:
        return not any(np.isnan(tokens).any() for tokens in self.found.values())

    def advance(self, new: Counts, texts: int) -> None:
        """Add the counts [runs, looks] of further texts, and record which runs reached which evidence."""
        after = cumulative(new)
        sums = replace(after, **{name: array + self.sums.arrays()[name] for name, array in after.arrays().items()})
        each = log10_components(sums) | {"support": np.where(sums.impossible > 0, np.inf, -np.inf)}
        black_box = {name: np.zeros_like(log10) if name in TRACED else log10 for name, log10 in each.items()}
        evidence = {"traced": combined(each), "black box": combined(black_box)}
        for look in range(new.tokens.shape[1]):
            self.texts += texts
            for name, tokens in self.found.items():
                reached = np.isnan(tokens) & (evidence[name][:, look, None] >= np.log10(FOUND))
                tokens[reached] = self.texts * LENGTH
                for run in np.flatnonzero(reached[:, -1]) if name == "traced" else ():
                    self.first[run] = max(each, key=lambda name: each[name][run, look])
        self.sums = replace(sums, **{name: array[:, -1:] for name, array in sums.arrays().items()})

    def figures(self) -> Figures:
        """Tokens to each evidence, run by run; None where it was not reached."""
        tokens = {name: [[None if np.isnan(x) else int(x) for x in column] for column in t.T] for name, t in self.found.items()}
        detected = [name for name in self.first if name]
        return {"tokens": tokens, "first": {name: detected.count(name) for name in sorted(set(detected))}}


def combined(each: dict[str, Floats]) -> Floats:
    """Evidence of the verdict: the average of the e-processes, or infinite after an impossible token."""
    bets = {name: log10 for name, log10 in each.items() if name != "support"}
    return np.maximum(log10_average(bets), each["support"])
