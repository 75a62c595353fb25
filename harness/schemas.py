"""JSON Schemas of every format that the harness writes: records of each command, and the protocol of external engines.

They are committed under reports/schema/. `python -m harness.schemas` writes them again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.benchmark.acceptance_record import ACCEPTANCE_LINES
from harness.benchmark.record import BENCH_LINES, COMPARE_LINES
from harness.calibration.figures import LINES as CALIBRATION_LINES
from harness.files import write_atomic
from harness.implementations.protocol import REPLY, Request
from harness.record.model import LINES, Trial

FOLDER = Path("reports/schema")


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of one line of each format by its name; of the protocol, the schemas of requests and replies."""
    return {
        "record": LINES.json_schema(),
        "trials": Trial.model_json_schema(),
        "calibration": CALIBRATION_LINES.json_schema(),
        "bench": BENCH_LINES.json_schema(),
        "compare": COMPARE_LINES.json_schema(),
        "acceptance": ACCEPTANCE_LINES.json_schema(),
        "protocol": {"requests": TypeAdapter(Request).json_schema(), "replies": REPLY.json_schema()},
    }


def write_schemas(folder: Path = FOLDER) -> list[Path]:
    """Write NAME.schema.json for each format, and return the paths."""
    return [
        write_atomic(folder / f"{name}.schema.json", json.dumps(schema, indent=2, sort_keys=True) + "\n")
        for name, schema in schemas().items()
    ]


if __name__ == "__main__":
    for path in write_schemas():
        print(path)
