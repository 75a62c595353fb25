"""From timed texts to figures: milliseconds, speed-ups and τ with intervals over prompts.

Milliseconds per token are those of decoding alone, without the pass over the prompt, wherever an arm shows when its first
token was there. Medians are taken over the repeats of a prompt first, then over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.benchmark.arms import OFF, OURS, PAPER, STATIC, STATIC_VANILLA, VANILLA
from harness.benchmark.record import (
    ArmFigures,
    BatchCall,
    BatchFigures,
    BenchFigures,
    BenchRecord,
    Call,
    CompareRecord,
    Counts,
    Entrant,
    MethodFigures,
    SpeedRatio,
    StepProfile,
)
from harness.benchmark.step_profile import DRAFTING
from harness.statistics.intervals import bootstrap

ALL = ""
"""The kind of figures over all prompts."""

EAGLE2, EAGLE = "eagle2", "eagle"

EXPECTED_ORDER = ((EAGLE2,), (EAGLE,), ("medusa", "speculative"), ("lookahead", "lookup"))
"""Methods by the τ that the papers report at equal budget, highest first (EAGLE-2, table 1)."""

Array = NDArray[np.float64]


# --- bench: arms, ratios, batches -----------------------------------------------------------------------------------------


def figures_of(record: BenchRecord) -> BenchFigures:
    """The figures of a record; of one that was cut off, those of the texts it has."""
    return record.footer.figures if record.footer else bench_figures(record.of(Call), record.of(BatchCall))


def bench_figures(calls: Sequence[Call], batches: Sequence[BatchCall] = ()) -> BenchFigures:
    """Figures of every arm at every temperature, of every pair of arms that is compared, and of batches of every size."""
    by_temperature = group_by(calls, lambda call: call.temperature)
    arms = {temperature: group_by(found, lambda call: call.arm) for temperature, found in by_temperature.items()}
    return BenchFigures(
        arms=tuple(arm_figures(name, t, found) for t, by_arm in arms.items() for name, found in by_arm.items()),
        ratios=tuple(
            speed_ratio(arm, over, t, by_arm) for t, by_arm in arms.items() for arm, over in compared_arms(list(by_arm))
        ),
        batches=batch_figures(batches),
    )


def compared_arms(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (arm, over) whose speeds are compared: every arm over vanilla, our arms over all others, each over its control."""
    pairs = [(name, VANILLA) for name in names if name != VANILLA] if VANILLA in names else []
    others = [name for name in names if name not in (*OURS, VANILLA, STATIC_VANILLA)]
    pairs += [(ours, name) for name in others for ours in OURS if ours in names and ours != PAPER]
    controls = {name: STATIC_VANILLA if name == STATIC else name + OFF for name in names}
    return pairs + [(name, control) for name, control in controls.items() if control in names]


def arm_figures(name: str, temperature: float, calls: Sequence[Call]) -> ArmFigures:
    """Figures of one arm at one temperature."""
    whole = any(call.prefill is None for call in calls)
    times = ms_per_token(calls, whole)
    low, high = median_interval(list(times.values()))
    prefills = [median(call.prefill or 0.0 for call in found) for found in _by_prompt(calls).values()]
    counts = [call.counts for call in calls if call.counts is not None]
    return ArmFigures(
        arm=name,
        temperature=temperature,
        whole=whole,
        milliseconds=median(times.values()),
        low=low,
        high=high,
        prefill=None if whole else 1000 * median(prefills),
        calls=len(calls),
        tokens=sum(call.tokens for call in calls),
        **(_count_figures(calls, counts) if len(counts) == len(calls) else {}),
    )


def _count_figures(calls: Sequence[Call], counts: Sequence[Counts]) -> dict[str, Any]:
    total = Counts.total(counts)
    taus = [tau for found in _by_prompt(calls).values() if (tau := acceptance_length(found)) is not None]
    return {
        "target_passes": total.target_passes,
        "head_passes": total.head_passes,
        "rows": total.rows,
        "accepted": total.accepted,
        "tau": acceptance_length(calls),
        "tau_mean": sum(taus) / len(taus) if taus else None,
    }


def acceptance_length(calls: Sequence[Call]) -> float | None:
    """τ: tokens per target pass, all passes pooled, without the pass over the prompt. None if there are no further passes."""
    tokens, passes = tokens_and_passes(calls)
    return float(tokens.sum() / passes.sum()) if passes.sum() else None


