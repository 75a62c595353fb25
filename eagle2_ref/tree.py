"""The draft tree: what a drafter proposes and a target pass verifies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

ROOT = 0


@dataclass(frozen=True)
class Tree:
    """Proposed continuations of the root, which is the newest emitted token and node 0.

    tokens      [m + 1]  token ids
    parents     [m + 1]  index of each node's parent, always smaller than its own; the root's is -1

    Everything else is derived. Proposed siblings carry different tokens; a rule relies on it. What a rule may make of a tree
    hangs on how its nodes came about: see DraftTree and SampledTree, of which neither is the other.
    """

    tokens: Tensor
    parents: Tensor

    @property
    def proposals(self) -> Tree:
        """The nodes that a rule may accept: all of them, unless a drafter has nodes of its own scored (lookahead.py)."""
        return self

    def __len__(self) -> int:
        """Number of nodes, the root included: m + 1."""
        return len(self._tokens)

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
        """Distance of each node from the root; the position of a node is the root's position plus its depth."""
        depths = [0]
        for parent in self._parents[1:]:
            depths.append(depths[parent] + 1)
        return depths

    def token(self, node: int) -> int:
        return self._tokens[node]

    def parent(self, node: int) -> int:
        return self._parents[node]

    def children(self, node: int) -> list[int]:
        """Children of a node, in the order of their indices."""
        return self._children[node]

    def child(self, node: int, token: int) -> int | None:
        """The child of a node that carries a token, if there is one."""
        return next((child for child in self._children[node] if self._tokens[child] == token), None)

    def path(self, node: int) -> list[int]:
        """Nodes from just below the root down to `node`; empty for the root."""
        path: list[int] = []
        while node != ROOT:
            path.append(node)
            node = self._parents[node]
        return path[::-1]

    def ancestors(self) -> Tensor:
        """Boolean [m + 1, m + 1]: row i is true at node i and at every node between i and the root.

        The attention mask among tree nodes: a node sees its own path and nothing else.
        """
        mask = np.eye(len(self), dtype=bool)  # a tensor's rows cost ten times as much to reach one by one
        for node, parent in enumerate(self._parents[1:], start=1):
            mask[node] |= mask[parent]
        return torch.from_numpy(mask)


@dataclass(frozen=True)
class DraftTree(Tree):
    """A tree whose nodes were chosen, by whatever looks only at the past: each is a proposal of probability one.

    values [m + 1]: log of the product of confidences from the root (EAGLE-2, section 4.1); 0 at the root. To leave nodes out,
    by value or by depth, is one more choice: the law of the text does not change with it.
    """

    values: Tensor

    @classmethod
    def of(cls, tokens: list[int], parents: list[int], values: list[float] | None = None) -> DraftTree:
        """A tree from plain lists; without values every confidence counts as 1."""
        return cls(torch.tensor(tokens), torch.tensor(parents), torch.tensor(values or [0.0] * len(tokens)))

    @classmethod
    def root_only(cls, root: int) -> DraftTree:
        """The root alone: to verify it is to take one step of ordinary decoding."""
        return cls.of([root], [-1])

    def truncate(self, depth: int) -> DraftTree:
        """The tree without the nodes below a depth."""
        kept = [node for node, d in enumerate(self.depths) if d <= depth]
        if len(kept) == len(self):
            return self
        renumbered = {old: new for new, old in enumerate(kept)}
        parents = [renumbered.get(self._parents[node], -1) for node in kept]
        return DraftTree(self.tokens[kept], torch.tensor(parents), self.values[kept])


@dataclass(frozen=True)
class SampledTree(Tree):
    """A tree whose nodes were drawn: the children of node i, in order, from row i of q [m + 1, V], none of them twice.

    A later sibling is a draw from q without the earlier ones, renormalised (EAGLE, arXiv 2401.15077, section 3.3). There are no
    values here, and nothing is ever left out: a draw that is dropped for what it turned out to be is no draw from q any more.
    """

    q: Tensor

    @classmethod
    def root_only(cls, root: int) -> SampledTree:
        """The root alone: nothing was drawn."""
        return cls(torch.tensor([root]), torch.tensor([-1]), torch.zeros(1, 0))
