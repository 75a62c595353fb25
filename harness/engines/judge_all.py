"""Judge every installed engine with every method that it offers: one `eagle2 verify` per method, and one page of the results."""

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
from harness.catalogue import check_selectors
from harness.files import writable_folder
from harness.implementations import connect
from harness.implementations.engine import AdapterError, NotApplicable
from harness.record.model import Record, read_record
from harness.report.engines import render_engines
from harness.verdict import BROKEN


@dataclass(frozen=True)
class EngineMethod:
    """A method of an engine. name: of the folder of its record. options: of the connectable string."""

    engine: str
    name: str
    options: str
    dtype: str = "float32"

    @property
    def id(self) -> str:
        return f"{self.engine}/{self.name}"

    @property
    def connectable(self) -> str:
        return f"{self.engine}:{self.options}"

    def in_dtype(self, dtype: str) -> EngineMethod:
        """The same method in another dtype, with a folder of its own."""
        return self if dtype == self.dtype else replace(self, name=f"{self.name}-{dtype}", dtype=dtype)

    def command(self, out: Path, check: str, tier: str) -> list[str]:
        """The command that judges it. It runs in a process of its own, since an engine can crash its process."""
        words = ["verify", self.connectable, "--tier", tier, "--dtype", self.dtype, "--jobs", "0", "--time-limit", "300"]
        return [sys.executable, "-m", "harness.cli", *words, "--out", str(out), *(["--only", check] if check else [])]


ENGINES = [
    EngineMethod("vllm", "ngram", "method=ngram"),
    EngineMethod("vllm", "draft_model", "method=draft_model"),
    EngineMethod("vllm", "draft_model-probabilistic", "method=draft_model,drafting=probabilistic"),
    EngineMethod("vllm", "eagle", "method=eagle"),
    EngineMethod("vllm", "eagle-probabilistic", "method=eagle,drafting=probabilistic"),
    EngineMethod("vllm", "eagle3", "method=eagle3"),
    EngineMethod("vllm", "eagle3-probabilistic", "method=eagle3,drafting=probabilistic"),
    EngineMethod("vllm", "medusa", "method=medusa"),
    EngineMethod("transformers", "assisted", "method=assisted"),
    EngineMethod("transformers", "prompt_lookup", "method=prompt_lookup"),
    EngineMethod("transformers", "early_exit", "method=early_exit"),
    EngineMethod("transformers", "ensemble", "method=ensemble"),
    EngineMethod("llama-cpp", "prompt_lookup", "method=prompt_lookup"),
    EngineMethod("llama-cpp", "draft_model", "method=draft_model"),
    # OpenVINO with its default pass size, and with one into which all requests of a check fit (step=65536).
    EngineMethod("openvino", "draft_model", "method=draft_model"),
    EngineMethod("openvino", "draft_model-room", "method=draft_model,step=65536"),
    EngineMethod("openvino", "eagle3-room", "method=eagle3,step=65536"),
    EngineMethod("openvino", "eagle3_tree", "method=eagle3_tree"),
    EngineMethod("openvino", "prompt_lookup", "method=prompt_lookup"),
    EngineMethod("openvino", "prompt_lookup-room", "method=prompt_lookup,step=65536"),
    EngineMethod("eagle", "eagle1", "method=eagle1"),
    EngineMethod("eagle", "eagle2", "method=eagle2,path=.engines/EAGLE"),
]

REFERENCE = [EngineMethod("ref", name, f"drafter={name}") for name in METHODS]
"""The reference with each of its methods. They are judged only if they are named, since they are no public engines."""


def judge_all(only: Sequence[str], out: Path, check: str, tier: str, jobs: int, draw: bool, dtype: str = "float32") -> int:
    """Judge the engines and methods of `only`, or all public engines, and draw the page. Engines not installed are skipped.

    Returns:
        The exit code: 4 if a run left no record; otherwise 0, also if faults were found, as they are the engines' own.
    """
    console = Console(highlight=False, soft_wrap=True)
    known = [*ENGINES, *REFERENCE]
    chosen = [one for one in known if one.engine in only or one.id in only] if only else ENGINES
    if unknown := set(only) - {name for one in known for name in (one.engine, one.id)}:
        ids = ", ".join(one.id for one in known)
        raise BadInput(f"{', '.join(sorted(unknown))}: no such engine or method", f"known are {ids}")
    if check:
        check_selectors(check, tier == "full")
    if dtype not in DTYPES:
        raise BadInput(f"dtype {dtype!r} is not known", f"known are {', '.join(DTYPES)}")
    failed = 0
    writable_folder(out)
    if not draw:
        with ThreadPoolExecutor(jobs) as pool:
            failed = sum(pool.map(lambda one: not _judge(one.in_dtype(dtype), out, check, tier, console), chosen))
    found = {path.parent.relative_to(out).as_posix(): _read(path.parent) for path in sorted(out.glob("*/*/record.jsonl"))}
    for place in [place for place, record in found.items() if record is None]:
        console.print(f"{place}: skipped, since its record is incomplete", markup=False)
    records = {place: record for place, record in found.items() if record}
    for written in render_engines(records, out) if records else []:
        console.print(str(written))
    return BROKEN if failed else 0


def _judge(method: EngineMethod, out: Path, check: str, tier: str, console: Console) -> bool:
    """Judge one method, and return False if that left no record. An engine that is not installed is no failure."""
    try:
        version = connect(method.connectable).version
    except (BadInput, NotApplicable) as error:
        console.print(f"{method.id}: skipped: {error}", markup=False)
        return True
    except AdapterError as error:
        console.print(f"{method.id}: no record: {error}", markup=False)
        return False
    console.print(f"{method.id}: judging {version} …", markup=False)
    folder = out / (folder_of(version) or method.engine) / method.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.jsonl").unlink(missing_ok=True)  # otherwise that of an earlier run is read if this one writes none
    start = time.monotonic()
    one_thread = {"OMP_NUM_THREADS": "1", **os.environ}  # several runs share the cores
    with (folder / "log.txt").open("w") as log:
        command = method.command(folder, check, tier)
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=one_thread, check=False).returncode
    record = _read(folder)
    result = record.footer.verdict if record else f"no record (exit code {code}): {folder / 'log.txt'}"
    console.print(f"{method.id}: {result}, {time.monotonic() - start:.0f} s", markup=False)
    if record:
        for name in ("log.txt", "junit.xml", "badge.json"):
            (folder / name).unlink(missing_ok=True)
    return record is not None


def folder_of(version: str) -> str:
    """A folder name from a version. The engine chooses its version, which must not choose a path."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", version)[:80].strip(".-")


def _read(folder: Path) -> Record | None:
    try:
        return read_record(folder / "record.jsonl")
    except BadInput:
        return None
