"""`eagle2 verify`, `eagle2 smoke`: judge an implementation."""

from __future__ import annotations

from dataclasses import replace

import typer

from harness.cli.from_settings import options_from
from harness.cli.options import PAIR, Jobs, examples, report_user_errors
from harness.cli.run_checks import run_checks, run_smoke
from harness.settings import Settings

app = typer.Typer()


@app.command(
    epilog=examples(
        "eagle2 verify",
        "eagle2 verify ref:rule=walk,k=4,depth=3,m=10 --tier full",
        "eagle2 verify py:my_engine:Engine,depth=5 --only LAW-4",
        note="Exit codes: 0 pass, 1 fault, 2 usage error, 3 inconclusive, 4 broken adapter.",
    )
)
@report_user_errors
@options_from(
    Settings,
    only=("impl", *PAIR, "tier", "device", "dtype", "seed", "out", "time_limit", "only", "evidence", "oracle", "known"),
)
def verify(settings: Settings, jobs: Jobs = "auto") -> None:
    """Judge an implementation by every property, and write a record and a report."""
    raise typer.Exit(run_checks(replace(settings, whole=not settings.only), jobs))


@app.command(epilog=examples("eagle2 smoke py:my_engine:Engine"))
@report_user_errors
@options_from(Settings, only=("impl", *PAIR, "device", "dtype", "time_limit"), time_limit=30.0)
def smoke(settings: Settings) -> None:
    """Test an adapter in seconds: does it open, answer, and repeat its answers? Exit code 0, or 4 if it does not."""
    raise typer.Exit(run_smoke(settings))
