"""EAGLE-2 without value and without reranking: trees equal a computation without a cache, and are connected."""

from __future__ import annotations

import heapq

import pytest
import torch

from eagle2_ref.drafters.ablations import ByConfidence, Expanded
from eagle2_ref.drafters.eagle2 import Eagle2
from properties.meta.reference.test_drafter import Path, candidate_layers, drafter, drafts, values

BUDGETS = [(1, 1, 1), (2, 3, 9), (3, 4, 12), (3, 4, 5), (4, 2, 20)]


def most_confident_first(layers: list[dict[Path, tuple[float, float]]], m: int) -> dict[Path, float]:
    """Keep the most confident candidate whose parent is kept, m times. Returns the values."""
    pool = {path: entry for layer in layers for path, entry in layer.items()}
    below: dict[Path, list[Path]] = {}
    for path in pool:
        below.setdefault(path[:-1], []).append(path)
    heap, taken = [(-pool[path][0], path) for path in below[()]], dict[Path, float]()
    heapq.heapify(heap)
    while heap and len(taken) < m:
        _, path = heapq.heappop(heap)
        taken[path] = pool[path][1]
        for child in below.get(path, []):
            heapq.heappush(heap, (-pool[child][0], child))
    return taken


@pytest.mark.parametrize(("k", "depth", "m"), BUDGETS)
def test_without_value_nodes_are_kept_by_confidence(k: int, depth: int, m: int) -> None:
    """After a prompt, and after accepted blocks. Nodes that tie for the last place may be exchanged."""
    one = drafter(k, depth, m, kind=ByConfidence)
    for tree, n in drafts(one, [9, 1, 4]):
        layers = candidate_layers(one, n, by_value=False)
        ours, due = values(tree), most_confident_first(layers, m)
        pool = {path: entry for layer in layers for path, entry in layer.items()}
        weakest = {path: min(pool[path[: i + 1]][0] for i in range(len(path))) for path in pool}
        least = min(weakest[path] for path in ours)
        sure = {path for path in ours if weakest[path] > least + 1e-9}
        assert sure == {path for path in due if weakest[path] > least + 1e-9}
        assert len(ours) == len(due) == m
        assert ours == pytest.approx({path: pool[path][1] for path in ours}, abs=1e-5)
        assert all(path[:-1] in [(), *ours] for path in ours)


@pytest.mark.parametrize(("k", "depth", "m"), BUDGETS)
def test_without_reranking_the_draft_is_the_expanded_nodes(k: int, depth: int, m: int) -> None:
    """The k nodes of highest value in each layer, the last one included; at most m, from the top."""
    one = drafter(k, depth, m, kind=Expanded)
    for tree, n in drafts(one, [9, 1, 4]):
        layers = [sorted(layer.items(), key=lambda entry: -entry[1][1])[:k] for layer in candidate_layers(one, n, by_value=True)]
        due = {path: value for layer in layers for path, (_, value) in layer}
        ours = values(tree)
        assert len(ours) == min(m, k * depth)
        assert ours == pytest.approx({path: due[path] for path in ours}, abs=1e-5)
        assert all(path[:-1] in [(), *ours] for path in ours)
        deepest = max(map(len, ours))
        assert all(path in ours for path in due if len(path) < deepest)


def test_the_variants_draft_different_trees() -> None:
    trees = [next(drafts(drafter(3, 4, 8, kind=kind), [9]))[0] for kind in (Eagle2, ByConfidence, Expanded)]
    assert len({frozenset(values(tree)) for tree in trees}) == 3
    totals = [sum(torch.tensor(list(values(tree).values())).exp().tolist()) for tree in trees]
    assert totals[0] == max(totals), "by value the most tokens are expected"
