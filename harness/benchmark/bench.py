"""`eagle2 bench`: what a run measures, in which order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.model.target import Target, load_model, torch_device
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams
from harness.benchmark import tune
from harness.benchmark.arms import (
    OFF,
    PAPER,
    SPECULATIVE,
    STATIC,
    STATIC_VANILLA,
    TRANSFORMERS,
    TUNED,
    VANILLA,
    Arm,
    EngineArm,
    ReferenceArm,
    TransformersArm,
    TunedArm,
    reference_decoder,
    with_budget,
)
from harness.benchmark.batches import time_batches
from harness.benchmark.budgets import points_by_m
from harness.benchmark.calibrate import ROUND_TEMPERATURES, fit_head_temperature, tau_by_head_temperature
from harness.benchmark.figures import bench_figures
from harness.benchmark.pass_latency import pass_latencies
from harness.benchmark.prompts import load_prompts, one_per_kind
from harness.benchmark.record import (
    BatchCall,
    BenchFooter,
    BenchHeader,
    BenchRecord,
    Call,
    HeadTemperature,
    Measurement,
    StepBound,
    TuningResult,
    select,
)
from harness.benchmark.reliability import reliability
from harness.benchmark.roofline import memory_bandwidth, step_bound
from harness.benchmark.runner import Progress, header_facts, interleaved, record_run, threads, warm_up
from harness.benchmark.settings import BenchSettings, portable_name
from harness.benchmark.step_profile import step_profile
from harness.benchmark.timing import Clock, clock
from harness.benchmark.verdict_latency import verdict_latencies
from harness.implementations import connect
from harness.pairs import Pair, Prompt

TIME_LIMIT = 600.0
"""Seconds that one call of another implementation may take."""


@dataclass(frozen=True)
class BenchRun:
    """What a run has opened: the decoder with its head, and all arms with a description of each, by name."""

    decoder: Decoder
    arms: dict[str, Arm]
    descriptions: dict[str, str]
    clock: Clock


def run_bench(
    settings: BenchSettings, pair: Pair, prompts: Sequence[Prompt], out: Path, command: str, progress: Progress
) -> BenchRecord:
    """Measure everything that the settings ask for.

    Args:
        settings: settings of the run.
        pair: the pair to decode with.
        prompts: the prompts of the timed texts.
        out: folder of the record.
        command: the command that repeats the run.
        progress: receives what is done now.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(threads(settings.threads))
        run = stack.enter_context(open_run(settings, pair))
        tuned = list(_tune(settings, pair, prompts, run, progress)) if settings.tune else []
        header = BenchHeader(**header_facts(settings, prompts, command), arms=run.descriptions)
        lines = chain(tuned, measurements(settings, pair, prompts, run, progress))
        return record_run(
            out, header, lines, BenchFooter, lambda lines: bench_figures(select(lines, Call), select(lines, BatchCall)), started
        )


def measurements(
    settings: BenchSettings, pair: Pair, prompts: Sequence[Prompt], run: BenchRun, progress: Progress
) -> Iterator[Measurement]:
    """All measurements in their order; only the first, the timed texts and batches, are compared between arms."""
    decoder, clock = run.decoder, run.clock
    warm_up(settings, prompts, run.arms, progress)
    yield from interleaved(settings, prompts, run.arms, progress)
    if settings.batch:
        yield from time_batches(settings, prompts, run.arms, clock, progress)
    few = one_per_kind(prompts)
    for name, arm in run.arms.items():
        for temperature in settings.temperatures:
            progress(f"steps: {name}", 0, 0)
            if ours := reference_decoder(arm, temperature):
                yield step_profile(ours, name, few, _params(settings, temperature), settings.seed, clock)
    yield from _step_bounds(settings, few, run, progress)
    progress("latency of a pass", 0, 0)
    yield from pass_latencies(decoder, prompts[0].tokens, clock)
    progress("tokens per pass by m", 0, 0)
    yield from points_by_m(decoder, prompts, settings.temperatures, settings.budget)
    for temperature in settings.temperatures:
        progress(f"confidence and acceptance at temperature {temperature:g}", 0, 0)
        tuned = run.arms.get(TUNED)
        drafter = tuned.by_temperature[temperature].decoder.drafter if isinstance(tuned, TunedArm) else None
        further = [drafter.budget.head_temperature] if isinstance(drafter, Eagle2) else []
        yield from reliability(decoder, prompts, temperature, settings.budget, further)
    if settings.harness:
        progress("seconds until a verdict", 0, 0)
        yield from verdict_latencies(settings, pair, prompts, clock)


