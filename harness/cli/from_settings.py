"""Options of a command from a settings model: the name, type, default and help of each come from a field of the model."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from eagle2_ref.errors import BadInput
from harness.command_line import details, from_text, is_list, is_renamed, is_repeated, option_name, to_text

Command = Callable[..., None]


def options_from(
    model: type, *, only: Collection[str] | None = None, required: Collection[str] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Replace the first parameter of a command, a value of `model`, by one option for each field.

    A further parameter of the command that has the name of a field replaces the option of that field, and the field has its
    default value. Use it where the command line takes something else than what the model stores, such as a path.

        @app.command()
        @report_user_errors
        @options_from(Settings)
        def bench(settings: Settings, out: Out = DEFAULT) -> None: ...

    Args:
        model: a pydantic model, or a dataclass whose fields have metadata `description` and those of harness/command_line.py.
        only: fields that are options; all by default.
        required: fields that must be given.
        defaults: values that replace the model's defaults, of options and of fields that are no options.

    Raises:
        BadInput: when the command is called with values that the model refuses.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        chosen = {name: field for name, field in _fields(model).items() if only is None or name in only}
        for parameter in own:
            chosen.pop(parameter.name, None)
        constants = {name: value for name, value in defaults.items() if name not in chosen}

        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: _value(name, field, given.pop(name)) for name, field in chosen.items()}
            command(_validated(model, {**constants, **values}), **given)

        parameters = [*(_parameter(name, field, name in required, defaults) for name, field in chosen.items()), *own]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _fields(model: type) -> dict[str, FieldInfo]:
    """The fields of a model by name; those of a dataclass become fields of pydantic."""
    if issubclass(model, BaseModel):
        return model.model_fields
    assert dataclasses.is_dataclass(model)
    types, found = get_type_hints(model), {}
    for field in dataclasses.fields(model):
        extra = {name: value for name, value in field.metadata.items() if name != "description"}
        found[field.name] = FieldInfo(
            annotation=types[field.name],
            default=field.default,
            description=field.metadata.get("description"),
            json_schema_extra=extra,
        )
    return found


def _parameter(name: str, field: FieldInfo, required: bool, defaults: dict[str, Any]) -> inspect.Parameter:
    """The parameter from which typer makes the option of a field."""
    kind: Any = field.annotation
    default = defaults.get(name, field.get_default(call_default_factory=True))
    if is_list(field):
        kind, default = str, to_text(default)
    elif is_repeated(field):
        kind, default = list[get_args(kind)[0]] | None, list(default) or None  # type: ignore[misc]
    elif details(field).get("path"):
        kind, default = Path, Path(default)
    names = [details(field)["short"]] if "short" in details(field) else []
    if names or is_renamed(field):  # a bool without a name of its own gets its --no- form from typer
        names.append(option_name(name, field))
    make: Any = typer.Argument if details(field).get("argument") else typer.Option
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind, make(*names, help=field.description)],
    )


def _value(name: str, field: FieldInfo, given: Any) -> Any:
    """The value of a field from what typer parsed."""
    if is_list(field):
        return from_text(name, field, given)
    if is_repeated(field):
        return tuple(given or ())
    return str(given) if isinstance(given, Path) else given


def _validated(model: type, values: dict[str, Any]) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, fields = str(first["loc"][0]) if first["loc"] else "", _fields(model)
        option = option_name(name, fields[name]) if name in fields else "the options"
        raise BadInput(f"invalid value for {option}: {first['msg']}", "`--help` lists what each option takes") from None
