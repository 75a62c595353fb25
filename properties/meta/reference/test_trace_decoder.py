"""Plain passes along every path of a tree, which the chapters TREE and CACHE compare a decoder with."""

from __future__ import annotations

import pytest
import torch

from properties.meta.helpers import tiny
from properties.trace_decoder import logits_after

TEXT = tiny.tokens(11)
PATHS = [[3, 1, 4, 1], [3], [], [5, 9]]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "mistral, sliding window"])
@pytest.mark.parametrize("paths", [PATHS, [[7, 2]], [[]], [[], []]], ids=str)
def test_each_path_is_scored_as_if_it_were_alone(paths: list[list[int]], kind: str) -> None:
    model = tiny.target(kind)
    found = logits_after(model, TEXT, paths)
    for path, logits in zip(paths, found, strict=True):
        whole = model(torch.tensor([[*TEXT, *path]])).logits[0, len(TEXT) - 1 :]
        assert logits.shape == whole.shape and (logits - whole).abs().max() <= 1e-9


@torch.no_grad()
def test_paths_that_differ_have_different_logits() -> None:
    """The bound of the test above is not trivial."""
    one, other = logits_after(tiny.target(), TEXT, [[3, 1, 4, 1], [3, 2, 4, 1]])
    difference = (one - other).abs().amax(-1)
    assert difference[:2].max() <= 1e-9 and difference[2:].min() > 1e-3
