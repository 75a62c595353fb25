"""The ready-made adapters, and the Python environment that each runs in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eagle2_ref.errors import BadInput

HERE = "here"
"""Value of the option `python` that runs an adapter in the harness's own process."""


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
