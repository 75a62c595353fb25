"""Draft vocabularies: the file of a token ranking, and FR-Spec's drafts over the most frequent tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from eagle2_ref.drafters.draft_vocabulary import load_ranking, save_ranking
from eagle2_ref.errors import BadInput


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
