"""EAGLE-2's drafter: trees equal a computation without a cache, and leave the head's cache unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.eagle_base import EagleBase
from eagle2_ref.drafters.eagle_head import EagleHead
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, paths

BUDGETS = [(1, 1, 1), (1, 5, 5), (4, 1, 3), (2, 3, 10), (3, 4, 5), (3, 4, 30), (5, 3, 17), (64, 2, 40)]
TEXT = tiny.tokens(40)
Path = tuple[int, ...]


def drafter(k: int, depth: int, m: int, head: EagleHead | None = None, kind: type[Eagle2] = Eagle2) -> Eagle2:
    weights = torch.randn(64, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return kind(head or tiny.head(), lambda features: features @ weights.to(features).T, Budget(k, depth, m))


def features(n: int) -> Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def drafts(drafter: Eagle2 | OneSequence, pieces: list[int], depth: int = 99) -> Iterator[tuple[DraftTree, int]]:
    """Observe a text in pieces, and draft after each: the tree, and the number of observed features."""
    known, end = features(40), 0
    one = drafter if isinstance(drafter, OneSequence) else OneSequence(drafter, TEXT[:1])
    for n in pieces:
        one.observe(TEXT[end + 1 : end + n + 1], known[end : end + n])
        end += n
        yield one.propose(depth), end


def values(tree: DraftTree) -> dict[Path, float]:
    """The values of the nodes below the root, by the tokens on their paths."""
    return {path: float(tree.values[node]) for path, node in paths(tree).items()}


@torch.inference_mode()
def reference_logits(drafter: EagleBase, n: int, path: Sequence[int]) -> Tensor:
    """The head's logits [V] after a path on the first n features: one pass over everything, no cache, no tree mask."""
    tokens, known = torch.tensor([*TEXT[1 : n + 1], *path]), features(40)[:n]
    for i in range(n, n + len(path) + 1):
        known = torch.cat([known, drafter.head(tokens[None, :i], known[None], torch.arange(i))[0, -1:]])
    return drafter.lm_head(known[-1])


def candidate_layers(one: Eagle2, n: int, by_value: bool = True) -> list[dict[Path, tuple[float, float]]]:
    """The candidates of each layer: confidence and value of each path, as logarithms. The k best by one or the other are
    expanded; the head runs on every path separately."""
    layers: list[dict[Path, tuple[float, float]]] = []
    beam: dict[Path, tuple[float, float]] = {(): (0.0, 0.0)}
    for _ in range(one.budget.depth):
        layer = dict[Path, tuple[float, float]]()
        for path, (_, value) in beam.items():
            confidences, tokens = reference_logits(one, n, path).log_softmax(-1).topk(one.budget.k)
            layer |= {(*path, x): (c, value + c) for c, x in zip(confidences.tolist(), tokens.tolist(), strict=True)}
        beam = dict(sorted(layer.items(), key=lambda entry: -entry[1][by_value])[: one.budget.k])
        layers.append(layer)
    return layers


@pytest.mark.parametrize(("k", "depth", "m"), BUDGETS)
def test_trees_equal_an_expansion_without_a_cache(k: int, depth: int, m: int) -> None:
    """After a prompt, and after accepted blocks of 1 and 4 tokens: paths and values of expansion and reranking."""
    drafting = drafter(k, depth, m)
    for tree, n in drafts(drafting, [9, 1, 4]):
        assert tree.token(0) == TEXT[n] and len(tree) == m + 1
        pool = {path: value for layer in candidate_layers(drafting, n) for path, (_, value) in layer.items()}
        assert values(tree) == pytest.approx(dict(sorted(pool.items(), key=lambda entry: -entry[1])[:m]), abs=1e-9)


@pytest.mark.parametrize("max_depth", range(5))
def test_trees_are_not_deeper_than_max_depth(max_depth: int) -> None:
    """The root alone costs no pass."""
    drafting = OneSequence(drafter(3, 4, 30), TEXT[:1])
    ((tree, _),) = drafts(drafting, [7], depth=max_depth)
    assert max(tree.depths) == max_depth and len(tree) - 1 == (min(30, Budget(3, max_depth, 1).pool) if max_depth else 0)
    assert drafting.state.passes == max_depth


def test_observations_are_kept_until_the_next_tree() -> None:
    patient, straight = (OneSequence(drafter(3, 4, 30), TEXT[:1]) for _ in range(2))
    list(drafts(patient, [7], depth=0))
    ((expected, _),) = drafts(straight, [7])
    tree = patient.propose(4)
    assert torch.equal(tree.tokens, expected.tokens) and torch.equal(tree.values, expected.values)


def test_the_expansion_leaves_the_cache_unchanged() -> None:
    """It holds the observed text, computed from the target's features."""
    drafting = OneSequence(drafter(3, 4, 30), TEXT[:1])
    for _, n in drafts(drafting, [6, 1, 3, 2]):
        assert drafting.state.cache.length == n
    plain = OneSequence(drafter(3, 1, 3), TEXT[:1])
    list(drafts(plain, [12]))
    assert (drafting.state.cache.entries() - plain.state.cache.entries()).abs().max() <= 1e-12


def test_the_cache_grows_with_the_text() -> None:
    """300 entries: the tree is the same as with a cache that was large enough."""
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_drafts(dtype: torch.dtype) -> None:
    """Values are in float32 or wider."""
    drafting = OneSequence(drafter(3, 3, 12, tiny.head().to(dtype)), TEXT[:1])
    drafting.observe(TEXT[1:6], features(5).to(dtype))
    tree = drafting.propose(9)
    assert len(tree) == 13 and tree.values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert tree.tokens.device.type == "cpu" and bool((tree.values <= 0).all())
    first = tree.values[[node for node, depth in enumerate(tree.depths) if depth == 1]]
    assert dtype in (torch.float32, torch.float64) or (first.to(dtype).to(first) != first).any()  # not rounded to 16 bits
