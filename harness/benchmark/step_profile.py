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
    decoder: Decoder, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int, clock: Clock
) -> StepProfile:
    """Decode once more with an EAGLE-2 head, or without a drafter, and time the parts of `PARTS`."""
    watched = copy_decoder(decoder)
    watch = _watch_common_parts(watched, clock)
    if watched.drafter:
        watch.time(watched.drafter, "run_head", HEAD)
        watch.time(watched.drafter, "lm_head", HEAD)
        watch.time(watched, "propose", TREE)
    return _profile(watched, watch, arm, prompts, params, seed)


def drafting_profile(
    decoder: Decoder, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int, clock: Clock
) -> StepProfile:
    """Decode once more with any method, and time the parts that every method has."""
    watched = copy_decoder(decoder)
    watch = _watch_common_parts(watched, clock)
    if watched.drafter:
        watch.time(watched, "propose", DRAFTING)
        watch.time(watched, "observe", DRAFTING)
    return _profile(watched, watch, arm, prompts, params, seed)


def _watch_common_parts(decoder: Decoder, clock: Clock) -> Stopwatch:
    watch = Stopwatch(clock)
    watch.time(decoder.target, "verify", TARGET)
    watch.time(decoder.target, "commit", COMMIT)
    watch.time(decoder, "accept", RULE)
    return watch


def _profile(
    decoder: Decoder, watch: Stopwatch, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int
) -> StepProfile:
    """Mean time of each part of a step, which is all that happens between two blocks. The pass over the prompt is no step."""
    steps, total = 0, 0.0
    for prompt in prompts:
        stream = decoder.stream(prompt.tokens, params, SeededCoins(seed))
        before = dict(watch.seconds)
        next(stream)
        watch.seconds = before  # forget the pass over the prompt
        started = watch.clock()
        steps += sum(1 for _ in stream)
        total += watch.clock() - started
    seconds = {**watch.seconds, REST: total - sum(watch.seconds.values())}
    milliseconds = {part: 1000 * spent / steps for part, spent in seconds.items()}
    return StepProfile(arm=arm, temperature=params.temperature, steps=steps, milliseconds=milliseconds)
