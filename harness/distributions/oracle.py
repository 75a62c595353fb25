"""The oracle: the target's own laws along texts that somebody emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.sampling import SamplingParams
from harness.distributions.forcing import logits_along, processed

Laws = NDArray[np.float64]


class Oracle:
    """Teacher forcing in batches. `noise` is how far, in logits, the arithmetic of an implementation may be from ours."""

    def __init__(self, model: PreTrainedModel, noise: float) -> None:
        self.model, self.noise = model, noise

    def laws(
        self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], params: Sequence[SamplingParams]
    ) -> list[Laws]:
        """Of each text p [n, V], the law of each of its n tokens given the prompt and the tokens before it.

        A filter such as top-p can leave a token out by a hair, and other arithmetic keep it in: one that enters if the noise
        is all in its favour is not impossible, and the law there is what that arithmetic makes it.
        """
        return [self._law(*row) for row in zip(prompts, texts, params, self.logits(prompts, texts), strict=True)]

    def logits(self, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Of each text [n, V]: the target's passes, and nothing else."""
        return logits_along(self.model, prompts, texts)

    def _law(self, prompt: Sequence[int], text: Sequence[int], params: SamplingParams, logits: Tensor) -> Laws:
        history = torch.tensor([[*prompt, *text]], device=logits.device)
        p = _law(logits, history, len(prompt), params)
        emitted = history[0, len(prompt) :, None]
        for i in (p.gather(-1, emitted)[:, 0] == 0).nonzero()[:, 0].tolist():
            before, x = history[:, : len(prompt) + i], int(emitted[i])
            favourable = self._favourable(before, logits[i : i + 1], params, x)
            if favourable[x] > 0:  # else the token stays impossible, by the law as it is
                p[i] = favourable
        return p.double().cpu().numpy()

    def _favourable(self, text: Tensor, logits: Tensor, params: SamplingParams, x: int) -> Tensor:
        """p [V] after a text [1, n], of logits [1, V] with all noise in favour of token x.

        What is likelier than x loses, the rest gains: top-p asks how much lies above x, not how much x has.
        """
        unfiltered = replace(params, top_k=None, top_p=None, min_p=None)
        plain = _law(logits, text, text.shape[1], unfiltered)[0]
        gains = plain < plain[x]
        gains[x] = True
        return _law(logits + torch.where(gains, self.noise, -self.noise), text, text.shape[1], params)[0]


def _law(logits: Tensor, text: Tensor, start: int, params: SamplingParams) -> Tensor:
    """p [n, V] of logits at the positions start … of a text [1, length], each with its own past."""
    scores = processed(logits, text, start, params)
    if params.temperature == 0:
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores)
    return scores.softmax(-1)
