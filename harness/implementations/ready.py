"""The adapters that are ready made: which engines there are, what their methods need, and where their Python is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eagle2_ref.errors import BadInput

HERE = "here"
"""Value of the option `python` for the process of the harness itself."""


@dataclass(frozen=True)
class Ready:
    """An engine with an adapter. environment: it has one of its own, which `make` makes; else it runs in this process."""

    name: str
    about: str
    environment: bool = True

    @property
    def adapter(self) -> str:
        """Name of its file in adapters/."""
        return self.name.replace("-", "_")

    def python(self, chosen: str = "") -> Path | None:
        """The Python that it is to run under: the one chosen, or its environment's; None for this process."""
        if chosen == HERE or not (chosen or self.environment):
            return None
        found = Path(chosen) if chosen else Path(".engines") / self.name / "bin" / "python"
        if not found.exists():
            hint = f"`make .engines/{self.name}` in the project's folder makes it; python=/path/bin/python names another"
            raise BadInput(f"{self.name}: there is no Python at {found}", hint)
        return found.absolute()  # not resolved: an environment's python is a link, and the link is the environment


READY = {
    ready.name: ready
    for ready in (
        Ready("transformers", "assisted generation, prompt lookup, early exit, ensemble", environment=False),
        Ready("vllm", "ngram, draft_model, eagle, eagle3, medusa"),
        Ready("llama-cpp", "prompt_lookup, draft_model"),
        Ready("openvino", "draft_model, eagle3, eagle3_tree, prompt_lookup"),
        Ready("eagle", "eagle1, eagle2, eagle3, as published"),
        Ready("openai", "any server with an OpenAI-compatible API that takes and tells token ids", environment=False),
        Ready("sglang", "a server's native /generate", environment=False),
    )
}
