"""What a run shows, in sentences."""

from __future__ import annotations

from harness.bench.against import of
from harness.bench.arms import SPECULATIVE, TRANSFORMERS, VANILLA
from harness.bench.record import Record


def sentence(record: Record) -> str:
    """The ratios that are looked for, with what they are ratios of."""
    told = []
    for over, name in ((VANILLA, "the same loop without drafts"), (TRANSFORMERS, "transformers’ generate")):
        found = [one for one in of(record).ratios if (one.arm, one.over) == (SPECULATIVE, over)]
        each = " and ".join(f"{r.median:.2f} ({r.low:.2f}–{r.high:.2f}) at temperature {r.temperature:g}" for r in found)
        told += [f"{each}, over {name}"] if found else []
    return f"Decoding with the head is, times as fast: {'; '.join(told)}." if told else "Nothing was compared."


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
