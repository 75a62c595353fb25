"""`eagle2 bench`: decoding speed and counts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.benchmark.settings import BenchSettings
from harness.cli.from_settings import options_from
from harness.cli.options import DraftDir, PromptFile, TargetDir, examples, progress, report_user_errors
from harness.supervisor import supervise
from harness.verdict import FAULT

if TYPE_CHECKING:
    from harness.benchmark.record import BenchRecord
    from harness.pairs import Pair

app = typer.Typer()

OUT, COMMITTED = Path("reports/latest/bench"), Path("reports/bench")


@app.command(
    epilog=examples(
        "eagle2 bench --limit 6 --tokens 64",
        "eagle2 bench --beside transformers:method=prompt_lookup",
        "eagle2 bench --against reports/bench/record.jsonl",
        "eagle2 bench --draw reports/bench",
    )
)
@report_user_errors
@options_from(BenchSettings)
def bench(
    settings: BenchSettings,
    target: TargetDir = "",
    draft: DraftDir = "",
    prompts: PromptFile = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier record: exit code 1 if a count changed by more than 2 %.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of record and page; by default reports/latest/bench.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: draw the record of this folder again.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: write the section of docs/benchmarks.md from this record.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Only count, and write reports/bench/counts.json again.")] = False,
) -> None:
    """Time decoding with and without the head, and transformers' generate, in turns in one process; count passes and rows."""
    if sum((draw is not None, readme is not None, counts)) > 1:
        raise BadInput("--draw, --readme and --counts were given together", "give one of them")
    if counts:
        from harness.benchmark.counts import write_counts

        typer.echo(write_counts(out or COMMITTED))
    elif readme:
        from harness.benchmark.pages import BENCH_MARK, bench_section, write_section
        from harness.benchmark.record import read_bench

        typer.echo(write_section(bench_section(read_bench(readme, whole=True)), BENCH_MARK))
    else:
        from harness.benchmark.record import read_bench
        from harness.benchmark.settings import PROMPTS
        from harness.pairs import find_pair

        before = read_bench(against, whole=True) if against else None  # now, since --out may be the same folder
        if draw:
            raise typer.Exit(_show(read_bench(draw), draw, before))
        file, folder, pair = prompts or PROMPTS, out or OUT, find_pair(settings.pair, target or None, draft or None)
        settings = settings.model_copy(update={"pair": pair.name, "prompts": file.name})
        # In a child process: an engine that ends it must not end this command as if it had succeeded.
        supervise(lambda: _measure(settings, pair, file, folder, before))
        raise typer.Exit(_show(read_bench(folder, whole=True), folder, before))


def _measure(settings: BenchSettings, pair: Pair, file: Path, out: Path, before: BenchRecord | None) -> int:
    """Check everything that can be checked first, since a run takes minutes; then run it with a progress bar."""
    from eagle2_ref.model.target import Target
    from harness.benchmark.batches import check_batch_sizes
    from harness.benchmark.bench import run_bench
    from harness.benchmark.chat import Chat
    from harness.benchmark.prompts import read_prompts
    from harness.benchmark.record import PromptInfo
    from harness.benchmark.regression import check_comparable
    from harness.benchmark.settings import command_line

    settings.check(pair)
    target = cache(lambda: Target.load(pair.target, settings.dtype, settings.device))
    prompts, _ = read_prompts(file, pair, settings, target, lambda: Chat.of(pair))
    check_batch_sizes(settings, prompts)
    if before:
        check_comparable(settings, [PromptInfo.of(prompt) for prompt in prompts], before.header)
    with progress() as report:
        run_bench(settings, pair, prompts, out, command_line(settings, pair), report)
    return 0


def _show(record: BenchRecord, folder: Path, before: BenchRecord | None) -> int:
    """Show a record on the terminal, write its page, compare it with an earlier one, and return the exit code."""
    from rich.console import Console

    from harness.benchmark.pages import bench_page, publish, show_regression
    from harness.benchmark.regression import compare_with

    console = Console(highlight=False)
    publish(bench_page(record), folder, console)
    if before is None:
        return 0
    rows = compare_with(record, before)
    show_regression(rows, before, console)
    return FAULT if any(row.changed_counts for row in rows) else 0
