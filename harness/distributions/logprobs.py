"""Compare the log-probabilities that an engine reports for its tokens with the target's."""

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
"""What engines report. At temperature 0, `processed` ignores the temperature: greedy decoding takes its likeliest token."""

PRECISION = 1e-4
"""Nats that may be lost to printing with few digits."""

MAJORITY = 0.95
"""Share of wrong values that must fit an alternative explanation for it to be named."""


@dataclass(frozen=True)
class LogprobRange:
    """The values, low [n] to high [n], that the arithmetic's noise allows for the log-probabilities of n tokens.

    Both are minus infinity for tokens of probability zero, which LAW judges.
    """

    low: Tensor
    high: Tensor

    def error(self, reported: Tensor) -> Tensor:
        """Distance [n] of n values from their ranges; 0 for tokens of probability zero."""
        outside = torch.maximum(self.low - reported, reported - self.high).clamp(min=0)
        return outside.where(self.high > -math.inf, 0.0)

    def shifted(self, by: int) -> LogprobRange:
        """Ranges if each token got the value of the token `by` positions later; the ends repeat their own."""
        positions = (torch.arange(len(self.low)) + by).clamp(0, len(self.low) - 1)
        return LogprobRange(self.low[positions], self.high[positions])


@dataclass(frozen=True)
class TextComparison:
    """Reported log-probabilities of one text, next to the target's.

    Attributes:
        tokens: the n emitted tokens.
        reported: [n] reported values, in nats.
        expected: ranges for values of the kind that the implementation declares.
        alternatives: ranges for other explanations, such as the other kind or a shift by one token, by name.
        point_mass: whether the text is greedy and every reported probability is 1, as under greedy decoding.
    """

    tokens: Sequence[int]
    reported: Tensor
    expected: LogprobRange
    alternatives: Mapping[str, LogprobRange]
    point_mass: bool

    @property
    def errors(self) -> Tensor:
        """Distance [n] of the values from their expected ranges."""
        return torch.zeros_like(self.reported) if self.point_mass else self.expected.error(self.reported)


@dataclass(frozen=True)
class LogprobComparison:
    """Reported log-probabilities of several texts, next to the target's."""

    texts: Sequence[TextComparison]

    @property
    def tokens(self) -> int:
        return sum(len(text.tokens) for text in self.texts)

    @property
    def errors(self) -> list[float]:
        """All errors that are not zero."""
        return [x for text in self.texts for x in text.errors.tolist() if x > 0]

    @property
    def largest(self) -> float:
        return max(self.errors, default=0.0)

    @property
    def tolerance(self) -> float:
        """Largest distance of an allowed value from the middle of its range."""
        return max(float((text.expected.high - text.expected.low).max()) / 2 for text in self.texts)

    @property
    def point_masses(self) -> bool:
        return all(text.point_mass for text in self.texts)

    def first_error(self) -> str:
        """Describe the first wrong value, and the alternatives that explain the wrong values."""
        row = next((row for row, text in enumerate(self.texts) if text.errors.any()), 0)
        text = self.texts[row]
        i = int((text.errors > 0).int().argmax())
        expected = float(text.expected.low[i] + text.expected.high[i]) / 2
        described = f"text {row}, token {i} ({text.tokens[i]}): reported {float(text.reported[i]):.4g}, expected {expected:.4g}"
        explained = (f"; the values are those of {name}" for name in self.texts[0].alternatives if self._explains(name))
        return described + "".join(explained)

    def _explains(self, name: str) -> bool:
        """Whether an alternative fits most of the wrong values."""
        right = torch.cat([(text.alternatives[name].error(text.reported) == 0)[text.errors > 0] for text in self.texts])
        return bool(len(right)) and float(right.double().mean()) >= MAJORITY


def compare_logprobs(
    noise: Noise, prompt: Sequence[int], output: Output, params: SamplingParams, kind: str, logits: Tensor
) -> TextComparison:
    """Compare the reported log-probabilities of one text with the target's.

    Args:
        noise: noise of the arithmetic under test.
        prompt: prompt of the text.
        output: n tokens with their reported log-probabilities.
        params: sampling parameters of the request.
        kind: what the implementation reports, a key of KINDS.
        logits: target logits along the text, [n, V].
    """
    assert output.logprobs is not None, "the output has no log-probabilities"
    text = [*prompt, *output.tokens]
    ranges = {
        name: expected_range(noise, text, len(prompt), SamplingParams() if name == "raw" else params, logits) for name in KINDS
    }
    expected, reported = ranges.pop(kind), torch.tensor(output.logprobs, dtype=torch.float64)
    alternatives = {KINDS[name]: other for name, other in ranges.items()}
    alternatives |= {"the previous tokens": expected.shifted(-1), "the next tokens": expected.shifted(1)}
    certain = params.temperature == 0 and kind == "processed" and bool((reported.abs() <= PRECISION).all())
    return TextComparison(output.tokens, reported, expected, alternatives, certain)


def expected_range(noise: Noise, text: Sequence[int], start: int, params: SamplingParams, logits: Tensor) -> LogprobRange:
    """Log-probabilities that an implementation may report for the tokens from `start` on, given the noise of its arithmetic.

    If logits err by at most e, their log-softmax errs by at most 2 e, and by 2 e / T at temperature T. top-p may then keep one
    token more or less, since the probability above a token errs by a factor of exp(2 e / T) at most: the range includes the
    distributions with the threshold moved by that factor either way.
    """
    reach = 2 * noise.tolerance / (params.temperature or 1.0)
    variants = [params]
    if params.top_p is not None:
        thresholds = (params.top_p * math.exp(-reach), min(1.0, params.top_p * math.exp(reach)))
        variants += [replace(params, top_p=threshold) for threshold in thresholds]
    whole = torch.tensor([list(text)], device=logits.device)
    scores = (process_logits(logits, whole, start, variant) for variant in variants)
    logs = torch.stack([row.log_softmax(-1).gather(-1, whole[0, start:, None])[:, 0].cpu() for row in scores])
    possible = logs.nan_to_num(neginf=math.inf)
    slack = reach + PRECISION
    return LogprobRange(possible.min(0).values.nan_to_num(posinf=-math.inf) - slack, logs.max(0).values + slack)
