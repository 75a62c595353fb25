"""The command `eagle2`, one file per command. Commands import torch when they run, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from eagle2_ref import __version__
from fixtures.training.cli import app as train
from harness.cli import (
    bench,
    calibrate,
    compare,
    convert,
    doctor,
    engines,
    generate,
    gpu,
    mutants,
    record,
    report,
    unedited,
    verify,
)

app = typer.Typer(
    name="eagle2",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reference EAGLE-2 decoder, and a harness that judges whether a speculative decoder is lossless.",
    epilog="Exit codes of `verify`: 0 pass, 1 fault, 2 usage error, 3 inconclusive, 4 broken adapter.",
)
app.add_typer(train, name="train")
for module in (generate, verify, record, report, doctor, convert, engines, mutants, calibrate, unedited, bench, compare, gpu):
    app.registered_commands += module.app.registered_commands


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"eagle2-ref {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of `eagle2` itself."""


def main() -> None:
    """The console script."""
    app()
