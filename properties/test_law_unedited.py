"""Chapter LAW, unedited: Python decoders as they are, everything they draw intercepted and run through."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from eagle2_ref.sampling import SamplingParams
from harness.distributions.exact import first_deviation, target_law, total_variation
from harness.enumeration.exact_law import Enumeration, enumerate_law
from harness.enumeration.intercept import NotEnumerable
from harness.implementations.engine import Engine
from harness.pairs import shipped
from harness.pytest_plugin import Judge
from properties.cells import UNEDITED, Cell, needs, parametrize
from properties.pictures import law_picture
from properties.subject import Subject

EXACT, SINGLE = 1e-10, 1e-5
"""Total variation that float64, and float32 where an implementation draws in no other, leave between a law and the target's."""

WINDOW = 3
"""Tokens of a continuation: the prompt's own, one after a draft, and one behind it."""

SECONDS = 10.0
"""What an enumeration may take in the quick tier, about; the full tier ten times as long. What is not done by then is told."""

LEAST = 400
"""Executions that it may take however slow the machine is: chains of transformers take up to 300, 0.1 s each."""

AGAIN = 3


@parametrize(UNEDITED)
def test_generate_itself(cell: Cell, judge: Judge, subject: Subject) -> None:
    """LAW-6: Over everything that `generate` draws, be it from torch, random or numpy, continuations have the target's law.

    Nothing of the implementation is edited. Each execution is given another seed: what draws from the seed out of our sight
    cannot be enumerated, and is told as n/a with the call's name where there is one.
    """
    subject.impl.require(*needs(cell.params))
    if subject.impl.remote:
        judge("n/a", "what it draws is out of sight: it is a trace, or runs in a process of its own")
    pair, prompt = shipped(cell.pair), [2, 3, 2]
    options: dict[str, Any] = dict(cell.budget) if "budget" in subject.impl.capabilities else {}
    options |= {"dtype": "float64"} if subject.impl.takes("dtype") else {}
    rounding = EXACT if "dtype" in options else SINGLE
    params = {**cell.params, "max_new_tokens": WINDOW}
    engine = subject.open(pair, **options)
    expected = target_law(subject.plain(pair, "float64"), prompt, SamplingParams.of(params))
    seconds, run = SECONDS * (10 if subject.asked.tier == "full" else 1), _with_other_seeds(engine, prompt, params)

    def drawn_in_float32() -> bool:
        """Weights may be float64 and the numbers drawn with float32 all the same: the control arm shows it."""
        control = _with_other_seeds(subject.open(pair, speculate=False, **options), prompt, params)
        return total_variation(enumerate_law(control, window=WINDOW).law, expected) > EXACT

    try:
        found = _enumerate(run, seconds)
        surplus = sum(max(0.0, q - expected.get(text, 0.0)) for text, q in found.law.items())
        distance = total_variation(found.law, expected) if not found.unfinished else surplus
        if rounding < distance <= SINGLE and drawn_in_float32():
            rounding = SINGLE
        if distance > rounding:
            _enumerate_again(run, found, seconds)
    except NotEnumerable as error:
        judge("n/a", f"it cannot be enumerated: {error}")
    measured = {"total variation": distance, "executions": found.executions, "unfinished": found.unfinished}
    evidence: dict[str, Any] = {
        "measured": measured,
        "pictures": (law_picture(f"{cell.id}: law of generate()", expected, found.law),),
    }
    if distance > rounding:
        first = first_deviation(found.law, expected)
        seen = f"after {list(first.prefix)} token {first.token} has probability {first.q:.6g}, the target gives {first.p:.6g}"
        judge("fault", f"total variation {distance:.3g}; {seen}", **evidence)
    elif found.unfinished:
        told = f"{found.executions} executions leave a mass of {found.unfinished:.2g} undone: --tier full takes longer"
        judge("n/a", told, **evidence)
    else:
        judge("pass", f"{found.executions} executions add up to the target's law, to {distance:.1e}", **evidence)


def _with_other_seeds(engine: Engine, prompt: list[int], params: dict[str, Any]) -> Callable[[], tuple[int, ...]]:
    """One text, with a seed of its own at every call."""
    seeds = itertools.count()

    def run() -> tuple[int, ...]:
        (output,) = engine.generate([prompt], [params], [next(seeds)])
        return output.tokens

    run()  # what is loaded at the first call may draw as it likes
    return run


def _enumerate(run: Callable[[], tuple[int, ...]], seconds: float) -> Enumeration:
    """The law of one call. Before it is believed: what makes no choices must come to the same with other seeds too."""
    begun = time.monotonic()
    run()
    a_call = time.monotonic() - begun
    found = enumerate_law(run, most=max(LEAST, int(seconds / a_call)), window=WINDOW)
    if found.executions <= 2 and len({run() for _ in range(8)}) > 1:
        raise NotEnumerable("hidden randomness: the text depends on the seed")
    return found


def _enumerate_again(run: Callable[[], tuple[int, ...]], found: Enumeration, seconds: float) -> None:
    """Before a law that is not the target's is called a fault: other seeds must come to it too, AGAIN times if there is time.

    What an engine draws last of all, out of our sight, leads to no choices that could tell; it leads to another law.
    """
    begun = time.monotonic()
    for again in range(AGAIN):
        if again and time.monotonic() - begun > seconds:
            return
        if total_variation(enumerate_law(run, most=found.executions, window=WINDOW).law, found.law) > EXACT:
            raise NotEnumerable("hidden randomness: other seeds give another law")
