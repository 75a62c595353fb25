# ruff: noqa: S311  (it is `random` that is tested)
"""Enumeration of whole runs and of acceptance rules that draw for themselves; published ones are handed in by path."""

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
    """Two draws, the second one looked at, from a law that depends on the first."""
    first = int(torch.multinomial(P[0], 1))
    return first, int(torch.multinomial(P[3].roll(first), 1))


ALIKE: Law = {(i,): 1 / 500 for i in range(500)}
TWO: Law = {(i, j): float(P[0, i]) / 4 for i in range(4) for j in range(4)}

# --- whole runs ----------------------------------------------------------------------------------------------------


def test_a_last_draw_is_not_run_once_for_each_value() -> None:
    """With the window known, its law is taken where it is drawn; some of its values are run and compared."""
    whole, terminal = enumerate_law(two_tokens), enumerate_law(two_tokens, window=2)
    assert total_variation(whole.law, TWO) <= 1e-15 and total_variation(terminal.law, TWO) <= 1e-15
    assert whole.executions == 16 + 1 and terminal.executions == 4 * 3 + 1  # one execution is repeated at the end
    wide = enumerate_law(lambda: [int(torch.multinomial(torch.arange(1.0, 501.0), 1))], window=1)
    assert wide.executions == 5 and len(wide.law) == 500 and wide.unfinished == 0


def test_a_token_that_nobody_looks_at_costs_one_execution() -> None:
    found = enumerate_law(lambda: torch.multinomial(torch.ones(500), 1).tolist())
    assert found.executions == 2 and total_variation(found.law, ALIKE) <= 1e-12


def test_a_last_draw_that_changes_more_is_run_for_each_value() -> None:
    """Where one value leads elsewhere, nothing is taken for granted."""

    def run() -> tuple[int, int]:
        token = int(torch.multinomial(P[3], 1))
        return (int(random.random() < 0.25), token) if token == 3 else (7, token)

    expected: Law = {(7, 0): 0.25, (7, 1): 0.25, (7, 2): 0.25, (1, 3): 0.0625, (0, 3): 0.1875}
    assert total_variation(enumerate_law(run, window=2).law, expected) <= 1e-15


def test_a_bound_leaves_its_mass_unfinished() -> None:
    heard: list[tuple[int, float]] = []
    found = enumerate_law(two_tokens, most=6, progress=lambda n, mass: heard.append((n, mass)))
    assert found.executions == 6 and found.unfinished == pytest.approx(1 - sum(found.law.values()))
    assert [n for n, _ in heard] == list(range(1, 7))
    assert heard[-1][1] == pytest.approx(1 - found.unfinished)


# --- rules that draw for themselves --------------------------------------------------------------------------------


def walks(tree: DraftTree, p: Tensor) -> tuple[list[int], Any]:
    """Sample the target, and follow the tree: by torch's own draws."""
    path: list[int] = []
    while True:
        node = path[-1] if path else ROOT
        token = torch.multinomial(p[node], 1).item()
        child = next((child for child in tree.children(node) if tree.token(child) == token), None)
        if child is None:
            return path, token
        path.append(child)


def vectorised(tree: DraftTree, p: Tensor, strict: bool = True) -> tuple[list[int], Any]:
    """One uniform a node, compared with the cumulative law of its children at once; the rest by a race of noises."""
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


def looks(tree: DraftTree, p: Tensor) -> tuple[list[int], int]:
    path, token = walks(tree, p)
    return path, int(token)


@settings(max_examples=20)
@given(trees_with_laws())
def test_rules_that_are_right(instance: tuple[DraftTree, Tensor]) -> None:
    for rule in (walks, vectorised, looks):
        assert enumerate_rule(rule, *instance).distance <= 1e-12


def test_a_rule_that_is_wrong() -> None:
    found = enumerate_rule(lambda tree, p: vectorised(tree, p, strict=False), TREE, P)
    assert found.distance > 0.05 and found.node == ROOT
    assert found.token in (1, 3) and found.q > float(P[ROOT, found.token])  # a refused child comes again


def test_paths_and_tokens_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="not a path"):
        enumerate_rule(lambda _tree, _p: ([3], 0), TREE, P)
    with pytest.raises(ValueError, match="token -1"):
        enumerate_rule(lambda _tree, _p: ([1, 3], -1), TREE, P)


@pytest.mark.parametrize(("rule", "vocab_size", "runs"), [(walks, 32_000, 1), (looks, 1_000, 4)])
def test_a_large_vocabulary_costs_a_few_executions_a_node(rule: Callable[..., Any], vocab_size: int, runs: int) -> None:
    """A tree of 59 drafted nodes: 60 leaves, the vector of the last draw taken whole; three of its values run, if looked at."""
    generator = torch.Generator().manual_seed(4)
    tree = DraftTree.of([1, *range(100, 159)], [-1, *((i - 1) // 3 for i in range(1, 60))])
    p = (3 * torch.randn(60, vocab_size, generator=generator, dtype=torch.float64)).softmax(-1)
    found = enumerate_rule(rule, tree, p)
    assert found.distance <= 1e-12 and found.unfinished == 0
    assert found.executions == runs * 60 + 1


# --- published functions, by path ----------------------------------------------------------------------------------


def with_coins(rule: PublishedRule) -> Callable[..., Accepted]:
    return lambda tree, p, coins: Accepted(*rule(tree.tokens.tolist(), tree.parents.tolist(), p, coins))


@settings(max_examples=30)
@given(trees_with_laws())
def test_a_published_function_that_is_right(instance: tuple[DraftTree, Tensor]) -> None:
    """Drawing for itself, and drawing from our coins."""
    rule = published_rule(FILE)
    assert enumerate_rule(rule.on, *instance).distance <= 1e-12
    assert enumerate_rule(published_rule(FILE, "draws_from_torch").on, *instance).distance <= 1e-12
    assert rule_deviation(with_coins(rule), *instance).distance <= 1e-12


@pytest.mark.parametrize("fault", ["does_not_renormalise", "forgets_the_refused"])
def test_a_published_function_that_is_wrong(fault: str) -> None:
    rule = published_rule(FILE, fault)
    assert enumerate_rule(rule.on, TREE, P).distance > 0.05
    assert rule_deviation(with_coins(rule), TREE, P).distance > 0.05


def test_a_published_function_at_temperature_zero() -> None:
    """Point masses: it is called without a processor, and nothing is drawn."""
    p = torch.nn.functional.one_hot(P.argmax(-1), 4).double()
    found = enumerate_rule(published_rule(FILE).on, TREE, p)
    assert found.distance == 0 and found.executions == 2


def test_seeded_coins_repeat_a_published_function() -> None:
    rule = published_rule(FILE)
    drawn = [[rule([2, 3, 1, 0], [-1, 0, 0, 1], P, SeededCoins(seed)) for seed in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1] and len({token for _, token in drawn[0]}) > 1


def test_a_published_function_that_draws_past_our_coins_is_refused() -> None:
    with pytest.raises(GeneratorUsedError, match="torch"):
        rule_deviation(with_coins(published_rule(FILE, "draws_from_torch")), TREE, P)


def test_a_number_of_accepted_tokens_that_cannot_be() -> None:
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
def test_a_file_that_cannot_be_used(text: str | None, function: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "handed_in.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=words):
        published_rule(file, function)
