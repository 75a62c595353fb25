"""Trees: everything derived agrees with the parents. Reranking keeps the best nodes, and a connected tree."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from eagle2_ref.drafters.eagle2 import Budget, Pool, best, rerank
from eagle2_ref.errors import BadInput
from eagle2_ref.tree import ROOT, DraftTree
from properties.strategies import trees


def up(tree: DraftTree, node: int) -> list[int]:
    """The node, its parent, and so on up to the root."""
    parents, climbed = tree.parents.tolist(), [node]
    while climbed[-1] != ROOT:
        climbed.append(parents[climbed[-1]])
    return climbed


@given(trees(5, most=12))
@example(DraftTree.root_only(4))
def test_derived_values_agree_with_the_parents(tree: DraftTree) -> None:
    """Ancestors, depths, paths, children and tokens."""
    mask = tree.ancestors()
    assert mask.dtype == torch.bool and mask.shape == (len(tree), len(tree))
    for node in range(len(tree)):
        climbed = up(tree, node)
        assert mask[node].nonzero()[:, 0].tolist() == sorted(climbed)
        assert tree.depths[node] == len(climbed) - 1
        assert tree.path(node) == climbed[-2::-1] if node else tree.path(node) == []
        assert tree.children(node) == [other for other in range(1, len(tree)) if tree.parent(other) == node]
        assert (tree.token(node), tree.parent(node)) == (int(tree.tokens[node]), int(tree.parents[node]))
        for token in range(5):
            here = [child for child in tree.children(node) if tree.token(child) == token]
            assert tree.child(node, token) == (here[0] if here else None)


@given(trees(5, most=12), st.integers(0, 6))
@example(DraftTree.of([0, 1, 2, 3, 4, 1], [-1, 0, 1, 2, 0, 4]), 2)  # node 3 goes, and what follows moves up
def test_truncate_keeps_the_nodes_up_to_a_depth(tree: DraftTree, depth: int) -> None:
    """With their paths, order and values."""

    def summary(tree: DraftTree, nodes: range) -> list[tuple[list[int], float]]:
        return [([tree.token(i) for i in (ROOT, *tree.path(node))], float(tree.values[node])) for node in nodes]

    valued = DraftTree(tree.tokens, tree.parents, -torch.arange(len(tree), dtype=torch.float32))
    cut = valued.truncate(depth)
    assert all(parent < node for node, parent in enumerate(cut.parents.tolist()))
    everything = summary(valued, range(len(valued)))
    assert summary(cut, range(len(cut))) == [row for row, d in zip(everything, valued.depths, strict=True) if d <= depth]
    assert cut.truncate(depth) is cut


# --- pools and reranking ---------------------------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Candidates of an expansion. Confidences come from few values, so that there are ties, zeros and deep drops."""
    k, depth = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    confidences = st.sampled_from([0.0, 0.0, -0.5, -0.5, -1e-8, -1.0, -30.0, float("-inf")])
    layers = [_layer([draw(confidences) for _ in range(k)], [0.0], [-1], k)]
    before = 0
    for _ in range(1, depth):
        beam = best(layers[-1].values, k)
        above = layers[-1].values[beam].tolist()
        parents = (before + beam).tolist()
        before += len(layers[-1].values)
        layers.append(_layer([draw(confidences) for _ in range(k * len(beam))], above, parents, k))
    return Pool.join(layers)


def _layer(confidences: list[float], above: list[float], parents: list[int], k: int) -> Pool:
    """In float32, where a small confidence can be lost in a large value and make a tie."""
    values = torch.tensor(above).repeat_interleave(k) + torch.tensor(confidences)
    return Pool(torch.arange(k).repeat(len(above)), torch.tensor(parents).repeat_interleave(k), values)


@given(pools(), st.data())
def test_reranking_keeps_the_best_nodes_and_their_parents(pool: Pool, data: st.DataObject) -> None:
    """For any confidences: m nodes in the order of the pool, different siblings, and none left out with a higher value."""
    m = data.draw(st.integers(1, len(pool.values)))
    tree = rerank(7, pool, m)
    assert len(tree) == m + 1 and tree.token(ROOT) == 7 and tree.parent(ROOT) == -1 and tree.values[ROOT] == 0
    parents = tree.parents.tolist()
    assert all(0 <= parent < node for node, parent in enumerate(parents[1:], start=1))
    assert len(set(zip(parents, tree.tokens.tolist(), strict=True))) == m + 1
    kept = best(pool.values, m).tolist()
    left_out = sorted(set(range(len(pool.values))) - set(kept))
    assert tree.values[1:].tolist() == pool.values[kept].tolist() and kept == sorted(kept)
    assert all(pool.values[i] <= pool.values[kept].min() for i in left_out)
    for node, candidate in enumerate(kept, start=1):
        above, climbed = int(pool.parents[candidate]), tree.parent(node)
        assert climbed == (0 if above < 0 else 1 + kept.index(above)) and tree.token(node) == int(pool.tokens[candidate])


@given(pools())
def test_nodes_kept_for_m_are_kept_for_m_plus_one(pool: Pool) -> None:
    kept = [set(best(pool.values, m).tolist()) for m in range(1, len(pool.values) + 1)]
    assert all(fewer < more for fewer, more in itertools.pairwise(kept))


@pytest.mark.parametrize("m", range(1, 40))
def test_equal_values_give_a_connected_tree(m: int) -> None:
    """The shallower and then the earlier nodes are kept."""
    layers = [_layer([0.0] * 3, [0.0], [-1], 3)]
    for start in (0, 3, 12, 21):
        layers.append(_layer([0.0] * 9, [0.0] * 3, [start, start + 1, start + 2], 3))
    tree = rerank(0, Pool.join(layers), m)
    assert tree.depths == sorted(tree.depths) and best(torch.zeros(39), m).tolist() == list(range(m))


def test_best_is_stable_for_every_length() -> None:
    """Sort algorithms change with the length."""
    for n in (5, 17, 300, 5000):
        values = -(torch.arange(n) % 3).float()
        for m in (1, n // 3, n // 2, n):
            by_hand = sorted(sorted(range(n), key=lambda i: (-float(values[i]), i))[:m])
            assert best(values, m).tolist() == by_hand


# --- budgets -----------------------------------------------------------------------------------------------------------


def test_the_pool_has_k_candidates_and_k_squared_in_further_layers() -> None:
    """EAGLE-2, section 4.1."""
    assert [Budget(k, depth, 1).pool for k, depth in ((8, 6), (10, 5), (1, 1), (1, 9), (3, 1))] == [328, 410, 1, 9, 3]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(2, 2, 1, head_temperature=0.0), "head_temperature must be above 0, not 0.0"),
        (Budget(2, 2, 1, node=1.5), "node must be in [0, 1], not 1.5"),
        (Budget(2, 2, 1, layer=-0.1), "layer must be 0 or more, not -0.1"),
        (Budget(5, 2, 1), "k is 5, but the vocabulary has 4 tokens\n  give a k of at most 4"),
        (
            Budget(2, 2, 7),
            "m is 7, but k = 2 and depth = 2 give a pool of 6 candidates\n  give an m of at most 6, or a larger k or depth",
        ),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_met_is_refused(budget: Budget, message: str) -> None:
    """The error has the number and its range. Numbers that are not whole are those of test_methods."""
    with pytest.raises(BadInput) as error:
        budget.check(vocab_size=4)
    assert str(error.value) == message
    Budget(4, 2, 20).check(vocab_size=4)
