"""Invented measurements whose figures are known, and records of them."""

from __future__ import annotations

from typing import Any

from harness.benchmark.arms import OFF
from harness.benchmark.figures import bench_figures
from harness.benchmark.record import (
    BatchCall,
    BenchFooter,
    BenchHeader,
    BenchRecord,
    BudgetPoint,
    BudgetTrial,
    Call,
    CompareHeader,
    CompareRecord,
    Counts,
    Divergence,
    Entrant,
    HeadTemperature,
    Measurement,
    PassLatency,
    PromptInfo,
    Record,
    Reliability,
    StepBound,
    StepProfile,
    TuningResult,
    VerdictLatency,
)
from harness.benchmark.settings import BenchSettings, CompareSettings

KINDS = {"a": "code", "b": "code", "c": "prose"}
FACTS: dict[str, Any] = {
    "started": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789ab",
    "machine": {"processor": "invented <b>", "cores": "2", "threads": "2"},
    "versions": {"torch": "2.13"},
    "prompts": tuple(PromptInfo(id=name, kind=kind, length=3, digest="00") for name, kind in KINDS.items()),
}


# --- bench ----------------------------------------------------------------------------------------------------------------


def bench_call(
    arm: str, prompt: str, seconds: float, prefill: float | None = 1.0, repeat: int = 0, accepted: tuple[int, ...] = (0, 10)
) -> Call:
    """A text of 21 tokens, one of them from the pass over the prompt; by default ten passes accept one token each."""
    counts = Counts(target_passes=1 + sum(accepted), head_passes=40, rows=260, accepted=accepted)
    common: dict[str, Any] = {"temperature": 0.0, "tokens": 21, "first": 1, "counts": counts if arm == "speculative" else None}
    return Call(arm=arm, prompt=prompt, repeat=repeat, seconds=seconds, prefill=prefill, **common)


CALLS = [
    *(bench_call("vanilla", "a", 1.0 + 20 * t, repeat=i) for i, t in enumerate((0.010, 0.009, 0.090))),  # median 10 ms
    *(bench_call("speculative", "a", 1.0 + 20 * t, repeat=i) for i, t in enumerate((0.005, 0.001, 0.006))),  # 5 ms: 2 times
    *(bench_call("vanilla", "b", 3.0 + 20 * 0.012, 3.0) for _ in range(3)),
    *(bench_call("speculative", "b", 1.0 + 20 * 0.004, accepted=(0, 0, 0, 5)) for _ in range(3)),  # 3 times
    *(bench_call("vanilla", "c", 1.0 + 20 * 0.100) for _ in range(3)),
    *(bench_call("speculative", "c", 1.0 + 20 * 0.010) for _ in range(3)),  # 10 times
    *(bench_call("other", name, 2.1, None) for name in "abc"),  # 100 ms per token, with the pass over the prompt
    *(bench_call("other" + OFF, name, 4.2, None) for name in "abc"),
]


def batch(arm: str, n: int, seconds: float, repeat: int = 0, first: int = 0) -> BatchCall:
    """n texts of 21 tokens in 10 passes with 26 rows per text, after passes over the prompts of one second."""
    prompts = tuple(str(first + i) for i in range(n))
    spent = {"seconds": 1.0 + seconds, "prefill": 1.0, "tokens": 21 * n, "passes": 10, "rows": 260 * n}
    return BatchCall(arm=arm, temperature=0.0, prompts=prompts, repeat=repeat, **spent)


BATCHES = [
    *(batch("vanilla", 2, t, i) for i, t in enumerate((2.0, 2.0, 11.0))),
    *(batch("speculative", 2, t, i) for i, t in enumerate((1.0, 4.0, 4.0))),  # 2, half and 2.75 times as fast
    *(batch(arm, 1, t, 0, first) for first in (0, 1) for arm, t in (("vanilla", 3.0), ("speculative", 1.0))),
    batch("vanilla", 4, 1.0),  # the other arm has not decoded this batch, so it is left out
    batch("vanilla", 1, 9.0, 1),
]

TRIAL = BudgetTrial(
    k=2, depth=6, m=8, head_temperature=0.7, node=0.1, layer=0.0, rate=1.5, tau=3.0, rows=7.5, layers=4.0, timed=2.25
)

