"""`eagle2 generate`: see it decode."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from harness.cli.options import Device, DraftDir, Dtype, PairName, Seed, TargetDir, mendable

app = typer.Typer()


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
    drafter: Annotated[str, typer.Option(help="What drafts: eagle2, or another method of the family.")] = "eagle2",
    rule: Annotated[str, typer.Option(help="reject, walk, or what else fits the drafts; the method's own by default.")] = "",
    k: Annotated[int | None, typer.Option(help="Nodes expanded a layer, where the method has such a number.")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers of the draft tree.")] = None,
    m: Annotated[int | None, typer.Option(help="Draft tokens verified a pass.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    show_tree: Annotated[bool, typer.Option("--show-tree", help="Draw the tree of one step.")] = False,
    step: Annotated[int, typer.Option(help="Which step --show-tree draws.")] = 2,
) -> None:
    """Continue a text; accepted tokens and the target's own are told apart by colour."""
    from eagle2_ref.methods import method
    from eagle2_ref.sampling import SamplingParams
    from harness.pairs import find_pair
    from harness.terminal import Drafting, show_generation

    params = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens)
    chosen = find_pair(pair, target or None, draft or None)
    text = sys.stdin.read() if prompt == "-" else prompt
    family = method(drafter)
    options = {name: value for name, value in (("k", k), ("depth", depth), ("m", m)) if value is not None}
    drafting = Drafting(family, family.options(**options), family.rule_of(rule))
    show_generation(chosen, text, params, drafting, seed, device, dtype, step if show_tree else None)
