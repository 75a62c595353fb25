"""Reproduce a fault from its record, and show the step that emitted the wrong token: tree, node, random numbers, p and q.

A replay runs the code that the record names: replay only records that you trust.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from harness.enumeration.coins import Unrepeatable
from harness.implementations import connect
from harness.implementations.engine import AdapterError, Missing, NotApplicable
from harness.pairs import Pair
from harness.record.model import LawPicture, Record, Result, Witness
from harness.replay.reproduce import Reproduction, pair_of, reproduce
from harness.report.cases import find_case
from harness.report.evidence_plots import drawn_outcomes
from harness.report.sentences import witness_sentence
from harness.report.tables import Table, columns
from harness.report.text import number, printable
from harness.settings import Settings
from harness.terminal import branches, speller
from harness.verdict import FAULT, INCONCLUSIVE, PASS, SIGNS

__all__ = ["replay"]


def replay(record: Record, name: str, console: Console, rerun: Callable[[Settings], int], given: Pair | None = None) -> int:
    """Reproduce a fault.

    Args:
        record: the record that holds it.
        name: its id in the report, such as LAW-1.3.
        console: where to print.
        rerun: runs the whole check for a fault without a witness, prints its results, and returns its exit code.
        given: the user's pair, for a fault that was found on a pair which is not shipped.

    Returns:
        The exit code: 1 if the fault occurs again, 0 if it does not, 3 if it cannot be reproduced.
    """
    result = find_case(record, name).result
    for head, line in _recorded(record, result):
        _print(console, head, printable(line, 1000))
    if result.witness is None:
        _show_law(console, result)
        return _conclude_rerun(console, rerun(_settings(record, result, given)))
    if record.header.implementation.startswith("trace:"):
        return _cannot_reproduce(console, "a trace holds answers, but no decoder that could generate them again")
    pair = pair_of(result.witness, given)
    try:
        found = reproduce(connect(record.header.implementation), result.witness, pair, record.header.settings)
    except Unrepeatable as error:
        return _not_reproduced(console, str(error))
    except (AdapterError, Missing, NotApplicable) as error:
        return _cannot_reproduce(console, str(error))
    _show(console, found, result.witness, str if result.witness.law else speller(pair))
    if found.emitted and found.departs:
        console.print(Text("Reproduced: the same token was emitted.", style=SIGNS["fault"].terminal))
        return FAULT
    reason = "its probability is the target's" if found.emitted else f"token {found.token} was not emitted"
    return _not_reproduced(console, reason)


def _settings(record: Record, result: Result, given: Pair | None) -> Settings:
    """Settings that repeat this check alone."""
    header, names = record.header, ("tier", "device", "dtype", "seed")
    repeated: dict[str, str] = {name: header.settings[name] for name in names if name in header.settings}
    repeated |= {"pair": header.pair, "only": f"{result.property}[{result.case}]" if result.case else result.property}
    if given and given.name == header.pair:
        repeated |= {"target": str(given.target), "draft": str(given.draft)}
    return Settings.parse(header.implementation, [f"{name}={value}" for name, value in repeated.items()])


def _recorded(record: Record, result: Result) -> list[tuple[str, str]]:
    seen = result.witness
    lines = [(result.property, f"{result.verdict}  {result.case}"), ("recorded", result.summary)]
    if seen is None:
        return [*lines, ("witness", f"{result.property} stores no witness: the whole check is run again")]
    options = "".join(f", {option}={value}" for option, value in seen.options.items())
    where = "its rule alone" if seen.law else f"on {seen.pair}"
    lines += [
        ("witness", witness_sentence(seen)),
        ("opened", f"{record.header.implementation} {where}{options}"),
        ("params", ", ".join(f"{key}={value}" for key, value in seen.params.items())),
        ("random", _random_numbers(seen)),
    ]
    return [(head, line) for head, line in lines if line]


def _random_numbers(seen: Witness) -> str:
    if seen.choices is not None:
        return f"choices {' '.join(map(str, seen.choices))} of an enumerated execution"
    if seen.seed is not None:
        return f"seed {seen.seed}{', keyed by position' if seen.keyed else ''}"
    return "all of them, enumerated" if seen.law else ""


def _show(console: Console, found: Reproduction, seen: Witness, spell: Callable[[int], str]) -> None:
    """Print the tree of the step, the node, its random numbers with the one that decided the token, and p and q."""
    console.print()
    node, step, greedy = "", found.step, seen.params.get("temperature") == 0
    if step:
        node = f" after node {step.node}, {spell(step.tree.token(step.node))}"
        notes = [f"node {each}" for each in range(len(step.tree))]
        ending = {step.node: (found.token, "← here" if found.emitted else "← here in the record")}
        console.print(branches(step.tree, step.path, notes, ending, spell))
        console.print()
    name = spell(found.token)
    _print(console, "token", f"{found.token}{f', {name}' if name != str(found.token) else ''}{node}")
    if not found.draws:
        _print(console, "random", "no numbers at temperature 0" if greedy else "the implementation's own numbers, not visible")
    for i, draw in enumerate(found.draws):
        mark = "  ← decided it" if found.emitted and draw is found.decisive else ""
        _print(console, "" if i else "random", f"{draw.describe(found.token)}{mark}")
    likeliest = int(found.p.argmax())
    best = f"; the most likely token{', which is the correct one,' if greedy else ''} is"
    best += f" {spell(likeliest)}, with {number(float(found.p[likeliest]))}"
    _print(console, "p", f"{number(float(found.p[found.token]))} (target){best if found.p.any() else '; the text has ended'}")
    stored = "" if seen.q is None or seen.emitted != found.token else f"{number(seen.q)} in the record"
    now = "" if found.q is None else f"{number(found.q)} over all random numbers"
    if now or stored:
        _print(console, "q", f"{', '.join(filter(None, (now, stored)))} (implementation)")


def _show_law(console: Console, result: Result) -> None:
    """Print the expected and the observed probability of each outcome, if the result has a picture of them."""
    picture = next((picture for picture in result.pictures if isinstance(picture, LawPicture)), None)
    if picture is None:
        return
    rows = drawn_outcomes(picture.outcomes, picture.expected, picture.observed)
    cells = tuple((label, number(expected), number(observed)) for label, expected, observed in rows)
    observed = f"in {number(picture.n)} samples" if picture.n else "by enumeration"
    console.print()
    console.print(Table(columns("outcome", "expected", f"observed {observed}", left=("outcome",)), cells).terminal())
    console.print()


def _conclude_rerun(console: Console, code: int) -> int:
    """Print what the exit code of the repeated check means, and return it."""
    if code == FAULT:
        console.print(Text("Reproduced: the check finds a fault again.", style=SIGNS["fault"].terminal))
        return code
    if code == PASS:
        return _not_reproduced(console, "the check finds no fault")
    _cannot_reproduce(console, "the check gave no answer")
    return code


def _print(console: Console, head: str, line: str) -> None:
    console.print(Text(f"{head:<10}", style="dim") + Text(line))


def _not_reproduced(console: Console, reason: str) -> int:
    console.print(Text(f"Not reproduced: {printable(reason)}.", style=SIGNS["pass"].terminal))
    return PASS


def _cannot_reproduce(console: Console, reason: str) -> int:
    console.print(Text(f"Cannot be reproduced: {printable(reason)}.", style=SIGNS["inconclusive"].terminal))
    return INCONCLUSIVE
