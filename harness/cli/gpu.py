"""`eagle2 gpu`: the checks that need a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.from_settings import options_from
from harness.cli.options import examples, report_user_errors
from harness.settings import Settings

app = typer.Typer()


@app.command(epilog=examples("eagle2 gpu", "eagle2 gpu --device cuda:1 --out /tmp/gpu"))
@report_user_errors
@options_from(Settings, only=("device",), device="cuda")
def gpu(
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", help="Directory of the records.")] = Path("reports/gpu"),
) -> None:
    """On a GPU, judge `ref` and `static:` in every dtype, train a large pair, and time it. Finished parts are not repeated."""
    from harness.device_checks import run_all

    raise typer.Exit(run_all(settings.device, out))
