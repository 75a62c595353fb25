"""`eagle2 generate`: continue a text."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eagle2_ref.errors import BadInput
from harness.cli.from_settings import options_from
from harness.cli.options import PAIR, examples, report_user_errors
from harness.settings import Settings

app = typer.Typer()


@app.command(
    epilog=examples(
        'eagle2 generate "def fib(n):"',
        'eagle2 generate "import os" --temperature 0 --show-tree',
        "eagle2 generate - --k 4 --depth 3 --m 8 < prompt.txt",
    )
)
@report_user_errors
@options_from(Settings, only=(*PAIR, "seed", "device", "dtype"))
def generate(
    settings: Settings,
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    max_new_tokens: Annotated[int, typer.Option(help="Number of new tokens.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    top_k: Annotated[int | None, typer.Option(help="Keep the k most likely tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the most likely tokens that add up to this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Keep tokens of at least this fraction of the highest probability.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 makes tokens of the text less likely.")] = None,
    drafter: Annotated[str, typer.Option(help="Drafting method: eagle2, eagle3, medusa, lookup …")] = "eagle2",
    rule: Annotated[str, typer.Option(help="Acceptance rule, such as reject or walk; by default the method's own.")] = "",
    k: Annotated[int | None, typer.Option(help="Nodes expanded per layer, if the method has this option.")] = None,
    depth: Annotated[int | None, typer.Option(help="Layers of the draft tree.")] = None,
    m: Annotated[int | None, typer.Option(help="Draft tokens verified per target pass.")] = None,
    draft_vocab: Annotated[
        int | None, typer.Option(help="Propose only so many tokens, the most frequent, if the method has this option (FR-Spec).")
    ] = None,
    show_tree: Annotated[bool, typer.Option("--show-tree", help="Draw the draft tree of one step.")] = False,
    step: Annotated[int, typer.Option(help="The step that --show-tree draws.")] = 2,
) -> None:
    """Continue a text. Colours distinguish accepted draft tokens from tokens sampled by the target."""
    from eagle2_ref.methods import method
    from eagle2_ref.sampling import SamplingParams
    from harness.pairs import find_pair
    from harness.terminal import Drafting, show_generation

    params = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens)
    if step < 1:
        raise BadInput(f"step is {step}", "step must be a whole number of 1 or more")
    family = method(drafter)
    pair = find_pair(settings.pair, settings.target or None, settings.draft or None, family.checkpoint)
    text = _read_input() if prompt == "-" else prompt
    options = {
        name: value for name, value in (("k", k), ("depth", depth), ("m", m), ("draft_vocab", draft_vocab)) if value is not None
    }
    drafting = Drafting(family, family.options(**options), family.rule_of(rule))
    device, dtype = settings.device, settings.dtype
    show_generation(pair, text, params, drafting, settings.seed, device, dtype, step if show_tree else None)


def _read_input() -> str:
    """The text on standard input."""
    try:
        text = sys.stdin.read()
        text.encode()  # in some locales Python decodes any bytes, to characters that are none
    except UnicodeError:
        raise BadInput("standard input is not UTF-8 text", "the prompt must be UTF-8, of the language of the model") from None
    return text
