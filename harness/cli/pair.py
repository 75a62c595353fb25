"""`eagle2 pair`: where a pair is; a pair that is not shipped whole is built."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import examples, report_user_errors

app = typer.Typer()


@app.command(epilog=examples("eagle2 pair smollm2", "eagle2 verify ref:drafter=lookup --pair smollm2 --only GREEDY"))
@report_user_errors
def pair(name: Annotated[str, typer.Argument(help="coin4, coin6, dice8, stdlib or smollm2.")] = "smollm2") -> None:
    """Show the folders of a pair. smollm2, a real chat model, is built from an installed package at first use."""
    from harness.pairs import shipped

    found = shipped(name, lambda text: typer.echo(f"eagle2: {text}", err=True))
    typer.echo(f"target  {found.target}\ndraft   {found.draft}")
