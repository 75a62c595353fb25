"""Where the time of a decoding step goes. The clocks between the parts cost time, so no ratio is taken from these runs."""

from __future__ import annotations

from collections.abc import Sequence

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.arms import copy_decoder
from harness.benchmark.record import StepProfile
from harness.benchmark.timing import Clock, Stopwatch
from harness.pairs import Prompt

TARGET, HEAD, TREE, RULE, COMMIT, REST = PARTS = (
    "target pass", "head passes", "tree building", "rule", "cache commit", "rest",
)  # fmt: skip
"""Parts of a step of EAGLE-2. The head's first step includes a pass over the whole prompt."""

DRAFTING = "drafting"
"""The part of a step that every method has in place of head passes and tree building."""


def step_profile(
    decoder: Decoder, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int, clock: Clock, whole: bool = False
) -> StepProfile:
    """Decode once more, and take the mean time of each part of a step, which is all that happens between two blocks.

    Args:
        decoder: decoder with an EAGLE-2 head, or without a drafter.
        arm, prompts, params, seed, clock: of the texts.
        whole: time all drafting as one part, which allows any drafter.
    """
    decoder, watch = copy_decoder(decoder), Stopwatch(clock)
    watch.time(decoder.target, "verify", TARGET)
    watch.time(decoder.target, "commit", COMMIT)
    watch.time(decoder, "accept", RULE)
    if decoder.drafter and whole:
        watch.time(decoder, "propose", DRAFTING)
        watch.time(decoder, "observe", DRAFTING)
    elif decoder.drafter:
        watch.time(decoder, "propose", TREE)
        watch.time(decoder.drafter, "run_head", HEAD)
        watch.time(decoder.drafter, "lm_head", HEAD)
    steps, total = 0, 0.0
    for prompt in prompts:
        stream = decoder.stream(prompt.tokens, params, SeededCoins(seed))
        before = dict(watch.seconds)
        next(stream)
        watch.seconds = before  # forget the pass over the prompt, which is no step
        started = watch.clock()
        steps += sum(1 for _ in stream)
        total += watch.clock() - started
    seconds = {**watch.seconds, REST: total - sum(watch.seconds.values())}
    milliseconds = {part: 1000 * spent / steps for part, spent in seconds.items()}
    return StepProfile(arm=arm, temperature=params.temperature, steps=steps, milliseconds=milliseconds)
