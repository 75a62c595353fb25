"""Speculative sampling: a small language model writes ahead (Leviathan et al., arXiv 2211.17192; Chen et al., 2302.01318)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, FromText, whole
from eagle2_ref.errors import BadInput
from eagle2_ref.model.network import Network
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams, behind, probabilities
from eagle2_ref.tree import SampledTree


@dataclass(frozen=True)
class Speculative:
    """depth: tokens that the small model writes ahead, the papers' gamma or K."""

    depth: int = 4

    checkpoint: ClassVar[Checkpoint] = "small"

    def drafter(self, target: Target, draft: Path | str) -> SpeculativeDrafter:
        whole(self, depth=1)
        return SpeculativeDrafter(small_for(target, draft), self)


class SpeculativeDrafter(FromText):
    """A chain, each token drawn from the small model's law under the text's own sampling parameters.

    q is the very law that is drawn from: filtered as p is, each token with the history that it would have. At temperature 0 it is
    a point mass, and the rule min(1, p/q) asks whether the small model's token is the target's.
    """

    trees = SampledTree

    def __init__(self, small: Network, method: Speculative) -> None:
        self.small, self.method = small, method

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        super().begin(prompt, params, coins)
        self.cache, self.passes = self.small.cache(), 0
        self._params, self._coins = params, coins.aside()

    @torch.inference_mode()
    def propose(self, depth: int) -> SampledTree:
        text = list(self.text)
        root = len(text) - 1
        n = min(depth, self.method.depth, self.small.context - len(text))  # beyond its own context it knows nothing
        if n < 1:
            return SampledTree.bare(text[root])
        self.cache.cut(root)  # what was drafted before, and was not accepted, is forgotten
        q: list[Tensor] = []
        while len(q) < n:
            q.append(self._law(text))
            text.append(int(self._coins.categorical(q[-1])))
        q.append(torch.zeros_like(q[-1]))  # nothing was drawn behind the last
        return SampledTree(torch.tensor(text[root:]), torch.arange(-1, n), torch.stack(q))

    def _law(self, text: Sequence[int]) -> Tensor:
        """The small model's law [V] of what follows a text, of which it reads what it has not read yet.

        That is the newest token, and behind a chain that was accepted whole the last of it too.
        """
        start, device = self.cache.length, self.small.device
        new, positions = torch.tensor([text[start:]], device=device), torch.arange(start, len(text), device=device)
        rows = self.small(new, positions[None], None, self.cache, last=True)
        self.cache.keep(range(new.shape[1]))
        self.passes += 1
        return probabilities(behind(rows.logits[0], [text], self._params), self._params)[0]


def small_for(target: Target, draft: Path | str) -> Network:
    """The small model of a directory, in the target's dtype and beside it, with the target's own tokens."""
    if not (Path(draft) / "config.json").exists():
        raise BadInput(f"no small model at {draft}: config.json is missing", "give --draft a checkpoint of a language model")
    small = Target.load(draft, str(target.network.dtype).removeprefix("torch."), str(target.device)).network
    if small.vocab_size != target.vocab_size:
        raise BadInput(
            f"the small model does not fit the target: {small.vocab_size} tokens in {draft},"
            f" {target.vocab_size} in {target.name}",
            "give --draft a model with the target's own vocabulary",
        )
    return small
