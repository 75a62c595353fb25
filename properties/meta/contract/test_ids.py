"""Ids that records, reports and users refer to: properties, cases, mutants, methods and connectable strings.

Regenerate after an intended addition: python -m properties.meta.contract ids
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from properties.meta.contract import access
from properties.meta.contract.golden import check_golden, read_golden

PARTS = ("properties", "full_tier", "mutants", "controls", "methods", "connectables")


@cache
def describe_ids() -> dict[str, Any]:
    """All ids, as JSON.

    Returns:
        properties: property id -> sorted case ids ("" for a property without cases).
        full_tier: property id -> those cases that only `--tier full` runs.
        mutants, controls: id -> the properties meant to kill it, each with its case.
        methods: name -> its acceptance rules, its own first, and the checkpoint it drafts with.
        connectables: words before the first colon.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = access.collect(Path(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    cases: dict[str, list[tuple[str, bool]]] = json.loads(done.stdout.splitlines()[-1])
    order = sorted(cases, key=lambda name: (name.partition("-")[0], int(name.partition("-")[2])))
    gallery = access.gallery()
    return {
        "properties": {name: sorted(case for case, _ in cases[name]) for name in order},
        "full_tier": {name: full for name in order if (full := sorted(case for case, is_full in cases[name] if is_full))},
        "mutants": {name: dict(sorted(one.killers.items())) for name, one in gallery.items() if not one.control},
        "controls": {name: dict(sorted(one.killers.items())) for name, one in gallery.items() if one.control},
        "methods": {name: {"rules": [*one.rules], "checkpoint": one.checkpoint} for name, one in access.methods().items()},
        "connectables": sorted(access.connectable_prefixes()),
    }


@pytest.mark.parametrize("part", PARTS)
def test_ids_are_unchanged(part: str) -> None:
    check_golden("ids", describe_ids()[part], part)


def test_golden_ids_are_complete() -> None:
    golden = read_golden("ids")
    assert sorted(golden) == sorted(PARTS)
    assert all(golden[part] for part in PARTS)
    cases = golden["properties"]
    assert len(cases) >= 37 and len(golden["mutants"]) > 100
    assert all(len(set(ids)) == len(ids) for ids in cases.values())


def test_every_killer_names_an_existing_case() -> None:
    """A mutant whose killer case was renamed would be judged by another case, or by none."""
    ids = describe_ids()
    missing = [
        f"{mutant}: {name}[{case}]"
        for mutant, killers in ids["mutants"].items()
        for name, case in killers.items()
        if case not in ids["properties"].get(name, [])
    ]
    assert not missing
