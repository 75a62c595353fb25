"""Lookahead decoding: its window against the Jacobi iteration as the published code lays it out, by plain passes; pool and trie
by hand; and what rides along is never emitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.batch import Batch
from eagle2_ref.coins import Coins, KeyedCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.lookahead import Gram, Lookahead, LookaheadDrafter, Pool, Window, grown
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.distributions.exact import target_law, total_variation
from harness.distributions.teacher import load_plain
from harness.enumeration.emitted_law import emitted_law
from harness.implementations import connect
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.reference.test_target import running
from properties.test_law import ROUNDING

METHODS = [
    Lookahead(),
    Lookahead(text=False),
    Lookahead(k=1, depth=3, window=4, text=False),
    Lookahead(k=2, depth=4, window=1, text=False),
    Lookahead(k=3, depth=2, window=5),
    Lookahead(k=2, depth=1, window=3, text=False),
]

Likeliest = Callable[[Sequence[int]], int]


def likeliest(model: PreTrainedModel) -> Likeliest:
    """The token that a model finds likeliest behind a text: a plain pass over all of it."""

    @torch.inference_mode()
    def behind(text: Sequence[int]) -> int:
        return int(model(torch.tensor([list(text)])).logits[0, -1].argmax())

    return behind


def jacobi(past: list[list[int]], root: int, depth: int, behind: Likeliest) -> tuple[list[list[int]], list[Gram]]:
    """A pass of the lookahead branch as the published code lays it out: past[0] without the root, which stands before it.

    `behind` tells what the target finds likeliest behind tokens below the root. Returns the next rows, and the n-grams. (One row
    alone, which is depth 1, the published code does not know.)
    """
    first, *others = past
    if depth == 1:
        pairs = [(token, behind(first[:i])) for i, token in enumerate([root, *first])]
        return [[said for _, said in pairs[1:]]], list(pairs)
    if not others:
        return [first[1:], [behind(first[: i + 1]) for i in range(len(first))]], []
    said = [behind([*first[:i], *(row[i] for row in others)]) for i in range(len(others[-1]))]
    if len(past) < depth:
        return [*(row[1:] for row in past), said[1:]], []
    return [others[0][1:], *others[1:], said], list(zip([root, *first], *others, said, strict=True))


def drafting(method: Lookahead, **changes: Any) -> tuple[Decoder, LookaheadDrafter, PreTrainedModel]:
    model = tiny.target(**changes)
    target = running(model, lean=True)
    drafter = LookaheadDrafter(method, target.context)
    return Decoder(target, drafter, walk), drafter, model


def blocks(decoder: Decoder, prompt: Sequence[int], n: int = 30, temperature: float = 1.0) -> Iterator[tuple[list[int], Block]]:
    """Each block after the prompt's, with the text that its tree stood on, the root last."""
    text = list(prompt)
    for block in decoder.stream(prompt, SamplingParams(temperature=temperature, max_new_tokens=n), KeyedCoins(3)):
        if len(text) > len(prompt):
            yield list(text), block
        text += block.tokens


def paths(tree: Tree) -> set[Gram]:
    return {tuple(tree.token(i) for i in tree.path(node)) for node in range(1, len(tree))}


def newest(grams: Sequence[Gram], token: int, k: int) -> list[Gram]:
    """Of the guesses that were made at what follows a token, the last k different ones."""
    guesses = [gram[1:] for gram in reversed(grams) if gram[0] == token]
    return list(dict.fromkeys(guesses))[:k]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_window_is_jacobi_iteration(method: Lookahead, temperature: float) -> None:
    """After every block each slot is what a plain pass says behind its explicit prefix, at any temperature; what was proposed
    are the newest k guesses that columns of the window, or n-grams of the text, had made."""
    decoder, drafter, model = drafting(method)
    behind, prompt, n = likeliest(model), tiny.tokens(7), method.depth + 1
    past = [[prompt[i % 7] for i in range(1, method.window + method.depth - 1)]]
    grams: list[Gram] = []
    looked = proposed = 0
    for text, block in blocks(decoder, prompt, temperature=temperature):
        if method.text:
            grams += [tuple(text[end - n : end]) for end in range(max(n, looked + 1), len(text) + 1)]
            looked = len(text)
        guesses, deepest = newest(grams, text[-1], method.k), min(method.depth, 7 + 30 - len(text) - 1)
        assert paths(block.tree.proposals) == {guess[: i + 1] for guess in guesses for i in range(deepest)}
        past, made = jacobi(past, text[-1], method.depth, lambda slots, text=text: behind([*text, *slots]))  # type: ignore[misc]
        assert drafter.window.rows[0][1:] == past[0] and drafter.window.rows[1:] == past[1:]
        grams += made
        proposed += len(guesses)
    assert proposed > 3


