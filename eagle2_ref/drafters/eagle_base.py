"""What EAGLE and EAGLE-2 have in common: the head, its cache of the text, and the pass that catches up with the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle_head import EagleHead, LeanHead
from eagle2_ref.model.checkpoint import load_head
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams


class Headed(Drafter):
    """Drafts with an EAGLE head. Its cache holds the text, computed from the target's own features, and nothing of a draft."""

    def __init__(self, head: EagleHead | LeanHead, lm_head: Callable[[Tensor], Tensor]) -> None:
        """`lm_head` maps features [..., H] to logits [..., V]: the target's own, which the head shares."""
        with torch.no_grad():
            self.head = head.lean() if isinstance(head, EagleHead) else head
        self.lm_head = lm_head
        self.reset()

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:  # noqa: ARG002
        self.reset()

    def reset(self) -> None:
        """Forget the text."""
        self.passes = 0
        self.cache = self.head.cache()
        self._tokens: list[int] = []
        self._features: list[Tensor] = []

    def observe(self, tokens: Sequence[int], features: Tensor) -> None:
        self._tokens += tokens
        self._features.append(features)

    def _catch_up(self) -> Tensor:
        """One pass over what was observed since the last tree; returns the estimated feature of the root, [1, 1, H].

        Its keys and values are computed from the target's own features and stay in the cache.
        """
        device = self.head.fc.device
        tokens = torch.tensor([[int(token) for token in self._tokens]], device=device)
        positions = torch.arange(self.cache.length, self.cache.length + tokens.shape[1], device=device)
        features = self._pass(tokens, torch.cat(self._features)[None], positions[None], None)
        self.cache.keep(range(tokens.shape[1]))
        self._tokens, self._features = [], []
        return features[:, -1:]

    def _pass(self, tokens: Tensor, features: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        self.passes += 1
        return self.head(tokens, features, positions, mask, self.cache)


def head_for(target: Target, draft: Path | str) -> tuple[EagleHead, Callable[[Tensor], Tensor]]:
    """The head of a directory, beside a target; and the target's LM head, which it shares."""
    network = target.network
    head = load_head(draft, network.embedding.detach().cpu(), target.name)
    return head.to(network.embedding), network.lm_head
