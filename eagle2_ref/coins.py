"""Where randomness comes from: every random choice of a rule is asked of a Coins, and nothing draws from a global generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


class Uniform(Protocol):
    """A number of [0, 1), of which a rule may ask only on which side of a threshold it lies."""

    def __lt__(self, threshold: Any, /) -> bool: ...


class Coins(Protocol):
    """What a rule may ask of chance."""

    def seek(self, position: int) -> None:
        """Tell the absolute position of the next token to be emitted; a block of coins for it begins."""

    def uniform(self) -> Uniform:
        """A number drawn uniformly from [0, 1)."""

    def categorical(self, p: Tensor) -> int:
        """A token drawn with probabilities p [V]; p is positive somewhere and sums to 1 up to rounding."""

    def aside(self) -> Coins:
        """Coins for a drafter that draws: what it gets from them says nothing about what a rule will get from these."""
        return self


class SeededCoins(Coins):
    """Coins from a torch generator: what one samples with."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> float:
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def categorical(self, p: Tensor) -> int:
        return invert(p, self.uniform())


class KeyedCoins(Coins):
    """Coins that depend on the seed and on the position alone, not on the order in which they are asked for.

    The token at a position is argmax p / e, with e exponential noise keyed by (seed, position): a draw from p. A decoder
    that draws one token a position, in whatever blocks, therefore emits the same text for every drafter and every tree:
    coupling turns equality of laws into equality of tokens.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generator = torch.Generator()
        self._position = 0
        self._uniforms = 0

    def seek(self, position: int) -> None:
        self._position, self._uniforms = position, 0

    def uniform(self) -> float:
        self._uniforms += 1
        self._generator.manual_seed(_key(self._seed, self._position, self._uniforms))
        return torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def categorical(self, p: Tensor) -> int:
        token = int((p / self.noise(self._position, len(p)).to(p)).argmax())
        self.seek(self._position + 1)
        return token

    def aside(self) -> Coins:
        return KeyedCoins(_key(self._seed, 1 << 32))

    def noise(self, position: int, size: int) -> Tensor:
        """The exponential noise [size] of a position; `p / noise` is the race whose winner is the token."""
        self._generator.manual_seed(_key(self._seed, position, 0))
        noise = torch.empty(size, dtype=torch.float64).exponential_(generator=self._generator)
        return noise.clamp_min_(torch.finfo(torch.float32).tiny)


class ScriptedCoins(Coins):
    """Coins that are read from a list, for tests at the boundary: 0, the largest number below 1, an exact tie."""

    def __init__(self, uniforms: Sequence[float]) -> None:
        self._uniforms: Iterator[float] = iter(uniforms)

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> float:
        return next(self._uniforms)

    def categorical(self, p: Tensor) -> int:
        return invert(p, self.uniform())


class EnumeratedCoins(Coins):
    """Coins that come up every way there is: each one branches on a Trail, and `executions` runs all branches."""

    def __init__(self, trail: Trail) -> None:
        self.trail = trail

    def seek(self, position: int) -> None:
        pass

    def uniform(self) -> LazyUniform:
        return LazyUniform(self.trail)

    def categorical(self, p: Tensor) -> int:
        return cast(int, LazyToken(self.trail, p))

    @property
    def choices(self) -> tuple[int, ...]:
        """The branch taken at each choice so far: a Trail with this script comes the same way again."""
        return tuple(index for index, _ in self.trail.taken)


Weights = Sequence[Any]
"""Probabilities of the branches of a choice: floats, or Fractions where a law is to be literally right."""


class Unrepeatable(Exception):
    """The same choices led to other ones: state is left over from an earlier execution, or randomness comes from elsewhere."""


class Trail:
    """One path through the tree of all choices: it replays a script, then takes first branches and notes what is left.

    A script tells which branch to take of each choice and, if known, the weights that the choice had when it was met first.
    """

    def __init__(self, script: Sequence[tuple[int, Weights | None]] = ()) -> None:
        self._script = list(script)
        self.taken: list[tuple[int, Weights]] = []
        self.weight: Any = 1

    def choose(self, weights: Weights) -> int:
        """The index of one branch of positive weight. The weights of an execution multiply."""
        step = len(self.taken)
        if step < len(self._script):
            index, before = self._script[step]
            if before is not None and not _alike(weights, before):
                raise Unrepeatable(f"choice {step + 1} of an execution had other odds when its beginning was run again")
        else:
            first = _next_positive(weights, 0)
            assert first is not None, "a choice needs a branch of positive weight"
            index = first
        self.taken.append((index, weights))
        self.weight *= weights[index]
        return index

    def next_script(self) -> list[tuple[int, Weights | None]] | None:
        """The choices that lead to the next execution, depth first; None after the last."""
        for step in reversed(range(len(self.taken))):
            index, weights = self.taken[step]
            following = _next_positive(weights, index + 1)
            if following is not None:
                return [*self.taken[:step], (following, weights)]
        return None


class LazyUniform:
    """A uniform number of which only an interval is known; a comparison halves it into the two ways it can come out.

    Right also for a number that is compared twice, since the interval remembers.
    """

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._low: Any = 0
        self._high: Any = 1

    def __lt__(self, threshold: Any) -> bool:
        x = _number(threshold)
        if x >= self._high or x <= self._low:
            return bool(x >= self._high)
        width = self._high - self._low
        below = self._trail.choose([(x - self._low) / width, (self._high - x) / width]) == 0
        self._low, self._high = (self._low, x) if below else (x, self._high)
        return below

    def __gt__(self, threshold: Any) -> bool:
        return not self < threshold

    __le__, __ge__ = __lt__, __gt__  # the boundary has probability zero


class LazyToken:
    """A token of which only the law is known. To compare it with a token is a choice; to use it as a number decides it.

    One that is never looked at stays undecided: a single execution then stands for a whole row of outcomes, with the
    probabilities `law` [V]. A rule costs one execution for each node it can stop at, whatever the vocabulary.
    """

    def __init__(self, trail: Trail, law: Tensor) -> None:
        self._trail, self.law = trail, law
        self.token: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int):
            return NotImplemented
        if self.token is None:
            rest = self.law.clone()
            rest[other] = 0
            remaining = rest.sum()
            if self._trail.choose([_number(self.law[other]), _number(remaining)]) == 0:
                self.token = other
            else:
                self.law = rest / remaining
        return self.token == other

    def __index__(self) -> int:
        if self.token is None:
            self.token = self._trail.choose(self.law.tolist())
        return self.token

    __int__ = __index__

    def __hash__(self) -> int:
        return hash(int(self))

    def __repr__(self) -> str:
        return "an undecided token" if self.token is None else str(self.token)


def undecided(token: object) -> bool:
    """Whether chance has left a token open."""
    return isinstance(token, LazyToken) and token.token is None


def unfold(tokens: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """The texts that one stands for whose last token may be undecided, with their probabilities given the execution."""
    *before, last = tokens
    begun = tuple(int(token) for token in before)
    if not isinstance(last, LazyToken) or last.token is not None:
        yield (*begun, int(last)), 1
        return
    yield from (((*begun, token), weight) for token, weight in enumerate(last.law.tolist()) if weight > 0)


def executions(run: Callable[[EnumeratedCoins], T]) -> Iterator[tuple[T, Any]]:
    """Every execution of `run`, with its probability. `run` must take all its randomness from the coins it is given.

    Raises Unrepeatable where it does not, or where an execution leaves something behind for the next.
    """
    script: list[tuple[int, Weights | None]] | None = []
    while script is not None:
        trail = Trail(script)
        outcome = run(EnumeratedCoins(trail))
        yield outcome, trail.weight
        script = trail.next_script()


def invert(p: Tensor, u: float) -> int:
    """The token at which the cumulative sum of p first exceeds u, for u in [0, 1): a draw from p if u is uniform.

    A token of probability zero is never returned, whatever u: its cumulative sum does not rise, and past the end (the
    sum of p may round to less than u) the last token of positive probability stands in.
    """
    cumulative = p.double().cumsum(0)
    token = int(torch.searchsorted(cumulative, u, right=True))
    return token if token < len(p) else int(p.nonzero()[-1])


def _next_positive(weights: Weights, start: int) -> int | None:
    return next((index for index in range(start, len(weights)) if weights[index] > 0), None)


def _alike(weights: Weights, before: Weights) -> bool:
    return len(weights) == len(before) and all(abs(a - b) <= 1e-6 for a, b in zip(weights, before, strict=True))


def _number(x: Any) -> Any:
    """A plain number of a tensor's element; a Fraction stays one."""
    return x if isinstance(x, Fraction) else float(x)


def _key(*parts: int) -> int:
    """A 63-bit seed from several integers, by the finaliser of splitmix64 applied to each in turn."""
    mask, key = (1 << 64) - 1, 0
    for part in parts:
        key = (key + (part & mask) + 0x9E3779B97F4A7C15) & mask
        key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & mask
        key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & mask
        key ^= key >> 31
    return key >> 1
