"""Budgets that stop by themselves: which nodes and layers are left out, and that the law, the caches and the rows of a batch do
not notice."""

from __future__ import annotations

import math

import pytest
import torch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.kill_matrix.stage import Stage
from harness.mutants.batch import SEVERAL_LENGTHS
from harness.mutants.cases import COUPLED, GREEDY_TREE, MIN_P, TOP_K, TWO_LAYERS
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence
from properties.meta.reference.test_target import running

TUNED = "ref:head_temperature=0.6,node=0.1,layer=0.4"
"""On the coins some layers are left out by it, and some nodes; on the shipped pair most."""


def drafter(budget: Budget) -> Eagle2:
    model = tiny.target()
    return Eagle2(tiny.fitting(model), running(model, lean=True).network.lm_head, budget)


def tree(budget: Budget, seed: int) -> tuple[DraftTree, int]:
    """The first tree behind a random text, and the head's passes that it took."""
    one, generator = OneSequence(drafter(budget)), torch.Generator().manual_seed(seed)
    one.observe(tiny.tokens(9, seed=seed), torch.randn(9, 16, dtype=torch.float64, generator=generator))
    return one.propose(99), one.state.passes


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("node", [0.02, 0.1, 0.5, 1.0])
def test_nodes_that_bring_too_little_are_left_out(node: float, seed: int) -> None:
    """Of the paper's tree the nodes whose confidences multiply to `node` or more, and no others; none may be left."""
    whole, _ = tree(Budget(4, 4, 30), seed)
    cut, _ = tree(Budget(4, 4, 30, node=node), seed)
    kept = [i for i in range(1, len(whole)) if math.exp(float(whole.values[i])) >= node]
    assert cut.tokens[1:].tolist() == whole.tokens[kept].tolist() and cut.values[1:].tolist() == whole.values[kept].tolist()
    assert len(kept) < len(whole) - 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layer", [0.1, 0.3, 0.7, 3.0])
def test_layers_are_grown_while_they_are_worth_it(layer: float, seed: int) -> None:
    """The next layer is grown while the k best of the last one add up to `layer`; what was grown is the paper's."""
    k, depth = 4, 6
    grown, passes = tree(Budget(k, depth, 20, layer=layer), seed)
    expected = 1
    while expected < depth:
        shallow, _ = tree(Budget(k, expected, Budget(k, expected).pool), seed)
        last = [math.exp(v) for v, d in zip(shallow.values.tolist(), shallow.depths, strict=True) if d == expected]
        if sum(sorted(last)[-k:]) < layer:
            break
        expected += 1
    assert passes == expected
    same, _ = tree(Budget(k, expected, min(20, Budget(k, expected).pool)), seed)
    assert grown.tokens.tolist() == same.tokens.tolist() and grown.parents.tolist() == same.parents.tolist()


def test_a_sharper_head_ranks_otherwise_and_says_the_same() -> None:
    """Confidences are those of the logits divided by the temperature; at 1 they are the paper's."""
    flat, sharp = tree(Budget(4, 1, 4), 0)[0], tree(Budget(4, 1, 4, head_temperature=0.5), 0)[0]
    assert flat.tokens.tolist() == sharp.tokens.tolist()
    ratios = [2 * (float(flat.values[i]) - float(flat.values[1])) for i in (2, 3, 4)]
    assert ratios == pytest.approx([float(sharp.values[i] - sharp.values[1]) for i in (2, 3, 4)])


def test_a_row_of_a_batch_stops_where_it_stops_alone() -> None:
    """Trees, passes and tokens are those of the text alone, whatever the neighbours still grow."""
    model = tiny.target()
    target = running(model, lean=True)
    head, budget = tiny.fitting(model), Budget(3, 5, 20, 0.7, 0.05, 0.5)
    one = Decoder(target, Eagle2(head, target.network.lm_head, budget), walk)
    prompts = [tiny.tokens(n, seed=n) for n in (13, 1, 5, 30, 2, 9)]
    params = [SamplingParams((0.0, 0.7, 1.3)[row % 3], max_new_tokens=25) for row in range(6)]
    together = one.generate_batch(prompts, params, [KeyedCoins(row) for row in range(6)], 4)
    depths = set()
    for row, made in enumerate(together):
        alone = one.generate(prompts[row], params[row], KeyedCoins(row))
        assert made.tokens == alone.tokens and made.draft_passes == alone.draft_passes
        for ours, theirs in zip(made.blocks, alone.blocks, strict=True):
            assert ours.tree.tokens.tolist() == theirs.tree.tokens.tolist()
            depths.add(max(ours.tree.depths))
    assert len(depths) > 2  # trees of several depths came up


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.build(tmp_path_factory.mktemp("scene"))


CASES = [
    ("LAW-1", TWO_LAYERS),
    ("LAW-1", TOP_K),
    ("LAW-1", MIN_P),
    ("LAW-3", COUPLED),
    ("GREEDY-1", "plain"),
    ("GREEDY-2", GREEDY_TREE),
    *((name, "") for name in ("GREEDY-4", "TREE-1", "TREE-2", "TREE-3", "CACHE-1", "CACHE-2", "BATCH-2", "STOP-2", "COUNT-1")),
    ("BATCH-1", SEVERAL_LENGTHS),
]


@pytest.mark.parametrize(("name", "case"), CASES, ids=str)
def test_properties_hold_on_tuned_trees(name: str, case: str, scene: Stage) -> None:
    """Whatever is left out, the law is the target's, and trees, caches and stops are as they should be."""
    result = scene.result(name, case, TUNED)
    assert result.verdict in ("pass", "tie"), result.summary


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (Budget(head_temperature=0.0), "head_temperature is 0.0\n  head_temperature must be above 0"),
        (Budget(node=1.5), r"node is 1.5\n  node must be in \[0, 1\]"),
        (Budget(layer=-0.1), "layer is -0.1\n  layer must be 0 or more"),
    ],
    ids=["head_temperature", "node", "layer"],
)
def test_a_budget_out_of_range_is_refused(budget: Budget, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        budget.check(256)
