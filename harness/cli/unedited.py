"""`eagle2 unedited`: the exact distributions of third-party decoders."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import examples, in_child, report_user_errors

app = typer.Typer()


@app.command(epilog=examples("eagle2 unedited", "eagle2 unedited --new-tokens 3 --published EAGLE/eagle/model/utils.py"))
@report_user_errors
@in_child
def unedited(
    new_tokens: Annotated[int, typer.Option(min=1, help="Number of tokens of a continuation.")] = 2,
    published: Annotated[Path | None, typer.Option(help="A file with a published evaluate_posterior.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Directory of the summary.")] = Path("reports/latest/unedited"),
) -> None:
    """Enumerate installed third-party decoders without editing them: transformers' methods, and a published acceptance rule."""
    from rich.console import Console

    from harness.enumeration.third_party import enumerate_modes, enumerate_rule_sizes
    from harness.environment import versions
    from harness.files import writable_folder, write_atomic
    from harness.implementations.published import published_rule
    from harness.report.unedited import unedited_summary

    writable_folder(out)
    console, results = Console(highlight=False), []
    rule = enumerate_rule_sizes(f"{published.name}, evaluate_posterior", published_rule(published).on) if published else ()
    with console.status("enumerating") as status:
        modes = enumerate_modes(
            new_tokens=new_tokens, progress=lambda n, mass: status.update(f"{n} executions, {mass:.0%} of the law")
        )
        for one in itertools.chain(modes, rule):
            results.append(one)
            line = f"{one.mode}: {one.executions} executions, total variation {one.distance:.2g}, {one.seconds:.1f} s"
            console.print(line, soft_wrap=True)
    command = f"eagle2 unedited --new-tokens {new_tokens}" + (f" --published {published.name}" if published else "")
    console.print(str(write_atomic(out / "summary.md", unedited_summary(results, versions(), command))), soft_wrap=True)
