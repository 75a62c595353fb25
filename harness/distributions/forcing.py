"""Teacher forcing: the target's logits along texts that somebody emitted, many texts in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.sampling import SamplingParams

CELLS = 1 << 24
"""Numbers that the logits of one pass may have: 128 MiB in float64."""

TOKENS = 2048
"""Of one pass, at most. Larger ones are no quicker a token, and texts that share them are filled up further."""


@torch.inference_mode()
def logits_along(model: PreTrainedModel, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Of each text logits [n, V], at each of its n tokens, given its prompt and the tokens before it.

    Texts of like length share a pass. Shorter ones are filled up on the right, where no position of theirs can see it.
    """
    whole = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
    found: dict[int, Tensor] = {}
    for rows in shared([len(text) for text in whole], min(TOKENS, CELLS // model.config.vocab_size)):
        longest = len(whole[rows[-1]])
        tokens = torch.tensor([whole[row] + [0] * (longest - len(whole[row])) for row in rows], device=model.device)
        for row, logits in zip(rows, model(tokens).logits, strict=True):
            found[row] = logits[len(prompts[row]) - 1 : len(whole[row]) - 1].clone()  # a part of the pass would keep all of it
    return [found[row] for row in range(len(whole))]


def shared(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers of the texts that share a pass, shorter ones first, such that the pass has at most so many tokens; or one text."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if rows and (len(rows) + 1) * lengths[row] > most:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def processed(logits: Tensor, text: Tensor, start: int, params: SamplingParams) -> Tensor:
    """Scores [n, V] of logits at the positions start … of a text [1, length], each with its own past.

    At temperature 0 no temperature is applied, as in `transformers.generate`.
    """
    past = text[:, :1].expand(len(logits), 1)
    if params.repetition_penalty is not None:
        # Of a past it is asked which tokens it has, not how often: with its first one all are made equally long.
        columns, ends = (torch.arange(n, device=text.device) for n in (text.shape[1], len(logits)))
        past = torch.where(columns < (start + ends)[:, None], text, past)
    return params.process(past, logits)
