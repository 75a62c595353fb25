"""Terminal output: a text with its accepted tokens in colour, a draft tree, the results of a record. Fits 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree as DrawnTree

from eagle2_ref.drafters.base import Method
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import MethodSpec
from eagle2_ref.rules import Rule
from eagle2_ref.sampling import SamplingParams
from harness.catalogue import name as case_name
from harness.equivalence import EVIDENCE, sampled_evidence
from harness.pairs import Pair
from harness.record.model import Record
from harness.report.cases import Case, properties
from harness.report.sentences import (
    excuse_sentence,
    false_alarm_sentence,
    leads,
    likeness_sentence,
    note_sentences,
    statement_lines,
    unlocking_sentence,
)
from harness.report.tables import Cell, Column, Table, text_columns
from harness.report.text import printable
from harness.verdict import BROKEN, SIGNS

if TYPE_CHECKING:
    from eagle2_ref.decode import Block
    from eagle2_ref.tree import Tree
    from harness.settings import Settings

ACCEPTED, SAMPLED = "green", "bold yellow"
"""Styles of accepted draft tokens, and of tokens that were sampled from the target."""

COLOURS = {verdict: sign.terminal for verdict, sign in SIGNS.items()}

LATEST = Path("reports/latest")
"""Where `eagle2 replay` looks for a record by default."""


@dataclass(frozen=True)
class Drafting:
    """A drafting method with its options and its acceptance rule."""

    family: MethodSpec
    method: Method
    rule: Rule

    def checkpoint(self, pair: Pair) -> Path:
        """The checkpoint of a pair that the method drafts with.

        Raises:
            BadInput: the pair has none.
        """
        path = pair.drafter(self.family.checkpoint)
        if path is None:
            raise BadInput(
                f"{pair.name} has no checkpoint {self.family.checkpoint!r}, which {self.family.title} drafts with",
                f"eagle2 train head --kind {self.family.checkpoint} makes one",
            )
        return path


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
    """Stream a continuation block by block, then print its acceptance length and, if `step` is given, the tree of that step."""
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

    pieces = TokenSpeller(tokenizer)
    sequence = decoder.start(tokens, params, SeededCoins(seed))
    console.print(Text(prompt, style="dim"), end="")
    blocks = sequence.blocks
    for block in decoder.blocks(sequence):
        for i, token in enumerate(block.tokens):
            for piece in pieces.spell(token):
                console.print(Text(piece, style=ACCEPTED if i < block.accepted else SAMPLED), end="")
    console.print()
    emitted, passes = sum(len(b.tokens) for b in blocks[1:]), len(blocks) - 1
    tau = f"τ {emitted / passes:.2f}: {emitted} tokens in {passes} target passes" if passes else "no draft was verified"
    draft_passes = f"{sequence.generation().draft_passes} draft passes"
    console.print(f"\ncolours: [{ACCEPTED}]accepted draft[/] | [{SAMPLED}]sampled from the target[/]")
    console.print(f"{tau}, {draft_passes}; ended by {sequence.finish}")
    if step is not None:
        if not 1 <= step < len(blocks):
            raise BadInput(f"there is no step {step}", f"this text took {len(blocks) - 1} steps after the prompt's")
        console.print(draft_tree(blocks[step], tokenizer))


class TokenSpeller:
    """Decodes tokens to text; the parts of a multi-token character are held back until it is complete."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pending: list[int] = []

    def spell(self, token: int) -> Iterator[str]:
        self._pending.append(token)
        text = self._tokenizer.decode(self._pending)
        if not text.endswith("\ufffd") or len(self._pending) > 8:
            self._pending.clear()
            yield text


def draft_tree(block: Block, tokenizer: Any) -> DrawnTree:
    """The tree of one step: each node with its token and its value, the accepted path in colour."""
    from eagle2_ref.tree import DraftTree

    tree = block.tree
    values = [f"{value:.3f}" for value in tree.values.exp().tolist()] if isinstance(tree, DraftTree) else [""] * len(tree)
    last = block.tokens[-1] if len(block.tokens) > block.accepted else None
    ending = {} if last is None else {block.path[-1] if block.path else 0: (last, "sampled from the target")}
    return branches(tree, block.path, values, ending, lambda token: repr(tokenizer.decode([token])))


def branches(
    tree: Tree,
    path: Sequence[int],
    notes: Sequence[str],
    ending: Mapping[int, tuple[int, str]],
    spell: Callable[[int], str],
) -> DrawnTree:
    """A tree for a `rich` console.

    Args:
        path: nodes of the accepted path, which is coloured.
        notes: text after each node.
        ending: node after which the block ended: the token that ended it, and a note.
        spell: token to text.
    """

    def label(node: int) -> Text:
        return Text(spell(tree.token(node)), style=ACCEPTED if node in path else "") + Text(f"  {notes[node]}", style="dim")

    drawn = DrawnTree(label(0), guide_style="dim")
    nodes = {0: drawn}
    for node in range(1, len(tree)):
        nodes[node] = nodes[tree.parent(node)].add(label(node))
    for node, (token, note) in ending.items():
        nodes[node].add(Text(f"{spell(token)}  {note}", style=SAMPLED))
    return drawn


