"""Fixed shapes: text, blocks and trees equal those of the plain decoder, and each tensor operation its plain version."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eagle2_ref.coins import KeyedCoins, ScriptedCoins, SeededCoins, invert
from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.drafters.ablations import ByConfidence, Expanded
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import GRAIN, FixedShapeDecoder, ancestors, distributions, follow, sample
from eagle2_ref.model.target import Target
from eagle2_ref.rules import reject, walk
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny
from properties.meta.reference.test_target import LEAN
from properties.strategies import trees_with_laws

PARAMS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 9},
    {"temperature": 1.3, "top_p": 0.8, "eos_token_id": [3, 7, 20, 33]},
    {"temperature": 1.0, "min_p": 0.05, "eos_token_id": 5},
]


@cache
def decoders(
    kind: str = "llama", k: int = 3, depth: int = 4, m: int = 12, draft: bool = True
) -> tuple[Decoder, FixedShapeDecoder]:
    plain = tiny.decoder(tiny.target(kind), Budget(k, depth, m))
    plain.drafter = plain.drafter if draft else None
    return plain, FixedShapeDecoder(plain.target, plain.drafter)


def assert_same(*result: Generation, depth: int) -> None:
    """Near the end plain trees are smaller and blocks may differ; the text does not."""
    plain, fixed = result
    assert (plain.tokens, plain.finish) == (fixed.tokens, fixed.finish)
    logprobs = [[value for block in one.blocks for value in block.logprobs] for one in result]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-9)
    start = plain.blocks[0].start
    for ours, theirs in zip(plain.blocks, fixed.blocks, strict=False):
        assert (ours.start, theirs.tree.token(0)) == (theirs.start, ours.tree.token(0))
        if ours.start + depth + 1 > start + len(plain.tokens):
            break
        assert (ours.tokens, ours.accepted, ours.path) == (theirs.tokens, theirs.accepted, theirs.path)
        assert ours.tree.tokens.tolist() == theirs.tree.tokens.tolist()
        assert ours.tree.parents.tolist() == theirs.tree.parents.tolist()
        assert isinstance(ours.tree, DraftTree) and isinstance(theirs.tree, DraftTree)
        assert ours.tree.values.tolist() == pytest.approx(theirs.tree.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("kind", LEAN)
@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
def test_fixed_shapes_give_the_text_of_the_plain_decoder(kind: str, draft: bool, params: dict[str, Any]) -> None:
    """In float64 with the same coins, for prompts of many lengths, end-of-text tokens, and a full context."""
    plain, fixed = decoders(kind, draft=draft)
    for n in (13, 1, 40, 90):
        sampling = SamplingParams.of({**params, "max_new_tokens": 25})
        assert_same(*(one.generate(tiny.tokens(n, seed=n), sampling, SeededCoins(n)) for one in (plain, fixed)), depth=4)


@pytest.mark.parametrize(("k", "depth", "m"), [(1, 1, 1), (1, 6, 6), (4, 1, 3), (2, 7, 20), (8, 3, 60), (5, 5, 2)])
def test_fixed_shapes_work_for_every_budget(k: int, depth: int, m: int) -> None:
    plain, fixed = decoders("llama", k, depth, m)
    for temperature in (0.0, 1.0):
        sampling = SamplingParams(temperature, max_new_tokens=30)
        assert_same(*(one.generate(tiny.tokens(9), sampling, SeededCoins(4)) for one in (plain, fixed)), depth=depth)


def test_a_longer_sequence_gets_a_larger_state() -> None:
    """A shorter one after it uses the same."""
    plain = tiny.decoder(tiny.target(max_position_embeddings=3 * GRAIN))
    fixed = FixedShapeDecoder(plain.target, plain.drafter)
    for n in (10, GRAIN - 20, 2 * GRAIN, 10):
        sampling = SamplingParams(1.0, max_new_tokens=30)
        assert_same(*(one.generate(tiny.tokens(n), sampling, SeededCoins(n)) for one in (plain, fixed)), depth=4)
    assert fixed.state is not None and fixed.state.target.capacity == 3 * GRAIN


@given(trees_with_laws(most=12), st.data())
def test_follow_equals_walk(instance: tuple[DraftTree, Tensor], data: st.DataObject) -> None:
    """For any tree, distribution and random numbers."""
    tree, p = instance
    depth = max(tree.depths) + data.draw(st.integers(0, 2))
    u = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - 2**-53]), min_size=depth + 1, max_size=depth + 1))
    expected = walk(tree, p, ScriptedCoins(u))
    sees = ancestors(tree.parents, depth)
    assert torch.equal(sees, tree.ancestors())
    depths = sees.sum(1) - 1
    assert depths.tolist() == tree.depths
    drawn = sample(p, torch.tensor(u, dtype=torch.float64)[depths])
    path, accepted = follow(tree.tokens, tree.parents, sees, depths, drawn, depth)
    assert path[1 : int(accepted)].tolist() == expected.path
    assert drawn[path[: int(accepted)]].tolist() == expected.tokens(tree)


@given(st.lists(st.sampled_from([0.0, 1e-30, 0.1, 1.0]), min_size=1, max_size=9).filter(any), st.floats(0, 1, exclude_max=True))
def test_sample_equals_invert(weights: list[float], u: float) -> None:
    p = torch.tensor([weights], dtype=torch.float64) / sum(weights)
    assert sample(p, torch.tensor([u], dtype=torch.float64)).tolist() == [invert(p[0], u)]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_distributions_equal_target_distribution(params: dict[str, Any]) -> None:
    sampling, logits = SamplingParams.of(params), torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    tree = DraftTree.of([1, 2, 3], [-1, 0, 0])
    assert torch.equal(distributions(logits, sampling)[0], target_distribution(logits, tree, [5, 1], sampling))


def test_parts_without_fixed_shapes_are_refused() -> None:
    """Other models, trees that stop early, penalties, rules, and coins."""
    plain, fixed = decoders()
    with pytest.raises(BadInput, match="a repetition penalty looks back"):
        fixed.generate([1, 2], SamplingParams(1.0, repetition_penalty=1.2), SeededCoins(0))
    with pytest.raises(BadInput, match="the target is no LLaMA"):
        FixedShapeDecoder(Target(tiny.target()))
    head = tiny.fitting(tiny.target())
    for kind, budget in ((Eagle2, Budget(3, 4, 12, layer=0.5)), (ByConfidence, Budget(3, 4, 12)), (Expanded, Budget(3, 4, 12))):
        with pytest.raises(BadInput, match="trees have no fixed shape"):
            FixedShapeDecoder(plain.target, kind(head, plain.target.network.lm_head, budget))
    with pytest.raises(BadInput, match="do not implement the rule reject"):
        FixedShapeDecoder(plain.target, plain.drafter, reject)
    with pytest.raises(BadInput, match="do not implement KeyedCoins"):
        fixed.generate([1, 2], SamplingParams(1.0), KeyedCoins(0))
