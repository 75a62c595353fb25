"""Teacher forcing: score the texts that an engine emitted with the target, computed by transformers alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.model.target import load_model
from eagle2_ref.sampling import SamplingParams
from harness.distributions.exact import probabilities
from harness.pairs import Pair

Laws = NDArray[np.float64]
"""p [n, V]: the target's distribution of each of n tokens, given the tokens before it."""

MAX_LOGITS = 1 << 24
"""Logits of one pass, at most: 128 MiB in float64."""

MAX_TOKENS = 2048
"""Tokens of one pass, at most. Larger batches are no faster per token and need more padding."""


def load_target(pair: Pair, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """Load the target of a pair as a transformers model, without any code of the decoder."""
    return load_model(pair.target, dtype, device).eval()


@dataclass(frozen=True)
class Divergence:
    """A position at which the emitted token is not the token that the target would have emitted after the same text.

    Attributes:
        position: in the whole text, prompt included.
        margin: logits by which the target preferred `expected`. Within the noise of the arithmetic the divergence is a tie,
            beyond it a fault.
        p: target probability of the emitted token at temperature 1.
    """

    position: int
    emitted: int
    expected: int
    margin: float
    p: float


class TargetScorer:
    """Log-probabilities, distributions and greedy tokens of the target along given texts, by batched teacher forcing.

    Args:
        model: the target, usually in float64.
        noise: how far, in logits, the arithmetic of an implementation may be from that of `model`.
    """

    def __init__(self, model: PreTrainedModel, noise: float = 0.0) -> None:
        self.model, self.noise = model, noise

    @torch.inference_mode()
    def logits(self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Logits [n, V] at each of the n tokens of every text, before sampling parameters.

        Texts of similar length share a pass. Shorter ones are padded on the right, which causal attention never sees.
        """
        whole = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
        found: dict[int, Tensor] = {}
        for rows in batches([len(text) for text in whole], min(MAX_TOKENS, MAX_LOGITS // self.model.config.vocab_size)):
            longest = len(whole[rows[-1]])
            tokens = torch.tensor([whole[row] + [0] * (longest - len(whole[row])) for row in rows], device=self.model.device)
            for row, logits in zip(rows, self.model(tokens).logits, strict=True):
                # Cloned, since a view would keep the logits of the whole pass alive.
                found[row] = logits[len(prompts[row]) - 1 : len(whole[row]) - 1].clone()
        return [found[row] for row in range(len(whole))]

    def laws(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Laws]:
        """Distributions [n, V] of the n tokens of every text, given its prompt and its earlier tokens.

        A filter such as top-p may exclude a token by less than the noise, while the engine's arithmetic includes it. An emitted
        token that is possible with all noise in its favour therefore gets the distribution of that arithmetic.
        """
        return [self._law(*row) for row in zip(prompts, texts, params, self.logits(prompts, texts), strict=True)]

    def greedy_divergences(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams
    ) -> list[list[Divergence]]:
        """Divergences of each text from greedy decoding. Every position is judged on the text's own past."""
        return [
            _divergences(scores, scores, len(prompt), text)
            for prompt, text, scores in zip(prompts, texts, self._scores(prompts, texts, params), strict=True)
        ]

    def coupled_divergences(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int]
    ) -> list[list[Divergence]]:
        """Divergences of each text from ordinary sampling with KeyedCoins(seed): the token at a position is argmax p / noise.

        The comparison uses logits, log p - log noise. If every position agrees, the text is, by induction, the text that
        ordinary sampling emits.
        """
        found = []
        for prompt, text, seed, scores in zip(prompts, texts, seeds, self._scores(prompts, texts, params), strict=True):
            coins, logs = KeyedCoins(seed), scores.log_softmax(-1)
            noise = torch.stack([coins.noise(len(prompt) + i, logs.shape[-1]) for i in range(len(text))])
            found.append(_divergences(logs - noise.log().to(logs), logs, len(prompt), text))
        return found

    def _scores(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: SamplingParams
    ) -> Iterator[Tensor]:
        for prompt, text, logits in zip(prompts, texts, self.logits(prompts, texts), strict=True):
            yield process_logits(logits, torch.tensor([[*prompt, *text]], device=logits.device), len(prompt), params)

    def _law(self, prompt: Sequence[int], text: Sequence[int], params: SamplingParams, logits: Tensor) -> Laws:
        history = torch.tensor([[*prompt, *text]], device=logits.device)
        p = probabilities(process_logits(logits, history, len(prompt), params), params)
        emitted = history[0, len(prompt) :, None]
        for i in (p.gather(-1, emitted)[:, 0] == 0).nonzero()[:, 0].tolist():
            before, x = history[:, : len(prompt) + i], int(emitted[i])
            favourable = self._favourable(before, logits[i : i + 1], params, x)
            if favourable[x] > 0:  # otherwise the token stays impossible
                p[i] = favourable
        return p.double().cpu().numpy()

    def _favourable(self, text: Tensor, logits: Tensor, params: SamplingParams, x: int) -> Tensor:
        """p [V] after a text [1, n], from logits [1, V] with all noise in favour of token x.

        Likelier tokens lose and all others gain, x included: top-p compares the probability above x, not that of x.
        """
        n, unfiltered = text.shape[1], replace(params, top_k=None, top_p=None, min_p=None)
        p = probabilities(process_logits(logits, text, n, unfiltered), unfiltered)[0]
        gains = p < p[x]
        gains[x] = True
        favourable = logits + torch.where(gains, self.noise, -self.noise)
        return probabilities(process_logits(favourable, text, n, params), params)[0]


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Group texts into passes of at most `max_tokens` padded tokens, shorter texts first; a longer text has its own pass."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if rows and (len(rows) + 1) * lengths[row] > max_tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def process_logits(logits: Tensor, text: Tensor, start: int, params: SamplingParams) -> Tensor:
    """Apply sampling parameters to the logits at consecutive positions, each with its own past.

    At temperature 0 no temperature is applied, as in `transformers.generate`.

    Args:
        logits: [n, V] at positions start, start + 1, … of the text.
        text: [1, length].
        start: position of the first row.
        params: sampling parameters.

    Returns:
        Scores [n, V]; excluded tokens have -inf.
    """
    past = text[:, :1].expand(len(logits), 1)
    if params.repetition_penalty is not None:
        # The penalty depends on the set of past tokens only, so later positions may be filled with the first token.
        columns, ends = (torch.arange(n, device=text.device) for n in (text.shape[1], len(logits)))
        past = torch.where(columns < (start + ends)[:, None], text, past)
    return params.process(past, logits)


def _divergences(scores: Tensor, logits: Tensor, start: int, tokens: Sequence[int]) -> list[Divergence]:
    """Positions where the tokens do not have the highest scores [n, V]; `logits` [n, V] give their probabilities."""
    emitted = torch.tensor(list(tokens), device=scores.device)
    best, expected = scores.max(-1)
    # Of equal scores the first counts, as in argmax: any other diverges with a margin of 0.
    margins = (best - scores.gather(-1, emitted[:, None])[:, 0]).tolist()
    p = logits.softmax(-1).gather(-1, emitted[:, None])[:, 0].tolist()
    return [
        Divergence(start + i, int(emitted[i]), int(expected[i]), margins[i], p[i])
        for i in (expected != emitted).nonzero()[:, 0].tolist()
    ]
