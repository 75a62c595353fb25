"""Options and errors that the commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from eagle2_ref.errors import BadInput
from harness.verdict import BROKEN, USAGE

Impl = Annotated[
    str,
    typer.Argument(
        help="ref, ref:rule=walk,k=4, static:k=4, py:package.module:Engine,depth=5, py:module:accept, mutant:M04, trace:run.jsonl"
    ),
]
PairName = Annotated[str, typer.Option("--pair", help="A shipped pair.")]
TargetDir = Annotated[str, typer.Option("--target", help="Directory of a target checkpoint, with --draft, instead of --pair.")]
DraftDir = Annotated[str, typer.Option("--draft", help="Directory of an EAGLE-1/2 head for it.")]
Tier = Annotated[str, typer.Option(help="quick, or full: more cases and more samples.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")]
Dtype = Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is sampled.")]
Out = Annotated[Path, typer.Option("--out", help="Directory of record and report.")]
TimeLimit = Annotated[float, typer.Option(help="Seconds that one call of the implementation may take.")]
Jobs = Annotated[str, typer.Option("--jobs", "-n", help="Processes; auto is one a core.")]
Only = Annotated[str, typer.Option(help="One property, such as LAW-1, or one case of it, 'LAW-1[case]'.")]
OracleDtype = Annotated[str, typer.Option("--oracle", help="dtype in which the target scores sampled texts: float64 or float32.")]
Evidence = Annotated[str, typer.Option(help="Folder in which LAW-7 keeps its counts, and goes on with those it finds there.")]
Known = Annotated[str, typer.Option(help="TOML list of known failures: [[known]] with id, reason, link, expires.")]


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on the terminal, and what it hears: what is done, how much of it, of how much."""
    import transformers
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    transformers.utils.logging.disable_progress_bar()  # one bar is enough
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def mendable(command: Callable[..., None]) -> Callable[..., None]:
    """Tell what a user can mend in a few lines, instead of a traceback, whose exit code of 1 would mean a fault."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            typer.echo("eagle2: stopped", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            from harness.implementations.engine import AdapterError, NotApplicable  # late: it imports torch
            from harness.report.text import printable  # an error may quote a file that is not trusted

            if not isinstance(error, BadInput | AdapterError | NotApplicable):
                raise
            typer.echo(f"eagle2: {printable(str(error))}", err=True)
            raise typer.Exit(USAGE if isinstance(error, BadInput) else BROKEN) from None

    return run
