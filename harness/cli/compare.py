"""`eagle2 compare`: methods on the same network and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.benchmark.settings import CompareSettings
from harness.cli.from_settings import options_from
from harness.cli.options import DraftDir, PromptFile, TargetDir, examples, progress, report_user_errors
from harness.supervisor import supervise
from harness.verdict import FAULT

if TYPE_CHECKING:
    from harness.benchmark.record import CompareRecord
    from harness.benchmark.settings import Checkpoints
    from harness.pairs import Pair

app = typer.Typer()

OUT = Path("reports/latest/compare")


@app.command(
    epilog=examples(
        "eagle2 compare --methods eagle2,eagle,lookup --limit 6",
        "eagle2 compare --pair smollm2 --prompts question.jsonl --limit 24 --dtype bfloat16 --tune eagle2 --transformers",
        "eagle2 compare --draw reports/compare",
        "eagle2 compare --preset vicuna-7b --target DIR --draft DIR --prompts question.jsonl --device cuda",
        note="Exit codes: 0 compared, 1 a greedy text differs from ordinary decoding's and rounding does not explain it,"
        " 2 usage error.",
    )
)
@report_user_errors
@options_from(CompareSettings)
def compare(
    settings: CompareSettings,
    prompts: PromptFile = None,
    target: TargetDir = "",
    draft: DraftDir = "",
    small: Annotated[str, typer.Option(help="Folder of a small model with the target's vocabulary, with --draft.")] = "",
    medusa: Annotated[str, typer.Option(help="Folder of Medusa heads for the target, with --draft.")] = "",
    eagle3: Annotated[str, typer.Option(help="Folder of an EAGLE-3 head for the target, with --draft.")] = "",
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16; by default the preset's, or float32.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of record and page; by default reports/latest/compare.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: draw the record of this folder again.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: write the section of docs/benchmarks.md from this record.")
    ] = None,
) -> None:
    """Compare methods on the same network and prompts: tokens per target pass, cost of drafting, and speed."""
    from harness.benchmark.record import read_comparison

    if draw and readme:
        raise BadInput("--draw and --readme were given together", "give one of them")
    if readme:
        from harness.benchmark.pages import compare_mark, compare_section, write_section

        record = read_comparison(readme, whole=True)
        typer.echo(write_section(compare_section(record), compare_mark(record)))
        return
    if draw:
        raise typer.Exit(_show(read_comparison(draw), draw))

    from harness.benchmark.methods import find_checkpoints
    from harness.benchmark.presets import preset
    from harness.benchmark.settings import PROMPTS
    from harness.pairs import find_pair

    model = preset(settings.preset) if settings.preset else None
    pair = model.pair(target, draft) if model else find_pair(settings.pair, target or None, draft or None)
    checkpoints, file, folder = find_checkpoints(pair, small, medusa, eagle3, model), prompts or PROMPTS, out or OUT
    chosen = dtype or (model.dtype if model else "float32")
    settings = settings.model_copy(update={"pair": pair.name, "prompts": file.name, "dtype": chosen})
    # In a child process: an engine that ends it must not end this command as if it had succeeded.
    supervise(lambda: _measure(settings, pair, checkpoints, file, folder))
    raise typer.Exit(_show(read_comparison(folder, whole=True), folder))


def _measure(settings: CompareSettings, pair: Pair, checkpoints: Checkpoints, file: Path, out: Path) -> int:
    """Run the comparison with a progress bar."""
    from harness.benchmark.comparison import run_comparison
    from harness.benchmark.settings import command_line

    settings.check(pair)
    with progress() as report:
        run_comparison(settings, pair, checkpoints, file, out, command_line(settings, pair, checkpoints), report)
    return 0


def _show(record: CompareRecord, folder: Path) -> int:
    """Show a record on the terminal, write its page, and return the exit code."""
    from rich.console import Console

    from harness.benchmark.pages import compare_page, is_broken, publish

    publish(compare_page(record), folder, Console(highlight=False))
    return FAULT if is_broken(record) else 0
