"""What a terminal is shown: a text with its accepted tokens in colour, a draft tree, the verdicts of a record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.sampling import SamplingParams
from harness.evidence import Record, Result
from harness.pairs import Pair

if TYPE_CHECKING:
    from eagle2_ref.decode import Block

ACCEPTED, OWN = "green", "bold yellow"
COLOURS = {"pass": "green", "tie": "cyan", "fault": "bold red", "inconclusive": "yellow", "blocked": "magenta", "n/a": "dim"}


def show_generation(
    pair: Pair,
    prompt: str,
    params: SamplingParams,
    rule: str,
    budget: Budget,
    seed: int,
    device: str,
    dtype: str,
    step: int | None,
) -> None:
    """Stream a continuation, block by block, then what it cost and, if asked for, the tree of one step."""
    import transformers

    from eagle2_ref.coins import SeededCoins
    from eagle2_ref.decode import Decoder
    from eagle2_ref.rules import RULES

    if rule not in RULES:
        raise BadInput(f"rule {rule!r} is not known", f"known are {', '.join(RULES)}")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    console = Console(highlight=False)
    decoder = Decoder.load(pair.target, pair.draft, budget, RULES[rule], dtype, device)
    tokenizer = _tokenizer(pair)
    tokens = tokenizer(prompt, add_special_tokens=True)["input_ids"]
    eos = pair.config.get("eos_token_id")
    params = SamplingParams.of({**vars(params), "eos_token_id": eos})

    console.print(Text(prompt, style="dim"), end="")
    speller = Speller(tokenizer)
    blocks: list[Block] = []
    for block in decoder.stream(tokens, params, SeededCoins(seed)):
        blocks.append(block)
        for i, token in enumerate(block.tokens):
            for piece in speller.spell(token):
                console.print(Text(piece, style=ACCEPTED if i < block.accepted else OWN), end="")
    console.print()
    emitted, passes = sum(len(b.tokens) for b in blocks[1:]), len(blocks) - 1
    tau = f"tau {emitted / passes:.2f}: {emitted} tokens in {passes} target passes" if passes else "no draft was verified"
    drafts = decoder.drafter.passes if decoder.drafter else 0
    console.print(
        f"\n[{ACCEPTED}]accepted[/] [{OWN}]the target's own[/]   {tau}, {drafts} head passes; ended by {decoder.finish}"
    )
    if step is not None:
        if not 1 <= step < len(blocks):
            raise BadInput(f"there is no step {step}", f"this text took {len(blocks) - 1} steps after the prompt's")
        console.print(draft_tree(blocks[step], tokenizer))


class Speller:
    """Tokens to text; pieces of a character are held back until it is whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def spell(self, token: int) -> Iterator[str]:
        self._held.append(token)
        text = self._tokenizer.decode(self._held)
        if not text.endswith("\ufffd") or len(self._held) > 8:
            self._held.clear()
            yield text


def draft_tree(block: Block, tokenizer: Any) -> Tree:
    """The tree of one step: each node with its token and the value it was chosen for; the accepted path in colour."""
    tree, values = block.tree, block.tree.values.exp().tolist()

    def label(node: int) -> Text:
        style = ACCEPTED if node in block.path else ""
        return Text(f"{tokenizer.decode([tree.token(node)])!r}", style=style) + Text(f"  {values[node]:.3f}", style="dim")

    drawn = Tree(label(0), guide_style="dim")
    branches = {0: drawn}
    for node in range(1, len(tree)):
        branches[node] = branches[tree.parent(node)].add(label(node))
    if len(block.tokens) > block.accepted:
        last = block.path[-1] if block.path else 0
        branches[last].add(Text(f"{tokenizer.decode(block.tokens[-1:])!r}  the target's own", style=OWN))
    return drawn


def show_record(record: Record, report: Path | None) -> None:
    """A line a property: its verdict, how many cases, and what to know; then the verdict of the whole."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("property", "verdict", "cases", "what was seen"):
        table.add_column(name, overflow="fold")
    for told in record.header.properties:
        results = [result for result in record.results if result.property == told.id]
        if results:
            worst = _worst(results)
            table.add_row(told.id, Text(worst.verdict, style=COLOURS[worst.verdict]), str(len(results)), _seen(results, worst))
    console.print()
    console.print(table)
    footer = record.footer
    style = COLOURS[footer.verdict]
    console.print(
        f"\n[{style}]{footer.verdict}[/]  {escape(record.header.implementation)} on {record.header.pair}, {footer.seconds:g} s"
    )
    if report:
        console.print(f"report: {escape(str(report / 'index.html'))}", soft_wrap=True)


_ORDER = ("fault", "inconclusive", "blocked", "tie", "pass", "n/a")


def _worst(results: list[Result]) -> Result:
    return min(results, key=lambda result: _ORDER.index(result.verdict))


def _seen(results: list[Result], worst: Result) -> Text:
    if worst.verdict in ("pass", "tie", "n/a") or len(results) == 1:
        return Text(worst.summary)
    return Text(f"{worst.case}: {worst.summary}\n") + Text(worst.replay, style="dim")


def _tokenizer(pair: Pair) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(pair.target), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{pair.target} has no tokenizer that can be loaded: {error}", "text needs one; `eagle2 verify` does not"
        ) from None
