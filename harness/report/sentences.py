"""Sentences about a record: its verdict, a witness, a likeness to a known fault, the error budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from harness.record.model import Excuse, Likeness, Record, Result, Statement, Verdict, Witness
from harness.report.text import join_names, number, plural, printable

LEADS = 3
"""Likenesses that a report names; the others are in the record."""

LEAST_FIT = 0.8
"""Smallest fit of a likeness that a report names as a lead.

Each mutant of the committed kill matrix was diagnosed without itself. Of the leads below this fit, 64 % named a mutant of another
part of the decoder, and 76 % where laws were compared; see properties/meta/kill_matrix/test_diagnosis.py.
"""

DECLARED = ("top_k", "top_p", "min_p", "repetition_penalty", "eos", "blocks", "context", "deterministic", "logprobs", "counters")
"""Capabilities that any engine may declare (docs/judge-your-engine.md). The others give access to the reference's own code."""

OUTPUT = frozenset({"law", "greedy", "batch", "stop"})
"""Chapters that judge the emitted text; the others judge the machinery."""

RUNS_PER_DAY = 50
"""How often a project that judges every change runs the checks. The error budget is stated for this many."""
DAYS_PER_CENTURY = 36525

MEANINGS: dict[Verdict, str] = {
    "fault": "The measurement contradicts the requirement; chance and rounding are excluded.",
    "inconclusive": "No answer: too few samples for the promised sensitivity, or the check itself failed. Never a pass.",
    "blocked": "Not judged, because a requirement that this one needs is red.",
    "known": "A fault that the list of known failures names until a date, or a mode that its own documentation calls lossy.",
    "tie": "At temperature 0 the outputs differ where the target's margin between two tokens is within measured rounding noise.",
    "pass": "The requirement held in every case. Next to it is the smallest effect that would have been detected.",
    "n/a": "Does not apply: the implementation does not offer what the check needs. The reason is given.",
}
"""What each verdict means."""


def verdict_sentence(record: Record) -> str:
    """The verdict of the footer in one sentence."""
    results, verdict = record.results, record.footer.verdict
    total = plural(sum(result.verdict != "n/a" for result in results) or len(results), "check")
    decisive = [result for result in results if result.verdict == verdict]
    chapters = {one.id: one.chapter for one in record.header.properties}
    some = number(len(decisive))
    if record.footer.exit_code == 4:
        broken = number(sum(result.broken for result in results))
        return f"The implementation could not be judged: {broken} of {total} ended in an error, a timeout or an invalid answer."
    if verdict == "fault" and all(chapters.get(result.property) == "known" for result in decisive):
        entries = "1 entry is" if len(decisive) == 1 else f"{some} entries are"
        return f"The list of known failures is out of date: {entries} expired or without a fault. No other check is red."
    if verdict == "fault":
        where = join_names(dict.fromkeys(printable(result.property, 40) for result in decisive))
        if any(chapters.get(result.property) in OUTPUT for result in decisive):
            return f"The output is not distributed as the target model's: {some} of {total} found a fault, in {where}."
        return f"{some} of {total} found a fault, in {where}; none of them in the emitted text."
    if verdict == "pass":
        if not any(chapters.get(result.property) in OUTPUT for result in results):
            return f"{total} found no fault, but none of them judged the emitted text."
        return f"{total} found no difference from the target model's own output."
    return {
        "known": f"{some} of {total} found a fault, each in the list of known failures; no other check is red.",
        "tie": f"The output is the target model's up to rounding: {plural(len(decisive), 'tie')} in {total}.",
        "inconclusive": f"This run does not decide: {some} of {total} gave no answer.",
        "blocked": f"The implementation could not be judged: {some} of {total} depend on one that failed.",
        "n/a": f"Nothing was judged: none of {total} applies to this implementation.",
    }[verdict]


