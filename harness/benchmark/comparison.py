"""`eagle2 compare`: ordinary decoding and every method on one network. What a run measures, in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, TreeBudget
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from harness.benchmark.arms import VANILLA, RecordingArm, ReferenceArm, with_budget
from harness.benchmark.budgets import NODES, budget_point
from harness.benchmark.chat import PLAIN, Chat
from harness.benchmark.figures import EAGLE, EAGLE2, method_figures
from harness.benchmark.greedy_equality import divergences
from harness.benchmark.methods import MethodArms
from harness.benchmark.prompts import (
    greedy_answers,
    is_question_file,
    load_prompts,
    load_questions,
    one_per_kind,
    prompts_from_questions,
    spread,
)
from harness.benchmark.record import (
    BudgetPoint,
    Call,
    CompareFooter,
    CompareHeader,
    CompareRecord,
    Measurement,
    Reliability,
    TreeShape,
    select,
)
from harness.benchmark.reliability import reliability
from harness.benchmark.runner import Progress, header_facts, interleaved, record_run, threads, warm_up
from harness.benchmark.settings import Checkpoints, CompareSettings
from harness.benchmark.step_profile import step_profile
from harness.benchmark.timing import Clock, clock
from harness.pairs import Pair, Prompt


@dataclass(frozen=True)
class ComparisonRun:
    """What a run has opened. end_tokens: tokens that end a text."""

    target: Target
    checkpoints: Checkpoints
    methods: MethodArms
    end_tokens: tuple[int, ...]
    clock: Clock

    @property
    def decoders(self) -> dict[str, Decoder]:
        """All decoders by the names of their arms, ordinary decoding first. Each has its own cache on the shared network."""
        plain = Decoder(Target(self.target.network, self.target.name))
        return {VANILLA: plain} | {one.entrant.arm: one.decoder for one in self.methods.arms}


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
    with threads(settings.threads):
        target = Target.load(pair.target, settings.dtype, settings.device)
        prompts, end_tokens = prompts_of(settings, pair, target, file)
        methods = MethodArms(settings, target, checkpoints, pair.name)
        run = ComparisonRun(target, checkpoints, methods, end_tokens, clock(target.device))
        entrants = tuple(one.entrant for one in methods.arms)
        header = CompareHeader(**header_facts(settings, prompts, command), entered=entrants, left_out=methods.left_out)
        kinds = {prompt.id: prompt.kind for prompt in prompts}
        lines = measurements(settings, run, prompts, progress)
        return record_run(out, header, lines, CompareFooter, lambda lines: method_figures(select(lines, Call), kinds), started)


def measurements(
    settings: CompareSettings, run: ComparisonRun, prompts: Sequence[Prompt], progress: Progress
) -> Iterator[Measurement]:
    """All measurements in their order."""
    decoders = run.decoders
    arms = {name: RecordingArm(ReferenceArm(one, run.clock, run.end_tokens)) for name, one in decoders.items()}
    warm_up(settings, prompts, arms, progress)
    yield from interleaved(settings, prompts, arms, progress)
    if 0 in settings.temperatures:
        progress("greedy texts", 0, 0)
        yield from divergences({name: arm.greedy for name, arm in arms.items()}, prompts, run.target)
    for name, decoder in decoders.items():
        for temperature in settings.temperatures:
            progress(f"steps: {name}", 0, 0)
            params = SamplingParams(temperature, max_new_tokens=settings.tokens, eos_token_id=run.end_tokens or None)
            yield step_profile(decoder, name, one_per_kind(prompts), params, settings.seed, run.clock, whole=True)
    for temperature in settings.temperatures:
        progress(f"budgets and confidence at temperature {temperature:g}", 0, 0)
        yield from head_measurements(run, prompts, temperature)


def head_measurements(run: ComparisonRun, prompts: Sequence[Prompt], temperature: float) -> Iterator[BudgetPoint | Reliability]:
    """Measurements of the EAGLE-2 head: tokens per pass by draft tokens for every shape of tree, and its reliability."""
    own = {one.entrant.method: one.decoder for one in run.methods.arms if one.entrant.own}
    decoder = own.get(EAGLE2)
    if not decoder or not isinstance(decoder.drafter, Eagle2):
        return
    budget = decoder.drafter.budget
    for m in (m for m in NODES if m <= budget.pool):
        deep = replace(budget, m=m, depth=max(m, budget.depth))
        budgets: dict[TreeShape, TreeBudget] = {
            "dynamic": replace(budget, m=m),
            "deep": deep,
            "chain": replace(deep, k=1, depth=m),
        }
        for tree, sized in budgets.items():
            yield budget_point(with_budget(decoder, sized), prompts, temperature, m, tree)
    if EAGLE in own:
        yield from _static_tree_points(own[EAGLE], run, prompts, temperature)
    yield from reliability(decoder, prompts, temperature, budget, ())


def _static_tree_points(
    decoder: Decoder, run: ComparisonRun, prompts: Sequence[Prompt], temperature: float
) -> Iterator[BudgetPoint]:
    """EAGLE's static tree, cut to its first m nodes."""
    family, draft = METHODS[EAGLE], run.checkpoints["draft"]
    assert draft is not None, "without this checkpoint the method would have been left out"
    options: Any = family.make()
    for m in (m for m in NODES if m <= options.m):
        target = copy(decoder.target)
        cut = Decoder(target, family.make(m=m).drafter(target, draft), decoder.rule)
        yield budget_point(cut, prompts, temperature, m, "static")


def check_system_message(settings: CompareSettings, file: Path) -> None:
    """Raise BadInput for a system message that no prompt would contain."""
    if settings.system and not is_question_file(file):
        raise BadInput(
            f"--system was given, but the prompts of {file.name} are no questions",
            "give --prompts a file of questions, whose chat format has a system message, or leave --system out",
        )


def prompts_of(settings: CompareSettings, pair: Pair, target: Target, file: Path) -> tuple[list[Prompt], tuple[int, ...]]:
    """The prompts of a file, and the tokens that end an answer. Questions are put in the chat format of the model."""
    if not is_question_file(file):
        return load_prompts(file, pair, settings.limit, settings.tokens), ()
    chat = settings.model.chat(pair, settings.system) if settings.model else Chat.of(pair, PLAIN, settings.system)
    questions = load_questions(file)
    answer = greedy_answers(target, chat.end_tokens, settings.tokens)
    chosen = spread(questions, settings.limit or len(questions))
    return prompts_from_questions(chosen, chat, answer, target.context), chat.end_tokens