def speller(pair: Pair) -> Callable[[int], str]:
    """A function from a token to quoted text, or to its number for a pair without a tokenizer."""
    try:
        tokenizer = _tokenizer(pair)
    except BadInput:
        return str
    return lambda token: repr(tokenizer.decode([token]))


def show_record(record: Record, report: Path | None, settings: Settings | None = None) -> None:
    """Print a line for each property, the verdict, and the smallest effects that the run would have detected.

    Args:
        report: folder of the record; None if it is temporary.
        settings: of the run, for commands with the paths of this machine; without, those of the record, which have no folders.
    """
    console = Console(highlight=False)
    columns = (Column("property", "left", 8), Column("verdict", "left", 7), Column("cases"), Column("result", "left"))
    rows, commands = [], []
    for one in properties(record):
        if one.cases:
            gravest = one.by_gravity[0]
            verdict = gravest.result.verdict
            result = _result_cell(gravest, len(one.cases) == 1)
            commands.append(_repeat(gravest, report, settings))
            rows.append((one.claim.id, Cell(verdict, SIGNS[verdict].style), str(len(one.cases)), result))
    console.print()
    console.print(Table(columns, tuple(rows)).terminal())
    if commands := [command for command in commands if command]:
        console.print("\nto see these again:")
    for command in commands:  # outside of the table, which would break them into several lines
        console.print(Text(printable(command, 1000), style="dim"), soft_wrap=True)
    show_verdict(record, console)
    if report:
        console.print(Text(f"report: {report / 'index.html'}"), soft_wrap=True)


def show_repeated(record: Record) -> None:
    """Print the results of a check that `eagle2 replay` has repeated."""
    console = Console(highlight=False)
    for result in record.results:
        verdict = Text(result.verdict, style=COLOURS[result.verdict])
        console.print(Text(f"{'now':<10}", style="dim") + verdict + Text(f"  {printable(result.summary)}"))


def show_verdict(record: Record, console: Console) -> None:
    """Print which known faults the faults look like, the verdict, the statement and the error budget."""
    header, footer = record.header, record.footer
    console.print()
    for likeness in leads(footer.likenesses):
        console.print(Text(likeness_sentence(likeness)))
    broken = " (broken adapter, exit code 4)" if footer.exit_code == BROKEN else ""
    name = f"{broken}  {printable(header.implementation, 200)} on {printable(header.pair, 80)}, {footer.seconds:g} s"
    console.print(Text(footer.verdict, style=COLOURS[footer.verdict]) + Text(name))
    ran = {result.property for result in record.results}
    rows = tuple(
        (name, printable(amount, 100), printable(effect, 300)) for name, amount, effect in sampled_evidence(record.results)
    )
    for kind, line in statement_lines(footer.statement):
        if kind == "sampled" and rows:
            console.print(Table(text_columns("sampled", "amount", "detectable effect"), rows).terminal())
        elif ran.intersection(EVIDENCE[kind]):
            console.print(Text(f"{kind:<8}", style="dim") + Text(line))
    for note in note_sentences(record.results):
        console.print(Text("note    ", style="yellow") + Text(note))
    if waiting := unlocking_sentence(record.results):
        console.print(Text("n/a     ", style=COLOURS["n/a"]) + Text(waiting))
    if footer.false_alarm:
        console.print(Text(false_alarm_sentence(footer.false_alarm), style="dim"))


def _result_cell(case: Case, alone: bool) -> Cell:
    result = case.result
    if result.verdict in ("pass", "tie", "n/a"):
        return Cell(printable(result.summary))
    name = "" if alone or not result.case else f"{printable(result.case, 200)}: "
    known = f"\nknown: {excuse_sentence(result.excuse)}" if result.excuse else ""
    return Cell(f"{name}{printable(result.summary)}{known}")


def _repeat(case: Case, report: Path | None, settings: Settings | None) -> str:
    """The command that shows a result again: for a fault from the record, whichever folder holds it; for others by a new run."""
    result = case.result
    if result.verdict in ("pass", "tie", "n/a") or not (result.replay or case.replay):
        return ""
    if case.replay and report:
        return case.replay + _of_record(report, settings)
    return settings.command(case_name(result.property, result.case), here=True) if settings else result.replay


def _of_record(report: Path, settings: Settings | None) -> str:
    """The options of `eagle2 replay` for the record of this folder, and for a pair that is not shipped."""
    record = {"record": str(report / "record.jsonl")} if report.resolve() != LATEST.resolve() else {}
    pair = {"target": settings.target, "draft": settings.draft} if settings else {}
    return "".join(f" --{name} {shlex.quote(path)}" for name, path in {**record, **pair}.items() if path)


def _tokenizer(pair: Pair) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(pair.target), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{pair.target} has no tokenizer that can be loaded: {error}", "text needs one; `eagle2 verify` does not"
        ) from None
