"""Static trees: places that are there before anything is drafted."""

from __future__ import annotations

from collections.abc import Sequence

Slot = tuple[int, ...]
"""Where a node is: the way to it from the root, at each step the how-manieth child. The root's is empty."""


def slots(published: str) -> list[Slot]:
    """A tree as papers list it: "0 1 00 01" are two children of the root, and two of the first of them."""
    return [tuple(map(int, word)) for word in published.split()]


def cut(tree: Sequence[Slot], k: int, depth: int, m: int) -> list[Slot]:
    """Of every node the first k children, of these `depth` layers, of these the first m nodes in the order of the list.

    Parents stand before their children in it, and so they do in any part that is cut like this.
    """
    return [slot for slot in tree if len(slot) <= depth and max(slot) < k][:m]
