"""Chapter SMOKE: the adapter, not the engine: does it open, answer, and answer the same when asked the same?"""

from __future__ import annotations

from harness.pytest_plugin import Judge
from properties.subject import Subject


def test_it_answers(judge: Judge, subject: Subject) -> None:
    """SMOKE-1: With and without speculation, every prompt of a call gets an answer of as many tokens as were asked for."""
    params = [{"temperature": 0.0, "max_new_tokens": n} for n in (1, 8, 12)]
    prompts = [prompt.tokens for prompt in subject.texts[:3]]
    for speculate in (True, False):
        subject.open(subject.pair, speculate=speculate).generate(prompts, params, [1, 2, 3])
    judge("pass", "3 prompts in one call, with and without speculation: 3 answers of 1, 8 and 12 tokens each time")


def test_it_repeats_itself(judge: Judge, subject: Subject) -> None:
    """SMOKE-2: Asked twice with the same seed, it gives the same text; asked with another seed, at temperature 1, another.

    Needs SMOKE-1.
    """
    engine, prompt = subject.open(subject.pair), subject.texts[0].tokens
    params = {"temperature": 1.0, "max_new_tokens": 24}
    first, again, other = engine.generate([prompt] * 3, [params] * 3, [7, 7, 8])
    if first.tokens != again.tokens:
        judge("inconclusive", "the same seed gave two texts: a run cannot be repeated, and a fault not be replayed")
    if first.tokens == other.tokens:
        judge("fault", "two seeds gave the same 24 tokens at temperature 1: the seed has no effect, or sampling is greedy")
    judge("pass", "one seed, one text; two seeds, two texts")
