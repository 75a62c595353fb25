"""`eagle2 compare`: every method of the family on the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.cli.options import Device, DraftDir, PairName, Seed, TargetDir, progress, report_user_errors
from harness.verdict import FAULT

if TYPE_CHECKING:
    from harness.compare.record import Record
    from harness.compare.settings import Checkpoints, Settings
    from harness.pairs import Pair

app = typer.Typer()

OUT = Path("reports/latest/compare")


@app.command(
    epilog="Examples:  `eagle2 compare --methods eagle2,eagle,lookup --limit 6`  ·  `eagle2 compare --draw reports/compare`"
    "  ·  `eagle2 compare --preset vicuna-7b --target DIR --draft DIR --prompts question.jsonl --device cuda`"
    "\n\nExit codes: 0 compared, 1 a greedy text is not ordinary decoding's, 2 usage."
)
@report_user_errors
def compare(
    methods: Annotated[str, typer.Option(help="By name, with commas between; all by default.")] = "",
    temperature: Annotated[str, typer.Option(help="One or more, with commas between; 0 is greedy.")] = "0,1",
    prompts: Annotated[Path | None, typer.Option(help="JSON lines: id, kind, text, or questions of MT-bench's kind.")] = None,
    limit: Annotated[int, typer.Option(help="So many of the prompts, spread over the file; 0 is all.")] = 18,
    repeats: Annotated[int, typer.Option(help="Timed texts a prompt, temperature and arm.")] = 2,
    tokens: Annotated[int, typer.Option(help="New tokens a text.")] = 64,
    m: Annotated[int, typer.Option(help="Draft tokens a pass of the comparison at equal budget; 0: none.")] = 25,
    threads: Annotated[int, typer.Option(help="Of torch, in every arm.")] = 2,
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    small: Annotated[str, typer.Option(help="Directory of a small model of the target's vocabulary, beside --draft.")] = "",
    medusa: Annotated[str, typer.Option(help="Directory of Medusa heads for the target, beside --draft.")] = "",
    preset: Annotated[str, typer.Option(help="A model of the paper, of which --target and --draft are your copies.")] = "",
    system: Annotated[str, typer.Option(help="System message of questions; the model's own by default, if it has one.")] = "",
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16; float32, or the preset's.")] = "",
    device: Device = "cpu",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Directory of record and page; reports/latest/compare.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: draw the record of this directory again.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: write the section of docs/benchmarks.md from this record.")
    ] = None,
) -> None:
    """Compare every method on the very same network and prompts: tokens per pass, what drafting costs, times as fast."""
    from harness.compare.record import read

    if draw and readme:
        raise BadInput("--draw and --readme were given together", "give one of them")
    if readme:
        from harness.bench.readme import write
        from harness.compare.readme import FAMILY, section

        typer.echo(write(section(read(readme, whole=True)), FAMILY, Path("docs/benchmarks.md")))
        return
    if draw:
        raise typer.Exit(_tell(read(draw), draw))

    from harness.bench.settings import PROMPTS, temperatures
    from harness.compare.arms import checkpoints
    from harness.compare.presets import preset as model
    from harness.compare.settings import Settings
    from harness.pairs import find_pair

    chosen = model(preset).pair(target, draft) if preset else find_pair(pair, target or None, draft or None)
    found, file, folder = checkpoints(chosen, small, medusa), prompts or PROMPTS, out or OUT
    asked = Settings(
        pair=chosen.name,
        methods=tuple(filter(None, (name.strip() for name in methods.split(",")))),
        temperatures=temperatures(temperature),
        prompts=file.name,
        limit=limit,
        repeats=repeats,
        tokens=tokens,
        m=m,
        threads=threads,
        dtype=dtype or (model(preset).dtype if preset else "float32"),
        device=device,
        seed=seed,
        preset=preset,
        system=system,
    )
    raise typer.Exit(_tell(_measure(asked, chosen, found, file, folder), folder))


def _measure(asked: Settings, pair: Pair, found: Checkpoints, file: Path, out: Path) -> Record:
    """Run it, with a bar."""
    from harness.compare.run import compare
    from harness.compare.settings import command

    asked.check(pair)
    with progress() as report:
        return compare(asked, pair, found, file, out, command(asked, pair, found), report)


def _tell(record: Record, folder: Path) -> int:
    """Tables on the terminal, the page beside the record."""
    from rich.console import Console

    from harness.compare import show
    from harness.compare.page import draw
    from harness.compare.words import broken

    console = Console(highlight=False)
    show.show(record, console)
    page = draw(record, folder if folder.is_dir() else folder.parent)[0]
    console.print(f"page: {page}", soft_wrap=True, markup=False)
    return FAULT if broken(record) else 0