def speed_ratio(name: str, over: str, temperature: float, arms: Mapping[str, Sequence[Call]]) -> SpeedRatio:
    """Speed of one arm as a multiple of another's, over the prompts that both have decoded.

    If one of the two does not show when its first token was there, the pass over the prompt is included for both.
    """
    whole = any(call.prefill is None for call in (*arms[name], *arms[over]))
    mine, theirs = ms_per_token(arms[name], whole), ms_per_token(arms[over], whole)
    both = [prompt for prompt in mine if prompt in theirs]
    ratios = [theirs[prompt] / mine[prompt] for prompt in both]
    low, high = median_interval(ratios)
    return SpeedRatio(
        arm=name,
        over=over,
        temperature=temperature,
        whole=whole,
        median=median(ratios) if ratios else float("nan"),
        low=low,
        high=high,
        totals=sum(theirs[p] for p in both) / sum(mine[p] for p in both) if both else float("nan"),
    )


def batch_figures(batches: Sequence[BatchCall]) -> tuple[BatchFigures, ...]:
    """Figures of every temperature, batch size and arm, vanilla last. Batches that one arm has not decoded are left out."""
    rounds: dict[tuple[float, tuple[str, ...], int], dict[str, BatchCall]] = {}
    for batch in batches:
        rounds.setdefault((batch.temperature, batch.prompts, batch.repeat), {})[batch.arm] = batch
    names = sorted({batch.arm for batch in batches}, key=lambda name: (name == VANILLA, name))
    complete = {key: arms for key, arms in rounds.items() if len(arms) == len(names)}
    sizes: dict[tuple[float, int], dict[str, list[BatchCall]]] = {}
    for (temperature, prompts, _), arms in complete.items():
        for name in names:
            sizes.setdefault((temperature, len(prompts)), {}).setdefault(name, []).append(arms[name])
    return tuple(_batch_figures(found, arms[VANILLA]) for _, arms in sorted(sizes.items()) for found in arms.values())


