"""`eagle2 mutants`: the kill matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Processes, cores, examples, report_user_errors

app = typer.Typer()


@app.command(
    epilog=examples(
        "eagle2 mutants",
        "eagle2 mutants --quick",
        "eagle2 mutants --only M04 --check LAW",
        "eagle2 verify mutant:M04",
    )
)
@report_user_errors
def mutants(
    only: Annotated[str, typer.Option(help="Ids of mutants or controls, separated by commas.")] = "",
    check: Annotated[str, typer.Option(help="Chapters or properties, separated by commas: LAW,TREE-1.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Stop at the first property that kills a mutant as expected.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Directory of trials and report.")] = Path("reports/latest/mutants"),
    jobs: Processes = 0,
    sign: Annotated[
        bool, typer.Option("--sign", help="Store the effects of every mutant, by which faults are diagnosed.")
    ] = False,
) -> None:
    """Run the properties on every mutant and control. Exit code 1 if a mutant survives or a control is killed."""
    from harness.kill_matrix.matrix import run_matrix

    raise typer.Exit(run_matrix([name for name in only.split(",") if name], check, quick, out, cores(jobs), sign))
