"""Options of the budget that stop early: which nodes and layers are left out. The distribution, caches and batches stay right."""

from __future__ import annotations

import math

import pytest
import torch

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.kill_matrix.stage import Stage
from harness.mutants.batch import SEVERAL_LENGTHS
from harness.mutants.cases import COUPLED, GREEDY_TREE, MIN_P, TOP_K, TWO_LAYERS
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, summary

TUNED = "ref:head_temperature=0.6,node=0.1,layer=0.4"
"""On the coins some layers are left out by it, and some nodes; on the shipped pair most."""


def first_tree(budget: Budget, seed: int) -> tuple[DraftTree, int]:
    """The first tree after a random text, and the number of passes of the head."""
    drafter, generator = tiny.decoder(budget=budget).drafter, torch.Generator().manual_seed(seed)
    assert drafter
    one = OneSequence(drafter)
    one.observe(tiny.tokens(9, seed=seed), torch.randn(9, 16, dtype=torch.float64, generator=generator))
    return one.propose(99), one.state.passes


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("node", [0.02, 0.1, 0.5, 1.0])
def test_nodes_below_the_threshold_are_left_out(node: float, seed: int) -> None:
    """The tree is that of the paper without the nodes whose value is below `node`."""
    whole, _ = first_tree(Budget(4, 4, 30), seed)
    cut, _ = first_tree(Budget(4, 4, 30, node=node), seed)
    kept = [i for i in range(1, len(whole)) if math.exp(float(whole.values[i])) >= node]
    assert cut.tokens[1:].tolist() == whole.tokens[kept].tolist() and cut.values[1:].tolist() == whole.values[kept].tolist()
    assert len(kept) < len(whole) - 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("layer", [0.1, 0.3, 0.7, 3.0])
def test_expansion_stops_below_the_layer_threshold(layer: float, seed: int) -> None:
    """The next layer is grown if the values of the k best nodes add up to `layer`. The grown layers are those of the paper."""
    k, depth = 4, 6
    grown, passes = first_tree(Budget(k, depth, 20, layer=layer), seed)
    expected = 1
    while expected < depth:
        shallow, _ = first_tree(Budget(k, expected, Budget(k, expected).pool), seed)
        last = [math.exp(v) for v, d in zip(shallow.values.tolist(), shallow.depths, strict=True) if d == expected]
        if sum(sorted(last)[-k:]) < layer:
            break
        expected += 1
    assert passes == expected
    same, _ = first_tree(Budget(k, expected, min(20, Budget(k, expected).pool)), seed)
    assert grown.tokens.tolist() == same.tokens.tolist() and grown.parents.tolist() == same.parents.tolist()


def test_head_temperature_divides_the_logits() -> None:
    flat, sharp = first_tree(Budget(4, 1, 4), 0)[0], first_tree(Budget(4, 1, 4, head_temperature=0.5), 0)[0]
    assert flat.tokens.tolist() == sharp.tokens.tolist()
    ratios = [2 * (float(flat.values[i]) - float(flat.values[1])) for i in (2, 3, 4)]
    assert ratios == pytest.approx([float(sharp.values[i] - sharp.values[1]) for i in (2, 3, 4)])


def test_early_stops_in_a_batch_are_those_of_the_sequence_alone() -> None:
    one = tiny.decoder(budget=Budget(3, 5, 20, 0.7, 0.05, 0.5))
    prompts = [tiny.tokens(n, seed=n) for n in (13, 1, 5, 30, 2, 9)]
    params = [SamplingParams((0.0, 0.7, 1.3)[row % 3], max_new_tokens=25) for row in range(6)]
    coins = [KeyedCoins(row) for row in range(6)]
    together = one.generate_batch(prompts, params, coins, 4)
    assert [*map(summary, together)] == [summary(one.generate(*request)) for request in zip(prompts, params, coins, strict=True)]
    assert len({max(block.tree.depths) for result in together for block in result.blocks}) > 2


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
def test_properties_hold_with_early_stops(name: str, case: str, scene: Stage) -> None:
    result = scene.result(name, case, TUNED)
    assert result.verdict in ("pass", "tie"), result.summary
