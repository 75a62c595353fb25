"""Static trees: shapes that are fixed before anything is drafted."""

from __future__ import annotations

from collections.abc import Sequence

Choice = tuple[int, ...]
"""Path from the root to a node as child indices, e.g. (0, 2): the third child of the root's first child."""


def choices(published: str) -> list[Choice]:
    """A tree in the notation of published lists: "0 1 00 01" has two children of the root, and two of the first of them."""
    return [tuple(map(int, word)) for word in published.split()]


def prune(tree: Sequence[Choice], k: int, depth: int, m: int) -> list[Choice]:
    """Keep the first k children of every node, the first `depth` layers, and of these the first m nodes of the list.

    In the list, and therefore in any pruned one, parents come before their children.
    """
    return [choice for choice in tree if len(choice) <= depth and max(choice) < k][:m]