def _step_bounds(settings: BenchSettings, few: Sequence[Prompt], run: BenchRun, progress: Progress) -> Iterator[StepBound]:
    found = {name: arm.decoder for name, arm in run.arms.items() if isinstance(arm, ReferenceArm)}
    fixed = {name: decoder for name, decoder in found.items() if isinstance(decoder, FixedShapeDecoder)}
    bandwidth = memory_bandwidth(run.decoder.target.device, run.clock) if fixed else 0.0
    for name, decoder in fixed.items():
        for temperature in settings.temperatures:
            progress(f"steps: {name}", 0, 0)
            yield step_bound(decoder, name, few, _params(settings, temperature), settings.seed, run.clock, bandwidth)


def _params(settings: BenchSettings, temperature: float) -> SamplingParams:
    return SamplingParams(temperature=temperature, max_new_tokens=settings.tokens)


def _tune(
    settings: BenchSettings, pair: Pair, prompts: Sequence[Prompt], run: BenchRun, progress: Progress
) -> Iterator[TuningResult | HeadTemperature]:
    """Tune for every temperature, on prompts that are not timed, and add the chosen budgets as arms after the first arm."""
    others = load_prompts(tune.PROMPTS, pair, 0, tune.TOKENS)
    tuned: dict[str, dict[float, ReferenceArm]] = {PAPER: {}, TUNED: {}}
    for temperature in settings.temperatures:
        progress(f"calibrating at temperature {temperature:g}", 0, 0)
        fit, layers = fit_head_temperature(run.decoder, others, temperature)
        yield from tau_by_head_temperature(run.decoder, prompts, temperature, fit, layers)
        heads = tuple(dict.fromkeys((*ROUND_TEMPERATURES, fit)))
        result = tune.tune(run.decoder, others, temperature, heads, run.clock, lambda what: progress(what, 0, 0))
        for name, trial in ((PAPER, result.paper), (TUNED, result.chosen)):
            decoder = with_budget(run.decoder, trial.budget if trial else None, run.decoder.rule)
            tuned[name][temperature] = ReferenceArm(decoder, run.clock)
        yield result
    before = dict(run.arms)
    run.arms.clear()
    run.arms[SPECULATIVE] = before[SPECULATIVE]
    run.arms.update({name: TunedArm(arms) for name, arms in tuned.items()} | before)
    run.descriptions[PAPER] = "eagle2_ref with its head; k, depth and m chosen on this machine for each temperature"
    run.descriptions[TUNED] = "eagle2_ref with its head; a budget tuned on this machine for each temperature"


@contextmanager
def open_run(settings: BenchSettings, pair: Pair) -> Iterator[BenchRun]:
    """Load everything once. The vanilla arm is the same loop over the same network, without a drafter."""
    device = torch_device(settings.device)
    ticks = clock(device)
    rule = RULES[settings.rule]
    decoder = Decoder.load(pair.target, pair.draft, settings.budget, rule, settings.dtype, settings.device)
    bare = Decoder(Target(decoder.target.network, decoder.target.name), None, rule)
    arms: dict[str, Arm] = {SPECULATIVE: ReferenceArm(decoder, ticks), VANILLA: ReferenceArm(bare, ticks)}
    descriptions = {SPECULATIVE: "eagle2_ref with its head", VANILLA: "the same loop and network, without a drafter"}
    if settings.with_fixed_shapes:
        for name, one, what in (
            (STATIC, decoder, "eagle2_ref with fixed shapes, with its head and the rule walk"),
            (STATIC_VANILLA, bare, "eagle2_ref with fixed shapes, without a drafter"),
        ):
            arms[name] = ReferenceArm(FixedShapeDecoder(one.target, one.drafter), ticks)
            descriptions[name] = what
    if settings.transformers:
        model = load_model(pair.target, settings.dtype).to(device).eval()
        arms[TRANSFORMERS] = TransformersArm(model, ticks)
        descriptions[TRANSFORMERS] = "generate() on the model as it is loaded, with its default cache"
    with ExitStack() as stack:
        for connectable in settings.beside:
            implementation = connect(connectable, TIME_LIMIT)
            common = {"dtype": settings.dtype, "device": settings.device}
            options = {name: value for name, value in common.items() if implementation.takes(name)}
            for suffix, speculate in (("", True), (OFF, False)):
                engine = implementation.open(pair, speculate=speculate, **options)
                stack.callback(engine.close)
                name = portable_name(connectable) + suffix
                arms[name] = EngineArm(engine, ticks)
                descriptions[name] = implementation.version or "version not reported"
        yield BenchRun(decoder, arms, descriptions, ticks)
