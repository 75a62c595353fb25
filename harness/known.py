"""Known failures: a list of expected faults, each with a reason, a link and a last day, and modes that are lossy by design.

Only a fault can be excused; a crash, a timeout or missing data cannot. The list itself is checked as KNOWN-1: an entry that is
out of date, or that names no fault any more, would hide the next fault, and is a fault itself.
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
from harness.files import refuse_special_file
from harness.record.model import Excuse, Property, Result, Value, Verdict

KNOWN = Property(
    id="KNOWN-1",
    chapter="known",
    requirement="Every entry of the list of known failures is in date and names a fault that still occurs.",
)

LAWS = ("LAW", "GREEDY")
"""Chapters whose faults a lossy mode explains; its trees, caches, stops and counts must still be correct."""

ENTRY_FORMAT = "each entry is [[known]] with id, reason, link and expires = 2027-01-31, and nothing else"


class Entry(Value):
    """One known failure. id: a chapter, such as LAW, a property, LAW-4, or one case, LAW-4[coin4, T=1.0]."""

    id: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    link: str = Field(min_length=1)
    expires: date = Field(strict=True, description="last day on which it excuses faults")

    def select(self, results: Iterable[Result]) -> list[Result]:
        """The results that this entry names."""
        return [result for result in results if selects(self.id, name(result.property, result.case))]


def read(path: str) -> tuple[Entry, ...]:
    """The entries of a TOML file, in their order; none without a path."""
    if not path:
        return ()
    refuse_special_file(Path(path), "the list of known failures")
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", f"give a TOML file; {ENTRY_FORMAT}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} is no list of known failures: {error}", f"write TOML; {ENTRY_FORMAT}") from None
    listed = document.pop("known", [])
    if document or not isinstance(listed, list):
        what = repr(next(iter(document))) if document else "'known' is no list"
        raise BadInput(f"{path} holds something that is not an entry: {what}", ENTRY_FORMAT)
    entries = tuple(_entry(path, number, fields) for number, fields in enumerate(listed, start=1))
    for first, times in Counter(entry.id for entry in entries).items():
        if times > 1:
            raise BadInput(f"{path} lists {first!r} {times} times", "merge them into one entry")
    return entries


def today() -> date:
    """Today in UTC, so that a list means the same on every machine."""
    return datetime.now(UTC).date()


def excuse(result: Result, entries: Iterable[Entry], lossy: str, day: date) -> Result:
    """Turn a fault into a known fault if an entry names it or the implementation is lossy; other results stay as they are.

    Args:
        result: the result of a check.
        entries: the list of known failures.
        lossy: how the implementation's own documentation describes its loss; "" for a lossless one.
        day: an entry excuses nothing after its last day.
    """
    if result.verdict != "fault":
        return result
    entry = next((entry for entry in entries if entry.select([result]) and day <= entry.expires), None)
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
    """Results of KNOWN-1 after a run, one case for each entry.

    Args:
        entries: the list of known failures.
        results: all results of the run.
        left_out: names of cases that the tier, --only or -k left out.
        catalogue: ids of all properties.
        day: today.

    An entry that names a case which was left out, or a property which was not collected, may name a fault that this run cannot
    see. Such an entry is judged only if it excused a fault or is out of date.
    """
    properties, ran = list(catalogue), {result.property for result in results}

    def whole(entry: Entry) -> bool:
        named = {each for each in properties if selects(entry.id.partition("[")[0], each)}
        return named <= ran and not any(selects(entry.id, case) for case in left_out)

    found = []
    for entry in entries:
        mine = entry.select(results)
        certain = any(result.verdict == "known" or day > entry.expires for result in mine)
        if certain or whole(entry):
            verdict, summary = _judge(entry, mine, results, day)
            found.append(Result(property=KNOWN.id, case=entry.id, verdict=verdict, summary=summary))
    return found


def _judge(entry: Entry, mine: Sequence[Result], results: Iterable[Result], day: date) -> tuple[Verdict, str]:
    seen = Counter(result.verdict for result in mine)
    tally = ", ".join(f"{times} {verdict}" for verdict, times in seen.items())
    if day > entry.expires:
        return "fault", f"expired on {entry.expires} and excuses nothing any more; it names {tally or 'nothing that was run'}"
    if not mine:
        near = difflib.get_close_matches(entry.id, {name(result.property, result.case) for result in results}, 1)
        return "fault", f"names nothing that was run{f'; did you mean {near[0]}?' if near else ''}"
    if seen["known"]:
        return "pass", f"excuses {seen['known']} of {len(mine)} until {entry.expires}"
    if seen["inconclusive"] or seen["blocked"]:
        return "inconclusive", f"its cases have no verdict: {tally}"
    return "fault", f"names no fault any more: {tally}; remove it from the list"


def _entry(path: str, number: int, fields: Any) -> Entry:
    try:
        return Entry.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f" {part}:" for part in first["loc"])
        about = f" ({fields['id']})" if isinstance(fields, dict) and "id" in fields else ""
        raise BadInput(f"{path}, entry {number}{about}:{where} {first['msg']}", ENTRY_FORMAT) from None
