"""Coins at the boundary of their range: 0, the largest number below 1, and exactly the threshold of a comparison."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from eagle2_ref.coins import invert
from harness.enumeration.coins import ChoiceTrail, EnumeratedCoins

LAST = math.nextafter(1.0, 0.0)
"""The largest float64 below 1."""


class BoundaryCoins(EnumeratedCoins):
    """Coins that take every boundary value; `executions` runs them all. Probabilities of executions have no meaning here."""

    def __init__(self, coins: EnumeratedCoins) -> None:
        super().__init__(coins.trail)

    def uniform(self) -> Any:
        return BoundaryUniform(self.trail)

    def categorical(self, p: Tensor) -> int:
        return invert(p, (0.0, LAST)[self.trail.choose([0.5, 0.5])])


class BoundaryUniform:
    """A number whose value is chosen when it is first compared: 0, LAST, or the threshold itself.

    It keeps that value, so `<` and `<=` may answer differently.
    """

    def __init__(self, trail: ChoiceTrail) -> None:
        self._trail = trail
        self._value: float | None = None

    def _choose(self, threshold: Any) -> float:
        if self._value is None:
            tie = min(max(float(threshold), 0.0), LAST)
            self._value = (0.0, LAST, tie)[self._trail.choose([1 / 3] * 3)]
        return self._value

    def __lt__(self, threshold: Any) -> bool:
        return self._choose(threshold) < float(threshold)

    def __le__(self, threshold: Any) -> bool:
        return self._choose(threshold) <= float(threshold)

    def __gt__(self, threshold: Any) -> bool:
        return self._choose(threshold) > float(threshold)

    def __ge__(self, threshold: Any) -> bool:
        return self._choose(threshold) >= float(threshold)

    def __float__(self) -> float:
        return self._choose(LAST)
