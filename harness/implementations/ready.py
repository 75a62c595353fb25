"""The ready-made adapters, and the Python environment that each runs in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eagle2_ref.errors import BadInput

HERE = "here"
"""Value of the option `python` that runs an adapter in the harness's own process."""

SERVERS = ("openai", "sglang")
"""The adapters of engines that are servers."""


@dataclass(frozen=True)
class ReadyAdapter:
    """An engine with an adapter; `environment`: whether it has a Python environment of its own, created by `make`."""

    name: str
    environment: bool

    @property
    def module(self) -> str:
        """Name of the adapter's file in adapters/."""
        return self.name.replace("-", "_")

    def python(self, chosen: str = "") -> Path | None:
        """The Python interpreter to run under: `chosen`, or that of the engine's environment; None for this process."""
        if chosen == HERE or not (chosen or self.environment):
            return None
        found = Path(chosen) if chosen else Path(".engines") / self.name / "bin" / "python"
        if not found.exists():
            hint = f"run `make .engines/{self.name}` in the project's folder, or name another with python=/path/bin/python"
            raise BadInput(f"{self.name}: there is no Python at {found}", hint)
        return found.absolute()  # not resolved: an environment is recognised by the link to its python

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise BadInput for addresses of servers, and for bounds of requests, that cannot be used."""
        if self.name not in SERVERS:
            return
        example = f"write {self.name}:url=http://127.0.0.1:8000, with the address of the server"
        if not options.get("url"):
            raise BadInput(f"{self.name}: there is no url", example)
        for name in {"url", "control_url"} & options.keys():
            if not _is_address(str(options[name])):
                raise BadInput(f"{self.name}: {name} is {options[name]!r}, not an http address", example)
        for name, kinds, least in (("timeout", (int, float), 0.001), ("retries", int, 0), ("concurrency", int, 1)):
            value = options.get(name, least)
            if not isinstance(value, kinds) or not least <= value < math.inf:
                raise BadInput(f"{self.name}: {name} is {value}", f"give a number of {least} or more")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


READY = {
    name: ReadyAdapter(name, environment)
    for name, environment in {
        "transformers": False,
        "vllm": True,
        "llama-cpp": True,
        "openvino": True,
        "eagle": True,
        "openai": False,
        "sglang": False,
    }.items()
}
