"""EAGLE's static tree: its shape, its distributions against a computation without a cache, and the head's cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.drafters.eagle import PUBLISHED, Eagle, EagleDrafter
from eagle2_ref.drafters.tree_choices import Choice, prune
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, SampledTree, Tree
from harness.enumeration.coins import executions
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence
from properties.meta.reference.test_drafter import TEXT, features, reference_logits

PARAMS: dict[str, SamplingParams] = {
    "plain": SamplingParams(),
    "cool": SamplingParams(temperature=0.6, top_k=20),
    "looking back": SamplingParams(temperature=0.8, repetition_penalty=1.5),
}
GREEDY = SamplingParams(temperature=0.0)
WHOLE = Eagle()
WEIGHTS = torch.randn(64, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 5  # for laws that leave choices


def drafter(method: Eagle = WHOLE, vocab_size: int = 64) -> EagleDrafter:
    return EagleDrafter(tiny.head(vocab_size), lambda features: features @ WEIGHTS[:vocab_size].to(features).T, method)


def observed(drafter: EagleDrafter, params: SamplingParams, coins: Coins, pieces: Sequence[int] = (9,)) -> OneSequence:
    """A sequence that has observed TEXT in pieces, with a tree after each piece but the last."""
    one, end = OneSequence(drafter, TEXT[:1], params, coins), 0
    for i, n in enumerate(pieces):
        one.observe(TEXT[end + 1 : end + n + 1], features(40)[end : end + n])
        end += n
        if i + 1 < len(pieces):
            one.propose(9)
    return one


def places(tree: Tree) -> list[Choice]:
    """The child indices of every node."""
    found: list[Choice] = [()]
    for node in range(1, len(tree)):
        parent = tree.parent(node)
        found.append((*found[parent], tree.children(parent).index(node)))
    return found


@torch.inference_mode()
def reference_q(drafter: EagleDrafter | Any, n: int, path: Sequence[int], params: SamplingParams) -> Tensor:
    """The head's distribution [V] after a path on the first n features."""
    history = torch.tensor([[*TEXT[: n + 1], *path]])
    law: Tensor = params.process(history, reference_logits(drafter, n, path)[None]).softmax(-1)[0]
    return law


def test_the_published_tree_is_sound() -> None:
    """25 nodes, parents before children, and no child without its earlier siblings."""
    assert Counter(map(len, PUBLISHED)) == {1: 4, 2: 8, 3: 8, 4: 3, 5: 2}
    assert Eagle() == Eagle(k=4, depth=5, m=25) and prune(PUBLISHED, 4, 5, 25) == PUBLISHED
    children = Counter("".join(map(str, choice[:-1])) for choice in PUBLISHED)
    assert children == {"": 4, "0": 3, "1": 2, "2": 2, "3": 1, "00": 3, "01": 2, "02": 2, "10": 1, "000": 3, "0000": 2}
    for i, choice in enumerate(PUBLISHED):
        assert choice[:-1] in [(), *PUBLISHED[:i]]
        assert choice[-1] == 0 or (*choice[:-1], choice[-1] - 1) in PUBLISHED[:i]


@pytest.mark.parametrize(
    ("k", "depth", "m", "left"),
    [
        (1, 5, 25, ["0", "00", "000", "0000", "00000"]),
        (2, 2, 25, ["0", "1", "00", "01", "10", "11"]),
        (4, 1, 3, ["0", "1", "2"]),
        (2, 3, 4, ["0", "1", "00", "01"]),
    ],
)
def test_options_prune_the_published_tree(k: int, depth: int, m: int, left: list[str]) -> None:
    assert ["".join(map(str, choice)) for choice in prune(PUBLISHED, k, depth, m)] == left


