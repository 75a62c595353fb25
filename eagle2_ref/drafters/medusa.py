"""Medusa: several heads guess several tokens ahead, all from one feature of the target (Cai et al., arXiv 2401.10774)."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from os.path import lexists
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eagle2_ref.drafters.base import Checkpoint, Drafter, DraftState, require_whole
from eagle2_ref.drafters.checkpoint import fill
from eagle2_ref.drafters.tree_choices import choices, prune
from eagle2_ref.errors import BadInput
from eagle2_ref.model.config import Config, read_config
from eagle2_ref.model.target import Target
from eagle2_ref.model.weights import read_tensors
from eagle2_ref.sampling import checked_draft_logits
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import DraftTree

PUBLISHED = choices(
    "0 00 1 01 2 000 10 02 3 03 4 04 20 05 001 5 06 6 07 010 11 7 08 002 30 09 8 9 100 020 12 003 40 21 004 005 0000 011 006"
    " 030 50 13 007 008 009 60 040 14 70 012 200 31 22 80 050 15 101 021 90 060 0001 16 070"
)
"""The 63 nodes of `mc_sim_7b_63` in FasterDecoding/Medusa, medusa/model/medusa_choices.py, in its order, the most often
accepted first: the first m nodes are a tree of m nodes (section 2.3.3)."""


SHARED = "lm_head.weight"
"""The LM head of all heads, in checkpoints with `original_lm_head`."""

HINT = (
    "expected are blocks.I.layers.J.weight and lm_heads.I.weight, as vLLM has them; with original_lm_head only the blocks, or"
    f" one {SHARED} too"
)


@dataclass(frozen=True)
class Medusa:
    """Options of Medusa: how much of the published tree is used. The defaults use all of it.

    k: guesses of each head. depth: number of heads. m: nodes, the root not counted.
    """

    k: int = 10
    depth: int = 4
    m: int = 63

    checkpoint: ClassVar[Checkpoint] = "medusa"

    def drafter(self, target: Target, draft: Path | str) -> MedusaDrafter:
        require_whole(self, k=1, depth=1, m=1)
        return MedusaDrafter(load_heads(target, draft), self)


class Block(nn.Module):
    """Residual layers x + silu(W x)."""

    def __init__(self, width: int, layers: int, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=bias) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + F.silu(layer(x))
        return x


class MedusaHeads(nn.Module):
    """Head i, from 0, guesses the token i + 1 positions after the root: residual layers, then an LM head.

    Tensors have the names of vLLM's layout. Medusa's heads have an LM head each; with `original_lm_head` vLLM has one for all.

    Args:
        heads: number of heads.
        vocab_size, width: V and H.
        layers, bias: residual layers of each head, and whether they have a bias.
        own: number of LM heads of the checkpoint: one for each head, or 1 for all; 0 where they use the target's.
        lm_head: the target's LM head, from features [..., H] to logits [..., V]; needed if `own` is 0.
    """

    def __init__(
        self,
        heads: int,
        vocab_size: int,
        width: int,
        layers: int = 1,
        bias: bool = False,
        own: int | None = None,
        lm_head: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.width, self.lm_head = vocab_size, width, lm_head
        self.blocks = nn.ModuleList(Block(width, layers, bias) for _ in range(heads))
        self.lm_heads = nn.ModuleList(nn.Linear(width, vocab_size, bias=False) for _ in range(heads if own is None else own))

    def __len__(self) -> int:
        return len(self.blocks)

    def forward(self, feature: Tensor, n: int) -> Tensor:
        """Logits [n, V] of the first n heads for one feature [H]."""
        guesses = [block(feature) for block in self.blocks[:n]]
        if self.lm_head is not None:
            return self.lm_head(torch.stack(guesses))
        return torch.stack([lm_head(guess) for lm_head, guess in zip(cycle(self.lm_heads), guesses, strict=False)])


class MedusaState(DraftState):
    """The target's feature [H] before the newest token of a sequence."""

    feature: Tensor