def _batch_figures(batches: Sequence[BatchCall], vanilla: Sequence[BatchCall]) -> BatchFigures:
    speeds, plain = _tokens_per_second(batches), _tokens_per_second(vanilla)
    ratios, passes = [speeds[repeat] / plain[repeat] for repeat in speeds], sum(one.passes for one in batches)
    return BatchFigures(
        arm=batches[0].arm,
        temperature=batches[0].temperature,
        texts=len(batches[0].prompts),
        speed=median(speeds.values()),
        milliseconds=1000 * sum(one.seconds - one.prefill for one in batches) / passes,
        rows=sum(one.rows for one in batches) / passes,
        prefill=1000 * median(one.prefill for one in batches),
        ratio=median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def _tokens_per_second(batches: Sequence[BatchCall]) -> dict[int, float]:
    """By repeat, all batches of a repeat pooled, without the passes over the prompts and the first token of each text."""
    return {
        repeat: sum(one.tokens - len(one.prompts) for one in found) / sum(one.seconds - one.prefill for one in found)
        for repeat, found in group_by(batches, lambda batch: batch.repeat).items()
    }


# --- compare: methods, and the expected order of τ ------------------------------------------------------------------------


def method_figures_of(record: CompareRecord) -> tuple[MethodFigures, ...]:
    """The figures of a record; of one that was cut off, those of the texts it has."""
    if record.footer:
        return record.footer.figures
    return method_figures(record.of(Call), {prompt.id: prompt.kind for prompt in record.header.prompts})


def method_figures(calls: Sequence[Call], kinds: Mapping[str, str]) -> tuple[MethodFigures, ...]:
    """Figures of every arm and temperature, on all prompts, then on those of each kind. kinds: kind of each prompt by id."""
    decoded = [call for call in calls if call.counts and call.tokens > call.first]  # a text of one block has no figures
    return tuple(
        row
        for temperature, found in group_by(decoded, lambda call: call.temperature).items()
        for kind in (ALL, *dict.fromkeys(kinds.values()))
        for row in _methods_on([call for call in found if kind in (ALL, kinds[call.prompt])], kind)
    )


def _methods_on(calls: Sequence[Call], kind: str) -> Iterator[MethodFigures]:
    arms = group_by(calls, lambda call: call.arm)
    plain = ms_per_token(arms.get(VANILLA, []), whole=False)
    for name, found in arms.items():
        times = ms_per_token(found, whole=False)
        if speeds := [plain[prompt] / times[prompt] for prompt in times if prompt in plain]:
            yield _method_figures(name, found, kind, speeds)


def _method_figures(name: str, calls: Sequence[Call], kind: str, speeds: Sequence[float]) -> MethodFigures:
    counts: list[Counts] = [call.counts for call in calls if call.counts]
    tokens, passes = tokens_and_passes(calls)
    tau_low, tau_high = tau_interval(tokens, passes)
    speed_low, speed_high = median_interval(speeds)
    return MethodFigures(
        arm=name,
        temperature=calls[0].temperature,
        prompts=kind,
        tau=tokens.sum() / passes.sum(),
        tau_low=tau_low,
        tau_high=tau_high,
        speed=median(speeds),
        speed_low=speed_low,
        speed_high=speed_high,
        rows=sum(one.rows for one in counts) / passes.sum(),
        tokens=sum(call.tokens for call in calls),
        target_passes=sum(one.target_passes for one in counts),
        draft_passes=sum(one.head_passes or 0 for one in counts),
    )


@dataclass(frozen=True)
class OrderCheck:
    """Two methods of which the first should have the higher τ. low, high: 95 % interval of the difference, over prompts."""

    first: Entrant
    second: Entrant
    temperature: float
    taus: tuple[float, float]
    low: float
    high: float

    @property
    def holds(self) -> bool | None:
        """Whether the first has the higher τ; None if the interval contains 0."""
        return None if self.low <= 0 <= self.high else self.low > 0


def order_checks(record: CompareRecord) -> list[OrderCheck]:
    """All pairs of neighbours in the expected order that were run at equal budget, by temperature."""
    entrants = {one.method: one for one in record.header.entered if one.equal}
    pairs = [(a, b) for upper, lower in pairwise(EXPECTED_ORDER) for a in upper for b in lower]
    return [
        _order_check(record, entrants[a], entrants[b], temperature)
        for temperature in record.header.settings.temperatures
        for a, b in pairs
        if a in entrants and b in entrants
    ]


def _order_check(record: CompareRecord, first: Entrant, second: Entrant, temperature: float) -> OrderCheck:
    calls = [call for call in record.of(Call) if call.temperature == temperature]
    mine, theirs = ([call for call in calls if call.arm == one.arm] for one in (first, second))
    decoded = {call.prompt for call in theirs}
    both = [prompt for prompt in dict.fromkeys(call.prompt for call in mine) if prompt in decoded]
    a, b = tokens_and_passes(mine, both), tokens_and_passes(theirs, both)
    low, high = bootstrap(lambda s, t, u, v, axis: s.sum(axis) / t.sum(axis) - u.sum(axis) / v.sum(axis), *a, *b)
    taus = (float(a[0].sum() / a[1].sum()), float(b[0].sum() / b[1].sum()))
    return OrderCheck(first, second, temperature, taus, low, high)


def drafting_share(profiles: Sequence[StepProfile], arm: str, temperature: float) -> tuple[float, float] | None:
    """What an arm's drafting costs: its share of a step, and its time as a multiple of a step of ordinary decoding.

    Returns:
        The two, or None if the arm or ordinary decoding was not profiled.
    """
    found = {one.arm: one for one in profiles if one.temperature == temperature}
    if arm not in found or VANILLA not in found:
        return None
    drafting = found[arm].milliseconds.get(DRAFTING, 0.0)
    return drafting / found[arm].total, drafting / found[VANILLA].total


# --- shared ---------------------------------------------------------------------------------------------------------------


def ms_per_token(calls: Sequence[Call], whole: bool) -> dict[str, float]:
    """Milliseconds per token of each prompt, median over repeats.

    Args:
        calls: timed texts of one arm at one temperature.
        whole: include the pass over the prompt.
    """

    def one(call: Call) -> float:
        if whole or call.prefill is None:
            return 1000 * call.seconds / call.tokens
        return 1000 * (call.seconds - call.prefill) / (call.tokens - call.first)

    return {prompt: median(map(one, found)) for prompt, found in _by_prompt(calls).items()}


def tokens_and_passes(calls: Sequence[Call], prompts: Sequence[str] | None = None) -> tuple[Array, Array]:
    """Tokens and target passes of each prompt, all repeats together, without the pass over the prompt."""
    tokens = dict.fromkeys(prompts or [call.prompt for call in calls], 0.0)
    passes = dict.fromkeys(tokens, 0.0)
    for call in calls:
        if call.counts and call.prompt in tokens:
            tokens[call.prompt] += call.tokens - call.first
            passes[call.prompt] += sum(call.counts.accepted)
    return np.array([*tokens.values()]), np.array([*passes.values()])


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median over prompts, by percentile bootstrap."""
    return bootstrap(np.median, values)


def tau_interval(tokens: Array, passes: Array) -> tuple[float, float]:
    """95 % interval of τ over prompts, by percentile bootstrap; the passes of a resample are pooled."""
    return bootstrap(lambda tokens, passes, axis: tokens.sum(axis) / passes.sum(axis), tokens, passes)


def group_by(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Items by key, in the order of their first appearance."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _by_prompt(calls: Sequence[Call]) -> dict[str, list[Call]]:
    return group_by(calls, lambda call: call.prompt)
