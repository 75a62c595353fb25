"""Reproduce a fault from its record, and show the step at which the bad token came: its tree, the node, the coin, p and q.

A record names the code that it judged, and to replay it is to run that code: mind whose record it is.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from harness.enumeration.coins import Unrepeatable
from harness.implementations import connect
from harness.implementations.engine import AdapterError, Missing, NotApplicable
from harness.pairs import Pair
from harness.record.model import Record, Result, Witness
from harness.replay.again import Found, again, pair_of
from harness.report.view import find
from harness.report.words import number, shown, witness
from harness.settings import Settings
from harness.terminal import COLOURS, branches, speller
from harness.verdict import FAULT, INCONCLUSIVE, PASS

__all__ = ["replay"]


def replay(record: Record, name: str, console: Console, rerun: Callable[[Settings], int], given: Pair | None = None) -> int:
    """Run a fault again by its id on the page, such as LAW-1.3; exit code 1 if it came again, 0 if not, 3 if that cannot be told.

    A fault that has no place in a text or a tree keeps no witness: then `rerun` runs its whole check, and tells its exit code.
    given: the user's own pair, where the fault was seen on one that is not shipped.
    """
    result = find(record, name).result
    for head, line in _recorded(record, result):
        _line(console, head, shown(line, 1000))
    if result.witness is None:
        return rerun(_settings(record, result, given))
    if record.header.implementation.startswith("trace:"):
        return _unknown(console, "a trace holds answers, and no decoder that could give them again")
    pair = pair_of(result.witness, given)
    try:
        found = again(connect(record.header.implementation), result.witness, pair, record.header.settings)
    except Unrepeatable as error:
        return _gone(console, str(error))
    except (AdapterError, Missing, NotApplicable) as error:
        return _unknown(console, str(error))
    _show(console, found, result.witness, str if result.witness.law else speller(pair))
    if found.came and found.departs:
        console.print(Text("The same token came again.", style=COLOURS["fault"]))
        return FAULT
    return _gone(console, "the token is emitted as often as is due" if found.came else f"token {found.token} was not emitted")


def _settings(record: Record, result: Result, given: Pair | None) -> Settings:
    """What has this check alone run again, as it was run."""
    header = record.header
    asked: dict[str, str] = {
        name: header.settings[name] for name in ("tier", "device", "dtype", "seed") if name in header.settings
    }
    asked |= {"pair": header.pair, "only": f"{result.property}[{result.case}]" if result.case else result.property}
    if given and given.name == header.pair:
        asked |= {"target": str(given.target), "draft": str(given.draft)}
    return Settings.parse(header.implementation, [f"{name}={value}" for name, value in asked.items()])


def _recorded(record: Record, result: Result) -> list[tuple[str, str]]:
    seen = result.witness
    told = [(result.property, f"{result.verdict}  {result.case}"), ("recorded", result.summary)]
    if seen is None:
        return [*told, ("witness", "none was kept: its check is run again")]
    options = "".join(f", {option}={value}" for option, value in seen.options.items())
    where = "by its rule alone" if seen.law else f"on {seen.pair}"
    lines = [
        *told,
        ("witness", witness(seen)),
        ("opened", f"{record.header.implementation} {where}{options}"),
        ("asked", ", ".join(f"{key}={value}" for key, value in seen.params.items())),
        ("coins", _chance(seen)),
    ]
    return [(head, line) for head, line in lines if line]


def _chance(seen: Witness) -> str:
    if seen.choices is not None:
        return f"branches {' '.join(map(str, seen.choices))} of an enumerated execution"
    if seen.seed is not None:
        return f"seed {seen.seed}{', keyed by position' if seen.keyed else ''}"
    return "all there are" if seen.law else ""


def _show(console: Console, found: Found, seen: Witness, spell: Callable[[int], str]) -> None:
    """The tree of the step, the node, all its coins with the one that brought the token, and the two probabilities."""
    console.print()
    node, step, greedy = "", found.step, seen.params.get("temperature") == 0
    if step:
        node = f" after node {step.node}, {spell(step.tree.token(step.node))}"
        notes = [f"node {each}" for each in range(len(step.tree))]
        ending = {step.node: (found.token, "← here" if found.came else "← it came here then")}
        console.print(branches(step.tree, step.path, notes, ending, spell))
        console.print()
    name = spell(found.token)
    _line(console, "token", f"{found.token}{f', {name}' if name != str(found.token) else ''}{node}")
    if not found.coins:
        _line(console, "coins", "none are needed at temperature 0" if greedy else "the implementation's own, unseen")
    for i, coin in enumerate(found.coins):
        mark = "  ← brought it" if found.came and coin is found.coin else ""
        _line(console, "" if i else "coins", f"{coin.said(found.token)}{mark}")
    likeliest = int(found.p.argmax())
    due = f"; its likeliest there{', which is due,' if greedy else ''} is"
    best = f"{due} {spell(likeliest)}, of {number(float(found.p[likeliest]))}"
    _line(console, "target", f"p = {number(float(found.p[found.token]))}{best if found.p.any() else '; the text has ended'}")
    then = "" if seen.q is None or seen.emitted != found.token else f"{number(seen.q)} in the record"
    now = "" if found.q is None else f"{number(found.q)} over all coins"
    if now or then:
        _line(console, "it", f"q = {now or then}{f', {then}' if now and then else ''}")


def _line(console: Console, head: str, line: str) -> None:
    console.print(Text(f"{head:<10}", style="dim") + Text(line))


def _gone(console: Console, why: str) -> int:
    console.print(Text(f"It did not come again: {shown(why)}.", style=COLOURS["pass"]))
    return PASS


def _unknown(console: Console, why: str) -> int:
    console.print(Text(f"It cannot be reproduced: {shown(why)}.", style=COLOURS["inconclusive"]))
    return INCONCLUSIVE
