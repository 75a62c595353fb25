"""Speculative sampling: what the small model drafts, against plain passes of it over every prefix; and its cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins, SeededCoins, invert
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.small_model import Speculative, SpeculativeDrafter
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import DRAWN
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import SampledTree
from harness.distributions.exact import next_token_law
from harness.enumeration.coins import executions
from harness.implementations import connect
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence
from properties.meta.reference.test_target import running

PARAMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cool": {"temperature": 0.6, "top_k": 9},
    "looking back": {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.4},
    "greedy": {"temperature": 0.0},
    "greedy, looking back": {"temperature": 0.0, "repetition_penalty": 1.4},
}


def small(kind: str = "llama") -> PreTrainedModel:
    """The target, a little off: of its drafts some are refused."""
    model, other = tiny.target(kind), tiny.target(kind, seed=9)
    with torch.no_grad():
        for weight, noise in zip(model.parameters(), other.parameters(), strict=True):
            weight += 0.15 * noise
    return model


def decoder(kind: str = "llama", depth: int = 3, lean: bool = True) -> Decoder:
    drafter = SpeculativeDrafter(running(small(kind), lean=lean).network, Speculative(depth))
    return Decoder(running(tiny.target(kind), lean=lean), drafter, DRAWN["sampled"])


def texts(decoder: Decoder, params: dict[str, Any], n: int = 25, seed: int = 0) -> Iterator[tuple[Block, list[int]]]:
    """The blocks of a text, each with the text up to its root."""
    text = tiny.tokens(6)
    for block in decoder.stream(text, SamplingParams.of({**params, "max_new_tokens": n}), SeededCoins(seed)):
        yield block, list(text)
        text += block.tokens


@pytest.mark.parametrize(("kind", "lean"), [("llama", True), ("llama", False), ("qwen3", False)])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_q_is_the_small_models_own_law(params: dict[str, Any], kind: str, lean: bool) -> None:
    """Behind every drafted token, under the text's sampling parameters, with the history it has there; after refusals as after
    whole chains, of which the small model has not read the last token."""
    model, sizes = small(kind), set()
    for block, text in list(texts(decoder(kind, lean=lean), params))[1:]:
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
def test_drafts_are_drawn_from_q(params: dict[str, Any]) -> None:
    """Over all draws a chain comes with the product of q along it."""
    small_one = tiny.target(seed=9, vocab_size=5)

    def chain(coins: Any) -> SampledTree:
        drafter = SpeculativeDrafter(running(small_one, lean=True).network, Speculative(2))
        one = OneSequence(drafter, [1, 2, 4], SamplingParams.of(params), coins)
        tree: SampledTree = one.propose(9)
        return tree

    total = 0.0
    for tree, weight in executions(chain):
        assert weight == pytest.approx(float(tree.q[0, tree.token(1)] * tree.q[1, tree.token(2)]))
        total += weight
    assert total == pytest.approx(1)


def test_drafts_are_the_draws_of_their_coins() -> None:
    """Token for token the inversions of the uniforms that the coins give."""
    drafter = decoder().drafter
    assert drafter
    tree, same = OneSequence(drafter, tiny.tokens(6), coins=SeededCoins(3)).propose(9), SeededCoins(3)
    assert isinstance(tree, SampledTree)
    assert tree.tokens[1:].tolist() == [invert(q, same.uniform()) for q in tree.q[:-1]]


def test_a_draft_costs_a_pass() -> None:
    """As many passes as drafts: what is to be caught up with rides in the first of them."""
    one = decoder(depth=4)
    made = one.generate(tiny.tokens(6), SamplingParams(max_new_tokens=30), SeededCoins(1))
    assert made.draft_passes == sum(len(block.tree) - 1 for block in made.blocks[1:])
    assert len(made.blocks[1].tree) - 1 == 4


def test_the_same_model_is_never_refused() -> None:
    """q = p: every chain is accepted whole, at any temperature."""
    drafter = SpeculativeDrafter(running(tiny.target(), lean=True).network, Speculative(3))
    same = Decoder(running(tiny.target(), lean=True), drafter, DRAWN["sampled"])
    for params in PARAMS.values():
        blocks = [block for block, _ in texts(same, params, n=21)]
        assert [len(block.tokens) for block in blocks] == [1, 4, 4, 4, 4, 4]


def test_drafts_have_noise_of_their_own() -> None:
    """With coins keyed by position, and a draft model that is the target: `walk` emits ordinary sampling's text, of which drafts
    with the same noise would foretell every token."""
    drafter = SpeculativeDrafter(running(tiny.target(), lean=True).network, Speculative(3))
    asked = tiny.tokens(6), SamplingParams(max_new_tokens=40), KeyedCoins(5)
    plain = Decoder(running(tiny.target(), lean=True), None, walk).generate(*asked)
    drafted = Decoder(running(tiny.target(), lean=True), drafter, walk).generate(*asked)
    assert drafted.tokens == plain.tokens
    assert 0 < sum(block.accepted for block in drafted.blocks) < 24


@pytest.mark.parametrize("room", range(4))
def test_where_the_text_must_end_soon_the_chain_is_shorter(room: int) -> None:
    one = decoder(depth=3)
    (_, *blocks) = [block for block, _ in texts(one, {}, n=2 + room)]
    assert len(blocks[0].tree) - 1 == min(3, room)


def test_beyond_its_own_context_the_small_model_drafts_nothing() -> None:
    """The text goes on, one token a pass."""
    short = running(tiny.target(seed=9, max_position_embeddings=16), lean=True).network
    one = Decoder(running(tiny.target(), lean=True), SpeculativeDrafter(short, Speculative(3)), DRAWN["sampled"])
    for block, text in list(texts(one, {}, n=30))[1:]:
        assert len(block.tree) - 1 == max(0, min(3, 16 - len(text), 36 - len(text) - 1))


def test_texts_share_no_state() -> None:
    """Those of a batch are what they are alone, with the same drafts; and a text that is begun forgets the one before."""
    alone, together = (connect("ref:drafter=speculative").open(shipped("coin4"), batch=n, dtype="float64") for n in (1, 3))
    asked: Any = [
        [[1, 2], [3], [0, 1, 2, 3], [2, 2]],
        [{"temperature": 1.0, "max_new_tokens": n} for n in (9, 14, 5, 11)],
        range(4),
    ]
    assert together.generate(*asked) == alone.generate(*asked) == alone.generate(*asked)


@dataclass(frozen=True)
class Wrong:
    """A directory of a small model with something wrong, and what is said of it."""

    told: str
    config: dict[str, Any] = field(default_factory=dict)
    lacks: str = ""


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("no small model at .*: config.json is missing", lacks="config.json"),
        Wrong("the small model does not fit the target: 6 tokens in .*, 4 in .*coin4"),
        Wrong("cannot be loaded", lacks="model.safetensors"),
    ],
    ids=lambda wrong: wrong.told,
)
def test_a_small_model_that_cannot_draft_is_told(wrong: Wrong, tmp_path: Path) -> None:
    source = shipped("coin6").drafter("small")
    assert source
    for path in source.iterdir():
        if path.name != wrong.lacks:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BadInput, match=wrong.told):
        Speculative().drafter(Target.load(shipped("coin4").target), tmp_path)


def test_a_depth_that_is_none_is_refused() -> None:
    pair = shipped("coin4")
    with pytest.raises(BadInput, match="depth is 0"):
        Speculative(0).drafter(Target.load(pair.target), str(pair.drafter("small")))


def test_a_damaged_small_model_is_told() -> None:
    """NaN in its weights is an error that says whose, not a draft of whatever comes first."""
    damaged = running(small(), lean=True).network
    damaged.embedding[:, 0] = float("nan")
    one = Decoder(running(tiny.target(), lean=True), SpeculativeDrafter(damaged, Speculative()), DRAWN["sampled"])
    with pytest.raises(BadInput, match="the drafter's logits are not numbers"):
        list(texts(one, {}))
