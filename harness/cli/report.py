"""`eagle2 report`, `eagle2 replay`: what a record holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.from_settings import options_from
from harness.cli.options import examples, in_child, report_user_errors
from harness.settings import Settings

app = typer.Typer()


@app.command(epilog=examples("eagle2 report reports/latest/record.jsonl --out /tmp/report", "eagle2 report reports/engines"))
@report_user_errors
def report(
    path: Annotated[Path, typer.Argument(help="A record: record.jsonl, trials.jsonl, calibration.jsonl, or its folder.")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write; by default that of the record.")] = None,
) -> None:
    """Draw the report of a record: of verify, engines, mutants, calibrate, bench, compare or acceptance."""
    from harness.redraw import redraw

    for written in redraw(path, out):
        typer.echo(written)


@app.command(epilog=examples("eagle2 replay LAW-1.3", "eagle2 replay GREEDY-1.1 --record /tmp/run/record.jsonl"))
@report_user_errors
@options_from(Settings, only=("target", "draft"))
@in_child
def replay(
    settings: Settings,
    fault: Annotated[str, typer.Argument(help="Id of a fault in the report, such as LAW-1.3.")],
    record: Annotated[Path, typer.Option(help="The record that contains the fault.")] = Path("reports/latest/record.jsonl"),
) -> None:
    """Reproduce a fault, and show the step that emitted the wrong token: the draft tree, the node, the coin, p and q.

    The step is shown for a fault with a witness, which GREEDY-1 to GREEDY-3, LAW-1, LAW-2, LAW-3, LAW-5 and LAW-7 store. For a
    fault of any other property, the whole check is run again.
    """
    from rich.console import Console

    from harness.cli.run_checks import run_checks
    from harness.implementations import connect
    from harness.record.model import read_record
    from harness.replay import replay

    def rerun(settings: Settings) -> int:
        return run_checks(replace(settings, out=str(record.parent / "replay")), "0", brief=True)

    found = read_record(record)
    own = settings.target or settings.draft
    pair = connect(found.header.implementation).find_pair(settings) if own else None
    raise typer.Exit(replay(found, fault, Console(highlight=False), rerun, pair))
