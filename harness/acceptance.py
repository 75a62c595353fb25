"""Acceptance length of texts whose blocks are reported."""

from __future__ import annotations

from collections.abc import Sequence

from harness.implementations import Implementation
from harness.implementations.engine import Output

HARDLY_EVER = 0.1
"""Accepted tokens per pass below which a drafter's checkpoint is doubted. Untrained models accept 0.04 on the pair stdlib."""

ENOUGH_PASSES = 100
"""Passes that a doubt needs. A drafter whose first draft is accepted in 4 of 10 passes stays below with probability 1e-11."""


def tokens_per_pass(outputs: Sequence[Output]) -> float:
    """Tokens per target pass over several texts, without the passes of the prompts and their tokens; nan without a pass."""
    passes = sum(bool(block.parents) for output in outputs for block in output.blocks or ())
    tokens = sum(len(output.tokens) - 1 for output in outputs)
    return tokens / passes if passes else float("nan")


def doubt_of_checkpoint(implementation: Implementation, passes: int, accepted: int) -> str:
    """A note on a drafter with a model whose drafts are hardly ever accepted, such as one that was loaded untrained; or ""."""
    if implementation.checkpoint == "none" or passes < ENOUGH_PASSES or accepted >= HARDLY_EVER * passes:
        return ""
    return (
        f"drafts are hardly ever accepted ({accepted} tokens in {passes} passes): is {implementation.checkpoint!r} the checkpoint"
        " for this engine? `describe()` may name another one as `checkpoint`."
    )
