"""What a run shows, in sentences."""

from __future__ import annotations

from harness.bench.against import of
from harness.bench.arms import PAPER, SPECULATIVE, TRANSFORMERS, TUNED, VANILLA
from harness.bench.record import Record
from harness.report.words import listed


def sentence(record: Record) -> str:
    """How many times as fast as what, with the budget that was asked for, and with one that was tuned."""
    plain, paper, tuned = (_compared(record, arm) for arm in (SPECULATIVE, PAPER, TUNED))
    told = [f"Decoding with the head is, {plain}."] if plain else []
    told += [f"With k, depth and m chosen for this machine it is, {paper}."] if paper else []
    told += [f"With a tuned budget it is, {tuned}."] if tuned else []
    return " ".join(told) or "Nothing was compared."


def together(record: Record) -> str:
    """How the speed-up falls with the number of texts that share passes; nothing where none did."""
    batches, told = of(record).batches, []
    for arm, what in ((SPECULATIVE, "the head"), (TUNED, "a tuned budget")):
        for temperature in dict.fromkeys(one.temperature for one in batches):
            mine = [one for one in batches if (one.arm, one.temperature) == (arm, temperature)]
            each = listed([f"{one.ratio:.2f} with {one.texts}" for one in mine], len(mine))
            told += [f"with {what} at temperature {temperature:g}, {each}"] if mine else []
    return f"Texts that share passes, times as fast as the same batch without drafts: {'; '.join(told)}." if told else ""


def _compared(record: Record, arm: str) -> str:
    names = {VANILLA: "the same loop without drafts", TRANSFORMERS: "transformers’ generate"}
    ours = [one for one in of(record).ratios if one.arm == arm and one.over in names]
    told = []
    for temperature in dict.fromkeys(one.temperature for one in ours):
        found = [one for one in ours if one.temperature == temperature]
        each = [f"{one.median:.2f} times ({one.low:.2f}–{one.high:.2f}) as fast as {names[one.over]}" for one in found]
        told.append(f"at temperature {temperature:g}, {listed(each)}")
    return "; ".join(told)


def asked(record: Record) -> str:
    """Under which settings."""
    settings, prompts = record.header.settings, record.header.prompts
    kinds = len({prompt.kind for prompt in prompts})
    ours = f", head temperature {settings.head_temperature:g}" if settings.head_temperature != 1 else ""
    ours += f", node {settings.node:g}" if settings.node else ""
    ours += f", layer {settings.layer:g}" if settings.layer else ""
    return (
        f"Pair {settings.pair}, {len(prompts)} prompts of {kinds} kinds ({settings.prompts}), {settings.tokens} new tokens each,"
        f" {settings.repeats} {'repeat' if settings.repeats == 1 else 'repeats'}; rule {settings.rule}, k = {settings.k},"
        f" depth = {settings.depth}, m = {settings.m}{ours}; seed {settings.seed}. All arms in one process, interleaved prompt by"
        " prompt, each first in turn."
    )
