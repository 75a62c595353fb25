"""Draft vocabularies: the target tokens that a head with fewer logits can propose.

A draft vocabulary is a tensor [D]: element i is the target token of the head's logit i. There are two kinds. FR-Spec (arXiv
2502.14856) takes the most frequent tokens of a ranking, which is a file next to the head. EAGLE-3 (arXiv 2503.01840) trains an LM
head of its own for them, and stores offsets `d2t`. The target decides over all tokens, so neither changes the law of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import lexists
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from eagle2_ref.errors import BadInput
from eagle2_ref.model.weights import dtype_name, read_file

RANKING = "token_ranking"
"""Name of the tensor, and of the file `token_ranking.safetensors`."""


def save_ranking(tokens: Tensor | Sequence[int], directory: Path | str) -> Path:
    """Write a token ranking next to a head.

    Args:
        tokens: token ids, the most frequent first, each at most once. Tokens that are left out cannot be proposed.
        directory: folder of the head's checkpoint.

    Returns:
        The file. It has one tensor, `token_ranking`, int32 [n].
    """
    path = _file(directory)
    save_file({RANKING: torch.as_tensor(tokens).to("cpu", torch.int32).contiguous()}, path, metadata={"format": "pt"})
    return path


def load_ranking(directory: Path | str, vocab_size: int, n: int) -> Tensor:
    """The n most frequent tokens [n] of the ranking next to a head, in ascending order of ids.

    Args:
        directory: folder of the head's checkpoint.
        vocab_size: number of tokens of the target.
        n: size of the draft vocabulary.

    Raises:
        BadInput: there is no ranking, or it is damaged, too short, or not one of this vocabulary.
    """
    path = _file(directory)
    if not lexists(path):
        raise BadInput(
            f"draft_vocab is {n}, but {Path(directory)} has no {path.name}",
            "write the tokens by frequency with eagle2_ref.drafters.draft_vocabulary.save_ranking, or leave draft_vocab out",
        )
    tensors = read_file(path)
    if set(tensors) != {RANKING}:
        raise BadInput(f"{path} has tensors {', '.join(sorted(tensors))}", f"expected one tensor, {RANKING}")
    ranking = tensors[RANKING]
    where = f"{RANKING} in {path}"
    if ranking.ndim != 1 or ranking.dtype not in (torch.int32, torch.int64):
        raise BadInput(f"{where} is {dtype_name(ranking)} {list(ranking.shape)}", "expected token ids, int32 [n]")
    check_tokens(ranking, vocab_size, where)
    if n > len(ranking):
        raise BadInput(f"draft_vocab is {n}, but {where} has {len(ranking)} tokens", f"give at most {len(ranking)}, or 0 for all")
    return ranking[:n].long().sort().values


def offsets(vocabulary: Tensor) -> Tensor:
    """EAGLE-3's d2t [D] of a draft vocabulary: what must be added to a draft token."""
    return vocabulary - torch.arange(len(vocabulary), device=vocabulary.device)


def from_offsets(d2t: Tensor) -> Tensor:
    """The draft vocabulary [D] of d2t."""
    return d2t + torch.arange(len(d2t), device=d2t.device)


def marks(vocabulary: Tensor, vocab_size: int) -> Tensor:
    """EAGLE-3's t2d, boolean [V]: true for the tokens of a draft vocabulary."""
    return torch.zeros(vocab_size, dtype=torch.bool, device=vocabulary.device).index_fill(0, vocabulary, True)


def check_tokens(tokens: Tensor, vocab_size: int, what: str) -> None:
    """Raise BadInput unless tokens [n] are different tokens of a vocabulary."""
    outside = (tokens < 0) | (tokens >= vocab_size)
    if outside.any():
        raise BadInput(
            f"{what} has token {int(tokens[outside][0])}", f"the target has tokens 0 to {vocab_size - 1}: is it of another one?"
        )
    distinct, counts = tokens.unique(return_counts=True)
    if len(distinct) < len(tokens):
        raise BadInput(f"{what} has token {int(distinct[counts > 1][0])} twice", "each token can be there once")


def _file(directory: Path | str) -> Path:
    return Path(directory) / f"{RANKING}.safetensors"
