"""The words and signs of a report, and how hostile text is made fit to be shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.record.model import Excuse, Likeness, Record, Statement, Verdict, Witness
from harness.statistics.budget import RUNS_A_DAY, ErrorBudget


@dataclass(frozen=True)
class Sign:
    """How a verdict looks: its class in the stylesheet, its colour in a badge. The symbol says what the colour says."""

    verdict: Verdict
    symbol: str
    style: str
    colour: str

    @property
    def meaning(self) -> str:
        return MEANING[self.verdict]


MEANING: dict[Verdict, str] = {
    "fault": "What was seen cannot be the target’s law, or breaks the requirement; chance and rounding are ruled out.",
    "inconclusive": "No answer: too few samples for the promised sensitivity, or the case itself failed. Never counts as a pass.",
    "blocked": "Not judged, because a requirement it rests on is red.",
    "known": "A fault that the list of known failures names, until a day, or a mode that its own documentation calls lossy.",
    "tie": "At temperature 0 the outputs part where the target’s margin between two tokens is within measured rounding noise.",
    "pass": "The requirement held in all that was looked at; beside it stands how small a fault would have been seen.",
    "n/a": "Does not apply: the implementation does not offer what the check needs. The reason stands beside it.",
}

SIGNS: dict[Verdict, Sign] = {  # the gravest first; this is the order of every list in a report
    "fault": Sign("fault", "✗", "fault", "b3261e"),
    "inconclusive": Sign("inconclusive", "?", "open", "8a5a00"),
    "blocked": Sign("blocked", "⊘", "blocked", "65558f"),
    "known": Sign("known", "†", "known", "8f4f3a"),
    "tie": Sign("tie", "=", "tie", "2a6299"),
    "pass": Sign("pass", "✓", "pass", "24704d"),
    "n/a": Sign("n/a", "–", "na", "626b71"),
}

CHAPTERS = {  # id: title and the question it answers, in the order of the matrix
    "law": ("Law", "Does it sample what the target model would sample?"),
    "greedy": ("Greedy", "At temperature 0, is it token for token the target model?"),
    "batch": ("Batch", "Is each text of a call what it is alone?"),
    "tree": ("Tree", "Is the draft tree what it claims to be?"),
    "cache": ("Cache", "Does the target remember exactly what was accepted?"),
    "stop": ("Stopping", "Does it end where it must?"),
    "count": ("Counts", "Are its tokens per pass counted rightly, and as many as they should be?"),
    "theory": ("Theory", "Is as much accepted as theory says?"),
    "told": ("Told", "Are the numbers true that it tells with its texts?"),
    "smoke": ("Smoke", "Does it answer at all?"),
    "known": ("Known failures", "Does the list of them still hold?"),
}

LIKENESSES = 3  # named; the others are in the record

OUTPUT = frozenset({"law", "greedy", "batch", "stop"})  # the chapters that judge the emitted text; the others judge the machinery


def shown(text: str, limit: int = 2000) -> str:
    """Text as it may be shown: the unprintable escaped (bidirectional overrides too), the over-long cut, and said to be."""
    cut = text[:limit]
    safe = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in cut)
    return safe if len(text) <= limit else f"{safe} … ({len(text) - limit} more characters in the record)"


def token(text: str, limit: int = 12) -> str:
    """A token for a drawing: line ends and the unprintable escaped, spaces visible where they hide, cut to `limit`."""
    drawn = shown(text[: limit + 1], limit + 1).replace("\n", "\\n")
    drawn = re.sub(r"^ +| +$|  +", lambda spaces: "␣" * len(spaces[0]), drawn)
    return drawn if len(drawn) <= limit else drawn[: limit - 1] + "…"


def number(value: float | str) -> str:
    """A measured number at four significant digits; whole numbers in full."""
    if isinstance(value, str):
        return shown(value, 200)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def seconds(value: float) -> str:
    """A duration to two digits."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s" if value >= 0.05 else f"{1000 * value:.0f} ms"


