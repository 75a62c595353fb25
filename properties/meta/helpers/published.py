# ruff: noqa: S311  (`random` is what is tested)
"""Acceptance functions with the signature of the published ones; only the first two are correct."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Answer = tuple[Tensor, int, Tensor]


def evaluate_posterior(
    logits: Tensor,
    candidates: Tensor,
    logits_processor: Callable[[Any, Tensor], Tensor] | None,
    coin: Callable[[], Any] = lambda: random.random(),
    renormalise: bool = True,
) -> Answer:
    """Candidate rows with the same prefix form a node; their next tokens are offered one after another."""
    alive, depth = list(range(len(candidates))), 0
    while True:
        row = logits[alive[0], depth][None]
        if logits_processor is None:
            p = torch.nn.functional.one_hot(row[0].argmax(), row.shape[-1]).to(row)
        else:
            p = logits_processor(None, row)[0].softmax(-1)
        for token in _offered(candidates, alive, depth + 1):
            if coin() < p[token] if logits_processor else p[token] == 1:
                alive, depth = [i for i in alive if candidates[i, depth + 1] == token], depth + 1
                break
            p = p.clone()
            p[token] = 0
            p = p / p.sum() if renormalise else p
        else:
            return torch.tensor(alive[0]), depth, row[0] if logits_processor is None else p


def draws_from_torch(logits: Tensor, candidates: Tensor, logits_processor: Any) -> Answer:
    return evaluate_posterior(logits, candidates, logits_processor, coin=lambda: torch.rand(()))


def does_not_renormalise(logits: Tensor, candidates: Tensor, logits_processor: Any) -> Answer:
    """The residual after a rejection is not normalised."""
    return evaluate_posterior(logits, candidates, logits_processor, renormalise=False)


def forgets_the_refused(logits: Tensor, candidates: Tensor, logits_processor: Any) -> Answer:
    """The bonus token is sampled from the target's law instead of the residual."""
    best, accepted, _ = evaluate_posterior(logits, candidates, logits_processor)
    return best, accepted, logits[best, accepted].softmax(-1)


def accepts_beyond_the_row(logits: Tensor, candidates: Tensor, logits_processor: Any) -> Answer:
    _, _, p = evaluate_posterior(logits, candidates, logits_processor)
    return torch.tensor(0), candidates.shape[1] + 3, p


def _offered(candidates: Tensor, alive: list[int], depth: int) -> list[int]:
    """The distinct tokens at a depth, in the order of the rows; -1 is padding."""
    if depth == candidates.shape[1]:
        return []
    return [token for token in dict.fromkeys(candidates[alive, depth].tolist()) if token != -1]
