"""Every engine that is installed, and the reference, by every method they offer: an `eagle2 verify` each, one page of all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from eagle2_ref.model.target import DTYPES
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.record.model import Record, read_record
from harness.report.engines import render_engines
from harness.verdict import BROKEN


@dataclass(frozen=True)
class Judging:
    """One method of an engine. name: of its folder."""

    engine: str
    name: str
    options: str
    dtype: str = "float32"

    @property
    def id(self) -> str:
        return f"{self.engine}/{self.name}"

    def within(self, dtype: str) -> Judging:
        """The same method in another arithmetic, in a folder of its own."""
        return self if dtype == self.dtype else replace(self, name=f"{self.name}-{dtype}", dtype=dtype)

    @property
    def connectable(self) -> str:
        return f"{self.engine}:{self.options}"

    def command(self, out: Path, check: str, tier: str) -> list[str]:
        """A process of its own: an engine that brings it down brings down nothing else."""
        words = ["verify", self.connectable, "--tier", tier, "--dtype", self.dtype, "--jobs", "0", "--time-limit", "300"]
        return [sys.executable, "-m", "harness.cli", *words, "--out", str(out), *(["--only", check] if check else [])]


JUDGED = [
    Judging("vllm", "ngram", "method=ngram"),
    Judging("vllm", "draft_model", "method=draft_model"),
    Judging("vllm", "draft_model-probabilistic", "method=draft_model,drafting=probabilistic"),
    Judging("vllm", "eagle", "method=eagle"),
    Judging("vllm", "eagle-probabilistic", "method=eagle,drafting=probabilistic"),
    Judging("vllm", "eagle3", "method=eagle3"),
    Judging("vllm", "eagle3-probabilistic", "method=eagle3,drafting=probabilistic"),
    Judging("vllm", "medusa", "method=medusa"),
    Judging("transformers", "assisted", "method=assisted"),
    Judging("transformers", "prompt_lookup", "method=prompt_lookup"),
    Judging("transformers", "early_exit", "method=early_exit"),
    Judging("transformers", "ensemble", "method=ensemble"),
    Judging("llama-cpp", "prompt_lookup", "method=prompt_lookup"),
    Judging("llama-cpp", "draft_model", "method=draft_model"),
    # With the pass that the engine has by default, and with one that has room for all.
    Judging("openvino", "draft_model", "method=draft_model"),
    Judging("openvino", "draft_model-room", "method=draft_model,step=65536"),
    Judging("openvino", "eagle3-room", "method=eagle3,step=65536"),
    Judging("openvino", "eagle3_tree", "method=eagle3_tree"),
    Judging("openvino", "prompt_lookup", "method=prompt_lookup"),
    Judging("openvino", "prompt_lookup-room", "method=prompt_lookup,step=65536"),
    Judging("eagle", "eagle1", "method=eagle1"),
    Judging("eagle", "eagle2", "method=eagle2,path=.engines/EAGLE"),
]

FAMILY = [Judging("ref", name, f"drafter={name}") for name in METHODS]
"""The reference by every method of the family: judged where they are named, for they are no engine that people run."""


def judge_all(only: Sequence[str], out: Path, check: str, tier: str, jobs: int, draw: bool, dtype: str = "float32") -> int:
    """Judge what `only` names, all by default, and draw the page. Engines that are not there are told, and skipped.

    Exit code: 0 whatever was found, as the faults are the engines' own; 4 where a run came to no record.
    """
    console = Console(highlight=False, soft_wrap=True)
    known = [*JUDGED, *FAMILY]
    chosen = [one for one in known if one.engine in only or one.id in only] if only else JUDGED
    if strangers := set(only) - {name for one in known for name in (one.engine, one.id)}:
        raise BadInput(f"{', '.join(sorted(strangers))}: no such engine or method", f"known are {', '.join(o.id for o in known)}")
    if dtype not in DTYPES:
        raise BadInput(f"dtype {dtype!r} is not known", f"known are {', '.join(DTYPES)}")
    broken = 0
    if not draw:
        with ThreadPoolExecutor(jobs) as pool:
            broken = sum(pool.map(lambda one: _judge(one.within(dtype), out, check, tier, console), chosen))
    found = {path.parent.relative_to(out).as_posix(): _record(path.parent) for path in sorted(out.glob("*/*/record.jsonl"))}
    for place in [place for place, record in found.items() if record is None]:
        console.print(f"{place}: its record is not whole, and is left out", markup=False)
    records = {place: record for place, record in found.items() if record}
    for written in render_engines(records, out) if records else []:
        console.print(str(written))
    return BROKEN if broken else 0


def _judge(one: Judging, out: Path, check: str, tier: str, console: Console) -> bool:
    """Whether it came to no record."""
    try:
        version = connect(one.connectable).version
    except (BadInput, NotApplicable) as error:
        console.print(f"{one.id}: skipped: {error}", markup=False)
        return False
    except AdapterError as error:
        console.print(f"{one.id}: no record: {error}", markup=False)
        return True
    folder = out / (folder_of(version) or one.engine) / one.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.jsonl").unlink(missing_ok=True)  # of an earlier run: where this one comes to none, it must not stand for it
    begun = time.monotonic()
    one_thread = {"OMP_NUM_THREADS": "1", **os.environ}  # several runs share the cores
    with (folder / "log.txt").open("w") as log:
        command = one.command(folder, check, tier)
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=one_thread, check=False).returncode
    record = _record(folder)
    told = f"{record.footer.verdict}" if record else f"no record (exit code {code}): {folder / 'log.txt'}"
    console.print(f"{one.id}: {told}, {time.monotonic() - begun:.0f} s", markup=False)
    if record:
        for name in ("log.txt", "junit.xml", "badge.json"):
            (folder / name).unlink(missing_ok=True)
    return record is None


def folder_of(version: str) -> str:
    """A version as the name of a folder: an engine says of itself what it likes, and must not choose where we write."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", version)[:80].strip(".-")


def _record(folder: Path) -> Record | None:
    try:
        return read_record(folder / "record.jsonl")
    except BadInput:
        return None
