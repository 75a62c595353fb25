"""`eagle2 compare`: ordinary decoding and every method on one network. What a run measures, in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, TreeBudget
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.arms import VANILLA, Arm, RecordingArm, ReferenceArm, TunedArm, reference_decoder, with_budget
from harness.benchmark.budgets import NODES, budget_point
from harness.benchmark.chat import PLAIN, Chat
from harness.benchmark.figures import EAGLE, EAGLE2, method_figures
from harness.benchmark.greedy_equality import divergences
from harness.benchmark.methods import MethodArms
from harness.benchmark.peers import NO_PEERS, Peers, open_peers
from harness.benchmark.prompts import (
    is_question_file,
    load_prompts,
    load_questions,
    one_per_kind,
    prompts_from_questions,
    read_prompts,
    subset,
)
from harness.benchmark.record import (
    BudgetPoint,
    Call,
    CompareFooter,
    CompareHeader,
    CompareRecord,
    Entrant,
    Measurement,
    Reliability,
    TreeShape,
    TuningResult,
    select,
)
from harness.benchmark.reliability import reliability
from harness.benchmark.runner import Progress, header_facts, interleaved, record_run, threads, warm_up
from harness.benchmark.settings import Checkpoints, CompareSettings
from harness.benchmark.step_profile import step_profile
from harness.benchmark.timing import Clock, clock
from harness.benchmark.tune import PROMPTS, tune
from harness.pairs import Pair, Prompt

TUNED_SUFFIX = ", tuned"
"""Appended to the name of an arm for the same arm with the budget that was chosen on this machine."""

TUNING_TOKENS, HEAD_TEMPERATURES = 32, (1.0, 0.7, 0.5)
"""New tokens of a text while a budget is chosen, and the temperatures of the head to choose from."""


@dataclass(frozen=True)
class Texts:
    """The prompts that are timed, others for tuning, and the tokens that end an answer."""

    prompts: list[Prompt]
    tuning: list[Prompt]
    end_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class ComparisonRun:
    """What a run has opened. end_tokens: tokens that end a text."""

    target: Target
    checkpoints: Checkpoints
    methods: MethodArms
    end_tokens: tuple[int, ...]
    clock: Clock
    peers: Peers = NO_PEERS

    @property
    def decoders(self) -> dict[str, Decoder]:
        """All decoders by the names of their arms, ordinary decoding first. Each has its own cache on the shared network."""
        plain = Decoder(Target(self.target.network, self.target.name))
        return {VANILLA: plain} | {one.entrant.arm: one.decoder for one in self.methods.arms}

    def tuned_entrant(self, arm: str) -> Entrant:
        """The entrant of a tuned arm. Its options differ between temperatures: they are those of the tuning results."""
        entrant = next(one.entrant for one in self.methods.arms if one.entrant.arm == arm)
        names = {"arm": f"{arm}{TUNED_SUFFIX}", "title": f"{entrant.title}, tuned"}
        return entrant.model_copy(update={**names, "options": {}, "own": True, "equal": False})


def run_comparison(
    settings: CompareSettings, pair: Pair, checkpoints: Checkpoints, file: Path, out: Path, command: str, progress: Progress
) -> CompareRecord:
    """Measure every method.

    Args:
        settings: settings of the run.
        pair: the pair whose target all methods share.
        checkpoints: what the methods draft with.
        file: prompts or questions.
        out: folder of the record.
        command: the command that repeats the run.
        progress: receives what is done now.
    """
    check_system_message(settings, file)
    started = time.monotonic()
    with threads(settings.threads), ExitStack() as stack:
        target = Target.load(pair.target, settings.dtype, settings.device)
        progress("answers before second turns", 0, 0)
        texts = texts_of(settings, pair, target, file)
        methods, ticks = MethodArms(settings, target, checkpoints, pair.name), clock(target.device)
        peers = open_peers(settings, pair, checkpoints, texts.end_tokens, ticks, stack)
        run = ComparisonRun(target, checkpoints, methods, texts.end_tokens, ticks, peers)
        if missing := [arm for arm in settings.tune if arm not in run.decoders]:
            reason = methods.left_out[missing[0].partition(":")[0]]
            raise BadInput(f"--tune names {missing[0]}, which cannot be run: {reason}", "leave it out")
        tuned = {arm: TunedArm({}) for arm in settings.tune}
        lines = chain(
            tune_arms(settings, run, texts.tuning, tuned, progress), measurements(settings, run, texts.prompts, tuned, progress)
        )
        header = CompareHeader(
            **header_facts(settings, texts.prompts, command),
            entered=(*(one.entrant for one in methods.arms), *map(run.tuned_entrant, tuned), *peers.entrants),
            left_out=methods.left_out | peers.left_out,
        )
        kinds = {prompt.id: prompt.kind for prompt in texts.prompts}
        return record_run(out, header, lines, CompareFooter, lambda lines: method_figures(select(lines, Call), kinds), started)


def tune_arms(
    settings: CompareSettings, run: ComparisonRun, prompts: Sequence[Prompt], arms: Mapping[str, TunedArm], progress: Progress
) -> Iterator[TuningResult]:
    """Choose a budget for each of the arms at each temperature, and fill the arms with its decoders."""
    for name, arm in arms.items():
        decoder = run.decoders[name]
        for temperature in settings.temperatures:
            result = tune(
                decoder, prompts, temperature, HEAD_TEMPERATURES, run.clock, lambda what: progress(what, 0, 0), TUNING_TOKENS, 1
            )
            chosen = with_budget(decoder, result.chosen.budget if result.chosen else None, decoder.rule)
            arm.by_temperature[temperature] = ReferenceArm(chosen, run.clock, run.end_tokens)
            yield result.model_copy(update={"arm": name})


def measurements(
    settings: CompareSettings,
    run: ComparisonRun,
    prompts: Sequence[Prompt],
    tuned: Mapping[str, TunedArm],
    progress: Progress,
) -> Iterator[Measurement]:
    """All measurements in their order."""
    decoders = run.decoders
    own: dict[str, Arm] = {name: ReferenceArm(one, run.clock, run.end_tokens) for name, one in decoders.items()}
    own |= {f"{name}{TUNED_SUFFIX}": arm for name, arm in tuned.items()}
    arms = {name: RecordingArm(arm) for name, arm in own.items()}
    timed = {**arms, **run.peers.arms}
    warm_up(settings, prompts, timed, progress)
    yield from interleaved(settings, prompts, timed, progress)
    if 0 in settings.temperatures:
        progress("greedy texts", 0, 0)
        yield from divergences({name: arm.greedy for name, arm in arms.items()}, prompts, run.target)
    for name, arm in own.items():
        for temperature in settings.temperatures:
            progress(f"steps: {name}", 0, 0)
            params = SamplingParams(temperature, max_new_tokens=settings.tokens, eos_token_id=run.end_tokens or None)
            if decoder := reference_decoder(arm, temperature):
                yield step_profile(decoder, name, one_per_kind(prompts), params, settings.seed, run.clock, whole=True)
    for temperature in settings.temperatures:
        progress(f"budgets and confidence at temperature {temperature:g}", 0, 0)
        yield from head_measurements(run, prompts, temperature, points=bool(settings.m))


def head_measurements(
    run: ComparisonRun, prompts: Sequence[Prompt], temperature: float, points: bool = True
) -> Iterator[BudgetPoint | Reliability]:
    """Measurements of the EAGLE-2 head: tokens per pass by draft tokens for every shape of tree (points), and its reliability."""
    own = {one.entrant.arm: one.decoder for one in run.methods.arms if one.entrant.own}
    decoder = own.get(EAGLE2)
    if not decoder or not isinstance(decoder.drafter, Eagle2):
        return
    budget = decoder.drafter.budget
    for m in (m for m in NODES if points and m <= budget.pool):
        deep = replace(budget, m=m, depth=max(m, budget.depth))
        budgets: dict[TreeShape, TreeBudget] = {
            "dynamic": replace(budget, m=m),
            "deep": deep,
            "chain": replace(deep, k=1, depth=m),
        }
        for tree, sized in budgets.items():
            point = budget_point(with_budget(decoder, sized), prompts, temperature, m, tree, run.end_tokens)
            if point.passes:  # otherwise every text ended with its first token
                yield point
    if points and EAGLE in own:
        yield from _static_tree_points(own[EAGLE], run, prompts, temperature)
    yield from reliability(decoder, prompts, temperature, budget, (), run.end_tokens)


def _static_tree_points(
    decoder: Decoder, run: ComparisonRun, prompts: Sequence[Prompt], temperature: float
) -> Iterator[BudgetPoint]:
    """EAGLE's static tree, cut to its first m nodes."""
    spec, draft = METHODS[EAGLE], run.checkpoints["draft"]
    assert draft is not None, "without this checkpoint the method would have been left out"
    options: Any = spec.make()
    for m in (m for m in NODES if m <= options.m):
        target = copy(decoder.target)
        cut = Decoder(target, spec.make(m=m).drafter(target, draft), decoder.rule)
        if (point := budget_point(cut, prompts, temperature, m, "static", run.end_tokens)).passes:
            yield point


