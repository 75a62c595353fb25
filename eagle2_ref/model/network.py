"""What a target is run with: a network and its cache. Two there are: llama.py, lean, and hosted.py, for all the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """What a target pass returns: logits [rows, V], and features [n, H], the inputs of the LM head at the new positions.

    Of a pass over several texts both have a dimension in front, one entry a text.
    """

    logits: Tensor
    features: Tensor


class Network(Protocol):
    """A causal language model."""

    vocab_size: int
    context: int
    dtype: torch.dtype
    device: torch.device

    @property
    def embedding(self) -> Tensor:
        """[V, H], on the device of the network."""

    def cache(self) -> Any:
        """An empty cache for one text."""

    def __call__(self, tokens: Tensor, positions: Tensor, seen: Tensor | None, cache: Any, last: bool = False) -> Rows:
        """One pass over n new tokens [texts, n]; their entries are written behind the kept ones.

        seen: boolean [texts or 1, n, kept + n], true where a token may look; without it tokens see the text and their own
        past. last: logits of the last token of each text alone.
        """

    def lm_head(self, features: Tensor) -> Tensor:
        """Features [..., H] -> logits [..., V]."""


def causal(n: int, columns: int, device: torch.device) -> Tensor:
    """Boolean [n, columns]: the n rows are the last ones of a sequence of `columns` entries."""
    return torch.ones(n, columns, dtype=torch.bool, device=device).tril(columns - n)