class MedusaDrafter(Drafter):
    """A static tree in which every node at depth i is a guess of head i, independent of the nodes above it.

    Its tokens are chosen, not sampled: `walk` and `reject` are lossless. (The published rule is `typical`, which is not.)
    """

    def __init__(self, heads: MedusaHeads, method: Medusa) -> None:
        self.heads = heads
        k, depth = min(method.k, heads.vocab_size), min(method.depth, len(heads))
        self.choices = prune(PUBLISHED, k, depth, method.m)

    def start(self, sequence: Sequence) -> MedusaState:  # noqa: ARG002
        return MedusaState()

    def observe(self, sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:  # noqa: ARG002
        sequence.draft.feature = features[-1]

    @torch.inference_mode()
    def propose_one(self, sequence: Sequence) -> DraftTree:
        root = sequence.tokens[-1]
        tree = [choice for choice in self.choices if len(choice) <= sequence.max_depth]
        if not tree:
            return DraftTree.root_only(root)
        sequence.draft.passes += 1
        logits = checked_draft_logits(self.heads(sequence.draft.feature, max(map(len, tree))))
        best = logits.log_softmax(-1).topk(1 + max(map(max, tree)))  # row i: the guesses of head i
        confidences, tokens = best.values.tolist(), best.indices.tolist()
        node = {(): 0} | {choice: i for i, choice in enumerate(tree, start=1)}
        return DraftTree.of(
            [root, *(tokens[len(choice) - 1][choice[-1]] for choice in tree)],
            [-1, *(node[choice[:-1]] for choice in tree)],
            [0.0, *(sum(confidences[i][rank] for i, rank in enumerate(choice)) for choice in tree)],
        )


def load_heads(target: Target, draft: Path | str) -> MedusaHeads:
    """Load the heads of a directory in vLLM's layout for a target. Raises BadInput if anything does not match."""
    directory, embedding = Path(draft), target.network.embedding
    if not lexists(directory / "config.json"):
        raise BadInput(f"no heads at {directory}: config.json is missing", "give --draft a directory with Medusa heads")
    config, tensors = read_config(directory), read_tensors(directory)
    heads = _create(config, tensors, target)
    if (heads.vocab_size, heads.width) != tuple(embedding.shape):
        raise BadInput(
            f"heads do not fit the target: vocabulary {heads.vocab_size} and hidden size {heads.width} in {directory},"
            f" {embedding.shape[0]} and {embedding.shape[1]} in {target.name}",
            "give --draft heads trained for this target",
        )
    fill(heads, tensors, config, HINT)
    return heads.to(embedding).eval()


def _create(config: Config, tensors: dict[str, Tensor], target: Target) -> MedusaHeads:
    """Heads with the shape of a configuration, on the meta device. Each of them has at least one of the tensors."""
    heads, vocab_size, width = (config.whole(name) for name in ("num_heads", "vocab_size", "hidden_size"))
    layers, bias = config.whole("num_hidden_layers", 1, least=0), config.flag("medusa_fc_bias", False)
    if config.whole("truncated_vocab_size", vocab_size) != vocab_size:
        raise BadInput(f"{config.path}: heads over a part of the vocabulary are not supported")
    if heads * (layers + 1) > 2 * len(tensors):
        raise config.wrong("num_heads", heads, f"with {layers} layers each; the weights have {len(tensors)} tensors")
    own, lm_head = heads, None
    if config.flag("original_lm_head", False):
        if SHARED in tensors:
            tensors["lm_heads.0.weight"] = tensors.pop(SHARED)  # vLLM reads either name
        own = int("lm_heads.0.weight" in tensors)
        lm_head = None if own else target.network.lm_head
    with torch.device("meta"):
        return MedusaHeads(heads, vocab_size, width, layers, bias, own, lm_head)
