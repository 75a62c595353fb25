"""Prompt lookup: the chain equals a search of every position, and depends on its own sequence only."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.lookup import Lookup, LookupDrafter, find_continuation
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, summary

FEATURES = torch.zeros(99, 16)


def reference_continuation(text: Sequence[int], ngram: int, n: int) -> list[int]:
    """What follows the longest match of the last `ngram` tokens, of equal ones the first. Compares every position."""
    best, found = 0, len(text)
    for place in range(1, len(text)):
        same = 0
        while same < min(ngram, place) and text[place - 1 - same] == text[-1 - same]:
            same += 1
        if same > best:
            best, found = same, place
    return list(text[found : found + n])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 12))
def test_the_copy_equals_a_search_of_every_position(text: list[int], ngram: int, n: int) -> None:
    assert list(find_continuation(text, ngram, n)) == reference_continuation(text, ngram, n)


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
def test_copies_by_hand(text: list[int], ngram: int, n: int, chain: list[int]) -> None:
    assert list(find_continuation(text, ngram, n)) == chain == reference_continuation(text, ngram, n)


def test_the_tree_is_a_chain_on_the_newest_token() -> None:
    """No deeper than `max_depth` and the method's depth."""
    drafter = OneSequence(LookupDrafter(Lookup(ngram=2, depth=3)), [1])
    assert drafter.propose(9).tokens.tolist() == [1], "a text of one token"
    drafter.observe([2, 3, 4, 5, 6, 1], FEATURES[:6])
    drafter.observe([2], FEATURES[:1])
    for depth, chain in ((9, [3, 4, 5]), (3, [3, 4, 5]), (2, [3, 4]), (0, [])):
        tree = drafter.propose(depth)
        assert tree.tokens.tolist() == [2, *chain] and tree.parents.tolist() == [*range(-1, len(chain))]
    assert OneSequence(drafter.drafter, [2]).propose(9).tokens.tolist() == [2], "the text before is forgotten"


@pytest.mark.parametrize("length", [1, 5])
def test_sequences_share_no_state_up_to_a_full_context(length: int) -> None:
    """The text is that of ordinary decoding."""
    target, params = tiny.running(tiny.target(max_position_embeddings=24)), SamplingParams(max_new_tokens=99)
    decoder, prompts = Decoder(target, Lookup().drafter(target, ""), walk), [tiny.tokens(length, 64, seed) for seed in range(3)]
    alone = [decoder.generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)]
    control = [Decoder(target, None, walk).generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)]
    assert [result.tokens for result in alone] == [result.tokens for result in control]
    assert {result.finish for result in alone} == {"context"}
    together = decoder.generate_batch(prompts, [params] * 3, [KeyedCoins(i) for i in range(3)], 2)
    assert [*map(summary, together)] == [*map(summary, alone)]
