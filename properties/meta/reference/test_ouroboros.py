"""Ouroboros: chain and phrases equal a computation by plain passes, and the small model's cache follows the text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.lookahead import Gram
from eagle2_ref.drafters.ouroboros import Ouroboros, OuroborosDrafter, corrected, rewritten
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.implementations import connect
from harness.implementations.reference import between
from harness.mutants.cache import common_prefix
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import drafted_blocks, paths, summary
from properties.meta.reference.test_lookahead import Likeliest, jacobi, most_likely, newest

METHODS = [
    Ouroboros(k=2, depth=6, phrase=2, window=4),
    Ouroboros(k=3, depth=5, phrase=3, window=3),
    Ouroboros(k=1, depth=4, phrase=1, window=1),
    Ouroboros(k=2, depth=2, phrase=4, window=2),
    Ouroboros(k=2, depth=1, phrase=2, window=2),
]


@cache
def models() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A target, and the same model with a little noise, which often agrees with it. Few tokens, so that phrases recur."""
    big, small = tiny.target(vocab_size=8), tiny.target(vocab_size=8)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in small.parameters():
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return big, small


@pytest.mark.parametrize(
    ("depth", "phrase", "chain"), [(10, 4, 6), (18, 6, 12), (6, 3, 3), (5, 3, 3), (4, 4, 2), (2, 4, 1), (1, 4, 1), (1, 1, 1)]
)
def test_the_chain_has_the_depth_that_phrases_leave(depth: int, phrase: int, chain: int) -> None:
    assert Ouroboros(depth=depth, phrase=phrase).chain == chain


def drafting(method: Ouroboros) -> tuple[Decoder, OuroborosDrafter]:
    big, small = (tiny.running(model) for model in models())
    drafter = OuroborosDrafter(method, small)
    return Decoder(big, drafter, walk), drafter


def greedy(predict: Likeliest, text: Sequence[int], n: int) -> list[int]:
    result = list(text)
    for _ in range(n):
        result.append(predict(result))
    return result[len(text) :]