@pytest.mark.parametrize("pieces", [(9,), (5, 1, 4), (3, 6)], ids=str)
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_q_is_the_heads_distribution_after_every_path(params: SamplingParams, pieces: tuple[int, ...]) -> None:
    """At every node with children. All places are filled, with different tokens of positive probability."""
    one = observed(drafter(), params, SeededCoins(4), pieces)
    tree = one.propose(9)
    assert isinstance(tree, SampledTree) and tree.token(ROOT) == TEXT[sum(pieces)]
    assert places(tree)[1:] == PUBLISHED
    for node in range(len(tree)):
        tokens = [tree.token(child) for child in tree.children(node)]
        if tokens:
            path = [tree.token(i) for i in tree.path(node)]
            assert (tree.q[node] - reference_q(one.drafter, sum(pieces), path, params)).abs().max() <= 1e-9
        assert len(set(tokens)) == len(tokens) and all(tree.q[node, token] > 0 for token in tokens)


@pytest.mark.parametrize("penalty", [None, 1.5])
def test_at_temperature_0_children_are_the_most_likely_tokens(penalty: float | None) -> None:
    """In order; values are the products of their confidences."""
    params = replace(GREEDY, repetition_penalty=penalty)
    one = observed(drafter(), params, SeededCoins(0))
    tree = one.propose(9)
    assert isinstance(tree, DraftTree) and places(tree)[1:] == PUBLISHED
    for node in range(len(tree)):
        if children := tree.children(node):
            law = reference_q(one.drafter, 9, [tree.token(i) for i in tree.path(node)], params)
            assert [tree.token(child) for child in children] == law.topk(len(children)).indices.tolist()
            for child in children:
                due = float(tree.values[node]) + float(law[tree.token(child)].log())
                assert float(tree.values[child]) == pytest.approx(due, rel=1e-6)


def test_children_are_sampled_without_replacement() -> None:
    """Over all random numbers: q(a) q(b) / (1 - q(a)) for siblings a and b, and q after each of them for its child."""
    params, total = SamplingParams(top_k=3), 0.0

    def propose(coins: Coins) -> DraftTree | SampledTree:
        tree: DraftTree | SampledTree = observed(drafter(Eagle(2, 2, 3), 6), params, coins).propose(9)
        return tree

    def of_six(tokens: Sequence[int]) -> list[int]:
        return [token % 6 for token in tokens]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"{__name__}.TEXT", of_six(TEXT))
        for tree, weight in executions(propose):
            assert isinstance(tree, SampledTree)
            a, b, c = tree.tokens[1:].tolist()
            q, behind, rest = tree.q[0], tree.q[1], torch.arange(6) != a
            assert weight == pytest.approx(float(q[a] * q[b] / q[rest].sum() * behind[c]))
            total += weight
    assert total == pytest.approx(1)


def test_a_distribution_with_few_tokens_leaves_places_empty() -> None:
    tree = observed(drafter(), SamplingParams(top_k=2), SeededCoins(1)).propose(9)
    assert places(tree)[1:] == [choice for choice in PUBLISHED if max(choice) < 2]


@pytest.mark.parametrize("params", [SamplingParams(), GREEDY])
@pytest.mark.parametrize("max_depth", range(6))
def test_trees_are_not_deeper_than_max_depth(max_depth: int, params: SamplingParams) -> None:
    """One pass for each layer, and none for the root alone."""
    one = observed(drafter(), params, SeededCoins(0))
    tree = one.propose(max_depth)
    assert places(tree)[1:] == [choice for choice in PUBLISHED if len(choice) <= max_depth]
    assert one.state.passes == max_depth and one.state.cache.length == (9 if max_depth else 0)


def test_the_expansion_leaves_the_cache_unchanged() -> None:
    grown, plain = (observed(drafter(Eagle(4, depth, 25)), SamplingParams(), SeededCoins(0), (6, 1, 3, 2)) for depth in (5, 1))
    for one in (grown, plain):
        one.propose(9)
    assert (grown.state.cache.entries() - plain.state.cache.entries()).abs().max() <= 1e-12
