"""Ouroboros: its chain against the small model's greedy text, its phrases against a slow pool, by plain passes; the small model's
cache follows the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.batch import Batch
from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.lookahead import Gram
from eagle2_ref.drafters.ouroboros import Ouroboros, OuroborosDrafter, corrected, rewritten
from eagle2_ref.errors import BadInput
from eagle2_ref.model.network import Rows
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.distributions.exact import target_law, total_variation
from harness.distributions.teacher import load_plain
from harness.enumeration.emitted_law import emitted_law
from harness.implementations import connect
from harness.implementations.reference import between
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.reference.test_lookahead import Likeliest, jacobi, likeliest, newest, paths
from properties.meta.reference.test_target import running
from properties.test_law import ROUNDING

METHODS = [
    Ouroboros(k=2, depth=6, phrase=2, window=4),
    Ouroboros(k=3, depth=5, phrase=3, window=3),
    Ouroboros(k=1, depth=4, phrase=1, window=1),
    Ouroboros(k=2, depth=2, phrase=4, window=2),
    Ouroboros(k=2, depth=1, phrase=2, window=2),
]


@cache
def models() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A target, and a small model that often agrees with it: the same with a little noise. Few tokens, so that phrases recur."""
    big, small = tiny.target(vocab_size=8), tiny.target(vocab_size=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in small.parameters():
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return big, small


@pytest.mark.parametrize(
    ("depth", "phrase", "chain"), [(10, 4, 6), (18, 6, 12), (6, 3, 3), (5, 3, 3), (4, 4, 2), (2, 4, 1), (1, 4, 1), (1, 1, 1)]
)
def test_the_chain_takes_what_phrases_leave(depth: int, phrase: int, chain: int) -> None:
    assert Ouroboros(depth=depth, phrase=phrase).chain == chain


def drafting(method: Ouroboros) -> tuple[Decoder, OuroborosDrafter]:
    big, small = (running(model, lean=True) for model in models())
    drafter = OuroborosDrafter(method, small)
    return Decoder(big, drafter, walk), drafter


def greedy(behind: Likeliest, text: Sequence[int], n: int) -> list[int]:
    made = list(text)
    for _ in range(n):
        made.append(behind(made))
    return made[len(text) :]


class Slow:
    """What is drafted for a text, without a cache, a tree or a pool: every gram that was ever made is remembered in order."""

    def __init__(self, method: Ouroboros, prompt: Sequence[int]) -> None:
        self.method = method
        self.big, self.small = (likeliest(model) for model in models())
        self.past = [[prompt[i % len(prompt)] for i in range(1, method.window + method.phrase - 1)]]
        self.grams: list[Gram] = []

    def chain(self, text: Sequence[int], n: int) -> list[int]:
        """The small model's greedy text, in steps: each as long as the best phrase that agrees with it, and one token more."""
        chain: list[int] = []
        while len(chain) < n:
            so_far = [*text, *chain]
            truth = greedy(self.small, so_far, n - len(chain))
            phrases = newest(self.grams, so_far[-1], self.method.window)
            held = max((_common(phrase, truth[:-1]) for phrase in phrases), default=0)
            behind = partial(self._small_behind, so_far)
            self.past, made = jacobi(self.past, so_far[-1], self.method.phrase, behind)
            self.grams += made
            chain += truth[: held + 1]
        return chain

    def _small_behind(self, text: Sequence[int], slots: Sequence[int]) -> int:
        return self.small([*text, *slots])

    def hear(self, text: Sequence[int], chain: Sequence[int], accepted: int, phrases: Sequence[Gram]) -> None:
        """The target's words behind refused tokens, where the draft has all but the last of them; and behind phrases tried."""
        n = self.method.phrase
        for first in range(accepted, len(chain) - n + 1):
            said = [self.big([*text, *chain[: first + 1 + i]]) for i in range(n)]
            if said[:-1] == list(chain[first + 1 : first + n]):
                self.grams.append((chain[first], *said))
        for phrase in phrases:
            tried = (chain[-1], *phrase)
            said = [self.big([*text, *chain, *phrase[:i]]) for i in range(n)]
            self.grams = [gram for gram in self.grams if gram != tried] + [(chain[-1], *said)]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def blocks(decoder: Decoder, prompt: Sequence[int], n: int, temperature: float) -> Iterator[tuple[list[int], Block]]:
    """Each block after the prompt's, with the text that its tree stood on, the root last."""
    text = list(prompt)
    for block in decoder.stream(prompt, SamplingParams(temperature=temperature, max_new_tokens=n), KeyedCoins(2)):
        if len(text) > len(prompt):
            yield list(text), block
        text += block.tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trees_are_those_of_plain_passes(method: Ouroboros, temperature: float) -> None:
    """Chain and phrases of every block; and the small model's cache is that of the text and the chain, but for its last token."""
    decoder, drafter = drafting(method)
    prompt, new = tiny.tokens(5, 8), 40
    slow, seen = Slow(method, prompt), set()
    for text, block in blocks(decoder, prompt, new, temperature):
        left = min(method.depth, 5 + new - len(text) - 1)
        chain = slow.chain(text, min(left, method.chain))
        phrases = newest(slow.grams, chain[-1], method.k) if chain else []
        cut = [phrase[: left - len(chain)] for phrase in phrases]
        expected = {(*chain, *phrase)[:n] for phrase in [(), *cut] for n in range(1, len(chain) + len(phrase) + 1)}
        assert paths(block.tree) == expected and block.tree.passengers == 0
        slow.hear(text, chain, min(len(block.path), len(chain)), [p for p in cut if len(p) == method.phrase])
        if chain:
            assert drafter.small.length == len(text) + len(chain) - 1
            fresh = running(models()[1], lean=True)
            fresh.prefill([*text, *chain[:-1]])
            difference = (drafter.small.cache.kept() - fresh.cache.kept()).abs().max()
            assert difference < 1e-9
        seen.add((bool(cut), len(block.path) > len(chain)))
    assert (True, False) in seen or method.depth == 1
    assert (True, True) in seen or temperature or method.depth == 1


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_passes_of_the_small_model_are_counted(method: Ouroboros) -> None:
    """Fewer than tokens of the chains, where its own lookahead holds; and no fewer than one a tree."""
    decoder, drafter = drafting(method)
    counted, network = 0, drafter.small.network

    def counting(*given: Any) -> Any:
        nonlocal counted
        counted += 1
        return network(*given)

    drafter.small.network = between(network, counting)
    made = decoder.generate(tiny.tokens(5, 8), SamplingParams(temperature=0.0, max_new_tokens=40), KeyedCoins(0))
    assert made.draft_passes == counted > 0
    chained = sum(min(max(block.tree.depths), method.chain) for block in made.blocks)
    caught_up = len(made.blocks)
    assert counted <= chained + caught_up
    if method.chain > 2:
        assert counted < chained


def test_corrected_by_hand() -> None:
    """Draft 1 2 3 4 5; behind them the target said 2 3 9 5 6: up to where they part, its last word counts."""
    tokens, said = [1, 2, 3, 4, 5], [2, 3, 9, 5, 6]
    assert list(corrected(tokens, said, 1)) == [(1, 2), (2, 3), (3, 9), (4, 5), (5, 6)]
    assert list(corrected(tokens, said, 2)) == [(1, 2, 3), (2, 3, 9), (4, 5, 6)]
    assert list(corrected(tokens, said, 3)) == [(1, 2, 3, 9)]
    assert list(corrected(tokens, said, 4)) == [] == list(corrected([], [], 1))


def test_rewritten_by_hand() -> None:
    """Behind node 1 stand 3 4 (nodes 2, 3) and 3 5 (nodes 2, 4): each is rewritten by the rows of its own nodes."""
    tree = DraftTree.of([0, 1, 3, 4, 5], [-1, 0, 1, 2, 2])
    said = [10, 11, 12, 13, 14]
    assert rewritten(tree, said, 1, (3, 4)) == [11, 12] == rewritten(tree, said, 1, (3, 5))
    assert rewritten(tree, said, 1, (3, 5, 7)) == [11, 12, 14]


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("room", [24, 12])
def test_texts_to_the_end_of_the_context(length: int, room: int) -> None:
    """Of the target's, and past the end of the small model's, where nothing is drafted any more; nor is it ever shown a position
    that it does not have, not in its window either."""
    target, small = (running(tiny.target(max_position_embeddings=n), lean=True) for n in (24, room))
    network = small.network

    def within(tokens: Tensor, positions: Tensor, *rest: Any) -> Rows:
        assert positions.max() < room
        return network(tokens, positions, *rest)

    small.network = between(network, within)
    decoder = Decoder(target, OuroborosDrafter(METHODS[0], small), walk)
    prompt, params = tiny.tokens(length), SamplingParams(temperature=0.0, max_new_tokens=99)
    made = decoder.generate(prompt, params, KeyedCoins(0))
    assert made.tokens == Decoder(target, None, walk).generate(prompt, params, KeyedCoins(0)).tokens
    assert made.finish == "context" and len(made.tokens) == 24 - length
    for block in made.blocks[1:]:
        assert max(block.tree.depths) == min(max(block.tree.depths), max(0, room - block.start))
    assert max(len(block.path) for block in made.blocks) >= 4


def told(generations: Sequence[Any]) -> list[Any]:
    return [[(b.tokens, b.tree.tokens.tolist(), b.tree.parents.tolist()) for b in made.blocks] for made in generations]


def test_the_text_before_is_forgotten_and_texts_side_by_side_are_strangers() -> None:
    """Trees of a text are the same after another text, and among others that share its passes."""
    decoder, _ = drafting(METHODS[0])
    prompts, params = [tiny.tokens(n, 8, seed=n) for n in (3, 11, 6)], SamplingParams(max_new_tokens=25)
    alone = told([decoder.generate(prompt, params, KeyedCoins(i)) for i, prompt in enumerate(prompts)])
    assert told([decoder.generate(prompts[0], params, KeyedCoins(0))]) == alone[:1]
    together = Batch(decoder, 2).generate(prompts, [params] * 3, [KeyedCoins(i) for i in range(3)])
    assert told(together) == alone


def test_warm_keeps_the_phrases_and_the_text_stays_the_same() -> None:
    """Asked again, a text has other trees; with coins keyed by position its tokens are the same."""
    decoder, _ = drafting(Ouroboros(k=2, depth=6, phrase=2, window=4, warm=True))
    prompt, params = tiny.tokens(5, 8), SamplingParams(temperature=0.0, max_new_tokens=40)
    cold, warm = (decoder.generate(prompt, params, KeyedCoins(0)) for _ in range(2))
    assert cold.tokens == warm.tokens and told([cold]) != told([warm])
    assert len(warm.blocks[1].tree) > len(cold.blocks[1].tree), "there are phrases from the first block on"


def test_what_a_warm_one_says_of_itself() -> None:
    """Its trees hang on the texts before: neither they nor the coins they take are a text's own."""
    cold, warm = (connect(f"ref:drafter=ouroboros{option}").capabilities for option in ("", ",warm=true"))
    assert cold - warm == {"deterministic", "batch", "tau"}


@pytest.mark.parametrize("options", ["k=2,depth=3,phrase=1,window=2", "k=2,depth=4,phrase=2,window=3"])
@pytest.mark.parametrize("rule", ["walk", "reject"])
def test_the_law_is_the_targets_while_phrases_are_accepted(options: str, rule: str) -> None:
    """Over all coins, of texts long enough for phrases to be tried."""
    pair, prompt, params = shipped("coin4"), [2, 3, 2], {"temperature": 1.0, "top_k": 2, "max_new_tokens": 7}
    engine = connect(f"ref:drafter=ouroboros,rule={rule},dtype=float64,{options}").open(pair)
    emitted, _ = emitted_law(engine, prompt, params)
    expected = target_law(load_plain(pair, "float64"), prompt, SamplingParams.of(params))
    assert total_variation(emitted, expected) <= ROUNDING
    assert engine.raw.counters()["accepted"] > 50


@pytest.mark.parametrize("option", ["k", "depth", "phrase", "window"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_are_whole_and_positive(option: str, value: Any) -> None:
    with pytest.raises(BadInput, match=f"{option} is {value}"):
        Ouroboros(**{option: value}).drafter(running(tiny.target(), lean=True), "")


def test_a_small_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    tiny.target(vocab_size=8).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"does not fit the target: 8 tokens in .*, 64 in the target") as told:
        Ouroboros().drafter(running(tiny.target(), lean=True), tmp_path)
    assert told.value.hint == "give --draft a model with the target's own vocabulary"
