"""Choose a budget for a pair, a machine and a temperature.

A node pays for its row of the target's pass if the tokens it is expected to add, exp(value), would take longer otherwise. A
layer pays for a pass of the head if its k best nodes together do. Both thresholds are a cost in milliseconds times a rate in
tokens per millisecond; the best rate found so far gives the next thresholds. Rates are first computed from counts and measured
pass latencies. The best budgets by these rates are then timed against ordinary decoding, prompt by prompt. The distribution of
the text does not depend on the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2, TreeBudget
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.arms import ReferenceArm, copy_decoder, keyed_texts, with_budget
from harness.benchmark.pass_latency import pass_latencies
from harness.benchmark.record import BudgetTrial, PassLatency, StepProfile, TuningResult
from harness.benchmark.step_profile import COMMIT, HEAD, REST, RULE, TARGET, TREE, step_profile
from harness.benchmark.timing import Clock
from harness.pairs import FIXTURES, Prompt

PROMPTS = FIXTURES / "prompts" / "tuning.jsonl"
"""Prompts for tuning; none of them is timed afterwards."""

TOKENS = 64
DEEPEST, LARGEST = 16, 32
"""Largest depth and m that are tried."""
WIDTHS = (1, 2, 3, 4, 6, 8)
"""Values of k that are tried."""
ROUNDS = 2
MARGIN = 1.03
"""Speed-up below which ordinary decoding is chosen."""
FINALISTS, HEATS = 8, 2
"""Number of budgets that are timed, and of timed texts per prompt."""
PUBLISHED_FINALISTS = 3
SHAPES = ((1, 3, 3), (1, 6, 6), (2, 3, 5), (2, 6, 8), (2, 6, 10), (3, 3, 8), (4, 6, 12), (4, 6, 16))
"""k, depth and m of small budgets without thresholds, as in the paper; the best few of them are timed too."""
SCALES = (0.25, 0.5, 2.0)
"""Factors by which the thresholds are changed, since values are not exact probabilities."""


@dataclass(frozen=True)
class StepCosts:
    """Costs of the parts of a step in milliseconds.

    target, head: cost of a pass by its rows. step: cost of a step besides its passes. layer: cost of a layer besides its pass.
    """

    target: dict[int, float]
    head: dict[int, float]
    step: float
    layer: float

    @classmethod
    def of(cls, latencies: Sequence[PassLatency], profile: StepProfile, budget: TreeBudget) -> StepCosts:
        """From measured pass latencies, and the profile of a step of a decoder with this budget.

        A pass that is repeated alone finds its weights and its text in the processor's caches; within a step it is slower.
        The measured latencies are therefore scaled to the passes of the profiled step.
        """
        target, head = ({one.rows: one.median for one in latencies if one.what == what} for what in ("target", "head"))
        parts = profile.milliseconds
        step = sum(parts.get(part, 0.0) for part in (RULE, COMMIT, REST))
        alone = cls(target, head, step, parts.get(TREE, 0.0) / budget.depth)
        target_factor = parts[TARGET] / alone.target_pass(budget.m + 1)
        head_factor = parts[HEAD] / budget.depth / (alone.tree_layer(budget.k) - alone.layer)
        return replace(
            alone,
            target={rows: ms * target_factor for rows, ms in target.items()},
            head={rows: ms * head_factor for rows, ms in head.items()},
        )

    def target_pass(self, rows: float) -> float:
        """A pass of the target, interpolated between the measured numbers of rows."""
        return float(np.interp(rows, list(self.target), list(self.target.values())))

    def tree_layer(self, k: int) -> float:
        """A layer of the draft tree: a pass of the head over k rows, and what goes with it."""
        return float(np.interp(k, list(self.head), list(self.head.values()))) + self.layer

    @property
    def row(self) -> float:
        """One more row of a target pass, on average up to the largest tree."""
        return (self.target_pass(LARGEST) - self.target_pass(1)) / (LARGEST - 1)


def tune(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    temperature: float,
    head_temperatures: Sequence[float],
    clock: Clock,
    progress: Callable[[str], None],
    tokens: int = TOKENS,
    rounds: int = ROUNDS,
) -> TuningResult:
    """Search for the best budget.

    Args:
        decoder: decoder with an EAGLE-2 head; it is not changed.
        prompts: prompts to tune on.
        temperature: temperature of the texts.
        head_temperatures: temperatures of the head to choose from.
        clock: the clock.
        progress: receives what is done now.
        tokens: new tokens of each text, also after a token that would end it: budgets are timed on equally many.
        rounds: how often the thresholds are chosen anew.
    """
    spare = copy_decoder(decoder)
    assert isinstance(spare.drafter, Eagle2)
    params = SamplingParams(temperature=temperature, max_new_tokens=tokens)
    profile = step_profile(spare, "tuning", prompts, params, 0, clock)
    latencies = list(pass_latencies(decoder, prompts[0].tokens, clock, times=20))
    costs = StepCosts.of(latencies, profile, spare.drafter.budget)
    plain = step_profile(Decoder(spare.target, None, walk), "tuning", prompts[:1], params, 0, clock)
    spare, vanilla, trials = copy_decoder(decoder), 1 / plain.total, dict[Budget, BudgetTrial]()
    spare.rule = walk

    def rate(budget: Budget) -> float:
        if budget not in trials:
            progress(f"tuning at temperature {temperature:g}: budget {len(trials) + 1}")
            trials[budget] = try_budget(spare, budget, prompts, params, costs)
        return trials[budget].rate

    best = max((Budget(*shape) for shape in SHAPES), key=rate)
    for _ in range(rounds):
        price = max(rate(best), vanilla)
        best = max([best, *(with_thresholds(price, costs, k, best.head_temperature) for k in WIDTHS)], key=rate)
        best = max([best, *(with_thresholds(price, costs, best.k, t) for t in head_temperatures)], key=rate)
        for threshold in ("layer", "node"):
            best = max([best, *(_scaled(best, threshold, scale) for scale in SCALES)], key=rate)
    ranked = sorted(trials.values(), key=lambda one: -one.rate)
    progress(f"tuning at temperature {temperature:g}: timing the best")
    timed = race(decoder, finalists(ranked), prompts, params, clock)
    rest = [one for one in ranked if one.budget not in {finalist.budget for finalist in timed}]
    faster = [one for one in timed if (one.timed or 0) > MARGIN]
    return TuningResult(
        temperature=temperature,
        chosen=next(iter(faster), None),
        paper=next((one for one in faster if one.is_published), None),
        vanilla=vanilla,
        tried=(*timed, *rest),
    )


def finalists(ranked: Sequence[BudgetTrial]) -> list[BudgetTrial]:
    """The budgets that are timed: the best of every k, the best of the others, and the best few published ones.

    Computed rates are not exact enough for one k to take all places.
    """
    best_of_each_k = list({one.k: one for one in reversed(ranked)}.values())
    others = [one for one in ranked if one not in best_of_each_k]
    published = [one for one in ranked if one.is_published][:PUBLISHED_FINALISTS]
    chosen = [*best_of_each_k, *others[: max(0, FINALISTS - len(best_of_each_k))]]
    return sorted([*chosen, *(one for one in published if one not in chosen)], key=lambda one: -one.rate)


def race(
    decoder: Decoder, entrants: Sequence[BudgetTrial], prompts: Sequence[Prompt], params: SamplingParams, clock: Clock
) -> list[BudgetTrial]:
    """Time budgets and ordinary decoding in turns, each first in turn.

    Returns:
        The trials with their speed-up, the geometric mean over prompts, the fastest first.
    """
    decoders = [with_budget(decoder, budget, decoder.rule) for budget in (None, *(one.budget for one in entrants))]
    seconds = np.zeros((HEATS, len(prompts), len(decoders)))  # per token
    for heat, prompt in np.ndindex(*seconds.shape[:2]):
        for i in range(len(decoders)):
            turn = (heat * len(prompts) + prompt + i) % len(decoders)
            arm = ReferenceArm(decoders[turn], clock)
            text = arm.run(prompts[prompt].tokens, params.temperature, params.max_new_tokens, heat)
            seconds[heat, prompt, turn] = (text.seconds - (text.prefill or 0)) / (text.tokens - text.first)
    by_prompt = np.median(seconds, axis=0)
    speedups = np.exp(np.log(by_prompt[:, :1] / by_prompt).mean(0))[1:]
    timed = [one.model_copy(update={"timed": float(speedup)}) for one, speedup in zip(entrants, speedups, strict=True)]
    return sorted(timed, key=lambda one: -(one.timed or 0))


def with_thresholds(price: float, costs: StepCosts, k: int, head_temperature: float) -> Budget:
    """The budget whose thresholds follow from a price in tokens per millisecond."""
    node, layer = min(1.0, round(price * costs.row, 4)), round(price * costs.tree_layer(k), 4)
    return Budget(k, DEEPEST, min(LARGEST, Budget(k, DEEPEST).pool), head_temperature, node, layer)


def _scaled(budget: Budget, threshold: str, scale: float) -> Budget:
    largest = 1.0 if threshold == "node" else math.inf
    return replace(budget, **{threshold: min(largest, round(getattr(budget, threshold) * scale, 4))})


def try_budget(
    decoder: Decoder, budget: Budget, prompts: Sequence[Prompt], params: SamplingParams, costs: StepCosts
) -> BudgetTrial:
    """Decode with a budget and compute its rate from counts. No clock is read; all budgets emit the same texts."""
    assert isinstance(decoder.drafter, Eagle2)
    decoder.drafter.budget = budget
    tokens, milliseconds, passes, rows, layers = 0, 0.0, 0, 0, 0
    for text in keyed_texts(decoder, prompts, params.temperature, params.max_new_tokens):
        for block in text.blocks[1:]:
            tokens, passes, rows = tokens + len(block.tokens), passes + 1, rows + len(block.tree)
            milliseconds += costs.target_pass(len(block.tree)) + costs.step
        layers += text.draft_passes
    milliseconds += layers * costs.tree_layer(budget.k)
    return BudgetTrial.of(
        budget,
        rate=tokens / milliseconds,
        tau=tokens / passes,
        rows=rows / passes,
        layers=layers / passes,
    )
