"""Coins that tell what they were asked: what chance was, at every step of one execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eagle2_ref.coins import Coins
from harness.enumeration.coins import Trail, Unrepeatable, Weights, undecided
from harness.report.words import number


class Recorded(Trail):
    """A trail that takes the recorded choices, as far as they are still there to be taken."""

    def __init__(self, choices: Sequence[int]) -> None:
        super().__init__([(choice, None) for choice in choices])

    def choose(self, weights: Weights) -> int:
        step = len(self.taken)
        if step < len(self._script):
            index = self._script[step][0]
            if not 0 <= index < len(weights) or not weights[index] > 0:
                raise Unrepeatable(f"choice {step + 1} of the recorded ones is no longer possible")
        return super().choose(weights)


@dataclass(frozen=True)
class Comparison:
    """A uniform number, known to lie between low and high, was compared with a threshold; `sign` is what was found."""

    position: int
    low: float
    high: float
    sign: str
    threshold: float

    @property
    def decides(self) -> bool:
        """A draft is accepted when its coin is below."""
        return self.sign in "<≤"

    def said(self, _token: int) -> str:
        return f"a uniform number of [{number(self.low)}, {number(self.high)}) {self.sign} {number(self.threshold)}"


@dataclass(frozen=True)
class Draw:
    """A token was drawn from probabilities p [V]; it may stay undecided until it is looked at."""

    position: int
    p: Tensor
    token: int

    @property
    def decides(self) -> bool:
        return True

    def said(self, token: int) -> str:
        came = "" if undecided(self.token) else f"; {int(self.token)} came"
        return f"a draw in which token {token} has probability {number(float(self.p[token]))}{came}"


Coin = Comparison | Draw
"""One thing that was asked of chance, with the position at which its block begins."""


@dataclass
class TellingUniform:
    """A uniform number that notes what it is compared with."""

    inner: Any
    position: int
    told: list[Coin]
    low: float = 0.0
    high: float = 1.0

    def __lt__(self, threshold: Any) -> bool:
        return self._tell(self.inner < threshold, "<", "≥", threshold)

    def __ge__(self, threshold: Any) -> bool:
        return not self._tell(not self.inner >= threshold, "<", "≥", threshold)

    def __le__(self, threshold: Any) -> bool:
        return self._tell(self.inner <= threshold, "≤", ">", threshold)

    def __gt__(self, threshold: Any) -> bool:
        return not self._tell(not self.inner > threshold, "≤", ">", threshold)

    def _tell(self, below: Any, yes: str, no: str, threshold: Any) -> bool:
        x = float(threshold)
        self.told.append(Comparison(self.position, self.low, self.high, yes if below else no, x))
        if self.low < x < self.high:
            self.low, self.high = (self.low, x) if below else (x, self.high)
        return bool(below)


class TellingNumber(TellingUniform):
    """One that is a number already. Code may look which it is, so that the other must not pretend."""

    def __float__(self) -> float:
        return float(self.inner)


@dataclass
class TellingCoins(Coins):
    """Coins that answer as others do, and keep what they were asked, in order, each with the position of its block."""

    inner: Coins
    told: list[Coin] = field(default_factory=list)
    position: int = 0

    def seek(self, position: int) -> None:
        self.position = position
        self.inner.seek(position)

    def uniform(self) -> TellingUniform:
        coin = self.inner.uniform()
        kind = TellingNumber if hasattr(coin, "__float__") else TellingUniform
        return kind(coin, self.position, self.told)

    def categorical(self, p: Tensor) -> int:
        token = self.inner.categorical(p)
        self.told.append(Draw(self.position, p, token))
        return token

    def split(self) -> Coins:
        return self.inner.split()


def decisive(coins: Sequence[Coin], offset: int) -> Coin | None:
    """The coin behind a token of a block: each token is settled by one draw, or by the first number below its threshold."""
    deciding = [coin for coin in coins if coin.decides]
    return deciding[offset] if offset < len(deciding) else None
