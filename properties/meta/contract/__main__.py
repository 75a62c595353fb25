"""Regenerate golden files: `python -m properties.meta.contract [commands|ids|schemas|texts ...]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from properties.meta.contract import test_commands, test_ids, test_schemas, test_texts_per_seed
from properties.meta.contract.golden import write_golden

CURRENT: dict[str, Callable[[], dict[str, Any]]] = {
    "commands": test_commands.describe_commands,
    "ids": test_ids.describe_ids,
    "schemas": test_schemas.describe_schemas,
    "texts": test_texts_per_seed.generate_texts,
}


def main() -> None:
    """Write the golden files that the arguments name; all of them by default."""
    for name in sys.argv[1:] or CURRENT:
        if name not in CURRENT:
            sys.exit(f"there is no golden file {name!r}; the names are {', '.join(CURRENT)}")
        print(write_golden(name, CURRENT[name]()))


if __name__ == "__main__":
    main()
