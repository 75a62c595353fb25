"""Log-probabilities that somebody tells of the tokens of a text, beside those that these tokens have under the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eagle2_ref.sampling import SamplingParams
from harness.distributions.noise import Noise
from harness.distributions.scoring import process_logits
from harness.implementations.engine import Output

KINDS = {"processed": "the law after sampling parameters", "raw": "the model before sampling parameters"}
"""What engines tell. At temperature 0 `processed` knows no temperature: the law is the one whose likeliest token is taken."""

ROUNDED = 1e-4
"""Nats that may be lost where numbers are told with few digits."""


LIKE = 0.95
"""Share of numbers that must be those of another kind, or of another place, for that to be named."""


@dataclass(frozen=True)
class Due:
    """Between which numbers, low [n] and high [n], log-probabilities of n tokens must lie for arithmetic to be all that errs.

    Minus infinity where the law has no such token: that it came is for the chapter LAW to see.
    """

    low: Tensor
    high: Tensor

    def off(self, told: Tensor) -> Tensor:
        """How far each of n numbers is outside [n]; 0 for tokens that the law does not have."""
        outside = torch.maximum(self.low - told, told - self.high).clamp(min=0)
        return outside.where(self.high > -math.inf, 0.0)

    def shifted(self, by: int) -> Due:
        """What is due where each token is given the number of the token `by` places behind it; the outermost keep their own."""
        places = (torch.arange(len(self.low)) + by).clamp(0, len(self.low) - 1)
        return Due(self.low[places], self.high[places])


@dataclass(frozen=True)
class Telling:
    """What was told [n] of a text's tokens. due: what is, if it is what it is said to be; others: if it were something else.

    point_mass: the text is greedy, and each of its tokens is told to be certain, as in the law that greedy decoding is.
    """

    tokens: Sequence[int]
    told: Tensor
    due: Due
    others: Mapping[str, Due]
    point_mass: bool

    @property
    def off(self) -> Tensor:
        return torch.zeros_like(self.told) if self.point_mass else self.due.off(self.told)


@dataclass(frozen=True)
class Tellings:
    """What was told of several texts."""

    texts: Sequence[Telling]

    @property
    def tokens(self) -> int:
        return sum(len(text.tokens) for text in self.texts)

    @property
    def off(self) -> list[float]:
        """How far the numbers are off that are."""
        return [x for text in self.texts for x in text.off.tolist() if x > 0]

    @property
    def largest(self) -> float:
        return max(self.off, default=0.0)

    @property
    def allowed(self) -> float:
        """How far a number may be from the middle of where it is due, at most."""
        return max(float((text.due.high - text.due.low).max()) / 2 for text in self.texts)

    @property
    def point_masses(self) -> bool:
        return all(text.point_mass for text in self.texts)

    def first(self) -> str:
        """The first number that is off, and what it and the others are instead, in words."""
        row = next((row for row, text in enumerate(self.texts) if text.off.any()), 0)
        text = self.texts[row]
        at = int((text.off > 0).int().argmax())
        due = float(text.due.low[at] + text.due.high[at]) / 2
        seen = f"of text {row}, token {at} ({text.tokens[at]}): told {float(text.told[at]):.4g}, due {due:.4g}"
        return seen + "".join(f"; they are {name}" for name in self.texts[0].others if self._are(name))

    def _are(self, name: str) -> bool:
        """Whether the numbers that are off are right if they are taken for something else."""
        right = torch.cat([(text.others[name].off(text.told) == 0)[text.off > 0] for text in self.texts])
        return bool(len(right)) and float(right.double().mean()) >= LIKE


def telling(noise: Noise, prompt: Sequence[int], output: Output, params: SamplingParams, kind: str, logits: Tensor) -> Telling:
    """What was told of a text, beside what is due by the target's logits [n, V] along it."""
    assert output.logprobs is not None, "only of a text of which something was told"
    text = [*prompt, *output.tokens]
    dues = {name: due(noise, text, len(prompt), SamplingParams() if name == "raw" else params, logits) for name in KINDS}
    own, told = dues.pop(kind), torch.tensor(output.logprobs, dtype=torch.float64)
    others = {f"those of {KINDS[name]}": other for name, other in dues.items()}
    others |= {"those of the tokens before": own.shifted(-1), "those of the tokens behind": own.shifted(1)}
    certain = params.temperature == 0 and kind == "processed" and bool((told.abs() <= ROUNDED).all())
    return Telling(output.tokens, told, own, others, certain)


def due(noise: Noise, text: Sequence[int], start: int, params: SamplingParams, logits: Tensor) -> Due:
    """What an implementation has to tell of the tokens from `start` on, if its law is that of these parameters.

    If logits err by at most e, then their log-softmax by at most 2 e, and by 1 / T of it behind a temperature. top-p may then
    stop a token earlier or later, as the sum of what is above it errs by a factor of exp(2 e / T) at most: the remaining law
    is taken with the threshold moved by as much.
    """
    reach = 2 * noise.tolerance / (params.temperature or 1.0)
    moved = [params]
    if params.top_p is not None:
        edges = (params.top_p * math.exp(-reach), min(1.0, params.top_p * math.exp(reach)))
        moved += [replace(params, top_p=edge) for edge in edges]
    whole = torch.tensor([list(text)], device=logits.device)
    scores = (process_logits(logits, whole, start, each) for each in moved)
    logs = torch.stack([row.log_softmax(-1).gather(-1, whole[0, start:, None])[:, 0].cpu() for row in scores])
    possible = logs.nan_to_num(neginf=math.inf)
    slack = reach + ROUNDED
    return Due(possible.min(0).values.nan_to_num(posinf=-math.inf) - slack, logs.max(0).values + slack)
