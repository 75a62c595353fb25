"""All that is to be known of a CUDA device, by one command: verdicts in every dtype, a pair that is large enough, its speed.

Each part is a process of its own and leaves a record. What has left a whole one is not run again: one that was cut off goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import torch_device
from harness.benchmark.pages import bench_answer, machine_line
from harness.benchmark.record import read_bench
from harness.files import write_atomic
from harness.record.model import read_record
from harness.report.text import code_span, escape_markdown, seconds
from harness.verdict import BROKEN, FAULT, PASS

LARGE = Path("fixtures/work/large")
DTYPES = ("float32", "bfloat16", "float16")
"""What is under test. Chapters that are exact are run in float64 whatever the dtype."""

ELSEWHERE = "give cuda or cuda:N, with a torch that sees it; on the CPU `eagle2 verify` and `eagle2 bench` tell the same"


@dataclass(frozen=True)
class Part:
    """What to ask of `eagle2`. name: of the folder of its record; a training has none, and knows itself what is done."""

    name: str
    words: tuple[str, ...]

    def ended(self, out: Path) -> int | None:
        """The exit code that its record stands for; None where there is no whole one."""
        try:
            if self.words[0] == "verify":
                return read_record(out / self.name / "record.jsonl").footer.exit_code
            return PASS if self.name and read_bench(out / self.name, whole=True) else None
        except BadInput:
            return None


def parts(device: str, out: Path) -> list[Part]:
    """First the reference in full precision, then its speed, then the rest."""
    common = ("--device", device, "--time-limit", "300")
    judged = [
        Part(name, ("verify", connectable, *common, "--dtype", dtype, "--out", str(out / name)))
        for dtype in DTYPES
        for connectable in ("ref", "static:")
        for name in [f"{connectable.rstrip(':')}-{dtype}"]
    ]
    pair = ("--target", str(LARGE / "target"), "--draft", str(LARGE / "draft"))
    timed = ("--device", device, "--dtype", "bfloat16", "--threads", "1", "--repeats", "2", "--limit", "18")
    made = [
        Part("", ("train", "large", "--out", str(LARGE), "--device", device)),
        Part("bench", ("bench", *pair, *timed, "--out", str(out / "bench"))),
    ]
    return [*judged[:2], *made, *judged[2:]]


def run(device: str, out: Path) -> int:
    """All parts, then summary.md. Exit code: of a fault if there is one, else of a part that left no record, else the highest."""
    try:
        there = torch_device(device).type == "cuda"
    except BadInput as error:
        raise BadInput(error.what, ELSEWHERE) from None  # its own hint is the CPU, which is of no use here
    if not there:
        raise BadInput(f"{device} is no GPU", ELSEWHERE)
    out.mkdir(parents=True, exist_ok=True)
    console, asked = Console(highlight=False, soft_wrap=True), parts(device, out)
    for part in asked:
        if part.ended(out) is None:
            console.print(f"eagle2 {' '.join(part.words)}", style="bold", markup=False)
            subprocess.run([sys.executable, "-m", "harness.cli", *part.words], check=False)
    told = write_atomic(out / "summary.md", "\n".join(summary(asked, out)) + "\n")
    console.print(str(told), markup=False)
    codes = [part.ended(out) for part in asked if part.name]
    return FAULT if FAULT in codes else BROKEN if None in codes else max(code for code in codes if code is not None)


def summary(asked: Sequence[Part], out: Path) -> Iterator[str]:
    """Markdown: a line a record, and on what they were made."""
    whole = [part for part in asked if part.ended(out) is not None]
    yield from ("## On a GPU", "", "| implementation | dtype | verdict | results | time | |", "|---|---|---|--:|--:|---|")
    for part in (part for part in whole if part.words[0] == "verify"):
        found = read_record(out / part.name / "record.jsonl")
        told, end = found.header, found.footer
        cells = (
            code_span(told.implementation),
            told.settings["dtype"],
            f"**{end.verdict}**",
            str(end.results),
            seconds(end.seconds),
        )
        yield f"| {' | '.join(cells)} | [{part.name}]({part.name}/summary.md) |"
    for part in (part for part in whole if part.words[0] == "bench"):
        timed = read_bench(out / part.name)
        said, where = escape_markdown(bench_answer(timed), 1200), escape_markdown(machine_line(timed.header), 600)
        yield from ("", f"{said} [{part.name}]({part.name}/summary.md)", "", where)
    yield from ("", f"Again: {code_span('eagle2 gpu')}")
