"""Options that are built from a settings model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from eagle2_ref.errors import BadInput
from harness.cli.from_settings import options_from
from harness.command_line import changed_options


class Settings(BaseModel):
    """A field of every kind that commands have."""

    temperatures: tuple[float, ...] = Field(
        (0.0, 1.0), description="Temperatures.", json_schema_extra={"option": "--temperature"}
    )
    batch: tuple[int, ...] = ()
    engines: tuple[str, ...] = Field((), json_schema_extra={"option": "--engine", "repeated": True})
    tune: bool = Field(False, description="Tune first.", json_schema_extra={"option": "--tune"})
    transformers: bool = True
    fixed_shapes: bool | None = None
    head_temperature: float = 1.0
    rule: Literal["reject", "walk"] = "reject"
    limit: int = Field(0, ge=0)
    prompts: str = "code.jsonl"


def run(*words: str) -> tuple[Any, Any, int, str]:
    """Settings and path that a command received, its exit code, and its output."""
    app, received = typer.Typer(), list[Any]()

    @app.command()
    @options_from(Settings)
    def command(settings: Settings, prompts: Annotated[Path | None, typer.Option(help="A file.")] = None) -> None:
        received.extend((settings, prompts))

    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, BadInput):
        raise done.exception
    return *(received or (None, None)), done.exit_code, done.output


def test_defaults_are_those_of_the_model() -> None:
    assert run()[:3] == (Settings(), None, 0)


def test_every_option_reaches_its_field() -> None:
    words = "--temperature 0.5,2 --batch 1,4 --engine a --engine b=1,c=2 --tune --no-transformers --no-fixed-shapes"
    settings, prompts, code, _ = run(*words.split(), "--head-temperature", "0.7", "--rule", "walk", "--prompts", "x")
    assert code == 0 and prompts == Path("x") and settings.prompts == "code.jsonl"
    assert settings == Settings(
        temperatures=(0.5, 2.0),
        batch=(1, 4),
        engines=("a", "b=1,c=2"),
        tune=True,
        transformers=False,
        fixed_shapes=False,
        head_temperature=0.7,
        rule="walk",
    )


def test_changed_options_lead_to_the_same_settings() -> None:
    settings = Settings(temperatures=(0.5,), engines=("a", "b"), tune=True, transformers=False, fixed_shapes=True, batch=(2,))
    words = list(changed_options(settings, Settings()))
    assert run(*words)[0] == settings and "--prompts" not in words
    assert list(changed_options(Settings(), Settings())) == []


def test_a_bool_with_an_option_name_has_no_negative_form() -> None:
    assert run("--no-tune")[2] == 2 and run("--no-transformers")[2] == 0


@pytest.mark.parametrize("words", ["--temperature hot", "--batch 1.5", "--limit -1"])
def test_values_that_the_model_refuses_are_bad_input(words: str) -> None:
    with pytest.raises(BadInput, match=words.split()[0]):
        run(*words.split())


def test_help_has_the_description_of_each_field() -> None:
    text = " ".join(run("--help")[3].replace("│", " ").split())
    assert "Temperatures." in text and "file." in text
