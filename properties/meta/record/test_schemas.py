"""The committed JSON Schemas are those of the code, and every format has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.schemas import schemas, write_schemas

REPORTS = Path(__file__).parents[3] / "reports"


@pytest.mark.parametrize("name", schemas())
def test_committed_schema_is_that_of_the_code(name: str) -> None:
    committed = json.loads((REPORTS / "schema" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert committed == schemas()[name], "run `python -m harness.schemas`, and read the difference"


def test_every_committed_schema_has_a_format(tmp_path: Path) -> None:
    written = {path.name for path in write_schemas(tmp_path)}
    assert written == {path.name for path in (REPORTS / "schema").iterdir()}
