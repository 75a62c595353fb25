"""`eagle2 engines`: judge public engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.from_settings import options_from
from harness.cli.options import cores, examples, report_user_errors
from harness.settings import Settings

app = typer.Typer()


@app.command(
    epilog=examples(
        "eagle2 engines",
        "eagle2 engines --only openvino/eagle3-room --tier full",
        "eagle2 engines --only vllm/draft_model --dtype bfloat16",
        "eagle2 engines --only ref",
    )
)
@report_user_errors
@options_from(Settings, only=("tier", "dtype"))
def engines(
    settings: Settings,
    only: Annotated[str, typer.Option(help="Engines, or engine/method, separated by commas; ref is the reference.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Directory of the reports.")] = Path("reports/latest/engines"),
    check: Annotated[str, typer.Option(help="Chapters, properties or cases, as for `verify --only`.")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-n", help="Number of methods judged at the same time; 0 is one per core.")] = 2,
    draw: Annotated[bool, typer.Option("--draw", help="Judge nothing; draw the page from the stored records.")] = False,
) -> None:
    """Judge every installed engine with every method that it offers, and draw one page of the results."""
    from harness.engines.judge_all import judge_all

    names = [name for name in only.split(",") if name]
    raise typer.Exit(judge_all(names, out, check, settings.tier, cores(jobs), draw, settings.dtype))
