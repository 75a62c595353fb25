"""Files that other programs and earlier versions wrote or read: records, schemas, measured counts.

A schema may gain optional fields and further alternatives; it may not lose or change a field.
Regenerate after an intended addition: python -m properties.meta.contract schemas
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from properties.meta.contract import access
from properties.meta.contract.golden import check_golden, read_golden

SCHEMAS = ("record", "protocol")
RECORDS = sorted(
    path.relative_to(access.REPORTS).as_posix()
    for name in ("record.jsonl", "trials.jsonl", "calibration.jsonl")
    for path in access.REPORTS.rglob(name)
    if "latest" not in path.parts
)
MEASURED = ("reports/bench/counts.json", "fixtures/pairs/stdlib/tau.json")
WORDING = ("description", "title")


def describe_schemas() -> dict[str, Any]:
    """The committed schemas without wording, the paths of records, and digests of measured counts."""
    return {
        **{name: resolve(_read(f"reports/schema/{name}.schema.json")) for name in SCHEMAS},
        "paths": [path for path in RECORDS if path.count("/") == 1],
        "measured": {name: _digest(name) for name in MEASURED},
    }


def resolve(schema: Any, definitions: dict[str, Any] | None = None) -> Any:
    """Replace references by what they refer to and remove wording, so that names of classes and texts are free."""
    if isinstance(schema, list):
        return [resolve(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    known = {**(definitions or {}), **schema.get("$defs", {})}
    if "$ref" in schema:
        return resolve(known[schema["$ref"].rpartition("/")[2]], known)
    fields = {name: value for name, value in schema.items() if name not in ("$defs", "discriminator") and _is_fact(name, value)}
    return {
        name: {key: resolve(item, known) for key, item in value.items()} if name == "properties" else resolve(value, known)
        for name, value in fields.items()
    }


def _is_fact(name: str, value: Any) -> bool:
    return not (name in WORDING and isinstance(value, str))


def find_breaks(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Describe every place at which a value that fits the old schema may not fit the new one."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            below = f"{place}/{key}"
            if key not in new:
                yield f"{below} was removed"
            elif key == "required":
                if added := sorted(set(new[key]) - set(value)):
                    yield f"{below}: {added} must now be given"
                if optional := sorted(set(value) - set(new[key])):
                    yield f"{below}: {optional} may now be missing"
            elif key in ("oneOf", "anyOf"):
                yield from _find_lost_alternatives(value, new[key], below)
            elif key == "enum":
                if lost := [one for one in value if one not in new[key]]:
                    yield f"{below}: {lost} were removed"
            else:
                yield from find_breaks(value, new[key], below)
        if "properties" in old and "required" not in old and new.get("required"):
            yield f"{place}/required: {new['required']} must now be given"
    elif old != new:
        yield f"{place}: {old} became {new}"


def _find_lost_alternatives(old: list[Any], new: list[Any], place: str) -> Iterator[str]:
    for number, alternative in enumerate(old):
        breaks = [list(find_breaks(alternative, other, f"{place}/{number}")) for other in new]
        if breaks and all(breaks):
            yield from min(breaks, key=len)


def _read(path: str) -> Any:
    return json.loads((access.ROOT / path).read_text(encoding="utf-8"))


def _digest(path: str) -> str:
    return hashlib.sha256(json.dumps(_read(path), sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_accepts_what_it_accepted(name: str) -> None:
    breaks = list(find_breaks(read_golden("schemas")[name], describe_schemas()[name]))
    assert not breaks, "\n".join(breaks)


def test_record_schema_keeps_every_kind_of_line() -> None:
    kinds = {line["properties"]["kind"]["const"]: line["properties"] for line in read_golden("schemas")["record"]["oneOf"]}
    assert set(kinds) == {"header", "result", "footer"}
    assert kinds["header"]["format"]["const"] == 1
    assert {"property", "case", "verdict", "witness", "measured"} <= set(kinds["result"])


@pytest.mark.parametrize("part", ["paths", "measured"])
def test_committed_files_are_unchanged(part: str) -> None:
    check_golden("schemas", describe_schemas()[part], part)


@pytest.mark.parametrize("path", RECORDS)
def test_committed_record_can_be_read(path: str) -> None:
    found: Any = access.read_any_record(access.REPORTS / path)
    assert found


def test_records_of_every_kind_are_committed() -> None:
    kinds = {Path(path).parts[0] for path in RECORDS}
    assert {"acceptance", "bench", "calibration", "compare", "engines", "mutants", "planted", "reference"} <= kinds
    assert len([path for path in RECORDS if path.startswith("engines/")]) > 20


OLD = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "verdict": {"enum": ["pass", "fault"]}},
    "required": ["id"],
}


@pytest.mark.parametrize(
    ("new", "breaks"),
    [
        (OLD, 0),
        ({**OLD, "properties": {**OLD["properties"], "extra": {"type": "string"}}}, 0),  # type: ignore[dict-item]
        ({**OLD, "properties": {"id": {"type": "string"}, "verdict": {"enum": ["pass", "fault", "tie"]}}}, 0),
        ({**OLD, "required": ["id", "verdict"]}, 1),
        ({**OLD, "required": []}, 1),
        ({**OLD, "properties": {"id": {"type": "string"}}}, 1),
        ({**OLD, "properties": {"id": {"type": "integer"}, "verdict": {"enum": ["pass"]}}}, 2),
    ],
    ids=["same", "optional field", "further value", "required field", "optional id", "removed field", "changed fields"],
)
def test_find_breaks_separates_additions_from_changes(new: dict[str, Any], breaks: int) -> None:
    assert len(list(find_breaks(OLD, new))) == breaks
