"""Options of a command from a settings model: the name, type, default and help of each come from a field of the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from eagle2_ref.errors import BadInput
from harness.command_line import from_text, is_list, is_renamed, is_repeated, option_name, to_text

Command = Callable[..., None]


def options_from(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Replace the first parameter of a command, a value of `model`, by one option for each field.

    A further parameter of the command that has the name of a field replaces the option of that field, and the field has its
    default value. Use it where the command line takes something else than what the model stores, such as a path.

        @app.command()
        @report_user_errors
        @options_from(Settings)
        def bench(settings: Settings, out: Out = DEFAULT) -> None: ...

    Raises:
        BadInput: when the command is called with values that the model refuses.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        fields = {name: field for name, field in model.model_fields.items() if name not in {one.name for one in own}}

        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: _value(name, field, given.pop(name)) for name, field in fields.items()}
            command(_validated(model, values), **given)

        parameters = [*(_parameter(name, field) for name, field in fields.items()), *own]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """The parameter from which typer makes the option of a field."""
    kind: Any = field.annotation
    default = field.get_default(call_default_factory=True)
    if is_list(field):
        kind, default = str, to_text(default)
    elif is_repeated(field):
        kind, default = list[get_args(kind)[0]] | None, list(default) or None  # type: ignore[misc]
    names = (option_name(name, field),) if is_renamed(field) else ()  # without a name, typer gives a bool its --no- form
    option = typer.Option(*names, help=field.description)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _value(name: str, field: FieldInfo, given: Any) -> Any:
    """The value of a field from what typer parsed."""
    if is_list(field):
        return from_text(name, field, given)
    return tuple(given or ()) if is_repeated(field) else given


def _validated(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        option = option_name(name, model.model_fields[name]) if name in model.model_fields else "the options"
        raise BadInput(f"{option} cannot be used: {first['msg']}", "`--help` lists what each option takes") from None
