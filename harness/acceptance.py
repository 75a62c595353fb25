"""Acceptance length of texts whose blocks are reported."""

from __future__ import annotations

from collections.abc import Sequence

from harness.implementations.engine import Output


def tokens_per_pass(outputs: Sequence[Output]) -> float:
    """Tokens per target pass over several texts, without the passes of the prompts and their tokens; nan without a pass."""
    passes = sum(bool(block.parents) for output in outputs for block in output.blocks or ())
    tokens = sum(len(output.tokens) - 1 for output in outputs)
    return tokens / passes if passes else float("nan")
