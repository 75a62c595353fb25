"""Coins that record how each random number is used, in one execution of a decoder or a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins
from harness.enumeration.coins import ChoiceTrail, Unrepeatable, Weights, is_symbolic
from harness.report.text import number


class RecordedTrail(ChoiceTrail):
    """A trail that repeats recorded choices, and raises Unrepeatable if one of them does not exist any more."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__([(choice, None) for choice in choices])

    def choose(self, weights: Weights) -> int:
        step = len(self.taken)
        if step < len(self._script):
            index = self._script[step][0]
            if not 0 <= index < len(weights) or not weights[index] > 0:
                raise Unrepeatable(f"recorded choice {step + 1} is no longer possible")
        return super().choose(weights)


@dataclass(frozen=True)
class Comparison:
    """A uniform number, known to lie in [low, high), was compared with a threshold; `sign` is the outcome."""

    position: int
    low: float
    high: float
    sign: str
    threshold: float

    @property
    def decides(self) -> bool:
        """Whether it decided a token: a draft is accepted if the number is below the threshold."""
        return self.sign in "<≤"

    def describe(self, _token: int) -> str:
        return f"a uniform number in [{number(self.low)}, {number(self.high)}) {self.sign} {number(self.threshold)}"


@dataclass(frozen=True)
class Categorical:
    """A token was sampled from probabilities p [V]; it stays symbolic until its value matters."""

    position: int
    p: Tensor
    token: int

    @property
    def decides(self) -> bool:
        return True

    def describe(self, token: int) -> str:
        outcome = "" if is_symbolic(self.token) else f"; the outcome is {int(self.token)}"
        return f"a sample in which token {token} has probability {number(float(self.p[token]))}{outcome}"


Draw = Comparison | Categorical
"""One use of a random number, with the position at which its block begins."""


@dataclass
class RecordingUniform:
    """A uniform number that records what it is compared with."""

    inner: Any
    position: int
    draws: list[Draw]
    low: float = 0.0
    high: float = 1.0

    def __lt__(self, threshold: Any) -> bool:
        return self._record(self.inner < threshold, "<", "≥", threshold)

    def __ge__(self, threshold: Any) -> bool:
        return not self._record(not self.inner >= threshold, "<", "≥", threshold)

    def __le__(self, threshold: Any) -> bool:
        return self._record(self.inner <= threshold, "≤", ">", threshold)

    def __gt__(self, threshold: Any) -> bool:
        return not self._record(not self.inner > threshold, "≤", ">", threshold)

    def _record(self, below: Any, yes: str, no: str, threshold: Any) -> bool:
        x = float(threshold)
        self.draws.append(Comparison(self.position, self.low, self.high, yes if below else no, x))
        if self.low < x < self.high:
            self.low, self.high = (self.low, x) if below else (x, self.high)
        return bool(below)


class RecordingFloat(RecordingUniform):
    """A uniform number that has a value. Code may test for `__float__`, so that other numbers must not have it."""

    def __float__(self) -> float:
        return float(self.inner)


@dataclass
class RecordingCoins(Coins):
    """Coins that return the numbers of other coins and record their use, in order, with the position of each block."""

    inner: Coins
    draws: list[Draw] = field(default_factory=list)
    position: int = 0

    def seek(self, position: int) -> None:
        self.position = position
        self.inner.seek(position)

    def uniform(self) -> RecordingUniform:
        coin = self.inner.uniform()
        kind = RecordingFloat if hasattr(coin, "__float__") else RecordingUniform
        return kind(coin, self.position, self.draws)

    def categorical(self, p: Tensor) -> int:
        token = self.inner.categorical(p)
        self.draws.append(Categorical(self.position, p, token))
        return token

    def split(self) -> Coins:
        return self.inner.split()


def decisive(draws: Sequence[Draw], offset: int) -> Draw | None:
    """The draw that decided a token of a block: each token is decided by one sample, or by a number below its threshold."""
    deciding = [draw for draw in draws if draw.decides]
    return deciding[offset] if offset < len(deciding) else None
