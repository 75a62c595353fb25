"""Prompt lookup: its chain against a search of every place of the text, and by hand; and that it knows one text alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eagle2_ref.batch import Batch
from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.lookup import Lookup, LookupDrafter, copied
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.distributions.exact import target_law, total_variation
from harness.distributions.teacher import load_plain
from harness.enumeration.emitted_law import emitted_law
from harness.implementations import connect
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.reference.test_target import running
from properties.test_law import ROUNDING

FEATURES = torch.zeros(99, 16)


def searched(text: Sequence[int], ngram: int, n: int) -> list[int]:
    """What followed at the place where most of the last `ngram` tokens stood before; of several such places the first.

    Every place but the end is looked at, and tokens are compared one by one, backwards.
    """
    best, found = 0, len(text)
    for place in range(1, len(text)):
        same = 0
        while same < min(ngram, place) and text[place - 1 - same] == text[-1 - same]:
            same += 1
        if same > best:
            best, found = same, place
    return list(text[found : found + n])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 12))
def test_the_chain_is_what_a_search_of_every_place_finds(text: list[int], ngram: int, n: int) -> None:
    assert list(copied(text, ngram, n)) == searched(text, ngram, n)


@pytest.mark.parametrize(
    ("text", "ngram", "n", "chain"),
    [
        ([7], 3, 9, []),  # nothing stood before
        ([1, 2, 3], 3, 9, []),
        ([1, 2, 1], 3, 9, [2, 1]),
        ([1, 2, 1], 3, 1, [2]),
        ([1, 2, 1], 3, 0, []),
        ([5, 5], 3, 9, [5]),
        ([1, 9, 4, 2, 9, 5, 2, 9], 1, 2, [4, 2]),  # the first place of one token
        ([1, 9, 4, 2, 9, 5, 2, 9], 2, 2, [5, 2]),  # more tokens match at a later one
        ([1, 2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 3, 1, [8]),  # of equal places the first
    ],
)
def test_chains_by_hand(text: list[int], ngram: int, n: int, chain: list[int]) -> None:
    assert list(copied(text, ngram, n)) == chain == searched(text, ngram, n)


def test_a_tree_is_the_chain_on_the_newest_token() -> None:
    """Of the text that was observed, the newest token too; no deeper than was asked for, and than the method has it."""
    drafter = LookupDrafter(Lookup(ngram=2, depth=3))
    drafter.begin([1], SamplingParams(), SeededCoins(0))
    assert drafter.propose(9).tokens.tolist() == [1], "a text of one token"
    drafter.observe([2, 3, 4, 5, 6, 1], FEATURES[:6])
    drafter.observe([2], FEATURES[:1])
    for depth, chain in ((9, [3, 4, 5]), (3, [3, 4, 5]), (2, [3, 4]), (0, [])):
        tree = drafter.propose(depth)
        assert tree.tokens.tolist() == [2, *chain] and tree.parents.tolist() == [*range(-1, len(chain))]
    drafter.begin([2], SamplingParams(), SeededCoins(0))
    assert drafter.propose(9).tokens.tolist() == [2], "the text before is forgotten"


@pytest.mark.parametrize("length", [1, 5])
def test_texts_to_the_end_of_the_context_alone_and_side_by_side(length: int) -> None:
    """What a text and its trees are does not depend on the texts before it and beside it; all are ordinary sampling's."""
    target, params = running(tiny.target(max_position_embeddings=24), lean=True), SamplingParams(max_new_tokens=99)
    decoder, prompts = Decoder(target, Lookup().drafter(target, ""), walk), [tiny.tokens(length, 64, seed) for seed in range(3)]

    def told(generations: Sequence[Any]) -> list[Any]:
        return [[(b.tokens, b.tree.tokens.tolist()) for b in made.blocks] for made in generations]

    alone = [decoder.generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)]
    control = [Decoder(target, None, walk).generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)]
    assert [made.tokens for made in alone] == [made.tokens for made in control]
    assert {made.finish for made in alone} == {"context"}
    assert told(Batch(decoder, 2).generate(prompts, [params] * 3, [KeyedCoins(i) for i in range(3)])) == told(alone)


@pytest.mark.parametrize("rule", ["walk", "reject"])
def test_the_law_is_the_targets_while_copies_are_accepted(rule: str) -> None:
    pair, prompt, params = shipped("coin4"), [2, 3, 2], {"temperature": 1.0, "top_k": 2, "max_new_tokens": 7}
    engine = connect(f"ref:drafter=lookup,rule={rule},dtype=float64,ngram=2,depth=3").open(pair)
    emitted, _ = emitted_law(engine, prompt, params)
    expected = target_law(load_plain(pair, "float64"), prompt, SamplingParams.of(params))
    assert total_variation(emitted, expected) <= ROUNDING
    assert engine.raw.counters()["accepted"] > 50


@pytest.mark.parametrize("option", ["ngram", "depth"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_are_whole_and_positive(option: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{option} is {value}"):
        Lookup(**{option: value}).drafter(running(tiny.target(), lean=True), "")
