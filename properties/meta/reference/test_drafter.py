"""The drafter of EAGLE-2: its trees against an expansion by hand, its budget, and the cache that it leaves as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.eagle_head import EagleHead
from eagle2_ref.errors import BadInput
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence

BUDGETS = [(1, 1, 1), (1, 5, 5), (4, 1, 3), (2, 3, 10), (3, 4, 5), (3, 4, 30), (5, 3, 17), (64, 2, 40)]
TEXT = tiny.tokens(40)


def drafter(k: int, depth: int, m: int, head: EagleHead | None = None) -> Eagle2:
    weights = torch.randn(64, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Eagle2(head or tiny.head(), lambda features: features @ weights.to(features).T, Budget(k, depth, m))


def features(n: int) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def watched(drafter: Eagle2 | OneSequence, pieces: list[int], depth: int = 99) -> Iterator[tuple[DraftTree, int]]:
    """Feed a text in pieces, and draft after each: the tree, and how many features were known."""
    known, end = features(40), 0
    one = drafter if isinstance(drafter, OneSequence) else OneSequence(drafter, TEXT[:1])
    for n in pieces:
        one.observe(TEXT[end + 1 : end + n + 1], known[end : end + n])
        end += n
        yield one.propose(depth), end


@torch.inference_mode()
def by_hand(drafter: Eagle2, n: int, depth: int) -> dict[tuple[int, ...], float]:
    """The paths that EAGLE-2 keeps, with their values: layer by layer, the head run along every path by itself."""
    k, m = drafter.budget.k, drafter.budget.m
    layer: dict[tuple[int, ...], float] = {(): 0.0}
    pool: dict[tuple[int, ...], float] = {}
    for _ in range(min(depth, drafter.budget.depth)):
        beam = sorted(layer, key=lambda path: -layer[path])[:k]
        layer = {}
        for path in beam:
            confidences, tokens = _after(drafter, n, path).topk(k)
            value = pool.get(path, 0.0)
            layer |= {(*path, x): value + c for c, x in zip(confidences.tolist(), tokens.tolist(), strict=True)}
        pool |= layer
    return {path: pool[path] for path in sorted(pool, key=lambda path: -pool[path])[:m]}


def _after(drafter: Eagle2, n: int, path: tuple[int, ...]) -> Tensor:
    """log q [V] after a path: target features while there are any, then the head's own; no cache, no tree mask."""
    tokens, known = torch.tensor([*TEXT[1 : n + 1], *path]), features(40)[:n]
    for i in range(n, n + len(path) + 1):
        known = torch.cat([known, drafter.head(tokens[None, :i], known[None], torch.arange(i))[0, -1:]])
    return drafter.lm_head(known[-1:])[0].log_softmax(-1)


@pytest.mark.parametrize(("k", "depth", "m"), BUDGETS)
def test_trees_are_those_of_an_expansion_by_hand(k: int, depth: int, m: int) -> None:
    """After a prompt, and after accepted blocks of 1 and 4 tokens: the paths and values of the paper's two phases."""
    drafting = drafter(k, depth, m)
    for tree, n in watched(drafting, [9, 1, 4]):
        ours = {tuple(tree.token(i) for i in tree.path(node)): float(tree.values[node]) for node in range(1, len(tree))}
        assert tree.token(0) == TEXT[n]
        assert ours == pytest.approx(by_hand(drafting, n, depth), abs=1e-9)


@pytest.mark.parametrize(("k", "depth", "m"), BUDGETS)
def test_trees_keep_to_their_budget(k: int, depth: int, m: int) -> None:
    """m nodes, at most `depth` deep, distinct siblings of which no node has more than k, values that do not rise."""
    for tree, _ in watched(drafter(k, depth, m), [5, 2, 3]):
        assert len(tree) == m + 1 and max(tree.depths) <= depth
        parents, values = tree.parents.tolist(), tree.values.tolist()
        assert len(set(zip(parents, tree.tokens.tolist(), strict=True))) == m + 1
        assert max(parents.count(node) for node in range(len(tree))) <= k
        assert all(values[node] <= values[parents[node]] for node in range(1, len(tree)))


@pytest.mark.parametrize("room", range(5))
def test_where_the_text_must_end_soon_the_tree_is_shallower(room: int) -> None:
    """With room for a path of n tokens the tree is n deep; for n = 0 it is bare, and costs no pass."""
    drafting = OneSequence(drafter(3, 4, 30), TEXT[:1])
    ((tree, _),) = watched(drafting, [7], depth=room)
    assert max(tree.depths) == room and len(tree) - 1 == (min(30, Budget(3, room, 1).pool) if room else 0)
    assert drafting.state.passes == room


