"""Settings models on the command line: each field is an option, and a settings value can be written as options again.

A field becomes `--its-name` with the field's default and description. A tuple is written with commas. Where a field needs
something else, `json_schema_extra` of the field says so:

    option: another name, such as "--temperature". A bool with a name of its own has no --no- form.
    repeated: True for a tuple whose option is given once for each value.
    argument: True for a positional argument.
    path: True for a string that is a path.
    short: a short name, such as "-o", before the option's name.

This module imports neither typer nor torch. `harness/cli/from_settings.py` builds the options of a command from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from eagle2_ref.errors import BadInput
from harness.settings import LARGEST

_PLURAL = {int: "whole numbers", float: "numbers", str: "names"}
_EXAMPLE = {int: "1,2,4", float: "0,1", str: "a,b"}


def option_name(name: str, field: FieldInfo) -> str:
    """The option of a field, such as `--head-temperature`."""
    return str(details(field).get("option", f"--{name.replace('_', '-')}"))


def is_renamed(field: FieldInfo) -> bool:
    """Whether the field names its option itself."""
    return "option" in details(field)


def is_repeated(field: FieldInfo) -> bool:
    """Whether the option is given once for each value."""
    return bool(details(field).get("repeated"))


def is_list(field: FieldInfo) -> bool:
    """Whether the option takes several values separated by commas."""
    return get_origin(field.annotation) is tuple and not is_repeated(field)


def to_text(value: Any) -> str:
    """A value as it is typed: tuples with commas, floats without trailing zeros."""
    if isinstance(value, tuple):
        return ",".join(map(to_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_text(name: str, field: FieldInfo, text: str) -> tuple[Any, ...]:
    """The values of a comma-separated option, such as '0,1'.

    Raises:
        BadInput: a part of the text is not of the field's type.
    """
    kind = get_args(field.annotation)[0]
    try:
        values = tuple(kind(part.strip()) for part in text.split(",") if part.strip())
        if kind is str or all(abs(value) <= LARGEST for value in values):  # false for NaN
            return values
    except ValueError:
        pass
    raise BadInput(f"{option_name(name, field)} {text[:80]} is not a list of {_PLURAL[kind]}", f"write {_EXAMPLE[kind]}")


def changed_options(settings: BaseModel, default: BaseModel) -> Iterator[str]:
    """The words to type for every field that differs from `default`, in the order of the fields."""
    for name, field in type(settings).model_fields.items():
        value, option = getattr(settings, name), option_name(name, field)
        if value == getattr(default, name):
            continue
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        elif is_repeated(field):
            yield from (word for one in value for word in (option, to_text(one)))
        else:
            yield from (option, to_text(value))


def details(field: FieldInfo) -> dict[str, Any]:
    """What the field says about its option, see above."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
