"""How often a correct decoder may be called a fault: each check has a share, the shares of a run are summed, the sum is bounded.

No assumption on how checks depend on each other: probabilities of a union are at most the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod

from harness.statistics.eprocess import FAULT

RUNS_A_DAY = 50
DAYS_A_CENTURY = 36525
ALARMS_A_CENTURY = 1.0
"""What is allowed: fewer than one."""
ALLOWED = ALARMS_A_CENTURY / (RUNS_A_DAY * DAYS_A_CENTURY)
"""So much for all checks of a run together: 5.5e-7."""

EVIDENCE = 1 / FAULT
"""Share of a check by e-process: the probability that E ever reaches FAULT (Ville)."""


@dataclass(frozen=True)
class ErrorBudget:
    """The checks of one run, as one."""

    checks: int
    false_alarm: float

    @property
    def per_century(self) -> float:
        """False alarms in a century of RUNS_A_DAY."""
        return self.false_alarm / ALLOWED * ALARMS_A_CENTURY

    @property
    def within_limit(self) -> bool:
        return self.false_alarm < ALLOWED


def error_budget(shares: Iterable[float]) -> ErrorBudget:
    """Sum the shares of a run's checks; 0 is the share of a check that no chance can turn red."""
    allotted = tuple(shares)
    if wrong := [share for share in allotted if not 0 <= share <= 1]:
        raise ValueError(f"a share is a probability, not {wrong[0]}")
    return ErrorBudget(len(allotted), sum(allotted))


@dataclass(frozen=True)
class Stage:
    """Go on if p is at most `level`, on `size` times the samples of a first stage."""

    level: float
    size: int = 1


TWO_STAGES = (Stage(1e-3), Stage(1e-6, size=4))
"""1e-9, at the power and nearly the cost of one test at 1e-3: the second stage is met once in a thousand."""
REPLICATES = (Stage(1e-3),) * 3
"""1e-9 too, for permutation tests, which cannot resolve less than one in their number of swaps."""


@dataclass(frozen=True)
class Confirmed:
    """p-values of the stages that were run. A fault only if all were run and all were small enough."""

    p_values: tuple[float, ...]
    fault: bool


def confirm(p_of: Callable[[int, int], float], stages: Sequence[Stage] = TWO_STAGES) -> Confirmed:
    """Run stages until one is not small: p_of(number of the stage, size) takes fresh, independent samples every time."""
    p_values: list[float] = []
    for number, stage in enumerate(stages):
        p = p_of(number, stage.size)
        if not 0 <= p <= 1:
            raise ValueError(f"stage {number + 1} has no p-value: {p}")
        p_values.append(p)
        if p > stage.level:
            return Confirmed(tuple(p_values), fault=False)
    return Confirmed(tuple(p_values), fault=True)


def share(stages: Sequence[Stage]) -> float:
    """Probability that a correct decoder fails all stages, their samples being independent."""
    return prod(stage.level for stage in stages)
