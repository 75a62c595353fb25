# ruff: noqa: S311  (`random` is under test)
"""Enumeration of whole functions, of acceptance rules that draw for themselves, and of published rules loaded by path."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import Accepted
from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.exact import Law, total_variation
from harness.enumeration.exact_law import enumerate_law, enumerate_rule
from harness.enumeration.induction import rule_deviation
from harness.global_generators import GeneratorUsedError
from harness.implementations.published import PublishedRule, published_rule
from properties.meta.helpers import published
from properties.strategies import trees_with_laws

FILE = Path(published.__file__)
TREE = DraftTree.of([2, 3, 1, 0], [-1, 0, 0, 1])
P = torch.tensor([[0.125, 0.25, 0.125, 0.5], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0.25] * 4], dtype=torch.float64)


def two_tokens() -> tuple[Any, Any]:
    """Two samples that are both read; the distribution of the second depends on the first."""
    first = int(torch.multinomial(P[0], 1))
    return first, int(torch.multinomial(P[3].roll(first), 1))


UNIFORM: Law = {(i,): 1 / 500 for i in range(500)}
TWO: Law = {(i, j): float(P[0, i]) / 4 for i in range(4) for j in range(4)}

# --- whole functions ----------------------------------------------------------------------------------------------------


def test_last_draw_is_not_run_for_each_value() -> None:
    """If the window is known, its distribution is taken where it is drawn; three of its values are run and compared."""
    every, merged = enumerate_law(two_tokens), enumerate_law(two_tokens, window=2)
    assert total_variation(every.law, TWO) <= 1e-15 and total_variation(merged.law, TWO) <= 1e-15
    assert every.executions == 16 + 1 and merged.executions == 4 * 3 + 1  # the first execution is repeated at the end
    wide = enumerate_law(lambda: [int(torch.multinomial(torch.arange(1.0, 501.0), 1))], window=1)
    assert wide.executions == 5 and len(wide.law) == 500 and wide.unfinished == 0


def test_unread_token_costs_one_execution() -> None:
    found = enumerate_law(lambda: torch.multinomial(torch.ones(500), 1).tolist())
    assert found.executions == 2 and total_variation(found.law, UNIFORM) <= 1e-12


def test_last_draw_that_changes_more_is_run_for_each_value() -> None:

    def run() -> tuple[int, int]:
        token = int(torch.multinomial(P[3], 1))
        return (int(random.random() < 0.25), token) if token == 3 else (7, token)

    expected: Law = {(7, 0): 0.25, (7, 1): 0.25, (7, 2): 0.25, (1, 3): 0.0625, (0, 3): 0.1875}
    assert total_variation(enumerate_law(run, window=2).law, expected) <= 1e-15


def test_limit_on_executions_reports_the_unfinished_probability() -> None:
    calls: list[tuple[int, float]] = []
    found = enumerate_law(two_tokens, most=6, progress=lambda n, mass: calls.append((n, mass)))
    assert found.executions == 6 and found.unfinished == pytest.approx(1 - sum(found.law.values()))
    assert [n for n, _ in calls] == list(range(1, 7))
    assert calls[-1][1] == pytest.approx(1 - found.unfinished)


# --- rules that draw for themselves --------------------------------------------------------------------------------


def walk(tree: DraftTree, p: Tensor) -> tuple[list[int], Any]:
    """Sample from the target with torch.multinomial, and follow the tree."""
    path: list[int] = []
    while True:
        node = path[-1] if path else ROOT
        token = torch.multinomial(p[node], 1).item()
        child = next((child for child in tree.children(node) if tree.token(child) == token), None)
        if child is None:
            return path, token
        path.append(child)


def vectorised(tree: DraftTree, p: Tensor, strict: bool = True) -> tuple[list[int], Any]:
    """One uniform number per node, against the cumulative probabilities of its children; the rest by an exponential race."""
    path: list[int] = []
    while True:
        node = path[-1] if path else ROOT
        children = tree.children(node)
        tokens = torch.tensor([tree.token(child) for child in children], dtype=torch.long)
        accepted = torch.searchsorted(p[node][tokens].cumsum(0), torch.rand(1, dtype=p.dtype), right=True).item()
        if accepted == len(children):
            rest = p[node].clone()
            rest[tokens] = 0 if strict else rest[tokens] / 2
            return path, rest.div_(torch.empty_like(rest).exponential_()).argmax(-1)
        path.append(children[int(accepted)])


def walk_and_read(tree: DraftTree, p: Tensor) -> tuple[list[int], int]:
    path, token = walk(tree, p)
    return path, int(token)


@settings(max_examples=20)
@given(trees_with_laws())
def test_correct_rules_have_no_deviation(instance: tuple[DraftTree, Tensor]) -> None:
    for rule in (walk, vectorised, walk_and_read):
        assert enumerate_rule(rule, *instance).distance <= 1e-12


def test_wrong_rule_deviates_at_the_root() -> None:
    found = enumerate_rule(lambda tree, p: vectorised(tree, p, strict=False), TREE, P)
    assert found.distance > 0.05 and found.node == ROOT
    assert found.token in (1, 3) and found.q > float(P[ROOT, found.token])  # a rejected child is sampled again


def test_invalid_paths_and_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="not a path"):
        enumerate_rule(lambda _tree, _p: ([3], 0), TREE, P)
    with pytest.raises(ValueError, match="token -1"):
        enumerate_rule(lambda _tree, _p: ([1, 3], -1), TREE, P)


@pytest.mark.parametrize(("rule", "vocab_size", "runs"), [(walk, 32_000, 1), (walk_and_read, 1_000, 4)])
def test_large_vocabulary_costs_few_executions_per_node(rule: Callable[..., Any], vocab_size: int, runs: int) -> None:
    """A tree of 59 draft tokens: 60 leaves. The last draw is not run for each value; three values are run if it is read."""
    generator = torch.Generator().manual_seed(4)
    tree = DraftTree.of([1, *range(100, 159)], [-1, *((i - 1) // 3 for i in range(1, 60))])
    p = (3 * torch.randn(60, vocab_size, generator=generator, dtype=torch.float64)).softmax(-1)
    found = enumerate_rule(rule, tree, p)
    assert found.distance <= 1e-12 and found.unfinished == 0
    assert found.executions == runs * 60 + 1


# --- published rules ----------------------------------------------------------------------------------


def with_coins(rule: PublishedRule) -> Callable[..., Accepted]:
    return lambda tree, p, coins: Accepted(*rule(tree.tokens.tolist(), tree.parents.tolist(), p, coins))


@settings(max_examples=30)
@given(trees_with_laws())
def test_correct_published_rule_has_no_deviation(instance: tuple[DraftTree, Tensor]) -> None:
    """Whether it draws for itself or from coins."""
    rule = published_rule(FILE)
    assert enumerate_rule(rule.on, *instance).distance <= 1e-12
    assert enumerate_rule(published_rule(FILE, "draws_from_torch").on, *instance).distance <= 1e-12
    assert rule_deviation(with_coins(rule), *instance).distance <= 1e-12


@pytest.mark.parametrize("fault", ["does_not_renormalise", "forgets_the_refused"])
def test_wrong_published_rule_deviates(fault: str) -> None:
    rule = published_rule(FILE, fault)
    assert enumerate_rule(rule.on, TREE, P).distance > 0.05
    assert rule_deviation(with_coins(rule), TREE, P).distance > 0.05


def test_published_rule_draws_nothing_at_temperature_zero() -> None:
    """For point masses it is called without a logits processor."""
    p = torch.nn.functional.one_hot(P.argmax(-1), 4).double()
    found = enumerate_rule(published_rule(FILE).on, TREE, p)
    assert found.distance == 0 and found.executions == 2


def test_published_rule_repeats_with_seeded_coins() -> None:
    rule = published_rule(FILE)
    drawn = [[rule([2, 3, 1, 0], [-1, 0, 0, 1], P, SeededCoins(seed)) for seed in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len({token for _, token in drawn[0]}) > 1


def test_published_rule_that_bypasses_the_coins_is_refused() -> None:
    with pytest.raises(GeneratorUsedError, match="torch"):
        rule_deviation(with_coins(published_rule(FILE, "draws_from_torch")), TREE, P)


def test_impossible_number_of_accepted_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens accepted"):
        enumerate_rule(published_rule(FILE, "accepts_beyond_the_row").on, TREE, P)


@pytest.mark.parametrize(
    ("text", "function", "words"),
    [
        (None, "evaluate_posterior", "not a Python file"),
        ("import flash_attn_of_nobody", "evaluate_posterior", "flash_attn_of_nobody"),
        ("from .kv_cache import x", "evaluate_posterior", "relative import"),
        ("raise RuntimeError('no GPU')", "evaluate_posterior", "no GPU"),
        ("def evaluate_posterior(): ...", "evaluate_posteriors", "did you mean evaluate_posterior"),
    ],
)
def test_unusable_file_is_bad_input(text: str | None, function: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "rule.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=words):
        published_rule(file, function)
