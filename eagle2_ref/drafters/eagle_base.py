"""What EAGLE and EAGLE-2 share: the draft head, its cache, and the pass that brings the cache up to date."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from eagle2_ref.drafters.base import Drafter, DraftState
from eagle2_ref.drafters.checkpoint import load_head
from eagle2_ref.drafters.eagle_head import EagleHead, FusedHead
from eagle2_ref.model.cache import StackedKVCache, batch_caches
from eagle2_ref.model.network import pad_left
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Sequence


class EagleState(DraftState):
    """The head's cache of a sequence, and the text that is not in it yet.

    The cache has an entry for each token but the first, computed from the target's own features. Entries that the head
    computes from its own estimates, while it grows a tree, are dropped when the tree is done.
    """

    def __init__(self, cache: StackedKVCache) -> None:
        self.cache = cache
        self.tokens: list[int] = []
        self.features: list[Tensor] = []  # of the positions before these tokens, in parts [n, H]


class EagleBase(Drafter):
    """Drafts with an EAGLE head."""

    def __init__(self, head: EagleHead | FusedHead, lm_head: Callable[[Tensor], Tensor]) -> None:
        """Args:
        head: the draft head.
        lm_head: maps features [..., H] to logits [..., V]: the target's own LM head, which the draft head shares.
        """
        with torch.no_grad():
            self.head = head.fused() if isinstance(head, EagleHead) else head
        self.lm_head = lm_head

    def start(self, sequence: Sequence) -> EagleState:  # noqa: ARG002
        return EagleState(self.head.cache())

    def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
        sequence.draft.tokens += tokens
        sequence.draft.features.append(self.read(features))

    def read(self, features: Tensor) -> Tensor:
        """What the head reads of the target's features [n, H]."""
        return features

    @torch.inference_mode()
    def catch_up(self, sequences: abc.Sequence[Sequence]) -> Tensor:
        """Run the head over everything observed since the last tree, and keep it in the caches.

        Returns:
            The head's estimate of the feature at each root, [B, 1, H].
        """
        # Prompts have a pass of their own: otherwise all other sequences would be padded to the length of a prompt.
        prompts = [row for row, sequence in enumerate(sequences) if not sequence.draft.cache.length]
        others = [row for row, sequence in enumerate(sequences) if sequence.draft.cache.length]
        if not prompts or not others:
            return self._catch_up([sequence.draft for sequence in sequences])
        features = torch.cat([self._catch_up([sequences[row].draft for row in rows]) for rows in (prompts, others)])
        return features[torch.tensor([*prompts, *others], device=features.device).argsort()]

    def _catch_up(self, states: abc.Sequence[EagleState]) -> Tensor:
        cache, device = batch_caches([state.cache for state in states]), self.head.fc.device
        observed = [torch.tensor(state.tokens, device=device) for state in states]
        tokens, positions, mask = pad_left(observed, cache)
        parts = [torch.cat(state.features) for state in states]
        features = parts[0][None] if len(parts) == 1 else pad_sequence(parts, batch_first=True, padding_side="left")
        out = self.run_head(cache, tokens, features, positions, mask)
        columns = tokens.shape[1]
        for state in states:
            state.cache.keep(range(columns - len(state.tokens), columns))
            state.tokens, state.features = [], []
        return out[:, -1:]

    def run_head(self, cache: StackedKVCache, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """One pass of the head. Arguments and result as for `EagleHead.forward`."""
        return self.head(tokens, features, positions, mask, cache)


def load_head_for(target: Target, draft: Path | str) -> tuple[EagleHead, Callable[[Tensor], Tensor]]:
    """Load the head of a directory for a target, and return it with the target's LM head, which it shares."""
    network = target.network
    head = load_head(draft, network.embedding.detach().cpu(), target.name)
    return head.to(network.embedding), network.lm_head
