"""`eagle2 bench`: how fast it decodes, and what it counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.cli.options import Device, DraftDir, Dtype, PairName, Seed, TargetDir, progress, report_user_errors
from harness.verdict import FAULT

if TYPE_CHECKING:
    from harness.bench.record import Record
    from harness.bench.settings import Settings
    from harness.pairs import Pair

app = typer.Typer()

OUT, COMMITTED = Path("reports/latest/bench"), Path("reports/bench")


@app.command(
    epilog="Examples:  `eagle2 bench --limit 6 --tokens 64`  ·  `eagle2 bench --beside transformers:method=prompt_lookup`"
    "  ·  `eagle2 bench --against reports/bench/record.jsonl`  ·  `eagle2 bench --draw reports/bench`"
)
@report_user_errors
def bench(
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    temperature: Annotated[str, typer.Option(help="One or more, with commas between; 0 is greedy.")] = "0,1",
    k: Annotated[int, typer.Option(help="Nodes expanded a layer.")] = 8,
    depth: Annotated[int, typer.Option(help="Layers of the draft tree.")] = 6,
    m: Annotated[int, typer.Option(help="Draft tokens verified a pass.")] = 25,
    head_temperature: Annotated[float, typer.Option(help="Of the head's confidences; 1 is the paper's.")] = 1.0,
    node: Annotated[float, typer.Option(help="Least confidence of a path whose node is kept; 0 keeps all.")] = 0.0,
    layer: Annotated[float, typer.Option(help="Least sum of a layer's best for the next to be grown; 0 grows all.")] = 0.0,
    rule: Annotated[str, typer.Option(help="reject or walk.")] = "reject",
    tokens: Annotated[int, typer.Option(help="New tokens a text.")] = 128,
    prompts: Annotated[Path | None, typer.Option(help="One JSON object a line: id, kind, text; ours by default.")] = None,
    limit: Annotated[int, typer.Option(help="So many of the prompts; 0 is all.")] = 0,
    repeats: Annotated[int, typer.Option(help="Timed texts a prompt, temperature and arm.")] = 3,
    threads: Annotated[int, typer.Option(help="Of torch, in every arm.")] = 2,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    beside: Annotated[list[str] | None, typer.Option(help="A connectable to time with and without speculation.")] = None,
    transformers: Annotated[bool, typer.Option(help="Time transformers' own generate.")] = True,
    tune: Annotated[bool, typer.Option("--tune", help="Choose a budget for each temperature first, and time it too.")] = False,
    fixed_shapes: Annotated[
        bool | None, typer.Option(help="Time the loop in fixed shapes too, with and without the head; by default on CUDA.")
    ] = None,
    harness: Annotated[bool, typer.Option("--harness", help="Time judging too: sampling campaigns to their verdict.")] = False,
    batch: Annotated[str, typer.Option(help="Time so many texts that share passes: one or more numbers, with commas.")] = "",
    against: Annotated[Path | None, typer.Option(help="An earlier record: exit code 1 if a count moved by over 2 %.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory of record and page; reports/latest/bench.")] = None,
    seed: Seed = 0,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: draw the record of this directory again.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: write the section of docs/benchmarks.md from this record.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Count only, and write reports/bench/counts.json anew.")] = False,
) -> None:
    """Time decoding with and without the head, and transformers' generate, interleaved in one process; count what is spent."""
    if sum((draw is not None, readme is not None, counts)) > 1:
        raise BadInput("--draw, --readme and --counts were given together", "give one of them")
    if counts:
        from harness.bench.counts import count_again

        typer.echo(count_again(out or COMMITTED))
    elif readme:
        from harness.bench.readme import SPEED, section, write
        from harness.bench.record import read

        typer.echo(write(section(read(readme, whole=True)), SPEED, Path("docs/benchmarks.md")))
    elif draw:
        from harness.bench.record import read

        raise typer.Exit(_tell(read(draw), draw, against))
    else:
        from harness.bench.settings import PROMPTS, Settings, sizes, temperatures
        from harness.pairs import find_pair

        file, chosen = prompts or PROMPTS, find_pair(pair, target or None, draft or None)
        asked = Settings(
            pair=chosen.name,
            temperatures=temperatures(temperature),
            k=k,
            depth=depth,
            m=m,
            head_temperature=head_temperature,
            node=node,
            layer=layer,
            rule=rule,
            tokens=tokens,
            prompts=file.name,
            limit=limit,
            repeats=repeats,
            threads=threads,
            dtype=dtype,
            device=device,
            beside=tuple(beside or ()),
            transformers=transformers,
            tune=tune,
            fixed_shapes=fixed_shapes,
            harness=harness,
            batch=sizes(batch),
            seed=seed,
        )
        folder = out or OUT
        raise typer.Exit(_tell(_measure(asked, chosen, file, folder, against), folder, against))


def _measure(asked: Settings, pair: Pair, file: Path, out: Path, against: Path | None) -> Record:
    """Run it, with a bar. What it cannot be compared with is told before minutes are spent."""
    from harness.bench.against import comparable
    from harness.bench.batches import enough
    from harness.bench.record import Asked, read
    from harness.bench.run import bench
    from harness.bench.settings import asked_prompts, command

    asked.check(pair)
    chosen = asked_prompts(file, pair, asked.limit, asked.tokens)
    enough(asked, chosen)
    if against:
        comparable(asked, [Asked.of(prompt) for prompt in chosen], read(against, whole=True).header)
    with progress() as report:
        return bench(asked, pair, chosen, out, command(asked, pair), report)


def _tell(record: Record, folder: Path, against: Path | None) -> int:
    """Tables on the terminal, the page beside the record; and what moved."""
    from rich.console import Console

    from harness.bench import show
    from harness.bench.against import against as compared
    from harness.bench.page import draw
    from harness.bench.record import read

    console = Console(highlight=False)
    show.show(record, console)
    page = draw(record, folder if folder.is_dir() else folder.parent)[0]
    console.print(f"page: {page}", soft_wrap=True, markup=False)
    if against is None:
        return 0
    before = read(against, whole=True)
    rows = compared(record, before)
    show.show_moved(rows, before, console)
    return FAULT if any(row.moved for row in rows) else 0
