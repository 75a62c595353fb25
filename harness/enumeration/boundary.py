"""Coins at the edge of what can happen: 0, the largest number below 1, and exactly the threshold they are compared with."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from eagle2_ref.coins import invert
from harness.enumeration.coins import EnumeratedCoins, Trail

LAST = math.nextafter(1.0, 0.0)


class BoundaryCoins(EnumeratedCoins):
    """Every coin takes every value at the edge; `executions` runs them all. Weights mean nothing here."""

    def __init__(self, coins: EnumeratedCoins) -> None:
        super().__init__(coins.trail)

    def uniform(self) -> Any:
        return EdgeUniform(self.trail)

    def categorical(self, p: Tensor) -> int:
        return invert(p, (0.0, LAST)[self.trail.choose([0.5, 0.5])])


class EdgeUniform:
    """A number that is settled when it is first compared: 0, the largest below 1, or a tie with the threshold.

    From then on it is that number, and `<` and `<=` are two questions.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._value: float | None = None

    def _settle(self, threshold: Any) -> float:
        if self._value is None:
            tie = min(max(float(threshold), 0.0), LAST)
            self._value = (0.0, LAST, tie)[self._trail.choose([1 / 3] * 3)]
        return self._value

    def __lt__(self, threshold: Any) -> bool:
        return self._settle(threshold) < float(threshold)

    def __le__(self, threshold: Any) -> bool:
        return self._settle(threshold) <= float(threshold)

    def __gt__(self, threshold: Any) -> bool:
        return self._settle(threshold) > float(threshold)

    def __ge__(self, threshold: Any) -> bool:
        return self._settle(threshold) >= float(threshold)

    def __float__(self) -> float:
        return self._settle(LAST)
