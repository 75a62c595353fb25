"""`eagle2 convert`: checkpoints in the formats of other engines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.cli.options import examples, report_user_errors

app = typer.Typer()

CONVERTERS = {"gguf": ("llama-cpp", "gguf_file.py"), "openvino": ("openvino", "openvino_export.py")}
"""For each format, the engine in whose environment it is written, and the file that is run there."""


@app.command(
    epilog=examples(
        "eagle2 convert gguf fixtures/pairs/stdlib/target target.gguf",
        "eagle2 convert published fixtures/pairs/stdlib/draft head/",
    )
)
@report_user_errors
def convert(
    kind: Annotated[str, typer.Argument(help="gguf, openvino, or published: EAGLE's own layout, with an index file.")],
    source: Annotated[Path, typer.Argument(help="Directory of a checkpoint.")],
    out: Annotated[Path, typer.Argument(help="File or directory to write.")],
) -> None:
    """Write a checkpoint in the format of another engine."""
    from rich.console import Console

    from harness.implementations.process import ADAPTERS
    from harness.implementations.ready import READY

    if not (source / "config.json").is_file():
        raise BadInput(f"{source} is not a checkpoint: config.json is missing", "give the directory of one")
    if kind not in (*CONVERTERS, "published"):
        raise BadInput(f"format {kind!r} is not known", f"known are {', '.join(CONVERTERS)} and published")
    with Console(stderr=True).status(f"writing {out}"):
        if kind == "published":
            from fixtures.converters.published import write_published

            write_published(source, out)
        else:
            engine, file = CONVERTERS[kind]
            done = subprocess.run([str(READY[engine].python()), "-P", str(ADAPTERS / file), str(source), str(out)], check=False)
            if done.returncode:
                raise BadInput(f"{kind} of {source} was not written", "the converter's message is above")
    typer.echo(out)
