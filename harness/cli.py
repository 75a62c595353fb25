"""The command `eagle2`. Thin: what its commands do lives elsewhere, and torch is imported late."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from eagle2_ref import __version__
from eagle2_ref.errors import BadInput
from fixtures.training.cli import app as train
from harness.settings import Settings
from harness.verdict import BROKEN, INCONCLUSIVE, USAGE

app = typer.Typer(
    name="eagle2",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reference EAGLE-2 decoder, and the instrument that tells whether a speculative decoder still emits the target's law.",
    epilog="Exit codes of `verify`: 0 pass, 1 fault, 2 usage, 3 inconclusive, 4 the adapter is broken.",
)
app.add_typer(train, name="train")

Impl = Annotated[
    str, typer.Argument(help="ref, ref:rule=walk,k=4, py:package.module:Engine,depth=5, py:module:accept, trace:run.jsonl")
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


def mendable(command: Callable[..., None]) -> Callable[..., None]:
    """Tell what a user can mend in a few lines and exit with 2, instead of a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BadInput as error:
            typer.echo(f"eagle2: {error}", err=True)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt:
            typer.echo("eagle2: stopped", err=True)
            raise typer.Exit(130) from None

    return run


def _version(value: bool) -> None:
    if value:
        typer.echo(f"eagle2-ref {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Nothing of its own."""


@app.command(
    epilog='Examples:  `eagle2 generate "def fib(n):"`  ·  `eagle2 generate "import os" --temperature 0 --show-tree`'
    "  ·  `eagle2 generate - --k 4 --depth 3 --m 8 < prompt.txt`"
)
@mendable
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the likeliest tokens that make up this mass.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Keep tokens of at least this share of the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 discourages what is there already.")] = None,
    rule: Annotated[str, typer.Option(help="reject or walk.")] = "reject",
    k: Annotated[int, typer.Option(help="Nodes expanded a layer.")] = 8,
    depth: Annotated[int, typer.Option(help="Layers of the draft tree.")] = 6,
    m: Annotated[int, typer.Option(help="Draft tokens verified a pass.")] = 25,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    show_tree: Annotated[bool, typer.Option("--show-tree", help="Draw the tree of one step.")] = False,
    step: Annotated[int, typer.Option(help="Which step --show-tree draws.")] = 2,
) -> None:
    """Continue a text; accepted tokens and the target's own are told apart by colour."""
    from eagle2_ref.drafters.eagle2 import Budget
    from eagle2_ref.sampling import SamplingParams
    from harness.pairs import find_pair
    from harness.terminal import show_generation

    params = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens)
    chosen = find_pair(pair, target or None, draft or None)
    text = sys.stdin.read() if prompt == "-" else prompt
    show_generation(chosen, text, params, rule, Budget(k, depth, m), seed, device, dtype, step if show_tree else None)


@app.command(
    epilog="Examples:  `eagle2 verify`  ·  `eagle2 verify ref:rule=walk,k=4,depth=3,m=10 --tier full`"
    "  ·  `eagle2 verify py:my_engine:Engine,depth=5 --only LAW-4`  ·  `eagle2 verify trace:run.jsonl`"
)
@mendable
def verify(
    impl: Impl = "ref",
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    tier: Tier = "quick",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    out: Out = Path("reports/latest"),
    time_limit: TimeLimit = 120.0,
    only: Only = "",
    jobs: Jobs = "auto",
) -> None:
    """Judge an implementation by every property, and write a record and a report."""
    settings = Settings(impl, pair, target, draft, tier, device, dtype, seed, str(out), time_limit, only, whole=not only)
    raise typer.Exit(run(settings.absolute(), jobs))


@app.command(epilog="Example:  `eagle2 smoke py:my_engine:Engine`")
@mendable
def smoke(
    impl: Impl = "ref",
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    time_limit: TimeLimit = 30.0,
) -> None:
    """Judge the adapter alone, in seconds: does it open, answer, and repeat itself?"""
    import tempfile

    with tempfile.TemporaryDirectory() as out:
        settings = Settings(impl, pair, target, draft, "quick", device, dtype, 0, out, time_limit, "SMOKE")
        raise typer.Exit(run(settings.absolute(), "0", report=False))


@app.command(epilog="Example:  `eagle2 record py:my_engine:Engine -o run.jsonl`, then anywhere `eagle2 verify trace:run.jsonl`")
@mendable
def record(
    impl: Impl,
    tape: Annotated[Path, typer.Option("-o", "--tape", help="File to write.")] = Path("run.jsonl"),
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    tier: Tier = "quick",
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    out: Out = Path("reports/latest"),
    time_limit: TimeLimit = 120.0,
    only: Only = "",
    jobs: Jobs = "auto",
) -> None:
    """Verify, and keep all answers in a file that can be judged again elsewhere."""
    from harness.implementations import connect
    from harness.implementations.trace import write_head

    implementation = connect(impl)
    write_head(tape, implementation.name, implementation.version, implementation.capabilities, implementation.options)
    settings = Settings(
        impl, pair, target, draft, tier, device, dtype, seed, str(out), time_limit, only, str(tape), whole=not only
    )
    code = run(settings.absolute(), jobs)
    typer.echo(f"trace: {tape}")
    raise typer.Exit(code)


@app.command(epilog="Example:  `eagle2 report reports/latest/record.jsonl --out /tmp/report`")
@mendable
def report(
    path: Annotated[Path, typer.Argument(help="A record.jsonl.")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write; the record's own by default.")] = None,
) -> None:
    """Draw the report of a record again: index.html, summary.md, junit.xml, badge.json."""
    import harness.report
    from harness.evidence import read_record

    for written in harness.report.render(read_record(path), out or path.parent):
        typer.echo(written)


def run(settings: Settings, jobs: str, report: bool = True) -> int:
    """Run the chapters under pytest, show what came out, and return the exit code."""
    import pytest

    from harness.catalogue import CHAPTERS
    from harness.evidence import read_record
    from harness.implementations import connect
    from harness.pairs import find_pair
    from harness.terminal import show_record

    # What is wrong with the words of the command is told here, before pytest starts.
    pair = find_pair(settings.pair, settings.target or None, settings.draft or None)
    connect(settings.impl).check(pair, settings.dtype, settings.device)
    quiet = ["-q", "--no-header", "--no-summary", "--tb=no", "-p", "no:cacheprovider", "-o", "console_output_style=progress"]
    arguments = [str(CHAPTERS), f"--rootdir={CHAPTERS.parent}", *quiet, "-n", jobs, *settings.unparse()]
    status = pytest.main(arguments)
    path = Path(settings.out) / "record.jsonl"
    if status == pytest.ExitCode.USAGE_ERROR:
        return USAGE
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) or not path.exists():
        typer.echo(f"eagle2: the run was cut off; what it had found is in {path}", err=True)
        return INCONCLUSIVE
    record = read_record(path)
    show_record(record, path.parent if report else None)
    return record.footer.exit_code if report else (BROKEN if record.footer.exit_code else 0)


def main() -> None:
    """The console script."""
    app()
