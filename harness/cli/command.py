"""The classes of all commands: they refuse values that no option of any command takes."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from harness.settings import LARGEST


class Command(TyperCommand):
    """A command whose numbers are finite and of a size that a machine computes with, and whose texts are Unicode."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words. Raises typer.BadParameter, which has exit code 2."""
        rest = super().parse_args(ctx, args)
        for parameter in self.get_params(ctx):
            if wrong := _find_fault(ctx.params.get(parameter.name or "")):
                raise typer.BadParameter(wrong, ctx=ctx, param=parameter)
        return rest

    def get_params(self, ctx: Any) -> Any:
        """The parameters. A flag takes no value, so its help names no type."""
        return _without_types_of_flags(super().get_params(ctx))


class Group(TyperGroup):
    """A command with commands of its own."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters, as for `Command`."""
        return _without_types_of_flags(super().get_params(ctx))


def _find_fault(value: Any) -> str:
    if isinstance(value, list | tuple):
        return next(filter(None, map(_find_fault, value)), "")
    if isinstance(value, int | float) and not abs(value) <= LARGEST:  # also true of NaN
        return f"{str(value)[:40]} is not a number from -{LARGEST} to {LARGEST}."
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return "the text is not UTF-8."
    return ""


def _without_types_of_flags(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