def test_what_was_observed_waits_for_the_next_tree() -> None:
    """Where no tree was asked for, or a bare one, nothing of the text is lost."""
    patient, straight = (OneSequence(drafter(3, 4, 30), TEXT[:1]) for _ in range(2))
    list(watched(patient, [7], depth=0))
    ((expected, _),) = watched(straight, [7])
    tree = patient.propose(4)
    assert torch.equal(tree.tokens, expected.tokens) and torch.equal(tree.values, expected.values)


def test_the_cache_is_left_as_it_was_found() -> None:
    """It holds the observed text, computed from the target's features, whatever was expanded in between."""
    drafting = OneSequence(drafter(3, 4, 30), TEXT[:1])
    for _, n in watched(drafting, [6, 1, 3, 2]):
        assert drafting.state.cache.length == n
    plain = OneSequence(drafter(3, 1, 3), TEXT[:1])
    list(watched(plain, [12]))
    assert (drafting.state.cache.entries() - plain.state.cache.entries()).abs().max() <= 1e-12


def test_passes_are_counted_and_forgotten() -> None:
    """One pass a layer; the next text is drafted as by a new drafter."""
    drafting = drafter(3, 4, 30)
    texts = [OneSequence(drafting, TEXT[:1]) for _ in range(2)]
    first, second = ([tree.tokens.tolist() for tree, _ in watched(one, [6, 3])] for one in texts)
    assert first == second and [one.state.passes for one in texts] == [8, 8]


def test_a_long_text_outgrows_the_first_cache() -> None:
    """The cache grows while a tree is expanded over 300 entries of text, and the tree is the same as with room to spare."""
    text = tiny.tokens(301)
    known = torch.randn(300, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    trees = []
    for pieces in ([300], [250, 5, 1, 44]):
        drafting, end = OneSequence(drafter(3, 4, 20), text[:1]), 0
        for n in pieces:
            drafting.observe(text[end + 1 : end + n + 1], known[end : end + n])
            end += n
            tree = drafting.propose(4)
        trees.append(tree)
    assert torch.equal(trees[0].tokens, trees[1].tokens) and torch.equal(trees[0].parents, trees[1].parents)


def test_a_saturated_head_drafts_a_connected_tree() -> None:
    """Confidences that are exactly one, level after level: the chain of them is kept whole, and no node without its parent."""

    def sure(features: Tensor) -> Tensor:
        return torch.tensor([1e4] + [0.0] * 63).expand(*features.shape[:-1], -1)

    drafting = OneSequence(Eagle2(tiny.head().float(), sure, Budget(2, 5, 9)), TEXT[:1])
    drafting.observe(TEXT[1:4], features(3).float())
    tree = drafting.propose(9)
    assert max(tree.depths) == 5 and tree.values.tolist().count(0.0) == 6
    assert all(0 <= parent < node for node, parent in enumerate(tree.parents.tolist()[1:], start=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_drafts(dtype: torch.dtype) -> None:
    """Values are at least float32, and trees keep their budget."""
    drafting = OneSequence(drafter(3, 3, 12, tiny.head().to(dtype)), TEXT[:1])
    drafting.observe(TEXT[1:6], features(5).to(dtype))
    tree = drafting.propose(9)
    assert len(tree) == 13 and tree.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert tree.tokens.device.type == "cpu" and bool((tree.values <= 0).all())
    first = tree.values[[node for node, depth in enumerate(tree.depths) if depth == 1]]
    assert dtype in (torch.float32, torch.float64) or (first.to(dtype).to(first) != first).any()  # not rounded to 16 bits


def test_a_damaged_head_is_told() -> None:
    """NaN in its weights is an error that says what to try, not a tree of whatever sorts first."""
    damaged = tiny.head()
    with torch.no_grad():
        damaged.fc.weight[0, 0] = float("nan")
    drafting = OneSequence(drafter(3, 3, 12, damaged), TEXT[:1])
    drafting.observe(TEXT[1:6], features(5))
    with pytest.raises(BadInput, match="the head's confidences are not numbers"):
        drafting.propose(9)


def test_a_budget_beyond_the_vocabulary_is_refused_at_once() -> None:
    """Before any text is decoded."""
    with pytest.raises(BadInput, match="k is 65, but the vocabulary has 64 tokens"):
        drafter(65, 1, 1)
