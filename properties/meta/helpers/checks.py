"""Call one check on one implementation, which may be a class in a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.catalogue import Check
from harness.context import Context, Reduction
from harness.implementations import Implementation
from harness.pairs import Pair, Prompt, shipped
from harness.record.model import Result
from harness.settings import Settings


def context(
    implementation: Implementation,
    *,
    pair: Pair | None = None,
    prompts: list[Prompt] | None = None,
    settings: Settings | None = None,
    reduction: Reduction | None = None,
) -> Context:
    """A context for an implementation, on the pair coin4 by default."""
    whole = Context.of(settings or Settings(), implementation, pair or shipped("coin4"))
    return replace(whole, prompts=prompts or whole.prompts, reduction=reduction or whole.reduction)


def result_of(check: Check, implementation: Implementation, *case: Any, **options: Any) -> Result:
    """The result of a check; `options` are those of `context`. Exceptions are not caught, unlike in `run_check`."""
    return check(context(implementation, **options), *case)
