"""Chapter SMOKE: the adapter opens, answers, and answers the same request the same way."""

from __future__ import annotations

from harness.catalogue import check
from harness.context import Context
from harness.record.model import Result


@check("SMOKE-1")
def answers(context: Context) -> Result:
    """With and without speculation, every prompt of a call gets an answer of the requested number of tokens."""
    lengths = (1, 8, 12)
    params = [{"temperature": 0.0, "max_new_tokens": n} for n in lengths]
    prompts = [prompt.tokens for prompt in context.prompts[:3]]
    for speculate in (True, False):
        context.open(context.pair, speculate=speculate).generate(prompts, params, [1, 2, 3])
    return context.result(
        "pass",
        "3 prompts in one call, with and without speculation: 3 answers of 1, 8 and 12 tokens each time",
        work=(2 * sum(lengths), "tokens"),
    )


@check("SMOKE-2", needs=["SMOKE-1"])
def repeats_itself(context: Context) -> Result:
    """The same seed gives the same text; another seed, at temperature 1, gives another text."""
    engine, prompt = context.open(context.pair), context.prompts[0].tokens
    length = min(24, context.pair.context - len(prompt))
    params = {"temperature": 1.0, "max_new_tokens": length}
    first, again, other = engine.generate([prompt] * 3, [params] * 3, [7, 7, 8])
    if first.tokens != again.tokens:
        return context.result("inconclusive", "the same seed gave two texts: no run can be repeated, and no fault be replayed")
    if first.tokens == other.tokens:
        return context.result(
            "fault", f"two seeds gave the same {length} tokens at temperature 1: the seed has no effect, or sampling is greedy"
        )
    return context.result("pass", "one seed gives one text, two seeds give two texts", work=(3 * length, "tokens"))
