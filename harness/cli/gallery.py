"""`eagle2 mutants` and `eagle2 calibrate`: the instrument itself is judged."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import mendable

app = typer.Typer()

Processes = Annotated[int, typer.Option("--jobs", "-n", help="Processes; 0 is one a core.")]


@app.command(
    epilog="Examples:  `eagle2 mutants`  ·  `eagle2 mutants --quick`  ·  `eagle2 mutants --only M04 --check LAW`"
    "  ·  `eagle2 verify mutant:M04`"
)
@mendable
def mutants(
    only: Annotated[str, typer.Option(help="Ids of mutants or controls, with commas between.")] = "",
    check: Annotated[str, typer.Option(help="A chapter, such as LAW, or a property, LAW-1.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Only until the first property kills that is meant to.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Directory of trials and report.")] = Path("reports/latest/mutants"),
    jobs: Processes = 0,
    sign: Annotated[bool, typer.Option("--sign", help="Keep what every mutant does for the diagnosis of faults.")] = False,
) -> None:
    """Put every mutant and every control before the properties. Exit code 1 if a mutant survives or a control dies."""
    from harness.kill_matrix.matrix import run_matrix

    raise typer.Exit(run_matrix([name for name in only.split(",") if name], check, quick, out, jobs or os.cpu_count() or 1, sign))


@app.command(
    epilog="Examples:  `eagle2 calibrate --out reports/calibration`  ·  `eagle2 calibrate --quick --out /tmp/calibration`"
)
@mendable
def calibrate(
    out: Annotated[Path, typer.Option("--out", help="Directory of figures and report; a run that was cut off goes on there.")],
    quick: Annotated[bool, typer.Option("--quick", help="A tenth, to see that it works.")] = False,
    jobs: Processes = 0,
) -> None:
    """Simulate correct and faulty decoders by the thousand: how often evidence cries wolf, and how soon it sees a fault."""
    from harness.calibration.run import calibrate

    for written in calibrate(out, quick, jobs or os.cpu_count() or 1):
        typer.echo(written)


@app.command(epilog="Examples:  `eagle2 unedited`  ·  `eagle2 unedited --new-tokens 3 --published EAGLE/eagle/model/utils.py`")
@mendable
def unedited(
    new_tokens: Annotated[int, typer.Option(help="Tokens of a continuation.")] = 2,
    published: Annotated[Path | None, typer.Option(help="A file that holds a published evaluate_posterior.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Directory of the summary.")] = Path("reports/latest/unedited"),
) -> None:
    """Enumerate decoders that are not ours, as they are installed: transformers' ways of generating, and a published rule."""
    from rich.console import Console

    from harness.enumeration.third_party import enumerate_modes, enumerate_rule_sizes
    from harness.environment import versions
    from harness.files import write_atomic
    from harness.implementations.published import published_rule
    from harness.report.unedited import unedited_summary

    console, found = Console(highlight=False), []
    rule = enumerate_rule_sizes(f"{published.name}, evaluate_posterior", published_rule(published).on) if published else ()
    with console.status("enumerating") as status:
        modes = enumerate_modes(
            new_tokens=new_tokens, progress=lambda n, mass: status.update(f"{n} executions, {mass:.0%} of the law")
        )
        for one in itertools.chain(modes, rule):
            found.append(one)
            said = f"{one.mode}: {one.executions} executions, total variation {one.distance:.2g}, {one.seconds:.1f} s"
            console.print(said, soft_wrap=True)
    command = f"eagle2 unedited --new-tokens {new_tokens}" + (f" --published {published.name}" if published else "")
    out.mkdir(parents=True, exist_ok=True)
    console.print(str(write_atomic(out / "summary.md", unedited_summary(found, versions(), command))), soft_wrap=True)
