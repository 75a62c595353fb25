"""From timed calls to figures. Milliseconds per token are of decoding alone where the prompt's pass is told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.bench.arms import OURS, SPECULATIVE, TUNED, VANILLA
from harness.bench.counting import added
from harness.bench.record import Arm, Batched, Call, Counts, Figures, Ratio, Together

OFF = ", speculation off"
"""Behind the name of an arm: the same implementation, its control."""

DRAWS = 10_000


def figures(calls: Sequence[Call], together: Sequence[Together] = ()) -> Figures:
    """Of every arm at every temperature, of every pair of arms that is worth comparing, and of batches of every size."""
    of: dict[float, dict[str, list[Call]]] = {}
    for call in calls:
        of.setdefault(call.temperature, {}).setdefault(call.arm, []).append(call)
    return Figures(
        arms=tuple(arm(name, t, made) for t, arms in of.items() for name, made in arms.items()),
        ratios=tuple(ratio(a, over, t, arms) for t, arms in of.items() for a, over in compared(list(arms))),
        batches=batched(together),
    )


def compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """(arm, over): everything over vanilla, ours over what stands beside it, and that over its own control."""
    found = [(name, VANILLA) for name in names if name != VANILLA] if VANILLA in names else []
    others = [name for name in names if name not in (*OURS, VANILLA)]
    found += [(ours, name) for name in others for ours in (SPECULATIVE, TUNED) if ours in names]
    return found + [(name, name + OFF) for name in names if name + OFF in names]


def arm(name: str, temperature: float, calls: Sequence[Call]) -> Arm:
    """An arm's own figures."""
    whole = any(call.prefill is None for call in calls)
    spent = per_prompt(calls, whole)
    low, high = interval(list(spent.values()))
    prefills = [median(times) for times in _grouped(calls, lambda call: call.prefill or 0.0).values()]
    counts = [call.counts for call in calls if call.counts is not None]
    told: dict[str, Any] = _counts(calls, counts) if len(counts) == len(calls) else {}
    return Arm(
        arm=name,
        temperature=temperature,
        whole=whole,
        milliseconds=median(spent.values()),
        low=low,
        high=high,
        prefill=None if whole else 1000 * median(prefills),
        calls=len(calls),
        tokens=sum(call.tokens for call in calls),
        **told,
    )


def _counts(calls: Sequence[Call], counts: Sequence[Counts]) -> dict[str, Any]:
    total = added(counts)
    own = [tau for prompt in _by_prompt(calls).values() if (tau := acceptance_length(prompt)) is not None]
    return {
        "target_passes": total.target_passes,
        "head_passes": total.head_passes,
        "rows": total.rows,
        "accepted": total.accepted,
        "tau": acceptance_length(calls),
        "tau_mean": sum(own) / len(own) if own else None,
    }


def acceptance_length(calls: Sequence[Call]) -> float | None:
    """tau: tokens per target pass, the prompt's pass and what came with it left out."""
    passes = sum(sum(call.counts.accepted) for call in calls if call.counts)
    return sum(call.tokens - call.first for call in calls) / passes if passes else None


def ratio(name: str, over: str, temperature: float, arms: Mapping[str, Sequence[Call]]) -> Ratio:
    """By prompts that both have done. Where one arm does not tell its prompt's pass apart, both are taken whole."""
    whole = any(call.prefill is None for call in (*arms[name], *arms[over]))
    mine, theirs = per_prompt(arms[name], whole), per_prompt(arms[over], whole)
    both = [prompt for prompt in mine if prompt in theirs]
    ratios = [theirs[prompt] / mine[prompt] for prompt in both]
    low, high = interval(ratios)
    return Ratio(
        arm=name,
        over=over,
        temperature=temperature,
        whole=whole,
        median=median(ratios) if ratios else float("nan"),
        low=low,
        high=high,
        totals=sum(theirs[p] for p in both) / sum(mine[p] for p in both) if both else float("nan"),
    )


def batched(together: Sequence[Together]) -> tuple[Batched, ...]:
    """Of every temperature, size and arm, vanilla last: of the batches that all arms have done."""
    rounds: dict[tuple[float, tuple[str, ...], int], dict[str, Together]] = {}
    for one in together:
        rounds.setdefault((one.temperature, one.prompts, one.repeat), {})[one.arm] = one
    names, found = {one.arm for one in together}, dict[tuple[float, int], dict[str, list[Together]]]()
    for (temperature, prompts, _), arms in rounds.items():
        for name in sorted(names, key=lambda name: (name == VANILLA, name)) if len(arms) == len(names) else ():
            found.setdefault((temperature, len(prompts)), {}).setdefault(name, []).append(arms[name])
    return tuple(_batched(lines, arms[VANILLA]) for _, arms in sorted(found.items()) for lines in arms.values())


def _batched(lines: Sequence[Together], bare: Sequence[Together]) -> Batched:
    speeds, bares = _speeds(lines), _speeds(bare)
    ratios, passes = [speeds[repeat] / bares[repeat] for repeat in speeds], sum(one.passes for one in lines)
    return Batched(
        arm=lines[0].arm,
        temperature=lines[0].temperature,
        texts=len(lines[0].prompts),
        speed=median(speeds.values()),
        milliseconds=1000 * sum(one.seconds - one.prefill for one in lines) / passes,
        rows=sum(one.rows for one in lines) / passes,
        prefill=1000 * median(one.prefill for one in lines),
        ratio=median(ratios),
        low=min(ratios),
        high=max(ratios),
    )


def _speeds(lines: Sequence[Together]) -> dict[int, float]:
    """Tokens a second, of each repeat. The first token of a text comes with its prompt."""
    repeats: dict[int, list[Together]] = {}
    for one in lines:
        repeats.setdefault(one.repeat, []).append(one)
    return {
        repeat: sum(one.tokens - len(one.prompts) for one in found) / sum(one.seconds - one.prefill for one in found)
        for repeat, found in repeats.items()
    }


def per_prompt(calls: Sequence[Call], whole: bool) -> dict[str, float]:
    """Milliseconds per token of each prompt, the median over repeats. All arms emit as many tokens of a prompt."""

    def one(call: Call) -> float:
        if whole or call.prefill is None:
            return 1000 * call.seconds / call.tokens
        return 1000 * (call.seconds - call.prefill) / (call.tokens - call.first)

    return {prompt: median(times) for prompt, times in _grouped(calls, one).items()}


def interval(values: Sequence[float], draws: int = DRAWS) -> tuple[float, float]:
    """The middle 95 % of the median over prompts redrawn with replacement; from one seed, so that a record has one answer."""
    if not values:
        return float("nan"), float("nan")
    seen: NDArray[np.float64] = np.asarray(values)
    drawn = np.random.default_rng(0).integers(len(seen), size=(draws, len(seen)))
    low, high = np.quantile(np.median(seen[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)


def _grouped(calls: Sequence[Call], value: Callable[[Call], float]) -> dict[str, list[float]]:
    return {prompt: [value(call) for call in made] for prompt, made in _by_prompt(calls).items()}


def _by_prompt(calls: Sequence[Call]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        found.setdefault(call.prompt, []).append(call)
    return found
