"""Chapter LAW, third-party code: Python decoders as they are installed, with all their random calls intercepted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.case import Case, by_id, capabilities_for
from harness.catalogue import check
from harness.context import Context
from harness.distributions.exact import target_law, total_variation
from harness.enumeration.exact_law import Enumeration, enumerate_law
from harness.enumeration.intercept import NotEnumerable
from harness.implementations.engine import Engine
from harness.pairs import shipped
from harness.record.model import Result
from harness.record.pictures import law_picture
from properties.cases import UNEDITED

ROUNDING, ROUNDING_SINGLE = 1e-10, 1e-5
"""Total variation that rounding causes: in float64, and where an implementation samples in float32 only."""

WINDOW = 3
"""Tokens of a continuation: the token of the prompt's pass, one after a draft, and one more."""

SECONDS = 10.0
"""Time limit of an enumeration in the quick tier, about; ten times as long in the full tier."""

LEAST_EXECUTIONS = 400
"""Executions that are allowed on a machine of any speed: chains of transformers take up to 300, 0.1 s each."""

REPEATS = 3
"""Enumerations with other seeds before a fault is reported."""


@check("LAW-6", cases=by_id(UNEDITED))
def law_of_generate(context: Context, case: Case) -> Result:
    """Over all random calls inside `generate`, to torch, random or numpy, continuations are distributed as the target's.

    The implementation is not edited. Every execution gets another seed, so that an implementation which computes its random
    numbers from the seed by itself is recognised: it cannot be enumerated, and the result is n/a with the name of the call.
    """
    implementation = context.implementation
    implementation.require(*capabilities_for(case.params))
    if implementation.remote:
        return context.result("n/a", "its random calls cannot be intercepted: it is a trace, or runs in another process")
    pair, prompt = shipped(case.pair), [2, 3, 2]
    options: dict[str, Any] = dict(case.budget) if "budget" in implementation.capabilities else {}
    options |= {"dtype": "float64"} if implementation.takes("dtype") else {}
    rounding = ROUNDING if "dtype" in options else ROUNDING_SINGLE
    window = min(WINDOW, case.window)
    params = {**case.params, "max_new_tokens": window}
    engine = context.open(pair, **options)
    expected = target_law(context.target_model(pair, "float64"), prompt, SamplingParams.of(params))
    seconds, run = SECONDS * (10 if context.settings.tier == "full" else 1), _with_new_seeds(engine, prompt, params)

    def samples_in_float32() -> bool:
        """Whether random numbers are float32 although the weights are float64, as the control arm shows."""
        control = _with_new_seeds(context.open(pair, speculate=False, **options), prompt, params)
        return _enumerate(control, seconds, window).distance(expected) > ROUNDING

    try:
        found = _enumerate(run, seconds, window)
        distance = found.distance(expected)
        if rounding < distance <= ROUNDING_SINGLE and samples_in_float32():
            rounding = ROUNDING_SINGLE
        if distance > rounding:
            _repeat_with_other_seeds(run, found, seconds, window)
    except NotEnumerable as error:
        return context.result("n/a", f"it cannot be enumerated: {error}")
    measure = "total variation of at least" if found.unfinished else "total variation"
    evidence: dict[str, Any] = {
        "measured": {measure: distance, "executions": found.executions, "unfinished": found.unfinished},
        "work": (found.executions, "executions"),
    }
    if not found.unfinished:  # a part of a law is neither an effect nor a picture of it
        evidence |= {
            "effect": (distance, "total variation"),
            "detectable": (rounding, "total variation"),
            "pictures": (law_picture(f"{case.id}: law of generate()", expected, found.law),),
        }
    if distance > rounding:
        return context.result("fault", f"{measure} {distance:.3g}; {found.describe_deviation(expected)}", **evidence)
    if found.unfinished:
        reason = (
            f"{found.executions} executions cover a probability of {1 - found.unfinished:.2g} of all texts of {window} tokens,"
            f" none of them likelier than the target makes it; {found.unfinished:.2g} is left: --tier full takes longer"
        )
        return context.result("n/a", reason, **evidence)
    return context.result("pass", f"{found.executions} executions add up to the target's law, to {distance:.1e}", **evidence)


def _with_new_seeds(engine: Engine, prompt: list[int], params: dict[str, Any]) -> Callable[[], tuple[int, ...]]:
    """A function that generates one text, with a new seed at every call."""
    seeds = itertools.count()

    def run() -> tuple[int, ...]:
        (output,) = engine.generate([prompt], [params], [next(seeds)])
        return output.tokens

    run()  # loading at the first call may use random numbers
    return run


def _enumerate(run: Callable[[], tuple[int, ...]], seconds: float, window: int) -> Enumeration:
    """The law of one call. A run without random calls must not depend on its seed."""
    start = time.monotonic()
    run()
    seconds_per_call = time.monotonic() - start
    found = enumerate_law(run, most=max(LEAST_EXECUTIONS, int(seconds / seconds_per_call)), window=window)
    if found.executions <= 2 and len({run() for _ in range(8)}) > 1:
        raise NotEnumerable("it computes random numbers from its seed, where no call can be intercepted")
    return found


def _repeat_with_other_seeds(run: Callable[[], tuple[int, ...]], found: Enumeration, seconds: float, window: int) -> None:
    """Before a fault: enumerations with other seeds must give the same law, REPEATS times if time permits.

    A last token that is sampled from the seed leads to no later choice that would reveal it, but to another law.
    """
    start = time.monotonic()
    for repeat in range(REPEATS):
        if repeat and time.monotonic() - start > seconds:
            return
        if total_variation(enumerate_law(run, most=found.executions, window=window).law, found.law) > ROUNDING:
            raise NotEnumerable("other seeds give another law: it samples where no call can be intercepted")