def several(count: int, noun: str) -> str:
    """'1 check', '3 checks'."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def listed(names: Iterable[str], most: int = 5) -> str:
    """'LAW-1, LAW-3 and TREE-2'; a long list ends in its count."""
    known = list(names)
    if len(known) > most:
        known = [*known[:most], f"{len(known) - most} more"]
    return " and ".join(part for part in (", ".join(known[:-1]), *known[-1:]) if part)


def statement(said: Statement) -> list[tuple[str, str]]:
    """The three lines, each under its name. They are of different kinds, so nothing is ever added up over them."""
    return [(name, shown(str(getattr(said, name)), 1000)) for name in ("exact", "logits", "sampled")]


def false_alarm(probability: float) -> str:
    """The error budget of a run, for somebody who has such a run every time the code changes."""
    century = ErrorBudget(1, probability).per_century
    often = f"once in {float(f'{100 / century:.2g}'):,.10g} years" if century > 0 else "never"
    return (
        f"A correct implementation is called a fault by such a run with probability at most {number(probability)};"
        f" at {RUNS_A_DAY} runs a day {often}."
    )


def likeness(like: Likeness) -> str:
    """'looks like M04 (the bonus comes from …, SafeAILab/EAGLE PR 47), fit 0.98, on LAW-4'."""
    about = ", ".join(shown(part.removesuffix("."), 300) for part in (like.fault, like.source) if part)
    return f"looks like {shown(like.mutant, 40)} ({about}), fit {like.fit:.2f}, on {shown(like.seen, 300)}"


def excused(why: Excuse) -> str:
    """'the bonus is drawn too cold (https://…, until 2027-01-31)'."""
    where = ", ".join(shown(part, 300) for part in (why.link, f"until {why.expires}" if why.expires else "") if part)
    return f"{shown(why.reason, 400)}{f' ({where})' if where else ''}"


def witness(seen: Witness) -> str:
    """The place at which it went wrong, in one sentence."""
    if seen.node is not None:
        where = f"In a tree of {several(len(seen.tokens), 'node')}, after node {seen.node}, token {seen.emitted} came"
    else:
        text = " ".join(map(str, seen.prompt[-12:]))
        start = f"… {text}" if len(seen.prompt) > 12 else text
        where = f"After the prompt {start} ({several(len(seen.prompt), 'token')}), at new token {seen.position}"
        where += f" (the first is 0), token {seen.emitted} came"
    due = f" where {seen.expected} was due" if seen.expected is not None else ""
    odds = [f"{who} gives it {number(x)}" for who, x in (("the target", seen.p), ("the implementation", seen.q)) if x is not None]
    return f"{where}{due}{': ' if odds else ''}{', '.join(odds)}."


def sentence(record: Record) -> str:
    """The overall verdict, as the footer has it, in one sentence for a manager and an engineer alike."""
    results, verdict = record.results, record.footer.verdict
    total = several(len(results), "check")
    these = [result for result in results if result.verdict == verdict]
    chapter = {p.id: p.chapter for p in record.header.properties}
    if record.footer.exit_code == 4:
        broken = sum(result.broken for result in results)
        return f"It could not be judged: it raised, hung or answered nonsense in {number(broken)} of {total}."
    if verdict == "fault" and all(chapter.get(result.property) == "known" for result in these):
        entries = "1 entry" if len(these) == 1 else f"{number(len(these))} entries"
        return f"The list of known failures does not hold: {entries} out of date, or without a fault; nothing else is red."
    if verdict == "fault":
        where = listed(dict.fromkeys(shown(result.property, 40) for result in these))
        if any(chapter.get(result.property) in OUTPUT for result in these):
            return f"Its output is not the target model’s: {number(len(these))} of {total} found a fault, in {where}."
        return f"{number(len(these))} of {total} found a fault, in {where}; none of them in the emitted text itself."
    if verdict == "pass":
        if not any(chapter.get(result.property) in OUTPUT for result in results):
            return f"{total} found no fault, but none of them judged the emitted text."
        return f"In {total}, nothing tells its output from that of the target model decoding alone."
    return {
        "known": f"It is faulty in {number(len(these))} of {total}, each a known fault with its reason; nothing else is red.",
        "tie": f"Its output is the target model’s up to rounding: {several(len(these), 'tie')} in {total}.",
        "inconclusive": f"This run does not decide: {number(len(these))} of {total} gave no answer.",
        "blocked": f"It could not be judged: {number(len(these))} of {total} rest on one that failed.",
        "n/a": f"Nothing was judged: none of {total} applies to what it offers.",
    }[verdict]
