"""Draft vocabularies: the file of a token ranking, and FR-Spec's drafts over the most frequent tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.draft_vocabulary import load_ranking, save_ranking
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.model.llama import Llama
from eagle2_ref.model.target import Target, load_model
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from harness.implementations import connect
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import drafted_blocks
from properties.meta.reference.test_fixed_shape import assert_same


def test_ranking_is_read_as_its_most_frequent_tokens_in_ascending_order(tmp_path: Path) -> None:
    assert save_ranking([7, 2, 5, 0], tmp_path).name == "token_ranking.safetensors"
    assert load_ranking(tmp_path, 8, 3).tolist() == [2, 5, 7]
    assert load_ranking(tmp_path, 8, 4).dtype == torch.int64


@pytest.mark.parametrize(
    ("tensors", "n", "words"),
    [
        (None, 3, "draft_vocab is 3, but .* has no token_ranking.safetensors"),
        ({"token_ranking": torch.arange(4)}, 5, "draft_vocab is 5, but .* has 4 tokens"),
        ({"token_ranking": torch.tensor([1, 8])}, 1, "has token 8\n.*tokens 0 to 7"),
        ({"token_ranking": torch.tensor([1, -1])}, 1, "has token -1\n.*tokens 0 to 7"),
        ({"token_ranking": torch.tensor([1, 4, 1])}, 1, "has token 1 twice"),
        ({"token_ranking": torch.ones(2)}, 1, r"is float32 \[2\]"),
        ({"token_ranking": torch.ones(2, 2).long()}, 1, r"is int64 \[2, 2\]"),
        ({"ranking": torch.arange(4)}, 1, "has tensors ranking"),
    ],
    ids=["absent", "too short", "too high", "negative", "twice", "fractions", "a matrix", "another name"],
)
def test_wrong_rankings_are_refused(tmp_path: Path, tensors: dict[str, Tensor] | None, n: int, words: str) -> None:
    if tensors:
        save_file(tensors, tmp_path / "token_ranking.safetensors")
    with pytest.raises(BadInput, match=words):
        load_ranking(tmp_path, 8, n)


def test_damaged_ranking_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token_ranking.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(BadInput, match="cannot be read"):
        load_ranking(tmp_path, 8, 1)


# --- FR-Spec ---------------------------------------------------------------------------------------------------------

PROMPT = [1, 2]


def decoder(pair: str, lean: bool = True, **options: int) -> Decoder:
    """EAGLE-2 with these options, in our own forward pass or in transformers."""
    found = shipped(pair)
    model = load_model(found.target, "float64")
    target = Target(Llama(model) if lean else model)
    return Decoder(target, Budget(**options).drafter(target, found.draft), walk)


def trees_of(one: Decoder, seed: int) -> list[tuple[list[int], list[int]]]:
    """Tokens and parents of the draft trees of a text."""
    params = SamplingParams(1.0, max_new_tokens=20)
    blocks = [block for _, block, _ in drafted_blocks(one, PROMPT, params, SeededCoins(seed))]
    return [(block.tree.tokens.tolist(), block.tree.parents.tolist()) for block in blocks]


@pytest.mark.parametrize("lean", [True, False], ids=["llama", "transformers"])
def test_drafts_are_those_of_the_head_among_the_most_frequent_tokens(lean: bool) -> None:
    """As if all other logits of the head were -inf. With all tokens in the ranking, drafts are those without it."""
    whole, some, all_of_them = (decoder("dice8", lean, k=3, depth=4, m=10, draft_vocab=n) for n in (0, 5, 8))
    allowed = load_ranking(shipped("dice8").draft, 8, 5)
    assert isinstance(some.drafter, Eagle2) and some.drafter.vocabulary is not None
    assert some.drafter.vocabulary.tolist() == allowed.tolist() != list(range(5))
    masked = decoder("dice8", lean, k=3, depth=4, m=10)
    assert isinstance(masked.drafter, Eagle2)
    outside, lm_head = torch.ones(8, dtype=torch.bool).index_fill(0, allowed, False), masked.drafter.lm_head
    masked.drafter.lm_head = lambda features: lm_head(features).masked_fill(outside, float("-inf"))
    for seed in range(4):
        drafted = trees_of(some, seed)
        assert drafted == trees_of(masked, seed) != trees_of(whole, seed) == trees_of(all_of_them, seed)
        assert {token for tokens, _ in drafted for token in tokens[1:]} <= set(allowed.tolist())


def test_head_reads_a_copy_of_the_rows_of_its_vocabulary() -> None:
    """It is made once, at loading, and lies in one piece."""
    one = decoder("dice8", k=3, depth=4, m=10, draft_vocab=5)
    assert isinstance(one.drafter, Eagle2) and isinstance(one.target.network, Llama)
    before = one.drafter.lm_head(torch.ones(1, 64, dtype=torch.float64))
    one.target.network.unembedding.zero_()
    assert torch.equal(one.drafter.lm_head(torch.ones(1, 64, dtype=torch.float64)), before) and before.shape == (1, 5)


def test_fixed_shapes_draft_from_the_vocabulary_too() -> None:
    plain = decoder("dice8", k=3, depth=4, m=10, draft_vocab=5)
    fixed = FixedShapeDecoder(plain.target, plain.drafter)
    for n in (1, 5, 40):
        params = SamplingParams(1.0, max_new_tokens=25)
        prompt = [token % 8 for token in range(n)]
        assert_same(*(one.generate(prompt, params, SeededCoins(n)) for one in (plain, fixed)), depth=4)


def test_budget_is_cut_to_the_draft_vocabulary() -> None:
    """A node has no more children than there are draft tokens, and m no more candidates than are left."""
    drafter = decoder("coin4", k=4, depth=2, m=20, draft_vocab=2).drafter
    assert isinstance(drafter, Eagle2) and drafter.budget == Budget(2, 2, 6, draft_vocab=2)
    with pytest.raises(BadInput, match="k is 5, but the vocabulary has 4 tokens"):
        decoder("coin4", k=5, depth=1, m=1, draft_vocab=3)


@pytest.mark.parametrize(
    ("n", "words"), [(-1, "0 or more, not -1"), (1.5, "0 or more, not 1.5"), (5, "has 4 tokens"), (True, "not True")]
)
def test_size_out_of_range_is_refused(n: Any, words: str) -> None:
    with pytest.raises(BadInput, match=f"draft_vocab .*{words}"):
        decoder("coin4", k=2, depth=1, m=1, draft_vocab=n)


def test_head_without_a_ranking_is_refused(tmp_path: Path) -> None:
    pair = tiny.pair(tmp_path)
    with pytest.raises(BadInput, match=r"draft_vocab is 9, but .* has no token_ranking.safetensors\n.*save_ranking"):
        Budget(draft_vocab=9).drafter(Target.load(pair.target), pair.draft)


def test_checks_on_small_pairs_leave_one_token_out() -> None:
    """`ref:draft_vocab=96` is meant for a pair of many tokens; checks open the coins too."""
    engine = connect("ref:draft_vocab=96").open(shipped("coin4"), k=2, depth=1, m=2)
    drafter = engine.raw.decoder.drafter
    assert isinstance(drafter, Eagle2) and drafter.vocabulary is not None and drafter.vocabulary.tolist() == [0, 1, 3]


def test_acceptance_length_of_fewer_tokens_is_compared_with_no_committed_one() -> None:
    """COUNT-2 and COUNT-3 know that of the whole vocabulary."""
    assert "tau" in connect("ref").capabilities and "tau" not in connect("ref:draft_vocab=3").capabilities
