"""A run: ordinary decoding and every method on one network, interleaved prompt by prompt; then parts of a step, and budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.methods import METHODS
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.bench.arms import VANILLA, Ours
from harness.bench.budgets import NODES, one_a_kind, point, with_budget
from harness.bench.clock import Clock, clock
from harness.bench.facts import of_machine, of_versions
from harness.bench.record import RECORD, Asked, Call, Drawn, Point, Reliability, Steps, Writer
from harness.bench.reliability import reliability
from harness.bench.run import Report, calls, now, threads, warm_up
from harness.bench.settings import asked_prompts, spread
from harness.bench.steps import Stopwatch, stepped
from harness.compare.arms import Arms
from harness.compare.chat import PLAIN, Chat
from harness.compare.figures import DRAFTING, DYNAMIC, STATIC, figures
from harness.compare.parting import Heard, parted
from harness.compare.questions import asked, greedily, is_questions, questions
from harness.compare.record import Footer, Header, Measured, Record
from harness.compare.settings import Checkpoints, Settings
from harness.environment import commit, peak_memory
from harness.pairs import Pair, Prompt


@dataclass(frozen=True)
class Scene:
    """What is opened. found: checkpoints to draft with. ends: tokens that end a text."""

    target: Target
    found: Checkpoints
    arms: Arms
    ends: tuple[int, ...]
    clock: Clock

    @property
    def decoders(self) -> dict[str, Decoder]:
        """By name, ordinary decoding first."""
        plain = Decoder(Target(self.target.network, self.target.name))
        return {VANILLA: plain} | {one.entered.arm: one.decoder for one in self.arms.contenders}


def compare(settings: Settings, pair: Pair, found: Checkpoints, file: Path, out: Path, command: str, report: Report) -> Record:
    """Measure, and write the record as it goes."""
    begun, lines = time.monotonic(), list[Measured]()
    with ExitStack() as stack:
        stack.enter_context(threads(settings.threads))
        target = Target.load(pair.target, settings.dtype, settings.device)
        prompts, ends = prompted(settings, pair, target, file)
        scene = Scene(target, found, Arms(settings, target, found, pair.name), ends, clock(target.device))
        header = _header(settings, scene, prompts, command)
        writer = stack.enter_context(Writer(out / RECORD, header))
        for line in measured(settings, scene, prompts, report):
            writer.write(line)
            lines.append(line)
        footer = Footer(
            finished=now(),
            seconds=round(time.monotonic() - begun, 1),
            memory=peak_memory(target.device),
            figures=figures([line for line in lines if isinstance(line, Call)], {one.id: one.kind for one in prompts}),
        )
        writer.write(footer)
    return Record(header=header, lines=tuple(lines), footer=footer)


def measured(settings: Settings, scene: Scene, prompts: Sequence[Prompt], report: Report) -> Iterator[Measured]:
    """Everything that is measured, in the order in which it is."""
    decoders = scene.decoders
    arms = {name: Heard(Ours(decoder, scene.clock, scene.ends)) for name, decoder in decoders.items()}
    warm_up(settings, prompts, arms, report)
    yield from calls(settings, prompts, arms, report)
    if 0 in settings.temperatures:
        report("greedy texts", 0, 0)
        yield from parted(arms, prompts, scene.target)
    for name, decoder in decoders.items():
        for temperature in settings.temperatures:
            report(f"steps: {name}", 0, 0)
            params = SamplingParams(temperature, max_new_tokens=settings.tokens, eos_token_id=scene.ends or None)
            yield in_parts(decoder, name, one_a_kind(prompts), params, settings.seed, scene.clock)
    for temperature in settings.temperatures:
        report(f"budgets and confidence at temperature {temperature:g}", 0, 0)
        yield from budgets(scene, prompts, temperature)


def in_parts(decoder: Decoder, arm: str, prompts: Sequence[Prompt], params: SamplingParams, seed: int, clock: Clock) -> Steps:
    """The parts of a step that every method has. (A shallow copy that is begun drafts for another text.)"""
    watched = Decoder(copy(decoder.target), copy(decoder.drafter), decoder.rule)
    watch = Stopwatch(clock)
    watch.stand_at(watched.target, "verify", "target pass")
    watch.stand_at(watched.target, "commit", "cache commit")
    watch.stand_at(watched, "accept", "rule")
    if watched.drafter:
        for name in ("propose", "observe"):
            watch.stand_at(watched, name, DRAFTING)
    return stepped(watched, watch, arm, prompts, params, seed)


def budgets(scene: Scene, prompts: Sequence[Prompt], temperature: float) -> Iterator[Point | Reliability]:
    """With one head: tokens per pass by draft tokens, for every way to make a tree of them; and how often nodes are accepted, by
    the head's confidence."""
    own = {one.entered.method: one.decoder for one in scene.arms.contenders if one.entered.own}
    decoder = own.get(DYNAMIC)
    if not decoder or not isinstance(decoder.drafter, Eagle2):
        return
    budget = decoder.drafter.budget
    for m in (m for m in NODES if m <= budget.pool):
        deep = replace(budget, m=m, depth=max(m, budget.depth))
        ways: dict[Drawn, Budget] = {"dynamic": replace(budget, m=m), "deep": deep, "chain": replace(deep, k=1, depth=m)}
        for tree, sized in ways.items():
            yield point(with_budget(decoder, sized), prompts, temperature, m, tree)
    if STATIC in own:
        yield from static(own[STATIC], scene, prompts, temperature)
    yield from reliability(decoder, prompts, temperature, budget, ())


def static(whole: Decoder, scene: Scene, prompts: Sequence[Prompt], temperature: float) -> Iterator[Point]:
    """The first m nodes of EAGLE's tree."""
    family, draft = METHODS[STATIC], scene.found["draft"]
    assert draft is not None, "it is there, or the method would have been left out"
    options: Any = family.make()
    for m in (m for m in NODES if m <= options.m):
        target = copy(whole.target)
        yield point(Decoder(target, family.make(m=m).drafter(target, draft), whole.rule), prompts, temperature, m, "static")


def prompted(settings: Settings, pair: Pair, target: Target, file: Path) -> tuple[list[Prompt], tuple[int, ...]]:
    """Prompts of a file, and the tokens that end an answer: questions are put as the preset's models are asked."""
    if not is_questions(file):
        return asked_prompts(file, pair, settings.limit, settings.tokens), ()
    chat = settings.model.chat(pair, settings.system) if settings.model else Chat.of(pair, PLAIN, settings.system)
    some = questions(file)
    answer = greedily(target, chat.ends, settings.tokens)
    return asked(spread(some, settings.limit or len(some)), chat, answer, target.context), chat.ends


def _header(settings: Settings, scene: Scene, prompts: Sequence[Prompt], command: str) -> Header:
    return Header(
        started=now(),
        command=command,
        commit=commit(),
        settings=settings,
        machine=of_machine(settings.device, settings.threads),
        versions=of_versions(),
        prompts=tuple(map(Asked.of, prompts)),
        entered=tuple(one.entered for one in scene.arms.contenders),
        left_out=scene.arms.left_out,
    )
