"""The error budget: each check has a share of the probability that a correct decoder is called a fault.

The shares of a run are summed (union bound), so nothing is assumed about the dependence between checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

from harness.statistics.eprocess import FAULT

RUNS_PER_DAY = 50
DAYS_PER_CENTURY = 36525
ALARMS_PER_CENTURY = 1.0
"""Upper limit for the expected number of false alarms in a century."""
ALLOWED = ALARMS_PER_CENTURY / (RUNS_PER_DAY * DAYS_PER_CENTURY)
"""The same limit for all checks of one run together: 5.5e-7."""

E_PROCESS_SHARE = 1 / FAULT
"""Share of a check by e-process: the probability that E ever reaches FAULT (Ville's inequality)."""


def error_budget(shares: Iterable[float]) -> float:
    """Bound on the probability that a run calls a correct decoder a fault. A check without randomness has share 0."""
    every = tuple(shares)
    if wrong := [share for share in every if not 0 <= share <= 1]:
        raise ValueError(f"a share is a probability, not {wrong[0]}")
    return sum(every)


@dataclass(frozen=True)
class Stage:
    """One stage of a staged test: continue if p <= `level`, with `size` times the samples of the first stage."""

    level: float
    size: int = 1


TWO_STAGES = (Stage(1e-3), Stage(1e-6, size=4))
"""False alarm 1e-9, at the power and nearly the cost of one test at 1e-3: the second stage runs once in a thousand times."""
REPLICATES = (Stage(1e-3),) * 3
"""False alarm 1e-9 as well, for permutation tests, whose p-value cannot be below 1 / (1 + permutations)."""


@dataclass(frozen=True)
class StagedResult:
    """p-values of the stages that were run; a fault only if all stages were run and all were rejected."""

    p_values: tuple[float, ...]
    fault: bool


def confirm(p_of: Callable[[int, int], float], stages: Sequence[Stage] = TWO_STAGES) -> StagedResult:
    """Run stages until one does not reject.

    Args:
        p_of: p-value on fresh, independent samples, given the number of the stage and its size.
        stages: levels and sizes.
    """
    p_values: list[float] = []
    for number, stage in enumerate(stages):
        p = p_of(number, stage.size)
        if not 0 <= p <= 1:
            raise ValueError(f"stage {number + 1} has no p-value: {p}")
        p_values.append(p)
        if p > stage.level:
            return StagedResult(tuple(p_values), fault=False)
    return StagedResult(tuple(p_values), fault=True)


def false_alarm(stages: Sequence[Stage]) -> float:
    """Probability that all stages reject a correct decoder: the product of the levels, since their samples are independent."""
    return prod(stage.level for stage in stages)
