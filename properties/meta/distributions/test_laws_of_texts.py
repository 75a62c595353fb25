"""From texts to counts: distributions along texts, the place of each token in its block, and shards that add."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.coins import SeededCoins
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT
from harness.distributions import scoring
from harness.distributions.campaign import Plan, sample_shard, token_places
from harness.distributions.exact import next_token_law
from harness.distributions.scoring import Laws, TargetScorer, load_target
from harness.implementations import connect
from harness.implementations.engine import BlockTrace, Engine, Output
from harness.pairs import shipped
from harness.statistics.eprocess import Counts, Evidence
from harness.statistics.pit import pit_sequence
from properties.meta.helpers import tiny

# --- TargetScorer ----------------------------------------------------------------------------------------------------

MIXED = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 9},
    {"temperature": 1.2, "top_p": 0.8},
    {"temperature": 0.6, "min_p": 0.05, "top_k": 20},
    {"temperature": 0.9, "repetition_penalty": 1.4, "top_p": 0.9},
    {"temperature": 1.0, "repetition_penalty": 0.7},
    {"temperature": 0.0, "repetition_penalty": 1.2},
)
PARAMS = [SamplingParams.of(params) for params in MIXED]
LENGTHS = ((1, 7), (5, 1), (12, 20), (3, 0), (2, 13), (30, 4), (4, 9))
PROMPTS = [tiny.tokens(n, seed=i) for i, (n, _) in enumerate(LENGTHS)]
TEXTS = [tiny.tokens(n, seed=10 + i) for i, (_, n) in enumerate(LENGTHS)]


@cache
def model() -> PreTrainedModel:
    return tiny.target()


def expected_laws(prompt: Sequence[int], text: Sequence[int], params: SamplingParams) -> Laws:
    """The expected distributions, by one pass per prefix."""
    rows = [next_token_law(model(), torch.tensor([[*prompt, *text[:i]]]), params) for i in range(len(text))]
    laws: Laws = (torch.cat(rows) if rows else torch.zeros(0, 64)).double().numpy()
    return laws


def largest_error(found: Sequence[Laws]) -> float:
    truth = [expected_laws(*row) for row in zip(PROMPTS, TEXTS, PARAMS, strict=True)]
    assert [law.shape for law in found] == [law.shape for law in truth]
    return max(float(abs(a - b).max(initial=0)) for a, b in zip(found, truth, strict=True))


def batched_laws() -> list[Laws]:
    return TargetScorer(model()).laws(PROMPTS, TEXTS, PARAMS)


@torch.no_grad()
def test_scorer_laws_equal_ordinary_sampling() -> None:
    """For texts of several lengths and parameters, in one call or text by text."""
    assert largest_error(batched_laws()) <= 1e-12
    alone = [TargetScorer(model()).laws([a], [b], [c])[0] for a, b, c in zip(PROMPTS, TEXTS, PARAMS, strict=True)]
    assert largest_error(alone) <= 1e-12


@torch.no_grad()
@pytest.mark.parametrize(("limit", "most"), [("MAX_TOKENS", 68), ("MAX_LOGITS", 68 * 64)])
def test_long_batches_are_split_into_passes(limit: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of similar length share a pass, and padding counts."""
    lengths: list[list[int]] = []
    batches = scoring.batches

    def recorded(whole: Sequence[int], most: int) -> list[list[int]]:
        passes = list(batches(whole, most))
        lengths.extend([whole[row] for row in rows] for rows in passes)
        return passes

    monkeypatch.setattr(scoring, "batches", recorded)
    monkeypatch.setattr(scoring, limit, most)
    assert largest_error(batched_laws()) <= 1e-12
    assert lengths == [[3, 6, 8, 13], [15, 32], [34]]


def test_text_longer_than_a_pass_has_its_own() -> None:
    assert list(scoring.batches([9, 1, 9, 2], 4)) == [[1, 3], [0], [2]]
    assert list(scoring.batches([], 4)) == []


@torch.no_grad()
def test_shifted_logits_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = TargetScorer.logits
    for shift in (1, -1):
        monkeypatch.setattr(TargetScorer, "logits", lambda *args, by=shift: [rows.roll(by, 0) for rows in logits(*args)])
        assert largest_error(batched_laws()) > 0.1


def constant(p: Sequence[float]) -> PreTrainedModel:
    """A model with the same distribution at every position."""

    def forward(tokens: Tensor) -> Any:
        return SimpleNamespace(logits=torch.tensor(p, dtype=torch.float64).log().expand(*tokens.shape, -1))

    forward.device, forward.config = torch.device("cpu"), SimpleNamespace(vocab_size=len(p))  # type: ignore[attr-defined]
    return cast(PreTrainedModel, forward)


