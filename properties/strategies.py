"""Hypothesis strategies: trees, laws and budgets, with ties, zeros and near-certainties."""

from __future__ import annotations

import hypothesis
import torch
from hypothesis import HealthCheck
from hypothesis import strategies as st
from torch import Tensor

from eagle2_ref.tree import DraftTree


def instances(n: int) -> hypothesis.settings:
    """Settings of a check: n instances, the same on every run and on a machine of any speed. Use with `hypothesis.seed`."""
    return hypothesis.settings(
        max_examples=n,
        report_multiple_bugs=False,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@st.composite
def trees(draw: st.DrawFn, vocab_size: int, most: int = 7) -> DraftTree:
    """A tree of at most `most` drafted nodes with distinct siblings; possibly a root alone."""
    tokens, parents = [draw(st.integers(0, vocab_size - 1))], [-1]
    for _ in range(draw(st.integers(0, most))):
        parent = draw(st.integers(0, len(tokens) - 1))
        taken = {tokens[node] for node, p in enumerate(parents) if p == parent}
        free = [token for token in range(vocab_size) if token not in taken]
        if free:
            tokens.append(draw(st.sampled_from(free)))
            parents.append(parent)
    return DraftTree.of(tokens, parents)


def laws(vocab_size: int) -> st.SearchStrategy[list[float]]:
    """Probabilities of a vocabulary: from flat to peaked above 0.999, often with exact ties and exact zeros."""
    weights = st.sampled_from([0, 0, 1, 1, 2, 3, 10, 1000, 100_000])
    whole = st.lists(weights, min_size=vocab_size, max_size=vocab_size).filter(any)
    return whole.map(lambda row: [weight / sum(row) for weight in row])


@st.composite
def pairs_of_laws(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """p and q [V] of one small vocabulary."""
    vocab_size = draw(st.integers(2, 5))
    p, q = (torch.tensor(draw(laws(vocab_size)), dtype=torch.float64) for _ in range(2))
    return p, q


@st.composite
def trees_with_laws(draw: st.DrawFn, most: int = 7) -> tuple[DraftTree, Tensor]:
    """A tree, and p [m + 1, V] for it."""
    vocab_size = draw(st.integers(2, 6))
    tree = draw(trees(vocab_size, most))
    p = [draw(laws(vocab_size)) for _ in range(len(tree))]
    return tree, torch.tensor(p, dtype=torch.float64)
