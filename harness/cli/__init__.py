"""The command `eagle2`, one file per command. Commands import torch when they run, so that `--help` is quick."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from eagle2_ref import __version__
from fixtures.training.cli import app as train
from harness.cli import (
    acceptance,
    bench,
    calibrate,
    compare,
    convert,
    doctor,
    engines,
    generate,
    gpu,
    mutants,
    pair,
    record,
    report,
    unedited,
    verify,
)
from harness.cli.command import Command, Group
from harness.cli.options import report_user_errors
from harness.verdict import CLOSED_PIPE, STOPPED

app = typer.Typer(
    name="eagle2",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reference EAGLE-2 decoder, and a harness that judges whether a speculative decoder is lossless.",
    epilog="Exit codes: 0 pass, 1 fault, 2 usage error, 3 inconclusive, 4 broken adapter, 70 error of the harness itself, "
    "130 stopped by Ctrl-C.",
)
app.add_typer(train, name="train", cls=Group)
for module in (
    generate,
    verify,
    record,
    report,
    doctor,
    convert,
    engines,
    mutants,
    calibrate,
    unedited,
    bench,
    compare,
    acceptance,
    gpu,
    pair,
):
    app.registered_commands += module.app.registered_commands
for command in train.registered_commands:
    assert command.callback
    command.callback = report_user_errors(command.callback)
for command in (*app.registered_commands, *train.registered_commands):
    command.cls = Command


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"eagle2-ref {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of `eagle2` itself."""


def _open_standard_streams() -> None:
    """Open those that the caller has closed, so that no other file takes their number and nothing fails to print."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _stop(_signal: int, _frame: FrameType | None) -> None:
    print("eagle2: stopped", file=sys.stderr)
    raise SystemExit(STOPPED)


def main() -> None:
    """The console script. What a terminal's encoding lacks is written as an escape sequence, and is no error.

    Ctrl-C ends it with exit code 130; click would end it with that of a fault.
    """
    _open_standard_streams()
    signal.signal(signal.SIGINT, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # click and rich end with exit code 1, that of a fault
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(CLOSED_PIPE) from None
        raise