def false_alarm_sentence(probability: float) -> str:
    """The error budget of a run, and how often a project that runs the checks daily exceeds it."""
    per_century = probability * RUNS_PER_DAY * DAYS_PER_CENTURY
    often = f"once in {float(f'{100 / per_century:.2g}'):,.10g} years" if per_century > 0 else "never"
    return (
        f"Such a run calls a correct implementation faulty with probability at most {number(probability)};"
        f" at {RUNS_PER_DAY} runs per day {often}."
    )


def statement_lines(statement: Statement | None) -> list[tuple[str, str]]:
    """The lines of a statement with their names. They are of three kinds and never become one number."""
    names = ("exact", "logits", "sampled") if statement else ()
    return [(name, printable(str(getattr(statement, name)), 1000)) for name in names]


def unlocking_sentence(results: Sequence[Result]) -> str:
    """'Declare top_k to be judged on 6 more cases, logprobs on 4, top_k and top_p on 1.', or "" if no case waits for one."""
    lacking: Counter[tuple[str, ...]] = Counter()
    for result in results:
        if result.verdict == "n/a" and result.summary.startswith("the implementation does not declare the capability "):
            lacking[tuple(re.findall("'(.+?)'", result.summary))] += 1
    several = [(names, n) for names, n in lacking.most_common() if set(names) <= set(DECLARED)]
    parts = [
        f"{join_names(names)} on {n}" if i else f"{join_names(names)} to be judged on {plural(n, 'more case')}"
        for i, (names, n) in enumerate(several)
    ]
    return f"Declare {', '.join(parts)}." if parts else ""


def note_sentences(results: Sequence[Result]) -> list[str]:
    """'COUNT-1: drafts are hardly ever accepted …', each note once, with the first result that has it."""
    first: dict[str, str] = {}
    for result in results:
        if result.note:
            first.setdefault(printable(result.note, 400), printable(result.property, 40))
    return [f"{name}: {note}" for note, name in first.items()]


def leads(likenesses: Sequence[Likeness]) -> list[Likeness]:
    """The likenesses that are close enough to look there first, the best fit first."""
    return [likeness for likeness in likenesses if likeness.fit >= LEAST_FIT][:LEADS]


def likeness_sentence(likeness: Likeness) -> str:
    """'looks like M04 (the bonus comes from …, SafeAILab/EAGLE PR 47), fit 0.98, on LAW-4'."""
    about = ", ".join(printable(part.removesuffix("."), 300) for part in (likeness.fault, likeness.source) if part)
    return f"looks like {printable(likeness.mutant, 40)} ({about}), fit {likeness.fit:.2f}, on {printable(likeness.seen, 300)}"


def excuse_sentence(excuse: Excuse) -> str:
    """'the bonus is sampled at the wrong temperature (https://…, until 2027-01-31)'."""
    until = f"until {excuse.expires}" if excuse.expires else ""
    source = ", ".join(printable(part, 300) for part in (excuse.link, until) if part)
    return f"{printable(excuse.reason, 400)}{f' ({source})' if source else ''}"


def witness_sentence(witness: Witness) -> str:
    """The place of a fault in one sentence."""
    if witness.node is not None:
        nodes = plural(len(witness.tokens), "node")
        where = f"In a tree of {nodes}, token {witness.emitted} was emitted after node {witness.node}"
    else:
        text = " ".join(map(str, witness.prompt[-12:]))
        prompt = f"{'… ' if len(witness.prompt) > 12 else ''}{text} ({plural(len(witness.prompt), 'token')})"
        where = f"After the prompt {prompt}, token {witness.emitted} was emitted as new token {witness.position} (counted from 0)"
    instead = f" instead of {witness.expected}" if witness.expected is not None else ""
    pairs = (("the target", witness.p), ("the implementation", witness.q))
    odds = [f"{who} gives it probability {number(x)}" for who, x in pairs if x is not None]
    return f"{where}{instead}{': ' if odds else ''}{', '.join(odds)}."
