"""What a newcomer meets first: the smallest pairs, smoke, and messages about an engine of one's own."""

from __future__ import annotations

from typing import Any

import pytest

from eagle2_ref.errors import BadInput
from harness.context import Context, run_check
from harness.implementations import connect
from harness.implementations.engine import AdapterError
from harness.pairs import shipped
from harness.settings import Settings
from properties.meta.hardening import promise
from properties.meta.helpers.checks import context
from properties.meta.helpers.fake_engines import Outsider, implementation
from properties.test_smoke import answers, repeats_itself

LONG = list(range(4)) * 3
"""A prompt that fills half of coin4's context, as those of a run do."""


@pytest.mark.parametrize("pair", ["coin4", "coin6"])
@promise(
    "smoke on a pair whose context is shorter than the text that SMOKE-2 needs",
    "a shorter text is requested; a right engine passes",
)
def test_smoke_fits_small_contexts(pair: str) -> None:
    on = context(implementation(Outsider), pair=shipped(pair))
    for check in (answers, repeats_itself):
        assert run_check(check, "", on).verdict == "pass", run_check(check, "", on).summary


class Overlong(Outsider):
    """Ignores the length of the model's context."""

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        return [[0] * row["max_new_tokens"] for _, row, _ in zip(prompts, params, seeds, strict=True)]


@promise("an answer that is longer than the model's context", "exit code 4; the message gives the number of tokens that fit")
def test_answer_beyond_the_context_names_the_room() -> None:
    engine = implementation(Overlong).open(shipped("coin4"))
    with pytest.raises(AdapterError, match="has 24 tokens; the context leaves room for 12; at most 24 were requested"):
        engine.generate([LONG], [{"temperature": 1.0, "max_new_tokens": 24}], [0])


@pytest.mark.parametrize("drafter", ["eagle2", "eagle2-confidence"])
@promise("the reference with its default budget on a vocabulary of 4 tokens", "the budget is cut to the vocabulary; it decodes")
def test_default_budget_fits_the_vocabulary(drafter: str) -> None:
    reference, pair = connect(f"ref:drafter={drafter}"), shipped("coin4")
    reference.check(pair, "float32", "cpu")
    for check in (answers, repeats_itself):
        assert run_check(check, "", Context.of(Settings(), reference, pair)).verdict == "pass"


@promise("a requested budget that the vocabulary is too small for", "exit code 2; the message gives the largest k")
def test_requested_budget_is_never_cut() -> None:
    with pytest.raises(BadInput, match="at most 4"):
        connect("ref:k=8").check(shipped("coin4"), "float32", "cpu")
