"""Chapter STOP: a text ends where it should: at its length, at the first end-of-text token wherever it falls, at the context."""

from __future__ import annotations

from typing import Any

from harness.implementations.engine import Output
from harness.pairs import shipped
from harness.pytest_plugin import Judge
from properties.subject import Subject

GREEDY = {"temperature": 0.0}
NEW = 40


def test_length(judge: Judge, subject: Subject) -> None:
    """STOP-1: A text of n tokens is the beginning of a longer one, and has exactly n, for every n that the context has room for.

    Of a mode that is lossy by design the number alone: what it emits may hang on where its blocks end.
    """
    engine, prompt = subject.open(subject.pair), subject.texts[1].tokens
    (whole,) = engine.generate([prompt], [{**GREEDY, "max_new_tokens": NEW}], [0])
    lengths = range(1, 19)
    outputs = engine.generate([prompt] * len(lengths), [{**GREEDY, "max_new_tokens": n} for n in lengths], [0] * len(lengths))
    for n, output in zip(lengths, outputs, strict=True):
        due = whole.tokens[:n]
        if len(output.tokens) != len(due) or (output.tokens != due and not subject.impl.lossy):
            judge("fault", f"with max_new_tokens={n} the text is {output.tokens}, expected {due}")
    judge("pass", f"right for every length from 1 to {lengths[-1]}", measured={"lengths": len(lengths)})


def test_end_of_text(judge: Judge, subject: Subject) -> None:
    """STOP-2: The first end-of-text token ends the text, at whatever offset of a block it falls; no token follows it."""
    subject.impl.require("eos")
    engine, checked, offsets = subject.open(subject.pair), 0, set()
    for prompt in subject.some(3):
        (whole,) = engine.generate([prompt.tokens], [{**GREEDY, "max_new_tokens": NEW}], [0])
        ends = {token: whole.tokens.index(token) for token in whole.tokens}
        params: list[dict[str, Any]] = [{**GREEDY, "max_new_tokens": NEW, "eos_token_id": token} for token in ends]
        outputs = engine.generate([prompt.tokens] * len(ends), params, [0] * len(ends))
        for (token, at), output in zip(ends.items(), outputs, strict=True):
            if output.tokens != whole.tokens[: at + 1]:
                judge(
                    "fault",
                    f"with end of text {token}, due after {at + 1} tokens, the text is {output.tokens},"
                    f" expected {whole.tokens[: at + 1]}",
                )
        checked += len(ends)
        offsets |= {offset for offset, at in _offsets(whole) if at in ends.values()}
    told = f" at offsets {sorted(offsets)} of a block" if offsets else ""
    judge("pass", f"{checked} end-of-text tokens{told}", measured={"texts": checked, "offsets": len(offsets)})


def test_several_ends(judge: Judge, subject: Subject) -> None:
    """STOP-3: Of a list of end-of-text tokens the one that comes first ends the text, sampled text too."""
    subject.impl.require("eos")
    engine, cut, checked = subject.open(subject.pair), 0, 0
    for seed, prompt in enumerate(subject.texts[:4]):
        whole: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": NEW}
        seeds = range(10 * seed, 10 * seed + 4)
        # Tokens that do occur, from the middle of a text that was sampled with the first seed.
        (sampled,) = engine.generate([prompt.tokens], [whole], [seeds[0]])
        ends = sorted(set(sampled.tokens[len(sampled.tokens) // 3 :][:4]))
        for output in engine.generate([prompt.tokens] * 4, [{**whole, "eos_token_id": ends}] * 4, seeds):
            early = [i for i, token in enumerate(output.tokens[:-1]) if token in ends]
            if early:
                judge("fault", f"the text goes on after end-of-text token {output.tokens[early[0]]}: {output.tokens}")
            cut += output.tokens[-1] in ends
            checked += 1
    measured = {"texts": checked, "ended early": cut}
    if not cut:
        judge("inconclusive", f"none of {checked} sampled texts met an end-of-text token", measured=measured)
    judge("pass", f"{cut} of {checked} sampled texts met one of several end-of-text tokens, and ended there", measured=measured)


def test_context(judge: Judge, subject: Subject) -> None:
    """STOP-4: At the limit of the model's context the text stops, with all the tokens that have room and no error."""
    subject.impl.require("context", "budget")
    pair = shipped("coin4")
    lengths = range(1, pair.context)
    prompts = [[i % 4 for i in range(n)] for n in lengths]
    engine = subject.open(pair, k=3, depth=4, m=9)
    outputs = engine.generate(prompts, [{"temperature": 1.0, "max_new_tokens": 99}] * len(prompts), range(len(prompts)))
    for n, output in zip(lengths, outputs, strict=True):
        if n + len(output.tokens) != pair.context:
            judge("fault", f"a prompt of {n} tokens got {len(output.tokens)} more; the context holds {pair.context}")
    told = f"prompts of 1 to {lengths[-1]} tokens all fill a context of {pair.context}"
    judge("pass", told, measured={"prompts": len(prompts)})


def _offsets(output: Output) -> list[tuple[int, int]]:
    """(offset in its block, place in the text) of every token, where the implementation tells its blocks."""
    pairs, done = [], 0
    for block in output.blocks or ():
        pairs += [(offset, done + offset) for offset in range(block.accepted + 1)]
        done += block.accepted + 1
    return pairs