MARGIN = 1e-6
FILTERS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "top_k": ({"top_k": 2}, [0.5, 0.3, 0.3 - MARGIN / 10, 0.05]),
    "top_p": ({"top_p": 0.8}, [0.5, 0.3 + MARGIN / 10, 0.15, 0.05 - MARGIN / 10]),
    "top_p, a rare token": (
        {"top_p": 0.8},
        [0.5, 0.3 + MARGIN / 10, 2e-3, 1e-3, *[0.197 / 200] * 200],
    ),
    "min_p": ({"min_p": 0.3}, [0.5, 0.3, 0.15 - MARGIN / 10, 0.05]),
    "temperature 0": ({"temperature": 0.0}, [0.45, 0.05, 0.45 - MARGIN / 10, 0.05]),
    "top_p after a penalty": ({"top_p": 0.8, "repetition_penalty": 1.0 + 1e-12}, [0.5, 0.3 + MARGIN / 10, 0.15, 0.05]),
}
"""Parameters that exclude token 2 by less than MARGIN, and token 3 by far."""


@pytest.mark.parametrize(("params", "p"), FILTERS.values(), ids=FILTERS)
def test_token_excluded_by_less_than_the_noise_is_possible(params: dict[str, Any], p: list[float]) -> None:
    """With noise it is included, by a distribution that sums to 1; without noise it is excluded."""

    def law(noise: float, token: int) -> Laws:
        (found,) = TargetScorer(constant(p), noise).laws([[0]], [[0, token, 1]], [SamplingParams.of(params)])
        return found

    assert law(MARGIN, 2)[1, 2] > 1e-4
    assert law(MARGIN / 100, 2)[1, 2] == law(0.0, 2)[1, 2] == 0
    assert law(MARGIN, 3)[1, 3] == 0
    assert abs(law(MARGIN, 2).sum(axis=1) - 1).max() < 1e-12
    assert (law(MARGIN, 2)[[0, 2]] == law(0.0, 2)[[0, 2]]).all(), "neighbouring positions are unchanged"


def test_token_excluded_by_less_than_the_noise_is_no_fault() -> None:
    """Among correct samples it is one more token: the bets on rare tokens must not gain by it."""
    params, p = FILTERS["top_k"]
    rng = np.random.default_rng(0)
    text = [*rng.choice(2, size=300, p=[0.625, 0.375]).tolist(), 2]

    def found(noise: float) -> Any:
        (laws,) = TargetScorer(constant(p), noise).laws([[0]], [text], [SamplingParams.of(params)])
        return Evidence.of(Counts.of([pit_sequence(laws, np.array(text), rng.random(len(text)))]))

    assert not found(MARGIN).fault and found(MARGIN).log10 < 1
    assert found(0.0).impossible == 1 and found(0.0).fault


# --- campaigns --------------------------------------------------------------------------------------------------

BUDGET = "k=2,depth=3,m=5"
PLAN = Plan(
    [[2, 3, 2], [1], [0, 2, 3, 1]], [{"temperature": 1.0, "max_new_tokens": 14}, {"temperature": 0.6, "max_new_tokens": 9}]
)


@cache
def engine(options: str = BUDGET) -> Engine:
    return connect(f"ref:{options},dtype=float64").open(shipped("coin4"))


@cache
def scorer() -> TargetScorer:
    return TargetScorer(load_target(shipped("coin4"), "float64"))


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"eos_token_id": 0}, {"top_k": 2}], ids=str)
def test_token_places_match_the_blocks_of_the_decoder(params: dict[str, Any]) -> None:
    """Offsets, leaves and children equal those of the decoder's own blocks and paths, also at an early end of text."""
    request = {"temperature": 1.0, "max_new_tokens": 15, **params}
    leaves, ends = set[int](), 0
    for seed in range(12):
        output = engine().decode([2, 3, seed % 2], request, SeededCoins(seed))
        generation = engine().raw.decoder.generate([2, 3, seed % 2], SamplingParams.of(request), SeededCoins(seed))
        expected: list[tuple[int, int, list[int] | None]] = []
        for block in generation.blocks:
            for offset, node in enumerate([ROOT, *block.path][: len(block.tokens)]):
                children = [block.tree.token(child) for child in block.tree.children(node)]
                expected.append((offset, int(not children), children))
            ends += len(block.path) == len(block.tokens)
        assert generation.tokens == list(output.tokens)
        assert list(zip(*cast(Any, token_places(output)), strict=True)) == expected
        leaves |= {leaf for _, leaf, _ in expected}
    assert leaves == {0, 1} and (ends > 0) == ("eos_token_id" in params)