class Reference:
    """The drafts of a text without a cache, a tree or a pool: all n-grams in order."""

    def __init__(self, method: Ouroboros, prompt: Sequence[int]) -> None:
        self.method = method
        self.big, self.small = (most_likely(model) for model in models())
        self.past = [[prompt[i % len(prompt)] for i in range(1, method.window + method.phrase - 1)]]
        self.grams: list[Gram] = []

    def chain(self, text: Sequence[int], n: int) -> list[int]:
        """The small model's greedy text in steps: each as long as the best matching phrase, and one token more."""
        chain: list[int] = []
        while len(chain) < n:
            so_far = [*text, *chain]
            truth = greedy(self.small, so_far, n - len(chain))
            phrases = newest(self.grams, so_far[-1], self.method.window)
            held = max((common_prefix(phrase, truth[:-1]) for phrase in phrases), default=0)
            predict = partial(self._small_predict, so_far)
            self.past, result = jacobi(self.past, so_far[-1], self.method.phrase, predict)
            self.grams += result
            chain += truth[: held + 1]
        return chain

    def _small_predict(self, text: Sequence[int], cells: Sequence[int]) -> int:
        return self.small([*text, *cells])

    def learn(self, text: Sequence[int], chain: Sequence[int], accepted: int, phrases: Sequence[Gram]) -> None:
        """Phrases from the target's output after rejected tokens, and after the phrases that were proposed."""
        n = self.method.phrase
        for first in range(accepted, len(chain) - n + 1):
            said = [self.big([*text, *chain[: first + 1 + i]]) for i in range(n)]
            if said[:-1] == list(chain[first + 1 : first + n]):
                self.grams.append((chain[first], *said))
        for phrase in phrases:
            tried = (chain[-1], *phrase)
            said = [self.big([*text, *chain, *phrase[:i]]) for i in range(n)]
            self.grams = [gram for gram in self.grams if gram != tried] + [(chain[-1], *said)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_trees_equal_a_computation_by_plain_passes(method: Ouroboros, temperature: float) -> None:
    """The small model's cache is that of the text and the chain without its last token."""
    decoder, drafter = drafting(method)
    prompt, new = tiny.tokens(5, 8), 40
    reference, seen = Reference(method, prompt), set()
    params = SamplingParams(temperature, max_new_tokens=new)
    for text, block, sequence in drafted_blocks(decoder, prompt, params, KeyedCoins(2)):
        left = min(method.depth, 5 + new - len(text) - 1)
        chain = reference.chain(text, min(left, method.chain))
        phrases = newest(reference.grams, chain[-1], method.k) if chain else []
        cut = [phrase[: left - len(chain)] for phrase in phrases]
        expected = {(*chain, *phrase)[:n] for phrase in [(), *cut] for n in range(1, len(chain) + len(phrase) + 1)}
        assert paths(block.tree).keys() == expected and block.tree.proposals is block.tree
        reference.learn(text, chain, min(len(block.path), len(chain)), [p for p in cut if len(p) == method.phrase])
        if chain:
            cache, fresh = sequence.draft.cache, drafter.small.cache()
            assert cache.length == len(text) + len(chain) - 1
            drafter.small.prefill([fresh], [[*text, *chain[:-1]]])
            difference = (cache.entries() - fresh.entries()).abs().max()
            assert difference < 1e-9
        seen.add((bool(cut), len(block.path) > len(chain)))
    assert (True, False) in seen or method.depth == 1
    assert (True, True) in seen or temperature or method.depth == 1


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_passes_of_the_small_model_are_counted(method: Ouroboros) -> None:
    """Fewer than the tokens of the chains, if its lookahead succeeds."""
    decoder, drafter = drafting(method)
    counted, network = 0, drafter.small.network

    def counting(*given: Any) -> Any:
        nonlocal counted
        counted += 1
        return network(*given)

    drafter.small.network = between(network, counting)
    result = decoder.generate(tiny.tokens(5, 8), SamplingParams(temperature=0.0, max_new_tokens=40), KeyedCoins(0))
    assert result.draft_passes == counted > 0
    chained = sum(min(max(block.tree.depths), method.chain) for block in result.blocks)
    caught_up = len(result.blocks)
    assert counted <= chained + caught_up
    if method.chain > 2:
        assert counted < chained


def test_corrected_phrases_by_hand() -> None:
    """A phrase agrees with the draft up to its last token, which is the target's."""
    tokens, said = [1, 2, 3, 4, 5], [2, 3, 9, 5, 6]
    assert list(corrected(tokens, said, 1)) == [(1, 2), (2, 3), (3, 9), (4, 5), (5, 6)]
    assert list(corrected(tokens, said, 2)) == [(1, 2, 3), (2, 3, 9), (4, 5, 6)]
    assert list(corrected(tokens, said, 3)) == [(1, 2, 3, 9)]
    assert list(corrected(tokens, said, 4)) == [] == list(corrected([], [], 1))


def test_rewritten_phrases_by_hand() -> None:
    """Each token is replaced by the target's after the node of the token before."""
    tree = DraftTree.of([0, 1, 3, 4, 5], [-1, 0, 1, 2, 2])
    said = [10, 11, 12, 13, 14]
    assert rewritten(tree, said, 1, (3, 4)) == [11, 12] == rewritten(tree, said, 1, (3, 5))
    assert rewritten(tree, said, 1, (3, 5, 7)) == [11, 12, 14]


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("small_context", [24, 12])
def test_contexts_of_both_models_can_be_filled(length: int, small_context: int) -> None:
    """After the end of the small model's context nothing is drafted. It never gets a position beyond it."""
    target, small = (tiny.running(tiny.target(max_position_embeddings=n)) for n in (24, small_context))
    network = small.network

    def within(tokens: Tensor, positions: Tensor, *rest: Any) -> ModelOutput:
        assert positions.max() < small_context
        return network(tokens, positions, *rest)

    small.network = between(network, within)
    decoder = Decoder(target, OuroborosDrafter(METHODS[0], small), walk)
    prompt, params = tiny.tokens(length), SamplingParams(temperature=0.0, max_new_tokens=99)
    result = decoder.generate(prompt, params, KeyedCoins(0))
    assert result.tokens == Decoder(target, None, walk).generate(prompt, params, KeyedCoins(0)).tokens
    assert result.finish == "context" and len(result.tokens) == 24 - length
    for block in result.blocks[1:]:
        assert max(block.tree.depths) == min(max(block.tree.depths), max(0, small_context - block.start))
    assert max(len(block.path) for block in result.blocks) >= 4


def test_warm_phrases_change_trees_but_not_the_text() -> None:
    decoder, _ = drafting(Ouroboros(k=2, depth=6, phrase=2, window=4, warm=True))
    prompt, params = tiny.tokens(5, 8), SamplingParams(temperature=0.0, max_new_tokens=40)
    cold, warm = (decoder.generate(prompt, params, KeyedCoins(0)) for _ in range(2))
    assert cold.tokens == warm.tokens and summary(cold) != summary(warm)
    assert len(warm.blocks[1].tree) > len(cold.blocks[1].tree), "there are phrases from the first block on"


def test_a_warm_drafter_declares_fewer_capabilities() -> None:
    """Its trees depend on earlier sequences."""
    cold, warm = (connect(f"ref:drafter=ouroboros{option}").capabilities for option in ("", ",warm=true"))
    assert cold - warm == {"deterministic", "batch", "tau"}
