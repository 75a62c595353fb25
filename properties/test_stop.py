"""Chapter STOP: a text ends where it should: at its length, at the first end-of-text token wherever it falls, at the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.implementations import Implementation
from harness.implementations.engine import Engine, Output
from harness.pairs import Pair, Prompt
from harness.plugin import Judge

GREEDY = {"temperature": 0.0}
NEW = 40


def test_length(judge: Judge, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]) -> None:
    """STOP-1: A text of n tokens is the beginning of a longer one, and has exactly n, for every n."""
    engine, prompt = open_engine(pair), texts[1].tokens
    (whole,) = engine.generate([prompt], [{**GREEDY, "max_new_tokens": NEW}], [0])
    lengths = range(1, 19)
    outputs = engine.generate([prompt] * len(lengths), [{**GREEDY, "max_new_tokens": n} for n in lengths], [0] * len(lengths))
    for n, output in zip(lengths, outputs, strict=True):
        if output.tokens != whole.tokens[:n]:
            judge("fault", f"with max_new_tokens={n} the text is {_shown(output)}, expected {whole.tokens[:n]}")
    judge("pass", f"right for every length from 1 to {lengths[-1]}", measured={"lengths": len(lengths)})


def test_end_of_text(
    judge: Judge, impl: Implementation, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]
) -> None:
    """STOP-2: The first end-of-text token ends the text, at whatever offset of a block it falls; no token follows it."""
    impl.require("eos")
    engine, checked, offsets = open_engine(pair), 0, set()
    for prompt in texts[:5]:
        (whole,) = engine.generate([prompt.tokens], [{**GREEDY, "max_new_tokens": NEW}], [0])
        ends = {token: whole.tokens.index(token) for token in whole.tokens}
        params: list[dict[str, Any]] = [{**GREEDY, "max_new_tokens": NEW, "eos_token_id": token} for token in ends]
        outputs = engine.generate([prompt.tokens] * len(ends), params, [0] * len(ends))
        for (token, at), output in zip(ends.items(), outputs, strict=True):
            if output.tokens != whole.tokens[: at + 1]:
                judge(
                    "fault",
                    f"with end of text {token}, due after {at + 1} tokens, the text is {_shown(output)},"
                    f" expected {whole.tokens[: at + 1]}",
                )
        checked += len(ends)
        offsets |= {offset for offset, at in _offsets(whole) if at in ends.values()}
    told = f" at offsets {sorted(offsets)} of a block" if offsets else ""
    judge("pass", f"{checked} end-of-text tokens{told}", measured={"texts": checked, "offsets": len(offsets)})


def test_several_ends(
    judge: Judge, impl: Implementation, open_engine: Callable[..., Engine], pair: Pair, texts: list[Prompt]
) -> None:
    """STOP-3: Of a list of end-of-text tokens the one that comes first ends the text, sampled text too."""
    impl.require("eos")
    engine, checked = open_engine(pair), 0
    for seed, prompt in enumerate(texts[:4]):
        ends = [10, 32, 40, 41]
        params: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": NEW, "eos_token_id": ends}
        for output in engine.generate([prompt.tokens] * 4, [params] * 4, range(10 * seed, 10 * seed + 4)):
            early = [i for i, token in enumerate(output.tokens[:-1]) if token in ends]
            if early:
                judge("fault", f"the text goes on after end-of-text token {output.tokens[early[0]]}: {_shown(output)}")
            checked += 1
    judge("pass", f"{checked} sampled texts end at the first of four end-of-text tokens", measured={"texts": checked})


def test_context(judge: Judge, impl: Implementation, open_engine: Callable[..., Engine], coins4: Pair) -> None:
    """STOP-4: At the limit of the model's context the text stops, with all the tokens that have room and no error."""
    impl.require("context", "budget")
    engine = open_engine(coins4, k=3, depth=4, m=9)
    lengths = range(1, coins4.context)
    prompts = [[i % 4 for i in range(n)] for n in lengths]
    outputs = engine.generate(prompts, [{"temperature": 1.0, "max_new_tokens": 99}] * len(prompts), range(len(prompts)))
    for n, output in zip(lengths, outputs, strict=True):
        if n + len(output.tokens) != coins4.context:
            judge("fault", f"a prompt of {n} tokens got {len(output.tokens)} more; the context holds {coins4.context}")
    judge(
        "pass", f"prompts of 1 to {lengths[-1]} tokens all fill a context of {coins4.context}", measured={"prompts": len(prompts)}
    )


def _offsets(output: Output) -> list[tuple[int, int]]:
    """(offset in its block, place in the text) of every token, where the implementation tells its blocks."""
    pairs, done = [], 0
    for block in output.blocks or ():
        pairs += [(offset, done + offset) for offset in range(block.accepted + 1)]
        done += block.accepted + 1
    return pairs


def _shown(output: Output | Sequence[int]) -> str:
    tokens = output.tokens if isinstance(output, Output) else output
    return str(tuple(tokens))
