"""Teacher forcing: what the target would have said at every position of a text that somebody emitted, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.target import load_model
from harness.pairs import Pair


@dataclass(frozen=True)
class Divergence:
    """A position at which the emitted token is not the one the target would have emitted there.

    margin: by how much (in logits) the target preferred its own token. A tie if the margin is within the noise of the
    arithmetic, a fault otherwise.
    """

    position: int
    emitted: int
    expected: int
    margin: float


class Teacher:
    """The target in float64, and what the same weights say in the dtype under test: their difference is the noise."""

    def __init__(self, pair: Pair, dtype: str = "float32", device: str = "cpu") -> None:
        self.model = load_plain(pair, "float64", device)
        self.dtype, self._pair, self._device = dtype, pair, device
        self._noise: float | None = None

    def noise(self, texts: Sequence[Sequence[int]]) -> float:
        """The largest difference, in logits, that arithmetic in the dtype under test makes to any of the 8 likeliest tokens.

        Measured once, on texts of the pair: passes over a whole text, and one token at a time with a cache, in the dtype
        under test, each against float64. (Batched and sequential passes round differently; both are the target.)
        """
        if self._noise is None:
            low = load_plain(self._pair, self.dtype, self._device)
            self._noise = max(_difference(low, self.model, text) for text in texts)
        return self._noise

    @torch.inference_mode()
    def scores(self, prompt: Sequence[int], tokens: Sequence[int], params: SamplingParams) -> Tensor:
        """Processed logits [n, V] at the position of each of n tokens, given the prompt and the tokens before it.

        At temperature 0 no temperature is applied, as in `transformers.generate`.
        """
        text = torch.tensor([[*prompt, *tokens]], device=self._device)
        logits = self.model(text).logits[0, len(prompt) - 1 : -1]
        processors = params.processors()
        if params.repetition_penalty is None:
            return torch.as_tensor(processors(text[:, :1], logits))
        rows = [processors(text[:, : len(prompt) + i], logits[i : i + 1]) for i in range(len(tokens))]
        return torch.cat(rows)

    def greedy_divergences(self, prompt: Sequence[int], tokens: Sequence[int], params: SamplingParams) -> list[Divergence]:
        """Where a text departs from greedy decoding, each position judged on the text's own past."""
        return _divergences(self.scores(prompt, tokens, params), len(prompt), tokens)

    def coupled_divergences(
        self, prompt: Sequence[int], tokens: Sequence[int], params: SamplingParams, seed: int
    ) -> list[Divergence]:
        """Where a text departs from ordinary sampling with KeyedCoins of this seed: at each position the winner of p / noise.

        Races are run in logits: log p - log noise. Equality at every position is, by induction, equality with the text that
        ordinary sampling emits.
        """
        scores = self.scores(prompt, tokens, params).log_softmax(-1)
        coins = KeyedCoins(seed)
        noise = torch.stack([coins.noise(len(prompt) + i, scores.shape[-1]) for i in range(len(tokens))])
        return _divergences(scores - noise.log().to(scores), len(prompt), tokens)


def load_plain(pair: Pair, dtype: str, device: str = "cpu") -> PreTrainedModel:
    """The target through transformers alone."""
    return load_model(pair.target, dtype).to(device).eval()


def _divergences(scores: Tensor, start: int, tokens: Sequence[int]) -> list[Divergence]:
    emitted = torch.tensor(list(tokens), device=scores.device)
    best, expected = scores.max(-1)
    # Of equal logits the first counts, as argmax has it: another one of them diverges with a margin of 0.
    margins = (best - scores.gather(-1, emitted[:, None])[:, 0]).tolist()
    return [
        Divergence(start + i, int(emitted[i]), int(expected[i]), margins[i])
        for i in (expected != emitted).nonzero()[:, 0].tolist()
    ]


@torch.inference_mode()
def _difference(low: PreTrainedModel, high: PreTrainedModel, text: Sequence[int]) -> float:
    tokens = torch.tensor([list(text)], device=high.device)
    truth = high(tokens).logits[0]
    likeliest = truth.topk(min(8, truth.shape[-1]), dim=-1).indices
    cache = DynamicCache()
    one_by_one = torch.cat([low(tokens[:, i : i + 1], past_key_values=cache, use_cache=True).logits[0] for i in range(len(text))])
    passes = (low(tokens).logits[0], one_by_one)
    return max(float((logits.double() - truth).gather(-1, likeliest).abs().max()) for logits in passes)
