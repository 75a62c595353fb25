"""The command `eagle2`. Thin: what its commands do lives elsewhere, and torch is imported late."""

from __future__ import annotations

from typing import Annotated

import typer

from eagle2_ref import __version__
from fixtures.training.cli import app as train
from harness.cli import bench, compare, engines, gallery, judging, showing
from harness.cli import device_checks as gpu

app = typer.Typer(
    name="eagle2",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reference EAGLE-2 decoder, and the instrument that tells whether a speculative decoder still emits the target's law.",
    epilog="Exit codes of `verify`: 0 pass, 1 fault, 2 usage, 3 inconclusive, 4 the adapter is broken.",
)
app.add_typer(train, name="train")
for commands in (showing, judging, engines, gallery, bench, compare, gpu):
    app.registered_commands += commands.app.registered_commands


def _version(value: bool) -> None:
    if value:
        typer.echo(f"eagle2-ref {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Nothing of its own."""


def main() -> None:
    """The console script."""
    app()
