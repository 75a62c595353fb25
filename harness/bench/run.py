"""A run: all arms in one process, prompt by prompt, each taking its turn to be first; then steps, costs and budgets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import torch

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.model.target import Target, load_model, torch_device
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams
from harness.bench.arms import (
    PAPER,
    SPECULATIVE,
    STATIC,
    STATIC_VANILLA,
    TRANSFORMERS,
    TUNED,
    VANILLA,
    Arm,
    Beside,
    ByTemperature,
    Fixed,
    Ours,
    Transformers,
    ours_at,
)
from harness.bench.batches import batches
from harness.bench.bound import bandwidth, bound
from harness.bench.budgets import one_a_kind, points, with_budget
from harness.bench.calibrate import FAMILY, calibrated, fitted
from harness.bench.campaigns import campaigns
from harness.bench.clock import Clock, clock
from harness.bench.costs import costs
from harness.bench.facts import of_machine, of_versions
from harness.bench.figures import OFF, figures
from harness.bench.record import (
    RECORD,
    Asked,
    Bound,
    Calibrated,
    Call,
    Campaign,
    Footer,
    Header,
    Measured,
    Record,
    Together,
    Tuned,
    Writer,
)
from harness.bench.reliability import reliability
from harness.bench.settings import Settings, Timing, asked_prompts, label
from harness.bench.steps import steps, twin
from harness.bench.tune import PROMPTS, TOKENS, tune
from harness.environment import commit, peak_memory
from harness.implementations import connect
from harness.pairs import Pair, Prompt

TIME_LIMIT = 600.0
"""Seconds that one call of a decoder beside ours may take."""

Report = Callable[[str, int, int], None]
"""Hears what is done, how much of it, of how much."""


@dataclass(frozen=True)
class Scene:
    """What is opened: the decoder with its head, and all arms by name."""

    decoder: Decoder
    arms: dict[str, Arm]
    told: dict[str, str]
    clock: Clock


def bench(settings: Settings, pair: Pair, prompts: Sequence[Prompt], out: Path, command: str, report: Report) -> Record:
    """Measure, and write the record as it goes."""
    begun, lines = time.monotonic(), list[Measured]()
    with ExitStack() as stack:
        stack.enter_context(threads(settings.threads))
        scene = stack.enter_context(opened(settings, pair))
        tuned = list(_tuned(settings, pair, prompts, scene, report)) if settings.tune else []
        head = header(settings, prompts, scene, command)
        writer = stack.enter_context(Writer(out / RECORD, head))
        judging = _judging(settings, pair, prompts, scene, report) if settings.harness else ()
        for line in chain(tuned, measured(settings, prompts, scene, report), judging):
            writer.write(line)
            lines.append(line)
        footer = Footer(
            finished=now(),
            seconds=round(time.monotonic() - begun, 1),
            memory=peak_memory(scene.decoder.target.device),
            figures=figures(
                [line for line in lines if isinstance(line, Call)], [line for line in lines if isinstance(line, Together)]
            ),
        )
        writer.write(footer)
    return Record(header=head, lines=tuple(lines), footer=footer)


def measured(settings: Settings, prompts: Sequence[Prompt], scene: Scene, report: Report) -> Iterator[Measured]:
    """Everything that is measured, in the order in which it is."""
    warm_up(settings, prompts, scene.arms, report)
    yield from calls(settings, prompts, scene.arms, report)
    if settings.batch:
        yield from batches(settings, prompts, scene.arms, scene.clock, report)
    few = one_a_kind(prompts)
    for name, arm in scene.arms.items():
        for temperature in settings.temperatures:
            report(f"steps: {name}", 0, 0)
            params = SamplingParams(temperature=temperature, max_new_tokens=settings.tokens)
            if ours := ours_at(arm, temperature):
                yield steps(ours.decoder, name, few, params, settings.seed, scene.clock)
    yield from bounds(settings, few, scene, report)
    report("costs of a pass", 0, 0)
    yield from costs(scene.decoder, prompts[0].tokens, scene.clock)
    report("tokens per pass by m", 0, 0)
    yield from points(scene.decoder, prompts, settings.temperatures, settings.budget)
    for temperature in settings.temperatures:
        report(f"confidence and acceptance at temperature {temperature:g}", 0, 0)
        tuned = scene.arms.get(TUNED)
        drafter = tuned.ours[temperature].decoder.drafter if isinstance(tuned, ByTemperature) else None
        sharper = [drafter.budget.head_temperature] if isinstance(drafter, Eagle2) else []
        yield from reliability(scene.decoder, prompts, temperature, settings.budget, sharper)


def bounds(settings: Settings, few: Sequence[Prompt], scene: Scene, report: Report) -> Iterator[Bound]:
    """Of each arm in fixed shapes its step, and the least that one could take."""
    fixed = {name: arm.static for name, arm in scene.arms.items() if isinstance(arm, Fixed)}
    moved = bandwidth(scene.decoder.target.device, scene.clock) if fixed else 0.0
    for name, static in fixed.items():
        for temperature in settings.temperatures:
            report(f"steps: {name}", 0, 0)
            params = SamplingParams(temperature=temperature, max_new_tokens=settings.tokens)
            yield bound(static, name, few, params, settings.seed, scene.clock, moved)


def _tuned(
    settings: Settings, pair: Pair, prompts: Sequence[Prompt], scene: Scene, report: Report
) -> Iterator[Tuned | Calibrated]:
    """Tune for every temperature, on prompts that are not timed; and let what was chosen be arms, next in line."""
    others = asked_prompts(PROMPTS, pair, 0, TOKENS)
    arms: dict[str, dict[float, Ours]] = {PAPER: {}, TUNED: {}}
    for temperature in settings.temperatures:
        report(f"calibrating at temperature {temperature:g}", 0, 0)
        fit, layers = fitted(scene.decoder, others, temperature)
        yield from calibrated(scene.decoder, prompts, temperature, fit, layers)
        heads = tuple(dict.fromkeys((*FAMILY, fit)))
        found = tune(scene.decoder, others, temperature, heads, scene.clock, lambda what: report(what, 0, 0))
        for name, tried in ((PAPER, found.paper), (TUNED, found.chosen)):
            decoder = with_budget(scene.decoder, tried.budget if tried else None, scene.decoder.rule)
            arms[name][temperature] = Ours(decoder, scene.clock)
        yield found
    before = dict(scene.arms)
    scene.arms.clear()
    scene.arms.update({SPECULATIVE: before[SPECULATIVE], **{name: ByTemperature(ours) for name, ours in arms.items()}, **before})
    scene.told[PAPER] = "eagle2_ref with its head, and the k, depth and m that were best here for each temperature"
    scene.told[TUNED] = "eagle2_ref with its head, and a budget that was tuned here for each temperature"


def _judging(settings: Settings, pair: Pair, prompts: Sequence[Prompt], scene: Scene, report: Report) -> Iterator[Campaign]:
    report("seconds to a verdict", 0, 0)
    yield from campaigns(settings, pair, prompts, scene.clock)


def warm_up(settings: Timing, prompts: Sequence[Prompt], arms: Mapping[str, Arm], report: Report) -> None:
    """A text of every arm at every temperature, behind the longest prompt, for which there is room afterwards."""
    longest = max(prompts, key=lambda prompt: len(prompt.tokens))
    for name, arm in arms.items():
        report(f"warm-up: {name}", 0, 0)
        for temperature in settings.temperatures:
            arm.run(longest.tokens, temperature, settings.tokens, settings.seed)


def calls(settings: Timing, prompts: Sequence[Prompt], arms: Mapping[str, Arm], report: Report) -> Iterator[Call]:
    """Timed texts. Repeats have seeds of their own; the order of the arms turns with every prompt and repeat."""
    total, names = settings.repeats * len(settings.temperatures) * len(prompts), list(arms)
    done = 0
    for repeat in range(settings.repeats):
        for temperature in settings.temperatures:
            for number, prompt in enumerate(prompts):
                first = (repeat + number) % len(names)
                for name in names[first:] + names[:first]:
                    yield _timed(arms[name], name, prompt, temperature, repeat, settings)
                done += 1
                report("timed texts", done, total)


def _timed(arm: Arm, name: str, prompt: Prompt, temperature: float, repeat: int, settings: Timing) -> Call:
    made = arm.run(prompt.tokens, temperature, settings.tokens, settings.seed + repeat)
    if made.tokens != settings.tokens and not made.ended:  # a ratio of texts of different lengths would compare unlike things
        raise BadInput(
            f"{name} emitted {made.tokens} tokens of {prompt.id}, not {settings.tokens}", "it must not stop of its own accord"
        )
    return Call(
        arm=name,
        temperature=temperature,
        prompt=prompt.id,
        repeat=repeat,
        seconds=made.seconds,
        prefill=made.prefill,
        tokens=made.tokens,
        first=made.first,
        counts=made.counts,
    )


@contextmanager
def opened(settings: Settings, pair: Pair) -> Iterator[Scene]:
    """Load everything once. Vanilla is the same loop over the very same network, without a drafter."""
    device = torch_device(settings.device)
    watch = clock(device)
    rule = RULES[settings.rule]
    decoder = Decoder.load(pair.target, pair.draft, settings.budget, rule, settings.dtype, settings.device)
    bare = Decoder(Target(decoder.target.network, decoder.target.name), None, rule)
    arms: dict[str, Arm] = {SPECULATIVE: Ours(decoder, watch), VANILLA: Ours(bare, watch)}
    told = {SPECULATIVE: "eagle2_ref with its head", VANILLA: "the same loop and network, without a drafter"}
    if settings.static:
        fixed = [FixedShapeDecoder(one.target, one.drafter) for one in (twin(decoder), twin(bare))]
        arms |= {STATIC: Fixed(fixed[0], watch), STATIC_VANILLA: Fixed(fixed[1], watch)}
        told |= {
            STATIC: "eagle2_ref in fixed shapes, with its head and the rule walk",
            STATIC_VANILLA: "the same without a drafter",
        }
    if settings.transformers:
        model = load_model(pair.target, settings.dtype).to(device).eval()
        arms[TRANSFORMERS] = Transformers(model, watch)
        told[TRANSFORMERS] = "generate() on the model as it is loaded, with its default cache"
    with ExitStack() as stack:
        for connectable in settings.beside:
            implementation = connect(connectable, TIME_LIMIT)
            common = {"dtype": settings.dtype, "device": settings.device}
            options = {name: value for name, value in common.items() if implementation.takes(name)}
            for name, speculate in ((label(connectable), True), (label(connectable) + OFF, False)):
                engine = implementation.open(pair, speculate=speculate, **options)
                stack.callback(engine.close)
                arms[name] = Beside(engine, watch)
                told[name] = implementation.version or "tells no version"
        yield Scene(decoder, arms, told, watch)


def header(settings: Settings, prompts: Sequence[Prompt], scene: Scene, command: str) -> Header:
    return Header(
        started=now(),
        command=command,
        commit=commit(),
        settings=settings.model_copy(update={"beside": tuple(map(label, settings.beside))}),
        machine=of_machine(settings.device, settings.threads),
        versions=of_versions(),
        arms=scene.told,
        prompts=tuple(map(Asked.of, prompts)),
    )


@contextmanager
def threads(n: int) -> Iterator[None]:
    """As many threads in every arm, those in processes of their own included."""
    before, told = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(n)
    os.environ["OMP_NUM_THREADS"] = str(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if told is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = told


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
