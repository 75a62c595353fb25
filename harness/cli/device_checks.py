"""`eagle2 gpu`: everything that needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Device, mendable

app = typer.Typer()


@app.command(epilog="Examples:  `eagle2 gpu`  ·  `eagle2 gpu --device cuda:1 --out /tmp/gpu`")
@mendable
def gpu(
    device: Device = "cuda",
    out: Annotated[Path, typer.Option("--out", help="Directory of the records; whole ones are kept.")] = Path("reports/gpu"),
) -> None:
    """Judge ref and static: on a CUDA device in every dtype, train a large pair, and time it. A run that was cut off goes on."""
    from harness.device_checks import run

    raise typer.Exit(run(device, out))
