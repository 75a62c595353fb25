"""`python -m properties.meta.hardening`: run the tests of promises, and write the table of docs/robustness.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from properties.meta.hardening.table import Outcomes, write

if __name__ == "__main__":
    outcomes = Outcomes()
    status = pytest.main([str(Path(__file__).parent), "-q", "-n", "0", *sys.argv[1:]], plugins=[outcomes])
    write(outcomes.rows.values())
    print(f"{sum(row.held is True for row in outcomes.rows.values())} of {len(outcomes.rows)} promises held")
    sys.exit(status)
