"""The runner of both commands: interleaved timed texts, and a record that is written while the run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from eagle2_ref.errors import BadInput
from harness.benchmark.arms import Arm
from harness.benchmark.record import RECORD, Call, Footer, Header, PromptInfo, Record
from harness.benchmark.repetition import repeated_ngrams
from harness.benchmark.settings import RunSettings, without_paths
from harness.environment import commit, machine, peak_memory, versions
from harness.pairs import Prompt
from harness.record.jsonl import Writer
from harness.record.model import Value

H = TypeVar("H", bound=Header)
F = TypeVar("F", bound=Footer)

Progress = Callable[[str, int, int], None]
"""Receives what is done now, how many parts of it are finished, and how many there are; 0 and 0 without parts."""


def interleaved(settings: RunSettings, prompts: Sequence[Prompt], arms: Mapping[str, Arm], progress: Progress) -> Iterator[Call]:
    """Timed texts of all arms: each prompt is decoded by every arm before the next prompt, and each arm is first in turn.

    A slow phase of the machine then slows all arms alike. The seed of a text is that of its repeat, for every arm.
    """
    names, done, total = list(arms), 0, settings.repeats * len(settings.temperatures) * len(prompts)
    for repeat in range(settings.repeats):
        for temperature in settings.temperatures:
            for number, prompt in enumerate(prompts):
                first = (repeat + number) % len(names)
                for name in names[first:] + names[:first]:
                    yield _timed(arms[name], name, prompt, temperature, repeat, settings)
                done += 1
                progress("timed texts", done, total)


def warm_up(settings: RunSettings, prompts: Sequence[Prompt], arms: Mapping[str, Arm], progress: Progress) -> None:
    """Decode the longest prompt with every arm at every temperature, so that caches have their full size afterwards."""
    longest = max(prompts, key=lambda prompt: len(prompt.tokens))
    for name, arm in arms.items():
        progress(f"warm-up: {name}", 0, 0)
        for temperature in settings.temperatures:
            arm.run(longest.tokens, temperature, settings.tokens, settings.seed)


def _timed(arm: Arm, name: str, prompt: Prompt, temperature: float, repeat: int, settings: RunSettings) -> Call:
    timed = arm.run(prompt.tokens, temperature, settings.tokens, settings.seed + repeat)
    if timed.tokens != settings.tokens and not timed.ended:  # a ratio of texts of different lengths would mean nothing
        raise BadInput(
            f"{name} emitted {timed.tokens} tokens of {prompt.id}, not {settings.tokens}",
            "all arms must emit texts of the same length: it must not stop by itself",
        )
    return Call(
        arm=name,
        temperature=temperature,
        prompt=prompt.id,
        repeat=repeat,
        seconds=timed.seconds,
        prefill=timed.prefill,
        tokens=timed.tokens,
        first=timed.first,
        counts=timed.counts,
        repeated=repeated_ngrams(timed.text),
    )


def header_facts(settings: RunSettings, prompts: Sequence[Prompt], command: str) -> dict[str, Any]:
    """The fields that the headers of both commands have."""
    found = versions()
    return {
        "started": now(),
        "command": command,
        "commit": commit(),
        "settings": without_paths(settings),
        "machine": {**machine(settings.device), "threads": str(settings.threads), "device": settings.device},
        "versions": {name: found[name] for name in ("eagle2-ref", "python", "torch", "transformers")},
        "prompts": tuple(map(PromptInfo.of, prompts)),
    }


def record_run(
    out: Path,
    header: H,
    measurements: Iterable[Value],
    footer: Callable[..., F],
    figures: Callable[[Sequence[Value]], Any],
    started: float,
) -> Record[H, F]:
    """Write a record line by line, so that a run that is cut off loses only its footer.

    Args:
        out: folder of the record.
        header: its first line.
        measurements: its lines; they are measured while this function reads them.
        footer: type of its last line.
        figures: computes the figures of the footer from all lines.
        started: time of `time.monotonic` at which the run began.
    """
    lines = list[Value]()
    with Writer(out / RECORD) as writer:
        writer.write(header)
        for line in measurements:
            writer.write(line)
            lines.append(line)
        last = footer(
            finished=now(),
            seconds=round(time.monotonic() - started, 1),
            memory=peak_memory(torch.device(header.settings.device)),
            figures=figures(lines),
        )
        writer.write(last)
    return Record(header, tuple(lines), last)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use n threads in every arm, in child processes too."""
    threads_before, variable_before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(n)
    os.environ["OMP_NUM_THREADS"] = str(n)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        if variable_before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable_before


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