OTHER_LINES: list[Measurement] = [
    TuningResult(temperature=0.0, chosen=TRIAL, vanilla=0.5, tried=(TRIAL,)),
    HeadTemperature(
        temperature=0.0, head_temperature=0.7, layers=(0.7, 0.65), k=4, depth=8, m=12, prompts=3, passes=10, tokens=35, error=0.02
    ),
    StepProfile(arm="vanilla", temperature=0.0, steps=5, milliseconds={"target pass": 3.0, "rule": 0.75, "rest": 0.25}),
    StepBound(
        arm="static",
        temperature=0.0,
        steps=9,
        milliseconds=3.0,
        weights={"target": 600_000_000, "catch-up": 100_000_000, "head": 300_000_000},
        bandwidth=500e9,
    ),
    PassLatency(what="target", rows=1, behind=200, n=40, median=3.0, low=2.5, high=float("inf")),
    PassLatency(what="target", rows=8, behind=200, n=40, median=4.0, low=3.5, high=4.5),
    BudgetPoint(temperature=0.0, m=1, passes=20, tokens=35, rows=40),
    BudgetPoint(temperature=0.0, m=25, passes=10, tokens=50, rows=260),
    Reliability(
        temperature=0.0,
        head_temperature=1.0,
        nodes=(30, *[0] * 8, 70),
        confidence=(0.05, *[0.0] * 8, 0.95),
        accepted=(0.1, *[0.0] * 8, 0.9),
        error=0.05,
    ),
    VerdictLatency(decoder="ref", pair="coin4", verdict="pass", texts=128, tokens=4096, seconds=8.0, decoding=6.0, scoring=1.6),
]

BENCH_HEADER = BenchHeader(
    **FACTS, command="eagle2 bench", settings=BenchSettings(temperatures=(0.0,)), arms={"speculative": "eagle2_ref"}
)
BENCH_FOOTER = BenchFooter(
    finished="2026-01-02T03:05:05+00:00", seconds=60.0, memory={"process": 300.0}, figures=bench_figures(CALLS, BATCHES)
)
BENCH_RECORD: BenchRecord = Record(BENCH_HEADER, (*CALLS, *BATCHES, *OTHER_LINES), BENCH_FOOTER)


# --- compare --------------------------------------------------------------------------------------------------------------


def method_call(arm: str, prompt: str, passes: int, seconds: float = 10.0, tokens: int = 21, repeat: int = 0) -> Call:
    """A text whose first token came with the prompt, after one second; the others took `passes` and `seconds`."""
    counts = Counts(target_passes=1 + passes, head_passes=3 * passes, rows=26 * passes, accepted=(passes,))
    common: dict[str, Any] = {"temperature": 0.0, "prefill": 1.0, "first": 1, "counts": counts, "repeat": repeat}
    return Call(arm=arm, prompt=prompt, seconds=1.0 + seconds, tokens=tokens, **common)


def entrant(method: str, own: bool = True, equal: bool = True) -> Entrant:
    """A method with an invented title."""
    arm = method if own else f"{method}, equal"
    common: dict[str, Any] = {"title": method.upper(), "paper": "invented", "rule": "walk", "options": {"m": 25}}
    return Entrant(arm=arm, method=method, own=own, equal=equal, **common)


def compare_record(
    passes: dict[str, list[int]], *lines: Measurement, entrants: tuple[Entrant, ...] = (), **header: Any
) -> CompareRecord:
    """A run in which each arm took so many passes, and as many seconds, for the 20 tokens of each prompt."""
    calls = [method_call(arm, prompt, n, float(n)) for arm, each in passes.items() for prompt, n in zip("abc", each, strict=True)]
    found = CompareHeader(
        **FACTS,
        command="eagle2 compare",
        settings=CompareSettings(temperatures=(0.0,)),
        entered=entrants or tuple(entrant(arm) for arm in passes if arm != "vanilla"),
        left_out={},
    )
    return Record(found.model_copy(update=header), (*calls, *lines), None)


PLAIN = {"vanilla": [20, 20, 20]}
IN_ORDER = {"eagle2": [3, 4, 3], "eagle": [4, 5, 4], "medusa": [6, 7, 6], "lookup": [9, 10, 9]}
"""Passes that give τ in the expected order."""

TIE = Divergence(arm="eagle2", prompt="a", at=3, emitted=1, expected=2, margin=1e-6, noise=1e-5)
FAULT = TIE.model_copy(update={"margin": 1.0, "arm": "eagle"})
