"""What a perfect head would reach: EAGLE-2's trees with the target's own distribution as the head's confidences.

This is the limit of chosen draft tokens, each of which is accepted with its probability under the target. A token that is sampled
from a head's distribution q is accepted with probability 1 - TV(p, q): from a perfect head, always.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.decode import Sequence as Text
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Pool, best, rerank
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from harness.benchmark.acceptance_record import CeilingText, Cell
from harness.pairs import Prompt


class PerfectDrafter(Drafter):
    """EAGLE-2's drafter whose head is the target: values are the probabilities that nodes are accepted.

    Its trees need a target pass for every layer, so that it shows how much a head could bring and is no way to decode.

    Args:
        target: the target that verifies the drafts.
        cell: the size of the trees.
    """

    def __init__(self, target: Target, cell: Cell) -> None:
        self.target, self.cell = target, cell

    @torch.inference_mode()
    def propose(self, sequences: Sequence[Text]) -> list[DraftTree]:
        growing = [GrowingTree(sequence, min(sequence.max_depth, self.cell.depth), self.cell.k) for sequence in sequences]
        for _ in range(max(one.depth for one in growing)):
            # What the passes write is scratch, and overwritten by the pass that verifies.
            outputs = self.target.verify([sequence.cache for sequence in sequences], [one.expanded for one in growing])
            for one, output in zip(growing, outputs, strict=True):
                one.grow(output.logits)
        return [one.tree(self.cell.m) for one in growing]


class GrowingTree:
    """The tree of one sequence while its layers are expanded.

    Attributes:
        expanded: the root and all nodes that have been chosen for expansion.
    """

    def __init__(self, sequence: Text, depth: int, k: int) -> None:
        self.sequence, self.depth, self.k = sequence, depth, k
        self.layers = list[Pool]()
        self.expanded = DraftTree.root_only(sequence.tokens[-1])
        self.places = [-1]  # index in the pool of every expanded node; of the root -1
        self.newest = 1  # number of nodes that were expanded last

    def grow(self, logits: torch.Tensor) -> None:
        """Add the k likeliest children of each node that was expanded last, and choose k of them for the next layer.

        Args:
            logits: the target's logits at the expanded nodes, [n, V].
        """
        if len(self.layers) >= self.depth:
            return
        tree, params = self.expanded, self.sequence.params
        p = target_distribution(logits, tree, self.sequence.tokens, params)[-self.newest :].cpu()
        top, tokens = p.log().topk(self.k, dim=-1)
        parents = torch.tensor(self.places[-self.newest :])[:, None].expand(tokens.shape)
        values = tree.values[-self.newest :, None] + top
        before = sum(len(layer.tokens) for layer in self.layers)
        layer = Pool(tokens.flatten(), parents.flatten(), values.flatten())
        self.layers.append(layer)
        beam = best(layer.values, self.k)
        nodes = beam.div(self.k, rounding_mode="floor") + len(tree) - self.newest  # their parents, among the expanded nodes
        self.expanded = DraftTree(
            torch.cat([tree.tokens, layer.tokens[beam]]),
            torch.cat([tree.parents, nodes]),
            torch.cat([tree.values, layer.values[beam]]),
        )
        self.places += (beam + before).tolist()
        self.newest = len(beam)

    def tree(self, m: int) -> DraftTree:
        """The m nodes of highest value."""
        root = self.sequence.tokens[-1]
        return rerank(root, Pool.join(self.layers), m) if self.layers else DraftTree.root_only(root)


def ceiling(
    target: Target, cell: Cell, prompts: Sequence[Prompt], params: SamplingParams, seeds: Sequence[int]
) -> Iterator[CeilingText]:
    """Decode prompts together with the perfect head: the target's own texts, in as few passes as trees of this size allow."""
    decoder = Decoder(target, PerfectDrafter(target, cell), walk)
    texts = decoder.generate_batch([prompt.tokens for prompt in prompts], [params] * len(prompts), list(map(KeyedCoins, seeds)))
    for prompt, text in zip(prompts, texts, strict=True):
        yield CeilingText(temperature=params.temperature, prompt=prompt.id, tokens=len(text.tokens), passes=len(text.blocks) - 1)
