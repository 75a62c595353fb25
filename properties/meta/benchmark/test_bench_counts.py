"""Counts of drafting that are committed: they repeat exactly on one machine, and to within 2 %, either way, on all.

Three faults that leave every text as it is, and cost passes, must be seen by the same check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.model.checkpoint import load_head, save_head
from eagle2_ref.rules import walk
from eagle2_ref.sequence import Sequence as Text
from harness import mutants
from harness.bench.counts import COUNTS, Committed, chosen, committed, count, moved, named
from harness.pairs import shipped

FILE = Path(__file__).parents[3] / "reports" / "bench" / COUNTS
DUE = committed(FILE)
PAIR = shipped(DUE.pair)


def loaded(draft: Path = PAIR.draft) -> Decoder:
    return Decoder.load(PAIR.target, draft, DUE.budget, walk)


def off(decoder: Decoder, temperature: str) -> list[str]:
    """The counts that moved, in words."""
    now = count(decoder, named(DUE.prompts, PAIR), float(temperature), DUE.tokens)
    return moved(now.model_dump(), DUE.counts[temperature].model_dump())


def features_one_step_off(_folder: Path) -> Decoder:
    """The head is given each feature one position late."""
    decoder, before = loaded(), list[Tensor]()
    assert isinstance(decoder.drafter, Eagle2)
    observe = decoder.drafter.observe

    def late(sequence: Text, tokens: Sequence[int], features: Tensor) -> None:
        first = before.pop() if before else features[:1]
        before.append(features[-1:])
        observe(sequence, tokens, torch.cat([first, features[:-1]]))

    decoder.drafter.observe = late  # type: ignore[method-assign]
    return decoder


def bonus_lost(_folder: Path) -> Decoder:
    """M62: after a whole path was accepted, its bonus token is not emitted."""
    budget = DUE.budget
    made = mutants.find("M62").make(str(PAIR.target), str(PAIR.draft), rule="walk", k=budget.k, depth=budget.depth, m=budget.m)
    decoder: Decoder = made.decoder
    return decoder


def norm_of_ones(folder: Path) -> Decoder:
    """The head is loaded without the weights of its norm."""
    head = load_head(PAIR.draft, loaded().target.network.embedding, str(PAIR.target))
    torch.nn.init.ones_(head.layers[0].post_attention_layernorm.weight)
    save_head(head, folder / "draft")
    return loaded(folder / "draft")


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_counts_are_those_committed(temperature: str) -> None:
    assert off(loaded(), temperature) == [], "if that was meant: `eagle2 bench --counts`"


@pytest.mark.parametrize("fault", [features_one_step_off, bonus_lost, norm_of_ones])
def test_a_fault_that_costs_passes_is_seen(fault: Callable[[Path], Decoder], tmp_path: Path) -> None:
    """Each costs passes, and tokens per pass."""
    seen = " · ".join(off(fault(tmp_path), "0"))
    assert "tau" in seen and "target_passes" in seen


def test_what_is_counted() -> None:
    """Every kind of prompt, at both temperatures, at a commit that is named; and two sides are looked at."""
    assert list(DUE.prompts) == [prompt.id for prompt in chosen(PAIR)]
    assert len({prompt.kind for prompt in named(DUE.prompts, PAIR)}) == 6
    assert set(DUE.counts) == {"0", "1"} and DUE.commit and not DUE.commit.endswith("+")
    assert Committed.model_validate_json(FILE.read_text()) == DUE


@pytest.mark.parametrize(("now", "red"), [(97, True), (98, False), (100, False), (102, False), (103, True), (None, True)])
def test_two_sided(now: int | None, red: bool) -> None:
    assert bool(moved({"rows": now}, {"rows": 100})) is red
