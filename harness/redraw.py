"""`eagle2 report`: draw the report of any record again, by the kind of record that its first line shows.

| record | files |
|---|---|
| `eagle2 verify` (record.jsonl) | index.html, summary.md, junit.xml, badge.json |
| `eagle2 engines` (a folder of ENGINE/METHOD/record.jsonl) | index.html, index.md, and index.html, summary.md of every record |
| `eagle2 mutants` (trials.jsonl) | index.html, summary.md |
| `eagle2 calibrate` (calibration.jsonl) | index.html, summary.md |
| `eagle2 bench`, `eagle2 compare`, `eagle2 acceptance` (record.jsonl) | index.html, summary.md, an SVG file for each plot |
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from eagle2_ref.errors import BadInput
from harness.files import refuse_special_file, writable_folder
from harness.record.jsonl import read_lines
from harness.record.model import Trial, read_record
from harness.report.layout import write

NAMES = ("record.jsonl", "trials.jsonl", "calibration.jsonl")
"""Names of records in their folders."""


def redraw(path: Path, out: Path | None = None) -> list[Path]:
    """Draw the report of a record, or of a folder with one, and return the paths of the files.

    Args:
        path: a record, the folder of one, or the folder of the records of engines.
        out: folder to write; by default that of the record.

    Raises:
        BadInput: there is no record, its kind is not known, or nothing can be written to `out`.
    """
    if path.is_dir():
        if records := sorted(path.glob("*/*/record.jsonl")):
            return _engines(path, records, out or path)
        path = next((path / name for name in NAMES if (path / name).exists()), path / NAMES[0])
    first = _first_line(path)
    out = out or path.parent
    if path.exists():
        writable_folder(out)
    command = str(first.get("command", "")).removeprefix("eagle2 ").partition(" ")[0]
    if first.get("kind") == "trial":
        return _trials(path, out)
    if command == "calibrate":
        from harness.calibration.report import render as render_calibration

        return render_calibration(path, out)
    if command in ("bench", "compare"):
        from harness.benchmark import pages, record

        is_bench = command == "bench"
        page = pages.bench_page(record.read_bench(path)) if is_bench else pages.compare_page(record.read_comparison(path))
        return write(page, out, files=True)
    if command == "acceptance":
        from harness.benchmark.acceptance_page import acceptance_page
        from harness.benchmark.acceptance_record import read_acceptance

        return write(acceptance_page(read_acceptance(path)), out, files=True)
    from harness.report import render

    return render(read_record(path), out)


def _first_line(path: Path) -> dict[str, object]:
    """The first line; empty if it is not a JSON object, so that the reader of the record reports what is wrong."""
    refuse_special_file(path, "the record")
    try:
        with path.open(encoding="utf-8") as file:
            line = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return line if isinstance(line, dict) else {}


def _engines(folder: Path, paths: list[Path], out: Path) -> list[Path]:
    from harness.report import engines, verify

    records = {path.parent.relative_to(folder).as_posix(): read_record(path) for path in paths}
    writable_folder(out)
    pages = [page for place, record in records.items() for page in verify.render_page(record, out / place)]
    return [*engines.render_engines(records, out), *pages]  # last, since it links to the others


def _trials(path: Path, out: Path) -> list[Path]:
    from harness.mutants import GALLERY
    from harness.report.matrix import render_matrix

    trials = read_lines(path, TypeAdapter(Trial), command="eagle2 mutants")
    if len({(trial.mutant, trial.property, trial.case) for trial in trials}) < len(trials):
        raise BadInput(f"{path} holds a trial twice", "the record is damaged; run `eagle2 mutants` again")
    return render_matrix(trials, GALLERY, None, out)
