"""Chapter SMOKE: the adapter, not the engine: does it open, answer, and answer the same when asked the same?"""

from __future__ import annotations

from collections.abc import Callable

from harness.implementations.engine import Engine
from harness.pairs import Pair, Prompt
from harness.plugin import Judge


def test_it_answers(judge: Judge, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]) -> None:
    """SMOKE-1: With and without speculation, every prompt of a call gets an answer of as many tokens as were asked for."""
    params = [{"temperature": 0.0, "max_new_tokens": n} for n in (1, 8, 12)]
    prompts = [prompt.tokens for prompt in texts[:3]]
    for speculate in (True, False):
        open_engine(pair, speculate=speculate).generate(prompts, params, [1, 2, 3])
    judge("pass", "3 prompts in one call, with and without speculation: 3 answers of 1, 8 and 12 tokens each time")


def test_it_repeats_itself(judge: Judge, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]) -> None:
    """SMOKE-2: Asked twice with the same seed, it gives the same text; asked with another seed, at temperature 1, another.

    Needs SMOKE-1.
    """
    engine, prompt = open_engine(pair), texts[0].tokens
    params = {"temperature": 1.0, "max_new_tokens": 24}
    first, again, other = engine.generate([prompt] * 3, [params] * 3, [7, 7, 8])
    if first.tokens != again.tokens:
        judge("inconclusive", "the same seed gave two texts: a run cannot be repeated, and a fault not be replayed")
    if first.tokens == other.tokens:
        judge("fault", "two seeds gave the same 24 tokens at temperature 1: the seed has no effect, or sampling is greedy")
    judge("pass", "one seed, one text; two seeds, two texts")
