"""`eagle2 verify` and what belongs to it: smoke, record, report, replay."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    Device,
    DraftDir,
    Dtype,
    Evidence,
    Impl,
    Jobs,
    Known,
    Only,
    OracleDtype,
    Out,
    PairName,
    Seed,
    TargetDir,
    Tier,
    TimeLimit,
    mendable,
)
from harness.settings import Settings
from harness.verdict import BROKEN, INCONCLUSIVE, USAGE

app = typer.Typer()


@app.command(
    epilog="Examples:  `eagle2 verify`  ·  `eagle2 verify ref:rule=walk,k=4,depth=3,m=10 --tier full`"
    "  ·  `eagle2 verify py:my_engine:Engine,depth=5 --only LAW-4`  ·  `eagle2 verify trace:run.jsonl`"
)
@mendable
def verify(
    impl: Impl = "ref",
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    tier: Tier = "quick",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    out: Out = Path("reports/latest"),
    time_limit: TimeLimit = 120.0,
    only: Only = "",
    evidence: Evidence = "",
    oracle: OracleDtype = "float64",
    known: Known = "",
    jobs: Jobs = "auto",
) -> None:
    """Judge an implementation by every property, and write a record and a report."""
    asked = Settings(impl, pair, target, draft, tier, device, dtype, seed, str(out), time_limit, only)
    settings = replace(asked, evidence=evidence, oracle=oracle, known=known, whole=not only)
    raise typer.Exit(run(settings.absolute(), jobs))


@app.command(epilog="Example:  `eagle2 smoke py:my_engine:Engine`")
@mendable
def smoke(
    impl: Impl = "ref",
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    time_limit: TimeLimit = 30.0,
) -> None:
    """Judge the adapter alone, in seconds: does it open, answer, and repeat itself?"""
    raise typer.Exit(smokes(Settings(impl, pair, target, draft, device=device, dtype=dtype, time_limit=time_limit)))


def smokes(settings: Settings) -> int:
    """The chapter SMOKE alone; nothing is kept."""
    import tempfile

    with tempfile.TemporaryDirectory() as out:
        return run(replace(settings, out=out, only="SMOKE").absolute(), "0", report=False)


@app.command(epilog="Example:  `eagle2 record py:my_engine:Engine -o run.jsonl`, then anywhere `eagle2 judge run.jsonl`")
@mendable
def record(
    impl: Impl,
    tape: Annotated[Path, typer.Option("-o", "--tape", help="File to write.")] = Path("run.jsonl"),
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    tier: Tier = "quick",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    out: Out = Path("reports/latest"),
    time_limit: TimeLimit = 120.0,
    only: Only = "",
    known: Known = "",
    jobs: Jobs = "auto",
) -> None:
    """Verify, and keep all answers in a file that can be judged again elsewhere."""
    from harness.implementations import connect
    from harness.implementations.trace import write_head

    asked = Settings(impl, pair, target, draft, tier, device, dtype, seed, str(out), time_limit, only, str(tape), known=known)
    write_head(tape, connect(impl))
    code = run(replace(asked, whole=not only).absolute(), jobs)
    typer.echo(f"trace: {tape}")
    raise typer.Exit(code)


@app.command(epilog="Example:  `eagle2 record py:my_engine:Engine -o run.jsonl`, then anywhere `eagle2 judge run.jsonl`")
@mendable
def judge(
    trace: Annotated[Path, typer.Argument(help="A trace that `eagle2 record` wrote.")],
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    tier: Tier = "quick",
    seed: Seed = 0,
    out: Out = Path("reports/latest"),
    only: Only = "",
    known: Known = "",
    jobs: Jobs = "auto",
) -> None:
    """Judge what was recorded elsewhere, as `eagle2 verify trace:FILE` does; pair, tier and seed are those of the recording."""
    settings = Settings(f"trace:{trace.absolute()}", pair, target, draft, tier, seed=seed, out=str(out), only=only)
    raise typer.Exit(run(replace(settings, known=known, whole=not only).absolute(), jobs))


@app.command(epilog="Example:  `eagle2 report reports/latest/record.jsonl --out /tmp/report`")
@mendable
def report(
    path: Annotated[Path, typer.Argument(help="A record.jsonl.")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write; the record's own by default.")] = None,
) -> None:
    """Draw the report of a record again: index.html, summary.md, junit.xml, badge.json."""
    import harness.report
    from harness.record.model import read_record

    for written in harness.report.render(read_record(path), out or path.parent):
        typer.echo(written)


@app.command(epilog="Examples:  `eagle2 replay LAW-1.3`  ·  `eagle2 replay GREEDY-1.1 --record /tmp/run/record.jsonl`")
@mendable
def replay(
    fault: Annotated[str, typer.Argument(help="Id of a fault, as the report has it: LAW-1.3")],
    record: Annotated[Path, typer.Option(help="The record it stands in.")] = Path("reports/latest/record.jsonl"),
    target: TargetDir = "",
    draft: DraftDir = "",
) -> None:
    """Reproduce a fault of a record, and show the step at which the bad token came: its tree, the node, the coin, p and q."""
    from rich.console import Console

    from harness.pairs import find_pair
    from harness.record.model import read_record
    from harness.replay import replay

    def rerun(settings: Settings) -> int:
        return run(replace(settings, out=str(record.parent / "replay")).absolute(), "0")

    given = find_pair("", target, draft) if target or draft else None
    raise typer.Exit(replay(read_record(record), fault, Console(highlight=False), rerun, given))


def run(settings: Settings, jobs: str, report: bool = True) -> int:
    """Run the chapters under pytest, show what came out, and return the exit code."""
    gc.disable()  # imports create a million objects that are never freed: see properties/conftest.py
    import pytest

    from harness import known
    from harness.catalogue import folders

    chapters = folders()  # before the implementation: its folder may hold packages of the same names
    from harness.implementations import connect
    from harness.pairs import find_pair
    from harness.record.model import read_record
    from harness.terminal import show_record

    gc.freeze()
    gc.enable()

    # Wrong arguments are reported before pytest starts.
    pair = find_pair(settings.pair, settings.target or None, settings.draft or None)
    connect(settings.impl).check(pair, settings.dtype, settings.device)
    known.read(settings.known)
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-o", "console_output_style=progress"]
    # Settings and conftest files of the current folder, or around the environment, belong to other projects and are not read.
    alone = ["-c", os.devnull, f"--rootdir={chapters[0].parent}", f"--confcutdir={chapters[0]}"]
    arguments = [*map(str, chapters), *alone, *quiet, "-n", jobs, *settings.unparse()]
    status = pytest.main(arguments)
    path = Path(settings.out) / "record.jsonl"
    if status == pytest.ExitCode.USAGE_ERROR:
        return USAGE
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) or not path.exists():
        typer.echo(f"eagle2: the run was cut off; what it had found is in {path}", err=True)
        return INCONCLUSIVE
    record = read_record(path)
    show_record(record, path.parent if report else None)
    return record.footer.exit_code if report else (BROKEN if record.footer.exit_code else 0)
