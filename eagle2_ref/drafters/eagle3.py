"""EAGLE-3: EAGLE-2's draft tree, from a head that reads three layers of the target (EAGLE-3, arXiv 2503.01840)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.checkpoint import load_eagle3_head
from eagle2_ref.drafters.eagle2 import Eagle2, TreeBudget
from eagle2_ref.drafters.eagle_head import Eagle3Head
from eagle2_ref.model.llama import transposed
from eagle2_ref.model.target import Target


@dataclass(frozen=True)
class Eagle3(TreeBudget):
    """Options of EAGLE-3: the budget of its trees, which are those of EAGLE-2. The head has a draft vocabulary of its own."""

    checkpoint: ClassVar[Checkpoint] = "eagle3"

    def drafter(self, target: Target, draft: Path | str) -> Eagle3Drafter:
        network = target.network
        head = load_eagle3_head(draft, network.n_layers, network.embedding.detach().cpu(), target.name)
        return Eagle3Drafter(head.to(network.embedding), self)


class Eagle3Drafter(Eagle2):
    """EAGLE-2's drafter with a head that reads three hidden states of the target, and whose own LM head ranks the tokens.

    The states are those before three layers, which `fc` fuses. The head feeds its own output back without a norm (EAGLE-3,
    section 3.1). Its LM head has the draft vocabulary.
    """

    def __init__(self, head: Eagle3Head, budget: TreeBudget) -> None:
        with torch.no_grad():
            fused = replace(head.fused(), unembedding=transposed(head.lm_head.weight))
        whole = len(fused.vocabulary) == head.config.vocab_size
        super().__init__(fused, fused.lm_head, budget, None if whole else fused.vocabulary)
        self.layers, self.fuse = head.config.layers, fused.fuse

    @torch.inference_mode()
    def read(self, features: Tensor) -> Tensor:
        """The states before the three layers [n, 3 H] as one, [n, H]."""
        return self.fuse(features)
