"""An acceptance function with EAGLE's published signature, taken from a file as it is, as a rule that can be judged."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.errors import BadInput
from eagle2_ref.tree import ROOT, DraftTree
from harness.enumeration.intercept.leak_guards import GeneratorGuard

PAD = -1

Evaluate = Callable[..., tuple[Any, Any, Tensor]]
"""(logits [paths, depth + 1, V], candidates [paths, depth + 1], logits_processor or None)
-> (best candidate, number of accepted tokens, the law of the next token; its logits if there is no processor)."""


@dataclass(frozen=True)
class Layout:
    """A draft tree as the matrix that the published functions read: a row for each leaf, padded with -1 after it."""

    paths: tuple[tuple[int, ...], ...]
    logits: Tensor
    candidates: Tensor
    greedy: bool

    @classmethod
    def of(cls, tree: DraftTree, p: Tensor) -> Layout:
        """log p takes the place of logits: whatever processors there were have been at work, and softmax gives p back."""
        leaves = [node for node in range(len(tree)) if not tree.children(node)]
        paths = sorted((ROOT, *tree.path(leaf)) for leaf in leaves)
        width = max(map(len, paths))
        nodes = torch.tensor([[*path, *[PAD] * (width - len(path))] for path in paths], device=p.device)
        padded = torch.cat([tree.tokens.to(p.device), torch.tensor([PAD], device=p.device)])
        greedy = bool((p.max(-1).values == 1).all())
        return cls(tuple(paths), p.log()[nodes], padded[nodes], greedy)  # index -1 is the last row, which nobody may read


class PublishedRule:
    """accept(tokens, parents, p, coins) by a published function. Without coins it draws for itself, from `random` and torch.

    At temperature 0, where every row of p is a point mass, there is no logits processor, as in the published decoder.
    """

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self._laid: tuple[Any, tuple[int, ...], Layout] | None = None

    def __call__(
        self, tokens: Sequence[int], parents: Sequence[int], p: Tensor, coins: Coins | None = None
    ) -> tuple[list[int], int]:
        if len(tokens) == 1:  # the published decoder draws the prompt's token elsewhere, and its function expects a tree
            return [], _drawn(p[ROOT], coins)
        layout = self._layout(tokens, parents, p)
        processor = None if layout.greedy else _as_they_are
        with contextlib.nullcontext() if coins is None else _drawing_from(coins):
            best, accepted, following = self.evaluate(layout.logits, layout.candidates, processor)
        path = list(layout.paths[int(best)][1 : int(accepted) + 1])
        if len(path) != int(accepted):
            raise ValueError(f"{int(accepted)} tokens accepted of a candidate that has {len(path)}")
        if layout.greedy:
            return path, int(following.argmax())
        return path, _drawn(following, coins)

    def on(self, tree: DraftTree, p: Tensor) -> tuple[list[int], int]:
        """The rule as `enumeration.exact_law.enumerate_rule` calls one."""
        return self(tree.tokens.tolist(), tree.parents.tolist(), p)

    def _layout(self, tokens: Sequence[int], parents: Sequence[int], p: Tensor) -> Layout:
        """The layout of the same tree and the same p is used again, unless the function wrote into it: it is large."""
        if p.is_inference():  # it does not tell whether it was written to
            return Layout.of(DraftTree.of(list(tokens), list(parents)), p)
        asked = (list(tokens), list(parents), id(p))
        if self._laid is not None:
            before, versions, layout = self._laid
            if before[:3] == asked and versions == _versions(before[3], layout):
                return layout
        layout = Layout.of(DraftTree.of(list(tokens), list(parents)), p)
        self._laid = (*asked, p), _versions(p, layout), layout
        return layout


def published_rule(path: Path, function: str = "evaluate_posterior") -> PublishedRule:
    """The rule of a function in a Python file. The file alone is run; what it imports must be importable."""
    module = _module(path)
    found = getattr(module, function, None)
    if not callable(found):
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(function, public, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(public) or 'none'}"
        raise BadInput(f"{path} has no function {function}", hint)
    return PublishedRule(found)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"published_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise BadInput(f"{path} is not a Python file", "give the path of the file that holds the function")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(f"{path}: it imports {error.name}, which is not installed", "nothing is put in its place") from error
    except Exception as error:
        raise BadInput(
            f"{path}: importing it failed: {type(error).__name__}: {error}", "the file must import by itself, outside its package"
        ) from error
    return module


def _drawn(p: Tensor, coins: Coins | None) -> Any:
    return torch.multinomial(p, 1).item() if coins is None else coins.categorical(p)


def _as_they_are(_texts: Any, logits: Tensor) -> Tensor:
    """The logits processor handed in: p has been through the processors already."""
    return logits


@contextlib.contextmanager
def _drawing_from(coins: Coins) -> Iterator[None]:
    """random.random is a coin; other global generators must not be touched."""
    before = random.random
    with GeneratorGuard():
        random.random = coins.uniform  # type: ignore[assignment]
        try:
            yield
        finally:
            random.random = before


def _versions(p: Tensor, layout: Layout) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in (p, layout.logits, layout.candidates))
