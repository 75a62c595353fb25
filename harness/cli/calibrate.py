"""`eagle2 calibrate`: the error rates of the statistical checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Processes, cores, examples, report_user_errors

app = typer.Typer()


@app.command(epilog=examples("eagle2 calibrate --out reports/calibration", "eagle2 calibrate --quick --out /tmp/calibration"))
@report_user_errors
def calibrate(
    out: Annotated[Path, typer.Option("--out", help="Directory of figures and report; an interrupted run is continued there.")],
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the simulations, as a test.")] = False,
    jobs: Processes = 0,
) -> None:
    """Simulate thousands of correct and faulty decoders: the rate of false alarms, and how soon faults are detected."""
    from harness.calibration.run import calibrate

    for written in calibrate(out, quick, cores(jobs)):
        typer.echo(written)
