"""The table of docs/robustness.md lists the promises that are tested, and all of them held."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from properties.meta import hardening
from properties.meta.hardening.table import Outcomes, read
from properties.meta.helpers.command import WIDE, fork


def collect(words: list[str]) -> None:
    """Print the promises of the tests in a folder, without running them."""
    outcomes = Outcomes()
    status = pytest.main([*words, "--collect-only", "-qq", "-p", "no:cacheprovider"], plugins=[outcomes])
    print("\n" + json.dumps(sorted({row[:3] for row in outcomes.rows.values()})))
    sys.exit(status)


def test_table_lists_the_tested_promises(tmp_path: Path) -> None:
    """`python -m properties.meta.hardening` writes it."""
    done = fork(collect, [str(Path(hardening.__file__).parent)], tmp_path, 120, WIDE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read()
    assert {row[3] for row in rows} == {"yes"}
    tested = {tuple(row) for row in json.loads(done.stdout.splitlines()[-1])}
    assert {row[:3] for row in rows} == tested and len(tested) > 500
