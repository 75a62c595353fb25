"""Chapter STOP: a text ends at its length, at the first end-of-text token, and at the limit of the context."""

from __future__ import annotations

from typing import Any

from harness.catalogue import check
from harness.context import Context
from harness.implementations.engine import Output
from harness.pairs import shipped
from harness.record.model import Result

GREEDY = {"temperature": 0.0}
NEW_TOKENS = 40


@check("STOP-1")
def stops_at_length(context: Context) -> Result:
    """With max_new_tokens = n a text has exactly n tokens, and it is the beginning of the longer text, for every n that fits.

    For a mode that is lossy by design only the length is checked: its tokens may depend on where its blocks end.
    """
    engine, prompt = context.open(context.pair), context.prompts[1].tokens
    lengths = range(1, 1 + context.scaled(18, least=9))  # at least every offset of a block of a usual depth, and one more block
    (whole,) = engine.generate([prompt], [{**GREEDY, "max_new_tokens": context.scaled(NEW_TOKENS, least=lengths[-1])}], [0])
    outputs = engine.generate([prompt] * len(lengths), [{**GREEDY, "max_new_tokens": n} for n in lengths], [0] * len(lengths))
    for n, output in zip(lengths, outputs, strict=True):
        expected = whole.tokens[:n]
        if len(output.tokens) != len(expected) or (output.tokens != expected and not context.implementation.lossy):
            return context.result("fault", f"with max_new_tokens={n} the text is {output.tokens}, expected {expected}")
    return context.result(
        "pass",
        f"correct for every length from 1 to {lengths[-1]}",
        measured={"lengths": len(lengths)},
        work=(len(lengths), "texts"),
    )


@check("STOP-2")
def stops_at_end_token(context: Context) -> Result:
    """The first end-of-text token ends the text, at every offset in a block; no token follows it."""
    context.implementation.require("eos")
    engine, checked, offsets = context.open(context.pair), 0, set()
    most = context.scaled(NEW_TOKENS, least=16)
    for prompt in context.some_prompts(3, least=1):
        (whole,) = engine.generate([prompt.tokens], [{**GREEDY, "max_new_tokens": most}], [0])
        ends = {token: whole.tokens.index(token) for token in whole.tokens}
        params: list[dict[str, Any]] = [{**GREEDY, "max_new_tokens": most, "eos_token_id": token} for token in ends]
        outputs = engine.generate([prompt.tokens] * len(ends), params, [0] * len(ends))
        for (token, at), output in zip(ends.items(), outputs, strict=True):
            expected = whole.tokens[: at + 1]
            if output.tokens != expected:
                reason = f"with end-of-text token {token}, which is token {at + 1} of the text, the text is {output.tokens}"
                return context.result("fault", f"{reason}, expected {expected}")
        checked += len(ends)
        offsets |= {offset for offset, at in _offsets(whole) if at in ends.values()}
    where = f" at offsets {sorted(offsets)} of a block" if offsets else ""
    return context.result(
        "pass",
        f"{checked} end-of-text tokens{where}",
        measured={"texts": checked, "offsets": len(offsets)},
        work=(checked, "texts"),
    )


@check("STOP-3")
def stops_at_first_of_several_end_tokens(context: Context) -> Result:
    """Of a list of end-of-text tokens, the first that occurs ends the text; in sampled text too."""
    context.implementation.require("eos")
    engine, ended, checked = context.open(context.pair), 0, 0
    for seed, prompt in enumerate(context.prompts[: context.scaled(4)]):
        params: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": context.scaled(NEW_TOKENS, least=24)}
        seeds = range(10 * seed, 10 * seed + 4)
        # Tokens that do occur: from the middle of a text that was sampled with the first seed.
        (sampled,) = engine.generate([prompt.tokens], [params], [seeds[0]])
        ends = sorted(set(sampled.tokens[len(sampled.tokens) // 3 :][:4]))
        for output in engine.generate([prompt.tokens] * 4, [{**params, "eos_token_id": ends}] * 4, seeds):
            early = [i for i, token in enumerate(output.tokens[:-1]) if token in ends]
            if early:
                reason = f"the text continues after end-of-text token {output.tokens[early[0]]}: {output.tokens}"
                return context.result("fault", reason)
            ended += output.tokens[-1] in ends
            checked += 1
    evidence: dict[str, Any] = {"measured": {"texts": checked, "ended early": ended}, "work": (checked, "texts")}
    if not ended:
        return context.result("inconclusive", f"none of {checked} sampled texts reached an end-of-text token", **evidence)
    reason = f"{ended} of {checked} sampled texts reached one of several end-of-text tokens, and ended there"
    return context.result("pass", reason, **evidence)


@check("STOP-4")
def stops_at_context_limit(context: Context) -> Result:
    """At the limit of the model's context a text ends without an error, with every token that fits."""
    context.implementation.require("context", "budget")
    pair = shipped("coin4")
    lengths = range(1, pair.context)
    prompts = [[i % 4 for i in range(n)] for n in lengths]
    engine = context.open(pair, k=3, depth=4, m=9)
    outputs = engine.generate(prompts, [{"temperature": 1.0, "max_new_tokens": 99}] * len(prompts), range(len(prompts)))
    for n, output in zip(lengths, outputs, strict=True):
        if n + len(output.tokens) != pair.context:
            reason = f"a prompt of {n} tokens got {len(output.tokens)} more; the context holds {pair.context}"
            return context.result("fault", reason)
    return context.result(
        "pass",
        f"prompts of 1 to {lengths[-1]} tokens all fill a context of {pair.context}",
        measured={"prompts": len(prompts)},
        work=(len(prompts), "texts"),
    )


def _offsets(output: Output) -> list[tuple[int, int]]:
    """(offset in its block, index in the text) of every token, where the implementation reports blocks."""
    pairs, done = [], 0
    for block in output.blocks or ():
        pairs += [(offset, done + offset) for offset in range(block.accepted + 1)]
        done += block.accepted + 1
    return pairs
