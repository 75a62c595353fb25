"""Run all measurements that need a CUDA device: verdicts in every dtype, and the speed on a large pair.

Each part runs in a process of its own and leaves a record. A part with a complete record is not repeated, so that an
interrupted run can be continued.
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
from harness.files import writable_folder, write_atomic
from harness.record.model import read_record
from harness.report.tables import Cell, Table, columns
from harness.report.text import code_span, escape_markdown, seconds
from harness.verdict import BROKEN, FAULT, PASS

LARGE = Path("fixtures/work/large")
DTYPES = ("float32", "bfloat16", "float16")
"""Dtypes under test. Exact chapters compute in float64 in any case."""

HINT = "give cuda or cuda:N, with a torch that sees it; on a CPU run `eagle2 verify` and `eagle2 bench`"


@dataclass(frozen=True)
class Part:
    """One invocation of `eagle2`. name: folder of its record; empty for training, which continues by itself."""

    name: str
    arguments: tuple[str, ...]

    def exit_code(self, out: Path) -> int | None:
        """The exit code of its complete record; None if there is none."""
        try:
            if self.arguments[0] == "verify":
                return read_record(out / self.name / "record.jsonl").footer.exit_code
            return PASS if self.name and read_bench(out / self.name, whole=True) else None
        except BadInput:
            return None


def parts(device: str, out: Path) -> list[Part]:
    """All parts: the reference in float32 first, then its speed on the large pair, then the other dtypes."""
    common = ("--device", device, "--time-limit", "300")
    verify = [
        Part(name, ("verify", connectable, *common, "--dtype", dtype, "--out", str(out / name)))
        for dtype in DTYPES
        for connectable in ("ref", "static:")
        for name in [f"{connectable.rstrip(':')}-{dtype}"]
    ]
    pair = ("--target", str(LARGE / "target"), "--draft", str(LARGE / "draft"))
    timing = ("--device", device, "--dtype", "bfloat16", "--threads", "1", "--repeats", "2", "--limit", "18")
    speed = [
        Part("", ("train", "large", "--out", str(LARGE), "--device", device)),
        Part("bench", ("bench", *pair, *timing, "--out", str(out / "bench"))),
    ]
    return [*verify[:2], *speed, *verify[2:]]


def run_all(device: str, out: Path) -> int:
    """Run all parts and write summary.md.

    Returns:
        The exit code: 1 if a part found a fault, else 4 if a part left no record, else the highest code of a part.

    Raises:
        BadInput: `device` is not a CUDA device of this machine.
    """
    try:
        found = torch_device(device).type
    except BadInput as error:
        raise BadInput(error.what, HINT) from None  # the error's own hint recommends the CPU
    if found != "cuda":
        raise BadInput(f"device must be a CUDA device, not {device}", HINT)
    writable_folder(out)
    console, parts_to_run = Console(highlight=False, soft_wrap=True), parts(device, out)
    for number, part in enumerate(parts_to_run, start=1):
        if part.exit_code(out) is None:
            console.print(f"{number} of {len(parts_to_run)}: eagle2 {' '.join(part.arguments)}", style="bold", markup=False)
            subprocess.run([sys.executable, "-m", "harness.cli", *part.arguments], check=False)
    written = write_atomic(out / "summary.md", "\n".join(summary(parts_to_run, out)) + "\n")
    console.print(str(written), markup=False)
    codes = [part.exit_code(out) for part in parts_to_run if part.name]
    return FAULT if FAULT in codes else BROKEN if None in codes else max(code for code in codes if code is not None)


def summary(parts_to_run: Sequence[Part], out: Path) -> Iterator[str]:
    """Lines of Markdown: a row per complete record of `verify`, and the result of `bench` with its machine."""
    complete = [part for part in parts_to_run if part.exit_code(out) is not None]
    rows: list[tuple[Cell | str, ...]] = []
    for part in (part for part in complete if part.arguments[0] == "verify"):
        record = read_record(out / part.name / "record.jsonl")
        header, footer = record.header, record.footer
        facts = (header.implementation, header.settings["dtype"], footer.verdict, str(footer.results), seconds(footer.seconds))
        rows.append((*facts, Cell(part.name, link=f"{part.name}/summary.md")))
    headings = ("implementation", "dtype", "verdict", "results", "time", "report")
    table = Table(columns(*headings, left=("implementation", "dtype", "verdict", "report")), tuple(rows))
    yield from ("## On a GPU", "", *table.markdown())
    for part in (part for part in complete if part.arguments[0] == "bench"):
        timed = read_bench(out / part.name)
        result, where = escape_markdown(bench_answer(timed), 1200), escape_markdown(machine_line(timed.header), 600)
        yield from ("", f"{result} [{part.name}]({part.name}/summary.md)", "", where)
    yield from ("", f"Repeat: {code_span('eagle2 gpu')}")