def test_a_window_of_one_row() -> None:
    """depth 1, which the published code does not know: each slot of row 0 makes a pair with what is said behind it."""
    window = Window([5, 6], depth=1, columns=3)
    tree = window.aboard(DraftTree.bare(9), room=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.passengers) == ([9, 6, 5], [-1, 0, 1], 2)
    assert window.advance(tree, [1, 2, 3]) == [(9, 1), (6, 2), (5, 3)]
    assert window.rows == [[1, 2, 3]]


def test_a_window_by_hand() -> None:
    """Two rows: row 0 hangs on the root as a chain, row 1 on row 0; behind two proposals, so that slots begin at node 3."""
    window = Window([1, 2, 3], depth=2, columns=2)
    tree = window.aboard(grown(DraftTree.bare(9), ROOT, [(4, 7)]), room=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.passengers) == ([9, 4, 7, 2, 3], [-1, 0, 1, 0, 3], 2)
    assert window.advance(tree, [10, 11, 12, 13, 14]) == [], "one row makes no n-grams yet"
    assert window.rows == [[2, 3], [13, 14]], "a row is gained, a column lost"
    tree = window.aboard(DraftTree.bare(8), room=99)
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.passengers) == ([8, 3, 13, 14], [-1, 0, 0, 1], 3)
    assert window.advance(tree, [20, 21, 22, 23]) == [(8, 13, 22), (3, 14, 23)]
    assert window.rows == [[13, 14], [22, 23]]


@pytest.mark.parametrize(("room", "columns"), [(5, 4), (4, 4), (3, 3), (2, 2), (1, 1), (0, 0)])
def test_columns_that_would_reach_too_deep_are_left_out(room: int, columns: int) -> None:
    """The others stay, and are never more again; the slot (r, c) is r + c deep."""
    window = Window([1, 2, 3], depth=2, columns=4)
    window.rows = [[0, 1, 2, 3], [4, 5, 6, 7]]
    for deep in (room, 99):
        tree = window.aboard(DraftTree.bare(8), deep)
        assert [len(row) for row in window.rows] == [columns, columns]
        assert len(tree) == max(1, 2 * columns) and max(tree.depths) <= room
    grams = window.advance(tree, list(range(10, 18)))
    assert len(grams) == columns and len(window.rows) == 2


def test_a_pool_keeps_the_newest() -> None:
    """Of each token as many as it may; one that comes again becomes the newest."""
    pool = Pool(2)
    pool.add([(1, 5, 5), (1, 6, 6), (2, 7, 7), (1, 5, 5), (1, 8, 8)])
    assert pool.of(1) == [(8, 8), (5, 5)] and pool.of(2) == [(7, 7)] and pool.of(3) == []
    pool.add([(1, 8, 8), (1, 8, 8)])
    assert pool.of(1) == [(8, 8), (5, 5)]
    for gram in ((1, 8, 8), (1, 9, 9), (3, 1, 1)):
        pool.drop(gram)
    assert pool.of(1) == [(5, 5)]


def test_guesses_that_begin_alike_share_what_they_share() -> None:
    chain = grown(DraftTree.bare(0), ROOT, [(1, 2)])
    tree = grown(chain, 2, [(3, 4), (3, 5), (6,), (3, 4), ()])
    assert tree.tokens.tolist() == [0, 1, 2, 3, 4, 5, 6] and tree.parents.tolist() == [-1, 0, 1, 2, 3, 3, 2]


