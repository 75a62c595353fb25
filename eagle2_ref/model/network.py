"""What the target needs of a model. There are two: llama.py, which is fast, and hf_model.py, which runs any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eagle2_ref.model.cache import KVCache


@dataclass(frozen=True)
class ModelOutput:
    """The result of a pass: logits [n, V], and features [n, H], which are the inputs of the LM head.

    A network that was made by `reading` has the states of several layers as features, [n, layers H]. A pass over a batch has one
    more dimension in front, [B, n, V] and [B, n, H].
    """

    logits: Tensor
    features: Tensor


class Network(Protocol):
    """A causal language model."""

    vocab_size: int
    n_layers: int
    context: int
    dtype: torch.dtype
    device: torch.device

    @property
    def embedding(self) -> Tensor:
        """Input embedding [V, H], on the device of the network."""

    def cache(self) -> Any:
        """An empty cache for one sequence."""

    def __call__(
        self, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any, last_only: bool = False
    ) -> ModelOutput:
        """Run one pass. Keys and values are written into the cache, after the sequence.

        Args:
            tokens: new tokens, [B, n].
            positions: their positions, [B, n].
            mask: boolean [B or 1, n, length + n], true where a token may attend. None: each token sees the sequence, and the
                new tokens up to itself.
            cache: the cache of B sequences.
            last_only: compute logits for the last token of each sequence only, [B, 1, V].
        """

    def lm_head(self, features: Tensor) -> Tensor:
        """Inputs of the LM head [..., H] to logits [..., V]."""

    def lm_head_of(self, tokens: Tensor) -> Callable[[Tensor], Tensor]:
        """The LM head for some tokens [D] alone: [..., H] to logits [..., D]. Its rows are copied once, here."""

    def reading(self, layers: tuple[int, ...]) -> Self:
        """The same network, whose features are the states before these layers, next to each other.

        The state before layer 0 is the embedding; the state before layer n, of n layers, is the output of the last, not normed.
        """


def causal(n: int, columns: int, device: torch.device) -> Tensor:
    """Boolean [n, columns]: causal mask of the last n rows of a sequence of `columns` entries."""
    return torch.ones(n, columns, dtype=torch.bool, device=device).tril(columns - n)


def pad_left(texts: Sequence[Tensor], cache: KVCache) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens, positions and mask of a pass that appends a text [n] to each sequence of a batch.

    Shorter texts are padded on the left, so that the last token of every sequence is in the last column.

    Returns:
        Tokens [B, n], positions [B, n], and a boolean mask [B, n, length + n]; no mask for a single sequence.
    """
    if len(texts) == 1:
        n, device = len(texts[0]), texts[0].device
        return texts[0][None], torch.arange(cache.length, cache.length + n, device=device)[None], None
    tokens = pad_sequence(list(texts), batch_first=True, padding_side="left")
    device, n = tokens.device, tokens.shape[1]
    columns = torch.arange(n, device=device)
    first = n - torch.tensor([len(text) for text in texts], device=device)[:, None]
    positions = (cache.lengths[:, None] + columns - first).clamp(min=0)
    is_new = (columns >= first)[:, None]
    own = causal(n, n, device) & is_new | torch.eye(n, dtype=torch.bool, device=device)  # padding sees itself
    return tokens, positions, torch.cat([cache.valid_mask()[:, None].expand(-1, n, -1), own], dim=-1)
