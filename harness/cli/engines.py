"""`eagle2 doctor`, `eagle2 convert`, `eagle2 engines`: engines that people run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.cli.options import Device, DraftDir, Dtype, Impl, PairName, TargetDir, Tier, mendable
from harness.settings import Settings

app = typer.Typer()


@app.command(epilog="Examples:  `eagle2 doctor vllm:method=eagle3`  ·  `eagle2 doctor cmd:./my_engine --pair dice8`")
@mendable
def doctor(
    impl: Impl,
    pair: PairName = "stdlib",
    target: TargetDir = "",
    draft: DraftDir = "",
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Is an engine there, which version, which checkpoints does it need, does smoke pass? Says what to install."""
    from rich.console import Console

    from harness.cli.judging import smokes
    from harness.implementations import connect
    from harness.pairs import find_pair

    console = Console(highlight=False, soft_wrap=True)
    chosen = find_pair(pair, target or None, draft or None)
    found = connect(impl)
    drafter = chosen.drafter(found.checkpoint)
    console.print(f"engine       {found.version or 'tells no version'}", markup=False)
    console.print(f"can do       {', '.join(sorted(found.capabilities))}", markup=False)
    if found.lossy:
        console.print(f"lossy        by design: {found.lossy}", markup=False)
    console.print(f"checkpoints  target, and {found.checkpoint} of {chosen.name}: {drafter or 'not there'}", markup=False)
    if drafter is None:
        raise BadInput(
            f"the pair {chosen.name} has no {found.checkpoint}", "`eagle2 train --help` tells how to make one; --draft names it"
        )
    console.print("smoke        opening it, with and without speculation …")
    raise typer.Exit(smokes(Settings(impl, pair, target, draft, device=device, dtype=dtype, time_limit=300.0)))


CONVERTERS = {"gguf": ("llama-cpp", "gguf_file.py"), "openvino": ("openvino", "openvino_export.py")}
"""Of a format: whose environment has what it takes, and the file that does it."""


@app.command(
    epilog="Examples:  `eagle2 convert gguf fixtures/pairs/stdlib/target target.gguf`"
    "  ·  `eagle2 convert published fixtures/pairs/stdlib/draft head/`"
)
@mendable
def convert(
    kind: Annotated[str, typer.Argument(help="gguf, openvino, or published: EAGLE's own layout with an index file.")],
    source: Annotated[Path, typer.Argument(help="Directory of a checkpoint.")],
    out: Annotated[Path, typer.Argument(help="File or directory to write.")],
) -> None:
    """Write a checkpoint in the format of another engine."""
    from harness.implementations.process import ADAPTERS
    from harness.implementations.ready import READY

    if not (source / "config.json").is_file():
        raise BadInput(f"{source} is not a checkpoint: config.json is missing", "give the directory of one")
    if kind == "published":
        from fixtures.converters.published import write_published

        write_published(source, out)
    elif kind in CONVERTERS:
        engine, file = CONVERTERS[kind]
        done = subprocess.run([str(READY[engine].python()), "-P", str(ADAPTERS / file), str(source), str(out)], check=False)
        if done.returncode:
            raise BadInput(f"{kind} of {source} was not written", "the message is above")
    else:
        raise BadInput(f"format {kind!r} is not known", f"known are {', '.join(CONVERTERS)} and published")
    typer.echo(out)


@app.command(
    "engines",
    epilog="Examples:  `eagle2 engines`  ·  `eagle2 engines --only openvino/eagle3-room --tier full`"
    "  ·  `eagle2 engines --only vllm/draft_model --dtype bfloat16`  ·  `eagle2 engines --only ref`",
)
@mendable
def judge_engines(
    only: Annotated[str, typer.Option(help="Engines, or engine/method, with commas between; ref is the reference.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Directory of the reports; one a method.")] = Path("reports/latest/engines"),
    check: Annotated[str, typer.Option(help="A chapter, such as LAW, or a property, LAW-4.")] = "",
    tier: Tier = "quick",
    dtype: Dtype = "float32",
    jobs: Annotated[int, typer.Option("--jobs", "-n", help="Methods judged at a time.")] = 2,
    draw: Annotated[bool, typer.Option("--draw", help="Judge nothing: draw the page again.")] = False,
) -> None:
    """Judge every engine that is installed, by every method it offers, and draw one page of them all."""
    from harness.engines.judge_all import judge_all

    raise typer.Exit(judge_all([name for name in only.split(",") if name], out, check, tier, jobs, draw, dtype))
