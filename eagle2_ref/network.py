"""What a target is run with: a network and its cache. Two there are: llama.py, lean, and hosted.py, for all the others."""

from __future__ import annotations

from collections.abc import Sequence
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


class KeptText(Protocol):
    """Keys and values of a text; `length` entries are kept, and those of the newest pass lie behind them."""

    length: int

    def keep(self, entries: Sequence[int]) -> None:
        """Of the newest pass's entries, counted from 0, keep these, in this order; the others are dropped."""

    def take(self, joined: Any, row: int, first: int, n: int) -> None:
        """The n entries from `first` on that the newest pass over several texts wrote for text `row`, as if alone."""

    def kept(self) -> Any:
        """Keys and values of the kept entries, layer by layer: each [2, texts, kv_heads, length, dim]."""


class Network(Protocol):
    """A causal language model."""

    vocab_size: int
    context: int
    dtype: torch.dtype
    device: torch.device
    embedding: Tensor
    """[V, H]"""

    def cache(self) -> Any:
        """An empty cache for one text."""

    def beside(self, caches: Sequence[Any]) -> Any:
        """The caches of several texts as one. All end at the same column; `starts` [texts] tells where each begins."""

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
