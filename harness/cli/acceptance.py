"""`eagle2 acceptance`: how much of the target's own texts a draft head proposes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.benchmark.settings import AcceptanceSettings
from harness.cli.from_settings import options_from
from harness.cli.options import DraftDir, PromptFile, TargetDir, examples, progress, report_user_errors
from harness.supervisor import supervise
from harness.verdict import FAULT, INCONCLUSIVE

if TYPE_CHECKING:
    from harness.benchmark.acceptance_record import AcceptanceRecord
    from harness.pairs import Pair

app = typer.Typer()

OUT = Path("reports/latest/acceptance")
OPTIONS = [name for name in AcceptanceSettings.model_fields if name not in ("repeats", "prompts")]


@app.command(
    epilog=examples(
        "eagle2 acceptance --limit 6",
        "eagle2 acceptance --target DIR --draft DIR --prompts mt-bench --limit 24 --tokens 128 --dtype bfloat16",
        "eagle2 acceptance --pair smollm2 --drafter eagle3 --prompts mt-bench --dtype bfloat16",
        "eagle2 acceptance --k 1,8 --depth 6 --m 12,25,60 --budget 8,6,60",
        "eagle2 acceptance --floor 5,2.5 --against reports/acceptance",
        "eagle2 acceptance --draw reports/acceptance",
        "eagle2 acceptance --curve reports/acceptance/smollm2-quarter --curve reports/acceptance/smollm2-eagle2",
        note="Exit codes: 0 measured; 1 τ of the judged tree is significantly below --floor, or below that of --against; 2 usage"
        " error; 3 decoding does not confirm the estimated τ, or there is no τ to compare with --floor or --against.",
    )
)
@report_user_errors
@options_from(AcceptanceSettings, only=OPTIONS)
def acceptance(
    settings: AcceptanceSettings,
    target: TargetDir = "",
    draft: DraftDir = "",
    prompts: PromptFile = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier record: exit code 1 if τ of the judged tree is significantly lower now.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of record and page; by default reports/latest/acceptance.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Measure nothing: draw the record of this folder again.")] = None,
    readme: Annotated[
        Path | None, typer.Option(help="Measure nothing: write the section of the pair's model card from this record.")
    ] = None,
    curve: Annotated[
        list[Path] | None,
        typer.Option(help="Measure nothing: write the learning curve of the pair's model card from these records."),
    ] = None,
) -> None:
    """Measure a draft head along the target's own texts: acceptance by depth, τ for a grid of trees, and its confidence.

    For EAGLE-1, EAGLE-2, EAGLE-3 and Medusa heads; the kind is read from the checkpoint.
    """
    from harness.benchmark.acceptance_record import read_acceptance

    if sum(map(bool, (draw, readme, curve))) > 1:
        raise BadInput("two of --draw, --readme and --curve were given together", "give one of them")
    if curve:
        from harness.benchmark.acceptance_curve import read_curve, write_curve

        typer.echo(write_curve(read_curve(curve)))
        return
    if readme:
        from harness.benchmark.acceptance_figures import disagreements, unchecked
        from harness.benchmark.acceptance_page import acceptance_mark, acceptance_section, model_card
        from harness.benchmark.pages import write_section

        record = read_acceptance(readme, whole=True)
        if disagreements(record) or unchecked(record):
            raise BadInput(
                f"decoding does not confirm the figures of {readme}", "measure again, in float32 or with more --checks"
            )
        typer.echo(write_section(acceptance_section(record), acceptance_mark(record), model_card(record)))
        return
    before = read_acceptance(against, whole=True) if against else None  # now, since --out may be the same folder
    if draw:
        raise typer.Exit(_show(with_floor(read_acceptance(draw), settings.floor), draw, before))

    from harness.benchmark.acceptance_grid import with_head
    from harness.benchmark.settings import PROMPTS
    from harness.pairs import find_pair

    file, folder, pair = prompts or PROMPTS, out or OUT, find_pair(settings.pair, target or None, draft or None)
    pair = with_head(pair, settings.drafter)
    settings = settings.model_copy(update={"pair": pair.name, "prompts": file.name})
    settings.check(pair)
    # In a child process, as the other measurements: torch's threads do not survive in a process that forks afterwards.
    supervise(lambda: _measure(settings, pair, file, folder, before))
    raise typer.Exit(_show(read_acceptance(folder, whole=True), folder, before))


def with_floor(record: AcceptanceRecord, floor: tuple[float, ...]) -> AcceptanceRecord:
    """A record that is judged by another floor, if one is given."""
    if not floor:
        return record
    settings = record.header.settings.model_copy(update={"floor": floor})
    settings.check_floor()
    return replace(record, header=record.header.model_copy(update={"settings": settings}))


def _measure(settings: AcceptanceSettings, pair: Pair, file: Path, out: Path, before: AcceptanceRecord | None) -> int:
    """Measure with a progress bar."""
    from harness.benchmark.acceptance import run_acceptance
    from harness.benchmark.settings import command_line

    with progress() as report:
        run_acceptance(settings, pair, file, out, command_line(settings, pair), report, before)
    return 0


def _show(record: AcceptanceRecord, folder: Path, before: AcceptanceRecord | None) -> int:
    """Show a record on the terminal, write its page, compare it with an earlier one, and return the exit code."""
    from rich.console import Console

    from harness.benchmark.acceptance_figures import below_floor, compare_with, disagreements, unchecked, without_figures
    from harness.benchmark.acceptance_page import acceptance_page, show_changes
    from harness.benchmark.pages import publish

    console = Console(highlight=False)
    publish(acceptance_page(record), folder, console)
    lower, missing = bool(below_floor(record)), bool(without_figures(record))
    if before:
        changes = compare_with(record, before)
        show_changes(changes, record, before, console)
        judged = [one for one in changes if one.judged]
        lower |= any(one.is_lower for one in judged)
        missing |= len(judged) < len(record.header.settings.temperatures)
    if disagreements(record) or unchecked(record) or (missing and not lower):
        return INCONCLUSIVE
    return FAULT if lower else 0