class Knowing(LookaheadDrafter):
    """A drafter whose pool holds the very text to come."""

    def __init__(self, method: Lookahead, text: Sequence[int]) -> None:
        super().__init__(method, 96)
        self.known = text

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        super().begin(prompt, params, coins)
        n = self.method.depth + 1
        self.pool.add(tuple(self.known[i : i + n]) for i in range(len(self.known) - n + 1))


def test_a_guess_that_holds_to_its_end_is_followed_by_one_more_token() -> None:
    """The published code emits depth tokens a pass at most, this one depth + 1."""
    decoder, _, _ = drafting(Lookahead())
    params, prompt = SamplingParams(temperature=0.0, max_new_tokens=21), tiny.tokens(9)
    text = decoder.generate(prompt, params, KeyedCoins(0)).tokens
    decoder.drafter = Knowing(Lookahead(k=50, text=False), [*prompt, *text])
    known = decoder.generate(prompt, params, KeyedCoins(0))
    assert known.tokens == text and [block.accepted for block in known.blocks] == [0, 4, 4, 4, 4]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("length", [1, 5])
def test_nothing_lies_beyond_the_context(method: Lookahead, length: int) -> None:
    """To the last token that the model can hold, from a prompt of one token too: no node has a position of 24 or more, none is
    accepted that is no proposal, and no proposal is deeper than what is left."""
    decoder, _, _ = drafting(method, max_position_embeddings=24)
    control = Decoder(decoder.target, None, walk)
    prompt, params = tiny.tokens(length), SamplingParams(max_new_tokens=99)
    widest = 0
    for text, block in blocks(decoder, prompt, 99):
        assert len(text) - 1 + max(block.tree.depths) < 24
        assert max(block.tree.proposals.depths) <= min(method.depth, 24 - len(text) - 1)
        assert all(node < len(block.tree.proposals) for node in block.path)
        widest = max(widest, block.tree.passengers)
    slots = [rows * (method.window + method.depth - rows) for rows in range(1, method.depth + 1)]
    assert decoder.finish == "context" and widest == max(slots) - 1
    made = [d.generate(prompt, params, KeyedCoins(3)).tokens for d in (decoder, control)]
    assert made[0] == made[1] and len(made[0]) == 24 - length


def test_the_text_before_is_forgotten_and_texts_side_by_side_are_strangers() -> None:
    """Trees of a text are the same after another text, and among others that share its passes."""
    decoder, _, _ = drafting(Lookahead())
    prompts, params = [tiny.tokens(n, seed=n) for n in (3, 11, 6)], SamplingParams(max_new_tokens=25)

    def told(generations: Sequence[Any]) -> list[Any]:
        return [[(b.tokens, b.tree.tokens.tolist(), b.tree.parents.tolist()) for b in made.blocks] for made in generations]

    alone = told([decoder.generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)])
    assert told([decoder.generate(prompts[0], params, KeyedCoins(0))]) == alone[:1]
    together = Batch(decoder, 2).generate(prompts, [params] * 3, [KeyedCoins(i) for i in range(3)])
    assert told(together) == alone


@pytest.mark.parametrize("options", ["k=2,depth=2,window=3", "k=2,depth=1,window=2", "k=3,depth=2,window=4,text=false"])
@pytest.mark.parametrize("rule", ["walk", "reject"])
def test_the_law_is_the_targets_while_guesses_are_accepted(options: str, rule: str) -> None:
    """Over all coins, of texts long enough for the window to have filled the pool."""
    pair, prompt, params = shipped("coin4"), [2, 3, 2], {"temperature": 1.0, "top_k": 2, "max_new_tokens": 7}
    engine = connect(f"ref:drafter=lookahead,rule={rule},dtype=float64,{options}").open(pair)
    emitted, _ = emitted_law(engine, prompt, params)
    expected = target_law(load_plain(pair, "float64"), prompt, SamplingParams.of(params))
    assert total_variation(emitted, expected) <= ROUNDING
    assert engine.raw.counters()["accepted"] > 50


@pytest.mark.parametrize("option", ["k", "depth", "window"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_are_whole_and_positive(option: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{option} is {value}"):
        Lookahead(**{option: value}).drafter(running(tiny.target(), lean=True), "")
