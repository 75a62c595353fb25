"""An acceptance function with EAGLE's published signature, loaded unedited from a file, as a rule that can be judged."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.tree import ROOT, DraftTree
from harness.global_generators import unchanged_generators
from harness.implementations.importing import find_callable, import_file

PAD = -1

Evaluate = Callable[..., tuple[Any, Any, Tensor]]
"""evaluate_posterior(logits [paths, depth + 1, V], candidates [paths, depth + 1], logits_processor or None)
-> (best candidate, number of accepted tokens, distribution of the next token; its logits if there is no processor)."""


@dataclass(frozen=True)
class Layout:
    """A draft tree in the published layout: one row per leaf, the path from the root, padded with -1.

    paths: nodes of every row. logits: [paths, depth + 1, V]. candidates: tokens, [paths, depth + 1].
    greedy: every row of p is a point mass.
    """

    paths: tuple[tuple[int, ...], ...]
    logits: Tensor
    candidates: Tensor
    greedy: bool

    @classmethod
    def of(cls, tree: DraftTree, p: Tensor) -> Layout:
        """Lay out a tree with p [m + 1, V]. The logits are log p: p is already processed, and softmax restores it."""
        leaves = [node for node in range(len(tree)) if not tree.children(node)]
        paths = sorted((ROOT, *tree.path(leaf)) for leaf in leaves)
        width = max(map(len, paths))
        nodes = torch.tensor([[*path, *[PAD] * (width - len(path))] for path in paths], device=p.device)
        padded = torch.cat([tree.tokens.to(p.device), torch.tensor([PAD], device=p.device)])
        greedy = bool((p.max(-1).values == 1).all())
        return cls(tuple(paths), p.log()[nodes], padded[nodes], greedy)  # padding reads the last row, which has no meaning there


class PublishedRule:
    """The acceptance rule `accept(tokens, parents, p, coins)` of a published function.

    With coins, `random.random` is one of them and the next token is sampled with them. Without coins the function uses the
    global generators of `random` and torch. At temperature 0 it gets no logits processor, as in the published decoder.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self._cached: tuple[Any, tuple[int, ...], Layout] | None = None

    def __call__(
        self, tokens: Sequence[int], parents: Sequence[int], p: Tensor, coins: Coins | None = None
    ) -> tuple[list[int], int]:
        if len(tokens) == 1:  # the published decoder samples the first token elsewhere, and its function needs a tree
            return [], _sample(p[ROOT], coins)
        layout = self._layout(tokens, parents, p)
        processor = None if layout.greedy else _no_processing
        with contextlib.nullcontext() if coins is None else _random_from(coins):
            best, accepted, following = self.evaluate(layout.logits, layout.candidates, processor)
        path = list(layout.paths[int(best)][1 : int(accepted) + 1])
        if len(path) != int(accepted):
            raise ValueError(f"{int(accepted)} tokens accepted of a candidate that has {len(path)}")
        return path, int(following.argmax()) if layout.greedy else _sample(following, coins)

    def on(self, tree: DraftTree, p: Tensor) -> tuple[list[int], int]:
        """The rule as `enumeration.exact_law.enumerate_rule` calls one."""
        return self(tree.tokens.tolist(), tree.parents.tolist(), p)

    def _layout(self, tokens: Sequence[int], parents: Sequence[int], p: Tensor) -> Layout:
        """The layout of a tree; that of the last call is reused, since it is large, unless the function wrote into it."""
        if p.is_inference():  # tensors of inference mode do not count writes
            return Layout.of(DraftTree.of(list(tokens), list(parents)), p)
        key = (list(tokens), list(parents), id(p))
        if self._cached is not None:
            before, versions, layout = self._cached
            if before[:3] == key and versions == _versions(before[3], layout):
                return layout
        layout = Layout.of(DraftTree.of(list(tokens), list(parents)), p)
        self._cached = (*key, p), _versions(p, layout), layout
        return layout


def published_rule(path: Path, function: str = "evaluate_posterior") -> PublishedRule:
    """The rule of a function in a Python file."""
    return PublishedRule(find_callable(import_file(path), function, str(path)))


def _sample(p: Tensor, coins: Coins | None) -> Any:
    return torch.multinomial(p, 1).item() if coins is None else coins.categorical(p)


def _no_processing(_texts: Any, logits: Tensor) -> Tensor:
    """The logits processor for p, which is already processed."""
    return logits


@contextlib.contextmanager
def _random_from(coins: Coins) -> Iterator[None]:
    """Make random.random a coin, and raise if the code uses another global generator."""
    before = random.random
    with unchanged_generators():
        random.random = coins.uniform  # type: ignore[assignment]
        try:
            yield
        finally:
            random.random = before


def _versions(p: Tensor, layout: Layout) -> tuple[int, ...]:
    """Counts of writes into the tensors."""
    return tuple(tensor._version for tensor in (p, layout.logits, layout.candidates))
