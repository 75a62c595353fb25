"""What a terminal is shown: a text with its accepted tokens in colour, a draft tree, the verdicts of a record."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as Drawn

from eagle2_ref.drafters.base import Method
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import MethodSpec
from eagle2_ref.rules import Rule
from eagle2_ref.sampling import SamplingParams
from harness.pairs import Pair
from harness.record.model import Record
from harness.report import view, words

if TYPE_CHECKING:
    from eagle2_ref.decode import Block
    from eagle2_ref.tree import Tree

ACCEPTED, OWN = "green", "bold yellow"
COLOURS = {
    "pass": "green",
    "tie": "cyan",
    "known": "red",
    "fault": "bold red",
    "inconclusive": "yellow",
    "blocked": "magenta",
    "n/a": "dim",
}


@dataclass(frozen=True)
class Drafting:
    """A method of the family, with its options and its rule."""

    family: MethodSpec
    method: Method
    rule: Rule

    def checkpoint(self, pair: Pair) -> Path:
        """What it drafts with, of a pair."""
        found = pair.drafter(self.family.checkpoint)
        if found is None:
            raise BadInput(
                f"{pair.name} has no checkpoint {self.family.checkpoint!r}, which {self.family.title} drafts with",
                f"eagle2 train head --kind {self.family.checkpoint} makes one",
            )
        return found


def show_generation(
    pair: Pair,
    prompt: str,
    params: SamplingParams,
    drafting: Drafting,
    seed: int,
    device: str,
    dtype: str,
    step: int | None,
) -> None:
    """Stream a continuation, block by block, then what it cost and, if asked for, the tree of one step."""
    import transformers

    from eagle2_ref.coins import SeededCoins
    from eagle2_ref.decode import Decoder

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    console = Console(highlight=False)
    decoder = Decoder.load(pair.target, drafting.checkpoint(pair), drafting.method, drafting.rule, dtype, device)
    tokenizer = _tokenizer(pair)
    tokens = tokenizer(prompt, add_special_tokens=True)["input_ids"]
    eos = pair.config.get("eos_token_id")
    params = SamplingParams.of({**vars(params), "eos_token_id": eos})

    console.print(Text(prompt, style="dim"), end="")
    speller = Speller(tokenizer)
    sequence = decoder.start(tokens, params, SeededCoins(seed))
    blocks = sequence.blocks
    for block in decoder.blocks(sequence):
        for i, token in enumerate(block.tokens):
            for piece in speller.spell(token):
                console.print(Text(piece, style=ACCEPTED if i < block.accepted else OWN), end="")
    console.print()
    emitted, passes = sum(len(b.tokens) for b in blocks[1:]), len(blocks) - 1
    tau = f"tau {emitted / passes:.2f}: {emitted} tokens in {passes} target passes" if passes else "no draft was verified"
    spent = f"{sequence.generation().draft_passes} passes of the draft model"
    console.print(f"\n[{ACCEPTED}]accepted[/] [{OWN}]the target's own[/]   {tau}, {spent}; ended by {sequence.finish}")
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


def draft_tree(block: Block, tokenizer: Any) -> Drawn:
    """The tree of one step: each node with its token and the value it was chosen for, if it was; the accepted path in colour."""
    from eagle2_ref.tree import DraftTree

    tree = block.tree
    values = [f"{value:.3f}" for value in tree.values.exp().tolist()] if isinstance(tree, DraftTree) else [""] * len(tree)
    last = block.tokens[-1] if len(block.tokens) > block.accepted else None
    ending = {} if last is None else {block.path[-1] if block.path else 0: (last, "the target's own")}
    return branches(tree, block.path, values, ending, lambda token: repr(tokenizer.decode([token])))


def branches(
    tree: Tree,
    path: Sequence[int],
    notes: Sequence[str],
    ending: Mapping[int, tuple[int, str]],
    spell: Callable[[int], str],
) -> Drawn:
    """A drawn tree: each node with a note behind it, `path` in colour, and below a node the token that ended the block there."""

    def label(node: int) -> Text:
        return Text(spell(tree.token(node)), style=ACCEPTED if node in path else "") + Text(f"  {notes[node]}", style="dim")

    drawn = Drawn(label(0), guide_style="dim")
    grown = {0: drawn}
    for node in range(1, len(tree)):
        grown[node] = grown[tree.parent(node)].add(label(node))
    for node, (token, why) in ending.items():
        grown[node].add(Text(f"{spell(token)}  {why}", style=OWN))
    return drawn


def speller(pair: Pair) -> Callable[[int], str]:
    """A token as it is shown: quoted text, or its number on a pair without a tokenizer."""
    try:
        tokenizer = _tokenizer(pair)
    except BadInput:
        return str
    return lambda token: repr(tokenizer.decode([token]))


def show_record(record: Record, report: Path | None) -> None:
    """A line a property: its verdict, how many cases, and what to know; then the verdict of the whole, and what it is worth."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("property", "verdict", "cases", "what was seen"):
        table.add_column(name, overflow="fold")
    for row in (row for chapter in view.chapters(record) for row in chapter.rows if row.cases):
        worst = min(row.cases, key=lambda case: _ORDER.index(case.result.verdict))
        verdict = worst.result.verdict
        seen = _seen(worst, len(row.cases) == 1, report)
        table.add_row(Text(words.shown(row.claim.id, 40)), Text(verdict, style=COLOURS[verdict]), str(len(row.cases)), seen)
    console.print()
    console.print(table)
    show_worth(record, console)
    if report:
        console.print(Text(f"report: {report / 'index.html'}"), soft_wrap=True)


def show_worth(record: Record, console: Console) -> None:
    """What the faults look like, the verdict, how far from the target it may still be, and how often such a run is wrong."""
    header, footer = record.header, record.footer
    console.print()
    for likeness in footer.likenesses[: words.LIKENESSES]:
        console.print(Text(words.likeness(likeness)))
    console.print(
        Text(footer.verdict, style=COLOURS[footer.verdict])
        + Text(f"  {words.shown(header.implementation, 200)} on {words.shown(header.pair, 80)}, {footer.seconds:g} s")
    )
    if footer.statement:
        for name, line in words.statement(footer.statement):
            console.print(Text(f"{name:<8}", style="dim") + Text(line))
    if footer.false_alarm:
        console.print(Text(words.false_alarm(footer.false_alarm), style="dim"))


LATEST = Path("reports/latest")
"""Where `eagle2 replay` looks for a record that it is not told."""

_ORDER = ("fault", "inconclusive", "blocked", "known", "tie", "pass", "n/a")


def _seen(worst: view.Case, alone: bool, report: Path | None) -> Text:
    """What the gravest case saw, and the command that shows it again, from wherever the record lies."""
    result = worst.result
    if result.verdict in ("pass", "tie", "n/a"):
        return Text(words.shown(result.summary))
    case = "" if alone or not result.case else f"{words.shown(result.case, 200)}: "
    elsewhere = report is not None and report.resolve() != LATEST.resolve()
    record = f" --record {shlex.quote(str(report / 'record.jsonl'))}" if report and elsewhere else ""
    why = f"\nknown: {words.excused(result.excuse)}" if result.excuse else ""
    again = worst.replay + record if worst.replay and report else words.shown(result.replay, 1000)
    return Text(f"{case}{words.shown(result.summary)}{why}") + Text(f"\n{again}" if again else "", style="dim")


def _tokenizer(pair: Pair) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(pair.target), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{pair.target} has no tokenizer that can be loaded: {error}", "text needs one; `eagle2 verify` does not"
        ) from None
