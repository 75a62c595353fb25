"""What the chapters TREE and CACHE hold a decoder against: logits by plain passes, along every path of a tree."""

from __future__ import annotations

import pytest
import torch

from properties.meta.helpers import tiny
from properties.watch import logits_after

TEXT = tiny.tokens(11)
PATHS = [[3, 1, 4, 1], [3], [], [5, 9]]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "mistral, sliding window"])
@pytest.mark.parametrize("paths", [PATHS, [[7, 2]], [[]], [[], []]], ids=str)
def test_every_path_is_as_if_it_stood_alone(paths: list[list[int]], kind: str) -> None:
    """What other paths have, and what fills them up, is not seen."""
    model = tiny.target(kind)
    found = logits_after(model, TEXT, paths)
    for path, logits in zip(paths, found, strict=True):
        whole = model(torch.tensor([[*TEXT, *path]])).logits[0, len(TEXT) - 1 :]
        assert logits.shape == whole.shape and (logits - whole).abs().max() <= 1e-9


@torch.no_grad()
def test_another_path_has_other_logits() -> None:
    """The bound above is one: from a token that differs on, logits are far from equal."""
    one, other = logits_after(tiny.target(), TEXT, [[3, 1, 4, 1], [3, 2, 4, 1]])
    apart = (one - other).abs().amax(-1)
    assert apart[:2].max() <= 1e-9 and apart[2:].min() > 1e-3
