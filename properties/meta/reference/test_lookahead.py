"""Lookahead decoding: the window equals the published Jacobi iteration, computed by plain passes; pool and tree by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.lookahead import (
    Gram,
    Lookahead,
    LookaheadDrafter,
    LookaheadState,
    LookaheadTree,
    NgramPool,
    Window,
    with_guesses,
)
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import ROOT, DraftTree
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import drafted_blocks, paths

METHODS = [
    Lookahead(),
    Lookahead(text=False),
    Lookahead(k=1, depth=3, window=4, text=False),
    Lookahead(k=2, depth=4, window=1, text=False),
    Lookahead(k=3, depth=2, window=5),
    Lookahead(k=2, depth=1, window=3, text=False),
]

Likeliest = Callable[[Sequence[int]], int]


def most_likely(model: PreTrainedModel) -> Likeliest:
    """The most likely token after a text, by a plain pass over all of it."""

    @torch.inference_mode()
    def predict(text: Sequence[int]) -> int:
        return int(model(torch.tensor([list(text)])).logits[0, -1].argmax())

    return predict


def jacobi(past: list[list[int]], root: int, depth: int, predict: Likeliest) -> tuple[list[list[int]], list[Gram]]:
    """One step of the lookahead branch, as in the published code: past[0] does not contain the root. Returns the next rows and
    the n-grams. (The published code has no depth 1.)"""
    first, *others = past
    if depth == 1:
        pairs = [(token, predict(first[:i])) for i, token in enumerate([root, *first])]
        return [[said for _, said in pairs[1:]]], list(pairs)
    if not others:
        return [first[1:], [predict(first[: i + 1]) for i in range(len(first))]], []
    said = [predict([*first[:i], *(row[i] for row in others)]) for i in range(len(others[-1]))]
    if len(past) < depth:
        return [*(row[1:] for row in past), said[1:]], []
    return [others[0][1:], *others[1:], said], list(zip([root, *first], *others, said, strict=True))


def drafting(method: Lookahead, **changes: Any) -> tuple[Decoder, LookaheadDrafter, PreTrainedModel]:
    model = tiny.target(**changes)
    target = tiny.running(model)
    drafter = LookaheadDrafter(method, target.context)
    return Decoder(target, drafter, walk), drafter, model


def newest(grams: Sequence[Gram], token: int, k: int) -> list[Gram]:
    """The last k different guesses of what follows a token."""
    guesses = [gram[1:] for gram in reversed(grams) if gram[0] == token]
    return list(dict.fromkeys(guesses))[:k]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_window_is_the_published_jacobi_iteration(method: Lookahead, temperature: float) -> None:
    """Every cell equals a plain pass over its prefix. Proposals are the newest k guesses from the window and the text."""
    decoder, _, model = drafting(method)
    predict, prompt, n = most_likely(model), tiny.tokens(7), method.depth + 1
    past = [[prompt[i % 7] for i in range(1, method.window + method.depth - 1)]]
    grams: list[Gram] = []
    looked = proposed = 0
    params = SamplingParams(temperature, max_new_tokens=30)
    for text, block, sequence in drafted_blocks(decoder, prompt, params, KeyedCoins(3)):
        if method.text:
            grams += [tuple(text[end - n : end]) for end in range(max(n, looked + 1), len(text) + 1)]
            looked = len(text)
        guesses, deepest = newest(grams, text[-1], method.k), min(method.depth, 7 + 30 - len(text) - 1)
        assert paths(block.tree.proposals).keys() == {guess[: i + 1] for guess in guesses for i in range(deepest)}
        past, result = jacobi(past, text[-1], method.depth, lambda cells, text=text: predict([*text, *cells]))  # type: ignore[misc]
        window = sequence.draft.window
        assert window.rows[0][1:] == past[0] and window.rows[1:] == past[1:]
        grams += result
        proposed += len(guesses)
    assert proposed > 3


def test_a_window_of_depth_one_makes_pairs() -> None:
    window = Window([5, 6], depth=1, columns=3)
    tree = window.attach(DraftTree.root_only(9), max_depth=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.lookahead_nodes) == ([9, 6, 5], [-1, 0, 1], 2)
    assert window.advance(tree, [1, 2, 3]) == [(9, 1), (6, 2), (5, 3)]
    assert window.rows == [[1, 2, 3]]


def test_a_window_of_two_rows_by_hand() -> None:
    """Row 0 is a chain on the root, row 1 hangs on row 0; they follow two proposals."""
    window = Window([1, 2, 3], depth=2, columns=2)
    tree = window.attach(with_guesses(DraftTree.root_only(9), ROOT, [(4, 7)]), max_depth=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.lookahead_nodes) == ([9, 4, 7, 2, 3], [-1, 0, 1, 0, 3], 2)
    assert window.advance(tree, [10, 11, 12, 13, 14]) == [], "one row makes no n-grams yet"
    assert window.rows == [[2, 3], [13, 14]], "a row is gained, a column lost"
    tree = window.attach(DraftTree.root_only(8), max_depth=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.lookahead_nodes) == ([8, 3, 13, 14], [-1, 0, 0, 1], 3)
    assert window.advance(tree, [20, 21, 22, 23]) == [(8, 13, 22), (3, 14, 23)]
    assert window.rows == [[13, 14], [22, 23]]


@pytest.mark.parametrize(("max_depth", "columns"), [(5, 4), (4, 4), (3, 3), (2, 2), (1, 1), (0, 0)])
def test_columns_deeper_than_the_context_are_dropped(max_depth: int, columns: int) -> None:
    """They do not come back. Cell (r, c) is at depth r + c."""
    window = Window([1, 2, 3], depth=2, columns=4)
    window.rows = [[0, 1, 2, 3], [4, 5, 6, 7]]
    for deep in (max_depth, 99):
        tree = window.attach(DraftTree.root_only(8), deep)
        assert [len(row) for row in window.rows] == [columns, columns]
        assert len(tree) == max(1, 2 * columns) and max(tree.depths) <= max_depth
    grams = window.advance(tree, list(range(10, 18)))
    assert len(grams) == columns and len(window.rows) == 2


def test_a_pool_keeps_the_newest_guesses() -> None:
    """A repeated guess becomes the newest."""
    pool = NgramPool(2)
    pool.add([(1, 5, 5), (1, 6, 6), (2, 7, 7), (1, 5, 5), (1, 8, 8)])
    assert pool.after(1) == [(8, 8), (5, 5)] and pool.after(2) == [(7, 7)] and pool.after(3) == []
    pool.add([(1, 8, 8), (1, 8, 8)])
    assert pool.after(1) == [(8, 8), (5, 5)]
    for gram in ((1, 8, 8), (1, 9, 9), (3, 1, 1)):
        pool.drop(gram)
    assert pool.after(1) == [(5, 5)]


def test_guesses_share_their_common_beginning() -> None:
    chain = with_guesses(DraftTree.root_only(0), ROOT, [(1, 2)])
    tree = with_guesses(chain, 2, [(3, 4), (3, 5), (6,), (3, 4), ()])
    assert tree.tokens.tolist() == [0, 1, 2, 3, 4, 5, 6] and tree.parents.tolist() == [-1, 0, 1, 2, 3, 3, 2]


class Knowing(LookaheadDrafter):
    """A drafter whose pool contains the text."""

    def __init__(self, method: Lookahead, text: Sequence[int]) -> None:
        super().__init__(method, 96)
        self.known = text

    def start(self, sequence: Text) -> LookaheadState:
        state, n = super().start(sequence), self.method.depth + 1
        state.pool.add(tuple(self.known[i : i + n]) for i in range(len(self.known) - n + 1))
        return state


def test_a_fully_accepted_guess_is_followed_by_one_more_token() -> None:
    """The published code emits at most `depth` tokens in a pass, this one depth + 1."""
    decoder, _, _ = drafting(Lookahead())
    params, prompt = SamplingParams(temperature=0.0, max_new_tokens=21), tiny.tokens(9)
    text = decoder.generate(prompt, params, KeyedCoins(0)).tokens
    decoder.drafter = Knowing(Lookahead(k=50, text=False), [*prompt, *text])
    known = decoder.generate(prompt, params, KeyedCoins(0))
    assert known.tokens == text and [block.accepted for block in known.blocks] == [0, 4, 4, 4, 4]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("length", [1, 5])
def test_no_node_is_beyond_the_context(method: Lookahead, length: int) -> None:
    """No lookahead node is accepted, and no proposal is deeper than the rest of the context."""
    decoder, _, _ = drafting(method, max_position_embeddings=24)
    control = Decoder(decoder.target, None, walk)
    prompt, params = tiny.tokens(length), SamplingParams(max_new_tokens=99)
    widest, finish = 0, None
    for text, block, sequence in drafted_blocks(decoder, prompt, params, KeyedCoins(3)):
        finish = sequence.finish
        assert isinstance(block.tree, LookaheadTree)
        assert len(text) - 1 + max(block.tree.depths) < 24
        assert max(block.tree.proposals.depths) <= min(method.depth, 24 - len(text) - 1)
        assert all(node < len(block.tree.proposals) for node in block.path)
        widest = max(widest, block.tree.lookahead_nodes)
    cells = [rows * (method.window + method.depth - rows) for rows in range(1, method.depth + 1)]
    assert finish == "context" and widest == max(cells) - 1
    result = [d.generate(prompt, params, KeyedCoins(3)).tokens for d in (decoder, control)]
    assert result[0] == result[1] and len(result[0]) == 24 - length
