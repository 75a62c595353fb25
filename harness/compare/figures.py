"""From timed texts to figures: tau and speed of every arm, on all prompts and by kind, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from harness.bench.arms import VANILLA
from harness.bench.figures import DRAWS, interval, per_prompt
from harness.bench.record import Call, Counts, Steps
from harness.compare.record import Entered, Record, Row

ALL = ""
"""The kind of a row of all prompts."""

DRAFTING = "drafting"

DYNAMIC, STATIC = "eagle2", "eagle"

ORDER = (("eagle2",), ("eagle",), ("medusa", "speculative"), ("lookahead", "lookup"))
"""Methods by the tau that is expected of them at equal budget, the highest first (EAGLE-2, table 1)."""

Spent = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Tokens and target passes of each prompt, what the prompt's own pass brought left out."""


def figures(calls: Sequence[Call], kinds: Mapping[str, str]) -> tuple[Row, ...]:
    """Of every arm and temperature, on all prompts, then on those of each kind. kinds: of the prompts by id."""
    decoded = [call for call in calls if call.counts and call.tokens > call.first]  # a prompt's pass alone has no figures
    return tuple(
        row
        for temperature in dict.fromkeys(call.temperature for call in decoded)
        for kind in (ALL, *dict.fromkeys(kinds.values()))
        for row in _rows([c for c in decoded if c.temperature == temperature and kind in (ALL, kinds[c.prompt])], kind)
    )


def _rows(calls: Sequence[Call], kind: str) -> Iterator[Row]:
    arms: dict[str, list[Call]] = {}
    for call in calls:
        arms.setdefault(call.arm, []).append(call)
    plain = per_prompt(arms.get(VANILLA, []), whole=False)
    for name, made in arms.items():
        spent = per_prompt(made, whole=False)
        if both := [plain[prompt] / spent[prompt] for prompt in spent if prompt in plain]:
            yield _row(name, made, kind, both)


def _row(name: str, calls: Sequence[Call], kind: str, speeds: Sequence[float]) -> Row:
    counts: list[Counts] = [call.counts for call in calls if call.counts]
    tokens, passes = spent(calls)
    tau, speed = tau_interval((tokens, passes)), interval(speeds)
    return Row(
        arm=name,
        temperature=calls[0].temperature,
        prompts=kind,
        tau=tokens.sum() / passes.sum(),
        tau_low=tau[0],
        tau_high=tau[1],
        speed=median(speeds),
        speed_low=speed[0],
        speed_high=speed[1],
        rows=sum(one.rows for one in counts) / passes.sum(),
        tokens=sum(call.tokens for call in calls),
        target_passes=sum(one.target_passes for one in counts),
        draft_passes=sum(one.head_passes or 0 for one in counts),
    )


def spent(calls: Sequence[Call], prompts: Sequence[str] | None = None) -> Spent:
    """Of all repeats of each prompt together."""
    tokens = dict.fromkeys(prompts or [call.prompt for call in calls], 0.0)
    passes = dict.fromkeys(tokens, 0.0)
    for call in calls:
        if call.counts and call.prompt in tokens:
            tokens[call.prompt] += call.tokens - call.first
            passes[call.prompt] += sum(call.counts.accepted)
    return np.array([*tokens.values()]), np.array([*passes.values()])


def tau_interval(of: Spent, draws: int = DRAWS) -> tuple[float, float]:
    """The middle 95 % of tau over prompts redrawn with replacement, all passes of a draw together."""
    low, high = np.quantile(_redrawn(of, draws), [0.025, 0.975])
    return float(low), float(high)


def _redrawn(of: Spent, draws: int) -> NDArray[np.float64]:
    """From one seed: a record has one answer, and two arms have the same prompts in the same draw."""
    tokens, passes = of
    drawn = np.random.default_rng(0).integers(len(tokens), size=(draws, len(tokens)))
    return np.asarray(tokens[drawn].sum(axis=1) / passes[drawn].sum(axis=1))


@dataclass(frozen=True)
class Ordered:
    """Two methods of which the first should have the higher tau. low, high: of the difference, 95 %, over prompts."""

    first: Entered
    second: Entered
    temperature: float
    taus: tuple[float, float]
    low: float
    high: float

    @property
    def holds(self) -> bool | None:
        """None: the interval holds 0, and these prompts do not tell."""
        return None if self.low <= 0 <= self.high else self.low > 0


def ordered(record: Record) -> list[Ordered]:
    """All neighbours of the expected order that are there at equal budget, by temperature."""
    there = {one.method: one for one in record.header.entered if one.equal}
    pairs = [(a, b) for upper, lower in pairwise(ORDER) for a in upper for b in lower]
    return [
        _ordered(record, there[a], there[b], temperature)
        for temperature in record.header.settings.temperatures
        for a, b in pairs
        if a in there and b in there
    ]


def _ordered(record: Record, first: Entered, second: Entered, temperature: float) -> Ordered:
    mine, theirs = (
        [call for call in record.of(Call) if call.arm == one.arm and call.temperature == temperature] for one in (first, second)
    )
    done = {call.prompt for call in theirs}
    both = [prompt for prompt in dict.fromkeys(call.prompt for call in mine) if prompt in done]
    a, b = spent(mine, both), spent(theirs, both)
    low, high = np.quantile(_redrawn(a, DRAWS) - _redrawn(b, DRAWS), [0.025, 0.975])
    taus = (float(a[0].sum() / a[1].sum()), float(b[0].sum() / b[1].sum()))
    return Ordered(first, second, temperature, taus, float(low), float(high))


def of(record: Record) -> tuple[Row, ...]:
    """The figures of a record; of one that was cut off, of what there is."""
    if record.footer:
        return record.footer.figures
    return figures(record.of(Call), {prompt.id: prompt.kind for prompt in record.header.prompts})


def drafting(steps: Sequence[Steps], arm: str, temperature: float) -> tuple[float, float] | None:
    """What an arm's drafting costs: its share of a step, and in steps of ordinary decoding; None where nobody looked."""
    found = {one.arm: one.milliseconds for one in steps if one.temperature == temperature}
    if arm not in found or VANILLA not in found:
        return None
    spent = found[arm].get(DRAFTING, 0.0)
    return spent / sum(found[arm].values()), spent / sum(found[VANILLA].values())