UNKNOWN = (-1, -1, None)
FORK = ((9, 1, 2, 3), (-1, 0, 0, 1))
"""Tokens and parents of a tree: the root 9 has children 1 and 2, and 1 has a child 3."""


@pytest.mark.parametrize(
    ("tokens", "blocks", "expected"),
    [
        ((9, 1, 3, 7), [BlockTrace(0, (), ()), BlockTrace(2, *FORK)], [(0, 1, []), (0, 0, [1, 2]), (1, 0, [3]), (2, 1, [])]),
        ((9, 1, 3), [BlockTrace(0, (), ()), BlockTrace(0, *FORK)], [(0, 1, []), (0, 0, [1, 2]), UNKNOWN]),
        ((9, 2, 3, 7), [BlockTrace(0, (), ()), BlockTrace(2, *FORK)], [(0, 1, []), (0, 0, [1, 2]), (1, 1, []), UNKNOWN]),
        ((9, 5), [BlockTrace(1, (), ())], [(0, 1, []), UNKNOWN]),
        ((9, 1), [], [UNKNOWN, UNKNOWN]),
        ((9,), [BlockTrace(0, (), ()), BlockTrace(2, *FORK)], [(0, 1, [])]),
        ((8, 1, 3), [BlockTrace(0, (), ()), BlockTrace(1, *FORK)], [(0, 1, []), UNKNOWN, UNKNOWN]),
        ((9, 1), [BlockTrace(0, (), ()), BlockTrace(0, (9, 1), (-1, 7))], [(0, 1, []), UNKNOWN]),
        ((9, 1), [BlockTrace(0, (), ()), BlockTrace(0, (9, 1), (-1,))], [(0, 1, []), UNKNOWN]),
        ((9, 1), [BlockTrace(0, (), ()), BlockTrace(-4, *FORK), BlockTrace(0, *FORK)], [(0, 1, []), UNKNOWN]),
    ],
    ids=[
        "fits",
        "block too short",
        "no path",
        "no tree",
        "no blocks",
        "too many",
        "another root",
        "no such parent",
        "lacks a parent",
        "negative",
    ],
)
def test_blocks_that_do_not_match_the_text_are_unknown(
    tokens: tuple[int, ...], blocks: list[BlockTrace], expected: list[Any]
) -> None:
    assert list(zip(*cast(Any, token_places(Output(tokens, tuple(blocks)))), strict=True)) == expected


def test_output_without_blocks_has_no_places() -> None:
    assert token_places(Output((1, 2, 3))) == (None, None, None)


def equal(a: Counts, b: Counts, but: str = "") -> bool:
    return all(np.allclose(x, getattr(b, name), atol=1e-9) for name, x in a.arrays().items() if name != but)


def test_shards_add_up_to_the_whole() -> None:
    """Except for pairs of neighbouring texts: those across the cut are in no shard."""
    count = partial(sample_shard, engine(), scorer(), PLAN, 5)
    whole, parts = Counts.of(count(range(40))), [Counts.of(count(texts)) for texts in (range(25), range(25, 40))]
    assert equal(whole, parts[0] + parts[1], but="cross")
    assert int(whole.cross.sum()) > int((parts[0] + parts[1]).cross.sum())
    assert int(whole.sequences) == 40 and int(whole.tokens) == sum(PLAN.request(i)[1]["max_new_tokens"] for i in range(40))


def test_same_seed_gives_the_same_counts() -> None:
    first, again = (Counts.of(sample_shard(engine(), scorer(), PLAN, 5, range(8))) for _ in range(2))
    assert equal(first, again)
    assert not equal(first, Counts.of(sample_shard(engine(), scorer(), PLAN, 6, range(8))))


def test_plan_combines_every_prompt_with_every_parameter() -> None:
    requests = {(tuple(prompt), params["max_new_tokens"]) for prompt, params in map(PLAN.request, range(6))}
    assert len(requests) == 6


def test_campaign_passes_the_reference_and_detects_shifted_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are not distributed as the law of the previous position."""
    right = Evidence.of(Counts.of(sample_shard(engine(), scorer(), PLAN, 1, range(96))))
    assert right.log10 < 3 and not right.impossible
    logits = TargetScorer.logits
    monkeypatch.setattr(TargetScorer, "logits", lambda *args: [rows.roll(1, 0) for rows in logits(*args)])
    assert Evidence.of(Counts.of(sample_shard(engine(), scorer(), PLAN, 1, range(96)))).fault
