"""Speculative sampling: a small language model drafts a chain (Leviathan et al., arXiv 2211.17192; Chen et al., 2302.01318)."""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, Drafter, DraftState, require_whole
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import Network
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import draft_scores, probabilities
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import SampledTree


@dataclass(frozen=True)
class Speculative:
    """Options of speculative sampling. depth: number of drafted tokens, gamma or K in the papers."""

    depth: int = 4

    checkpoint: ClassVar[Checkpoint] = "small"

    def drafter(self, target: Target, draft: Path | str) -> SpeculativeDrafter:
        require_whole(self, depth=1)
        return SpeculativeDrafter(load_small(target, draft), self)


class SmallModelState(DraftState):
    """The small model's cache of a sequence, and coins of its own to sample drafts with."""

    def __init__(self, cache: KVCache, coins: Coins) -> None:
        self.cache, self.coins = cache, coins


class SpeculativeDrafter(Drafter):
    """A chain of tokens, each sampled from the small model under the sampling parameters of the request.

    q is exactly the distribution that was sampled from: filtered as p is, each token with its own history. At temperature 0 it
    is a point mass, and the rule min(1, p/q) accepts the small model's token if it is the target's.
    """

    tree_type = SampledTree

    def __init__(self, small: Network, method: Speculative) -> None:
        self.small, self.method = small, method

    def start(self, sequence: Sequence) -> SmallModelState:
        return SmallModelState(self.small.cache(), sequence.coins.split())

    @torch.inference_mode()
    def propose_one(self, sequence: Sequence) -> SampledTree:
        text, state = list(sequence.tokens), sequence.draft
        root = len(text) - 1
        n = min(sequence.max_depth, self.method.depth, self.small.context - len(text))  # its own context may be shorter
        if n < 1:
            return SampledTree.root_only(text[root])
        state.cache.truncate(root)  # drop rejected drafts of the last step
        q: list[Tensor] = []
        while len(q) < n:
            q.append(self.distribution(sequence, text))
            text.append(int(state.coins.categorical(q[-1])))
        q.append(torch.zeros_like(q[-1]))  # nothing was sampled after the last node
        return SampledTree(torch.tensor(text[root:]), torch.arange(-1, n), torch.stack(q))

    def distribution(self, sequence: Sequence, text: abc.Sequence[int]) -> Tensor:
        """The small model's distribution q [V] after a text. One pass reads the tokens that are not in its cache.

        That is the newest token; after a chain that was accepted whole, also the chain's last.
        """
        cache, device = sequence.draft.cache, self.small.device
        start = cache.length
        new, positions = torch.tensor([text[start:]], device=device), torch.arange(start, len(text), device=device)
        output = self.small(new, positions[None], None, cache, True)
        cache.keep(range(new.shape[1]))
        sequence.draft.passes += 1
        return probabilities(draft_scores(output.logits[0], [text], sequence.params), sequence.params)[0]


def load_small(target: Target, draft: Path | str) -> Network:
    """Load a small model in the dtype and on the device of the target, whose vocabulary it must have."""
    if not lexists(Path(draft) / "config.json"):
        raise BadInput(f"no small model at {draft}: config.json is missing", "give --draft a checkpoint of a language model")
    small = Target.load(draft, str(target.network.dtype).removeprefix("torch."), str(target.device)).network
    if small.vocab_size != target.vocab_size:
        raise BadInput(
            f"the small model does not fit the target: {small.vocab_size} tokens in {draft},"
            f" {target.vocab_size} in {target.name}",
            "give --draft a model with the target's own vocabulary",
        )
    return small
