"""Known failures: a list of them, each with a reason, a link and a last day; and modes that their own documentation calls lossy.

Only a fault is ever excused: a crash, a time-out or missing data never is. The list itself is judged too, as KNOWN-1: an entry
that is out of date, or that excuses nothing any more, would hide the next fault, and is red.
"""

from __future__ import annotations

import difflib
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from eagle2_ref.errors import BadInput
from harness.catalogue import name, selects
from harness.record.model import Excuse, Property, Result, Value, Verdict

KNOWN = Property(
    id="KNOWN-1",
    chapter="known",
    requirement="Every entry of the list of known failures is in date, and names a fault that is still there.",
)

LAWS = ("LAW", "GREEDY")
"""The chapters whose faults a lossy mode explains; its trees, caches, stops and counts must be right all the same."""

EACH = "each entry is [[known]] with id, reason, link and expires = 2027-01-31, and nothing else"


class Entry(Value):
    """One known failure. id: a chapter, such as LAW, a property, LAW-4, or one case, LAW-4[coin4, T=1.0]."""

    id: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    link: str = Field(min_length=1)
    expires: date = Field(strict=True, description="the last day on which it excuses anything")

    def of(self, results: Iterable[Result]) -> list[Result]:
        """The results that it names."""
        return [result for result in results if selects(self.id, name(result.property, result.case))]


def read(path: str) -> tuple[Entry, ...]:
    """The entries of a TOML file, in its order; without a path there are none."""
    if not path:
        return ()
    try:
        told = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} is no list of known failures: {error}", f"it is TOML; {EACH}") from None
    listed = told.pop("known", [])
    if told or not isinstance(listed, list):
        what = repr(next(iter(told))) if told else "'known' is no list"
        raise BadInput(f"{path} holds what is no entry: {what}", EACH)
    entries = tuple(_entry(path, number, fields) for number, fields in enumerate(listed, start=1))
    for first, times in Counter(entry.id for entry in entries).items():
        if times > 1:
            raise BadInput(f"{path} lists {first!r} {times} times", "make one entry of them")
    return entries


def today() -> date:
    """By Greenwich, so that one list means the same on all machines."""
    return datetime.now(UTC).date()


def excuse(result: Result, entries: Iterable[Entry], lossy: str, day: date) -> Result:
    """The result, or where it is a fault that an entry names, or that `lossy` documentation owns up to: a known fault."""
    if result.verdict != "fault":
        return result
    entry = next((entry for entry in entries if entry.of([result]) and day <= entry.expires), None)
    if entry is not None:
        why = Excuse(reason=entry.reason, link=entry.link, expires=entry.expires.isoformat())
    elif lossy and any(selects(chapter, result.property) for chapter in LAWS):
        why = Excuse(reason=f"lossy by design: {lossy}")
    else:
        return result
    return result.model_copy(update={"verdict": "known", "excuse": why})


def judged(
    entries: Sequence[Entry], results: Sequence[Result], left_out: Collection[str], catalogue: Iterable[str], day: date
) -> list[Result]:
    """KNOWN-1, a case an entry, after a run.

    left_out: names of cases that a tier, --only or -k left out. Where an entry names one of them, or a property of the
    catalogue that was not collected at all, this run cannot tell that it names no fault: it is judged if it excused one, or
    if it is out of date.
    """
    properties, ran = list(catalogue), {result.property for result in results}

    def whole(entry: Entry) -> bool:
        asked = {each for each in properties if selects(entry.id, each) or entry.id.startswith(f"{each}[")}
        return asked <= ran and not any(selects(entry.id, case) for case in left_out)

    told = []
    for entry in entries:
        mine = entry.of(results)
        plain = any(result.verdict == "known" or day > entry.expires for result in mine)
        if plain or whole(entry):
            verdict, summary = _judge(entry, mine, results, day)
            told.append(Result(property=KNOWN.id, case=entry.id, verdict=verdict, summary=summary))
    return told


def _judge(entry: Entry, mine: Sequence[Result], results: Iterable[Result], day: date) -> tuple[Verdict, str]:
    seen = Counter(result.verdict for result in mine)
    tally = ", ".join(f"{times} {verdict}" for verdict, times in seen.items())
    if day > entry.expires:
        return "fault", f"expired on {entry.expires} and excuses nothing; it names {tally or 'nothing that was run'}"
    if not mine:
        near = difflib.get_close_matches(entry.id, {name(result.property, result.case) for result in results}, 1)
        return "fault", f"names nothing that was run{f'; did you mean {near[0]}?' if near else ''}"
    if seen["known"]:
        return "pass", f"excuses {seen['known']} of {len(mine)} until {entry.expires}"
    if seen["inconclusive"] or seen["blocked"]:
        return "inconclusive", f"what it names came to no verdict: {tally}"
    return "fault", f"names no fault any more: {tally}; take it off the list"


def _entry(path: str, number: int, fields: Any) -> Entry:
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f" {part}:" for part in first["loc"])
        about = f" ({fields['id']})" if isinstance(fields, dict) and "id" in fields else ""
        raise BadInput(f"{path}, entry {number}{about}:{where} {first['msg']}", EACH) from None