def check_system_message(settings: CompareSettings, file: Path) -> None:
    """Raise BadInput for a system message that no prompt would contain."""
    if settings.system and not is_question_file(file):
        raise BadInput(
            f"--system was given, but the prompts of {file.name} are no questions",
            "give --prompts a file of questions, whose chat format has a system message, or leave --system out",
        )


def texts_of(settings: CompareSettings, pair: Pair, target: Target, file: Path) -> Texts:
    """The prompts of a run. Questions are put in the chat format of the model; a budget is tuned on some that are not timed."""

    def chat() -> Chat:
        return settings.model.chat(pair, settings.system) if settings.model else Chat.of(pair, PLAIN, settings.system)

    found, ends = read_prompts(file, pair, settings, lambda: target, chat)
    if not settings.tune:
        return Texts(found, [], ends)
    if not is_question_file(file):
        return Texts(found, load_prompts(PROMPTS, pair, 0, settings.tokens), ends)
    questions = load_questions(file)
    timed = subset(questions, settings.limit, settings.seed)
    others = [replace(one, turns=one.turns[:1]) for one in questions if one not in timed]
    if not others:
        raise BadInput("all questions are timed, none is left to tune on", f"give a --limit below {len(questions)}")
    one_of_each = subset(others, len({question.category for question in others}), settings.seed)
    return Texts(found, prompts_from_questions(one_of_each, chat(), lambda _: (), target.context), ends)
