"""`eagle2 doctor`: is an engine ready to be judged?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from eagle2_ref.errors import BadInput
from harness.cli.from_settings import options_from
from harness.cli.options import PAIR, examples, report_user_errors
from harness.cli.run_checks import run_smoke
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.implementations import Implementation
    from harness.pairs import Pair

app = typer.Typer()


@app.command(epilog=examples("eagle2 doctor vllm:method=eagle3", "eagle2 doctor cmd:./my_engine --pair dice8"))
@report_user_errors
@options_from(Settings, only=("impl", *PAIR, "device", "dtype"), required=("impl",), time_limit=300.0)
def doctor(settings: Settings) -> None:
    """Show an engine's version, capabilities and checkpoints, run the smoke test, and say what is missing."""
    raise typer.Exit(run_smoke(settings, first=_show))


def _show(found: Implementation, pair: Pair) -> None:
    """Print what an engine says of itself.

    Raises:
        BadInput: the pair lacks the checkpoint that it drafts with.
    """
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    drafter = pair.drafter(found.checkpoint)
    lines = {
        "engine": found.version or "reports no version",
        "capabilities": ", ".join(sorted(found.capabilities)),
        **({"lossy": f"by design: {found.lossy}"} if found.lossy else {}),
        "checkpoints": f"target, and {found.checkpoint} of {pair.name}: {drafter or 'missing'}",
    }
    for name, text in lines.items():
        console.print(f"{name:13} {text}", markup=False)
    if drafter is None:
        raise BadInput(
            f"the pair {pair.name} has no {found.checkpoint}", "train one (`eagle2 train --help`), or give one with --draft"
        )
    console.print(f"{'smoke':13} opening it, with and without speculation …")
