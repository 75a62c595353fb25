"""`eagle2 record`, `eagle2 judge`: judge an implementation here, and its recorded answers elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from eagle2_ref.errors import BadInput
from harness.cli.from_settings import options_from
from harness.cli.options import PAIR, Jobs, examples, report_user_errors
from harness.cli.run_checks import run_checks
from harness.settings import Settings

app = typer.Typer()

EXAMPLES = examples("eagle2 record py:my_engine:Engine -o run.jsonl", "eagle2 judge run.jsonl")


@app.command(epilog=EXAMPLES)
@report_user_errors
@options_from(
    Settings,
    only=("impl", "tape", *PAIR, "tier", "device", "dtype", "seed", "out", "time_limit", "only", "known"),
    required=("impl",),
    tape="run.jsonl",
)
def record(settings: Settings, jobs: Jobs = "auto") -> None:
    """Verify an implementation, and write all its answers to a trace, which can be judged on another machine."""
    raise typer.Exit(run_checks(replace(settings, whole=not settings.only), jobs))


@app.command(epilog=EXAMPLES)
@report_user_errors
@options_from(Settings, only=(*PAIR, "tier", "seed", "out", "only", "known"))
def judge(
    settings: Settings,
    trace: Annotated[Path, typer.Argument(help="A trace that `eagle2 record` wrote.")],
    context: typer.Context,
    jobs: Jobs = "auto",
) -> None:
    """Judge a trace, as `eagle2 verify trace:FILE` does. Pair, tier, dtype and seed are taken from the trace."""
    from harness.implementations.trace import Trace

    given = [name for name in (*PAIR, "tier", "seed") if str(context.get_parameter_source(name)).endswith("COMMANDLINE")]
    settings = _as_recorded(settings, given, Trace.read(trace).recorded)
    impl = f"trace:{trace.absolute()}"
    raise typer.Exit(run_checks(replace(settings, impl=impl, whole=not settings.only), jobs))


def _as_recorded(settings: Settings, given: Collection[str], recorded: Mapping[str, Any]) -> Settings:
    """The settings of a recording.

    Args:
        settings: from the command line.
        given: names of the settings that were given there; they must agree with the recording.
        recorded: settings of the recording; empty for a trace of an earlier version, for which they must be given.
    """
    from harness.pairs import name_of

    if not recorded:
        return settings
    pair = name_of(Path(settings.target)) if settings.target else settings.pair
    options = {
        "pair": (pair, "target" if settings.target else "pair"),
        "tier": (settings.tier, "tier"),
        "seed": (settings.seed, "seed"),
    }
    for name, (value, option) in options.items():
        if option in given and value != recorded[name]:
            raise BadInput(
                f"--{option}: the {name} is {value}, but the trace was recorded with the {name} {recorded[name]}",
                f"leave out --{option}, or record again",
            )
    pair = settings.pair if settings.target else recorded["pair"]
    return replace(settings, pair=pair, tier=recorded["tier"], dtype=recorded["dtype"], seed=recorded["seed"])
