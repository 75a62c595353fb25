"""`eagle2 record`, `eagle2 judge`: judge an implementation here, and its recorded answers elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

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
    jobs: Jobs = "auto",
) -> None:
    """Judge a trace, as `eagle2 verify trace:FILE` does. Pair, tier and seed must be those of the recording."""
    impl = f"trace:{trace.absolute()}"
    raise typer.Exit(run_checks(replace(settings, impl=impl, whole=not settings.only), jobs))
