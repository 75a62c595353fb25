"""Counts in reports/bench/counts.json: they repeat exactly on one machine, and to within 2 % on all.

Three faults that change no text but cost passes must be found by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.checkpoint import load_head, save_head
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.rules import walk
from eagle2_ref.sequence import Sequence as TextSequence
from harness import mutants
from harness.benchmark.counts import COUNTS, CountsFile, count, describe_changes, first_of_each_kind, prompts_by_id, read_counts
from harness.pairs import shipped

FILE = Path(__file__).parents[3] / "reports" / "bench" / COUNTS
COMMITTED = read_counts(FILE)
PAIR = shipped(COMMITTED.pair)


def load(draft: Path = PAIR.draft) -> Decoder:
    return Decoder.load(PAIR.target, draft, COMMITTED.budget, walk)


def changes(decoder: Decoder, temperature: str) -> list[str]:
    """The counts that differ from the committed ones."""
    now = count(decoder, prompts_by_id(COMMITTED.prompts, PAIR), float(temperature), COMMITTED.tokens)
    return describe_changes(now.model_dump(), COMMITTED.counts[temperature].model_dump())


def features_one_step_late(_folder: Path) -> Decoder:
    """The head gets each feature one position late."""
    decoder, before = load(), list[Tensor]()
    assert isinstance(decoder.drafter, Eagle2)
    observe = decoder.drafter.observe

    def late(sequence: TextSequence, tokens: Sequence[int], features: Tensor) -> None:
        first = before.pop() if before else features[:1]
        before.append(features[-1:])
        observe(sequence, tokens, torch.cat([first, features[:-1]]))

    decoder.drafter.observe = late  # type: ignore[method-assign]
    return decoder


def bonus_lost(_folder: Path) -> Decoder:
    """M62: the bonus token is not emitted after a whole path was accepted."""
    budget = COMMITTED.budget
    mutant = mutants.find("M62").make(str(PAIR.target), str(PAIR.draft), rule="walk", k=budget.k, depth=budget.depth, m=budget.m)
    decoder: Decoder = mutant.decoder
    return decoder


def norm_of_ones(folder: Path) -> Decoder:
    """The head is loaded without the weights of its norm."""
    head = load_head(PAIR.draft, load().target.network.embedding, str(PAIR.target))
    torch.nn.init.ones_(head.layers[0].post_attention_layernorm.weight)
    save_head(head, folder / "draft")
    return load(folder / "draft")


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_counts_are_those_committed(temperature: str) -> None:
    assert changes(load(), temperature) == [], "after an intended change: `eagle2 bench --counts`"


@pytest.mark.parametrize("fault", [features_one_step_late, bonus_lost, norm_of_ones])
def test_fault_that_costs_passes_changes_the_counts(fault: Callable[[Path], Decoder], tmp_path: Path) -> None:
    found = " · ".join(changes(fault(tmp_path), "0"))
    assert "tau" in found and "target_passes" in found


def test_committed_counts_cover_every_kind_of_prompt_and_both_temperatures() -> None:
    assert list(COMMITTED.prompts) == [prompt.id for prompt in first_of_each_kind(PAIR)]
    assert len({prompt.kind for prompt in prompts_by_id(COMMITTED.prompts, PAIR)}) == 6
    assert set(COMMITTED.counts) == {"0", "1"} and COMMITTED.commit and not COMMITTED.commit.endswith("+")
    assert CountsFile.model_validate_json(FILE.read_text()) == COMMITTED


@pytest.mark.parametrize(("now", "fails"), [(97, True), (98, False), (100, False), (102, False), (103, True), (None, True)])
def test_change_in_either_direction_fails(now: int | None, fails: bool) -> None:
    assert bool(describe_changes({"rows": now}, {"rows": 100})) is fails
