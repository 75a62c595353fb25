"""The draft tree: what a drafter proposes, and what one target pass verifies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

ROOT = 0


@dataclass(frozen=True)
class Tree:
    """Proposed continuations of the root. The root is node 0: the newest token of the text.

    Everything else is derived from the parents, so that nothing can contradict them. Siblings have different tokens; the
    acceptance rules rely on it. What a rule may do with a tree depends on where its tokens come from: see the two subclasses,
    `DraftTree` and `SampledTree`.

    Attributes:
        tokens: token ids, [m + 1].
        parents: index of the parent of each node, [m + 1]. It is smaller than the index of the node; -1 at the root.
    """

    tokens: Tensor
    parents: Tensor

    @property
    def proposals(self) -> Tree:
        """The nodes that a rule may accept: all of them, unless a drafter has nodes of its own scored (lookahead.py)."""
        return self

    def __len__(self) -> int:
        """Number of nodes including the root, m + 1."""
        return len(self._tokens)

    # As lists: to read single elements of a tensor costs ten times as much.
    @cached_property
    def _tokens(self) -> list[int]:
        return [int(token) for token in self.tokens.tolist()]

    @cached_property
    def _parents(self) -> list[int]:
        return [int(parent) for parent in self.parents.tolist()]

    @cached_property
    def _children(self) -> list[list[int]]:
        children: list[list[int]] = [[] for _ in self._parents]
        for node, parent in enumerate(self._parents[1:], start=1):
            children[parent].append(node)
        return children

    @cached_property
    def depths(self) -> list[int]:
        """Distance of each node from the root. The position of a node is the root's position plus its depth."""
        depths = [0]
        for parent in self._parents[1:]:
            depths.append(depths[parent] + 1)
        return depths

    def token(self, node: int) -> int:
        """The token of a node."""
        return self._tokens[node]

    def parent(self, node: int) -> int:
        """The parent of a node, -1 for the root."""
        return self._parents[node]

    def children(self, node: int) -> list[int]:
        """The children of a node, in the order of their indices."""
        return self._children[node]

    def child(self, node: int, token: int) -> int | None:
        """The child of a node that has a token, or None."""
        return next((child for child in self._children[node] if self._tokens[child] == token), None)

    def path(self, node: int) -> list[int]:
        """The nodes from below the root down to a node, which is included; empty for the root."""
        path: list[int] = []
        while node != ROOT:
            path.append(node)
            node = self._parents[node]
        return path[::-1]

    def ancestors(self) -> Tensor:
        """The tree's attention mask, boolean [m + 1, m + 1]: row i is true at node i and at its ancestors."""
        mask = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self._parents[1:], start=1):
            mask[node] |= mask[parent]  # parents come first, so that the row of the parent is complete
        return torch.from_numpy(mask)


@dataclass(frozen=True)
class DraftTree(Tree):
    """A tree of chosen tokens: the drafter's choice depends on the past only, so that each proposal has probability 1.

    To leave nodes out, by value or by depth, is one more choice, and the distribution of the text does not depend on it.

    Attributes:
        values: logarithm of the product of confidences from the root, [m + 1]; 0 at the root (EAGLE-2, section 4.1).
    """

    values: Tensor

    @classmethod
    def of(cls, tokens: list[int], parents: list[int], values: list[float] | None = None) -> DraftTree:
        """A tree from lists. Without values all confidences are 1."""
        return cls(torch.tensor(tokens), torch.tensor(parents), torch.tensor(values or [0.0] * len(tokens)))

    @classmethod
    def root_only(cls, root: int) -> DraftTree:
        """The tree without proposals. To verify it is one step of ordinary decoding."""
        return cls.of([root], [-1])

    def truncate(self, depth: int) -> DraftTree:
        """The tree without the nodes below a depth."""
        nodes = [node for node, d in enumerate(self.depths) if d <= depth]
        if len(nodes) == len(self):
            return self
        renumbered = {old: new for new, old in enumerate(nodes)}
        parents = [renumbered.get(self._parents[node], -1) for node in nodes]
        return DraftTree(self.tokens[nodes], torch.tensor(parents), self.values[nodes])


@dataclass(frozen=True)
class SampledTree(Tree):
    """A tree of sampled tokens: the children of node i are samples without replacement from row i of q.

    A later sibling is a sample from q without the earlier ones, renormalised (EAGLE, arXiv 2401.15077, section 3.3). No node
    may be left out for the token it has: the remaining ones would not be samples from q any more.

    Attributes:
        q: distributions that the children were sampled from, [m + 1, V]; 0 at nodes without children.
    """

    q: Tensor

    @classmethod
    def root_only(cls, root: int) -> SampledTree:
        """The tree without proposals."""
        return cls(torch.tensor([root]), torch.tensor([-1]), torch.zeros(1, 0))
