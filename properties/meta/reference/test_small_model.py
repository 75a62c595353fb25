"""Speculative sampling: the small model's distributions equal plain passes over every prefix; its cache follows the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.base import Method
from eagle2_ref.drafters.ouroboros import Ouroboros
from eagle2_ref.drafters.small_model import Speculative, SpeculativeDrafter
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import DRAWN
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import SampledTree
from harness.distributions.exact import next_token_law
from harness.enumeration.coins import executions
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, drafted_blocks

PARAMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cool": {"temperature": 0.6, "top_k": 9},
    "looking back": {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.4},
    "greedy": {"temperature": 0.0},
    "greedy, looking back": {"temperature": 0.0, "repetition_penalty": 1.4},
}


def small(kind: str = "llama") -> PreTrainedModel:
    """The target with some noise, so that some drafts are rejected."""
    model, other = tiny.target(kind), tiny.target(kind, seed=9)
    with torch.no_grad():
        for weight, noise in zip(model.parameters(), other.parameters(), strict=True):
            weight += 0.15 * noise
    return model


def drafted(one: Decoder, params: dict[str, Any], n: int = 25) -> list[tuple[list[int], Block, Sequence]]:
    """The blocks of a continuation of up to n tokens, see `drafted_blocks`."""
    return list(drafted_blocks(one, tiny.tokens(6), SamplingParams.of({**params, "max_new_tokens": n}), SeededCoins(0)))


def decoder(kind: str = "llama", depth: int = 3, lean: bool = True) -> Decoder:
    drafter = SpeculativeDrafter(tiny.running(small(kind), lean).network, Speculative(depth))
    return Decoder(tiny.running(tiny.target(kind), lean), drafter, DRAWN["sampled"])


@pytest.mark.parametrize(("kind", "lean"), [("llama", True), ("llama", False), ("qwen3", False)])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_q_is_the_small_models_distribution(params: dict[str, Any], kind: str, lean: bool) -> None:
    """Before every drafted token, under the request's parameters and with the token's own history; after rejections and after
    full chains."""
    model, sizes = small(kind), set()
    for text, block, _ in drafted(decoder(kind, lean=lean), params):
        tree = block.tree
        assert isinstance(tree, SampledTree) and tree.parents.tolist() == list(range(-1, len(tree) - 1))
        for node in range(len(tree) - 1):
            prefix = torch.tensor([[*text[:-1], *tree.tokens[: node + 1].tolist()]])
            with torch.inference_mode():
                due = next_token_law(model, prefix, SamplingParams.of(params))[0]
            assert (tree.q[node] - due).abs().max() <= 1e-9
            assert tree.q[node, tree.token(node + 1)] > 0
        sizes.add(block.accepted)
    assert len(sizes) > 1, "some chains were refused early, some late"


@pytest.mark.parametrize("params", [PARAMS["plain"], PARAMS["looking back"]])
def test_drafts_are_sampled_from_q(params: dict[str, Any]) -> None:
    """Over all random numbers a chain has the product of q along it as its probability."""
    small_one = tiny.target(seed=9, vocab_size=5)

    def chain(coins: Any) -> SampledTree:
        drafter = SpeculativeDrafter(tiny.running(small_one).network, Speculative(2))
        one = OneSequence(drafter, [1, 2, 4], SamplingParams.of(params), coins)
        tree: SampledTree = one.propose(9)
        return tree

    total = 0.0
    for tree, weight in executions(chain):
        assert weight == pytest.approx(float(tree.q[0, tree.token(1)] * tree.q[1, tree.token(2)]))
        total += weight
    assert total == pytest.approx(1)


def test_each_draft_costs_one_pass() -> None:
    one = decoder(depth=4)
    result = one.generate(tiny.tokens(6), SamplingParams(max_new_tokens=30), SeededCoins(1))
    assert result.draft_passes == sum(len(block.tree) - 1 for block in result.blocks[1:])
    assert len(result.blocks[1].tree) - 1 == 4


def test_a_draft_model_equal_to_the_target_is_always_accepted() -> None:
    drafter = SpeculativeDrafter(tiny.running(tiny.target()).network, Speculative(3))
    same = Decoder(tiny.running(tiny.target()), drafter, DRAWN["sampled"])
    for params in PARAMS.values():
        assert [len(block.tokens) for _, block, _ in drafted(same, params, n=21)] == [4] * 5


def test_drafts_do_not_share_the_targets_noise() -> None:
    """With keyed coins and the target as draft model, shared noise would predict every token."""
    drafter = SpeculativeDrafter(tiny.running(tiny.target()).network, Speculative(3))
    request = tiny.tokens(6), SamplingParams(max_new_tokens=40), KeyedCoins(5)
    plain = Decoder(tiny.running(tiny.target()), None, walk).generate(*request)
    drafted = Decoder(tiny.running(tiny.target()), drafter, walk).generate(*request)
    assert drafted.tokens == plain.tokens
    assert 0 < sum(block.accepted for block in drafted.blocks) < 24


@pytest.mark.parametrize("max_depth", range(4))
def test_chains_are_not_deeper_than_max_depth(max_depth: int) -> None:
    one = decoder(depth=3)
    _, block, _ = drafted(one, {}, n=2 + max_depth)[0]
    assert len(block.tree) - 1 == min(3, max_depth)


def test_nothing_is_drafted_beyond_the_small_models_context() -> None:
    short = tiny.running(tiny.target(seed=9, max_position_embeddings=16)).network
    one = Decoder(tiny.running(tiny.target()), SpeculativeDrafter(short, Speculative(3)), DRAWN["sampled"])
    for text, block, _ in drafted(one, {}, n=30):
        assert len(block.tree) - 1 == max(0, min(3, 16 - len(text), 36 - len(text) - 1))


@pytest.mark.parametrize("method", [Speculative(), Ouroboros()], ids=["speculative", "ouroboros"])
@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ("config.json", "no small model at .*: config.json is missing"),
        ("", "the small model does not fit the target: 6 tokens in .*, 4 in .*coin4"),
        ("model.safetensors", "no weights in"),
    ],
)
def test_a_small_model_that_does_not_fit_is_refused(lacks: str, message: str, method: Method, tmp_path: Path) -> None:
    source = shipped("coin6").drafter("small")
    assert source
    for path in source.iterdir():
        if path.name != lacks:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match=message):
        method.drafter(Target.load(shipped("coin4").target), tmp_path)
