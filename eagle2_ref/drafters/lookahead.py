"""Lookahead decoding: guesses from the target's own Jacobi iteration, which rides in its passes (Fu et al., arXiv 2402.02057)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, FromText, whole
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, Tree

Gram = tuple[int, ...]
"""A token, and a guess at what follows it."""


@dataclass(frozen=True)
class Lookahead:
    """The paper's G, N - 1 and W. k: guesses kept of each token; all are tried. depth: tokens of a guess. window: its columns.

    text: what followed a token in the text itself is a guess too (POOL_FROM_PROMPT in the published code, where it is optional).
    """

    k: int = 7
    depth: int = 4
    window: int = 7
    text: bool = True

    checkpoint: ClassVar[Checkpoint] = "none"

    def drafter(self, target: Target, draft: Path | str) -> LookaheadDrafter:  # noqa: ARG002
        whole(self, k=1, depth=1, window=1)
        return LookaheadDrafter(self, target.context)


class LookaheadDrafter(FromText):
    """Both branches of the paper in one tree: the guesses that the newest token has are proposals, the window is passengers.

    Guesses are made of what the target said of the past: the rule is that of chosen trees, and the law is the target's at any
    temperature. A guess that holds to its end is followed by one more token. (The published code emits none then.)
    """

    def __init__(self, method: Lookahead, context: int) -> None:
        self.method, self.context = method, context

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        super().begin(prompt, params, coins)
        self.pool = Pool(self.method.k)
        self.window = Window(prompt, self.method.depth, self.method.window)
        self._pooled = 0  # tokens of the text that have been looked at

    def propose(self, depth: int) -> DraftTree:
        text = self.text
        if self.method.text:
            self._pool_the_text()
        tree = grown(DraftTree.bare(text[-1]), ROOT, (guess[:depth] for guess in self.pool.of(text[-1])))
        return self.window.aboard(tree, self.context - len(text))

    def learn(self, tree: Tree, logits: Tensor, path: Sequence[int]) -> None:  # noqa: ARG002
        self.pool.add(self.window.advance(tree, logits.argmax(-1).tolist()))

    def _pool_the_text(self) -> None:
        n = self.method.depth + 1
        self.pool.add(tuple(self.text[end - n : end]) for end in range(max(self._pooled + 1, n), len(self.text) + 1))
        self._pooled = len(self.text)


class Pool:
    """Guesses by the token that they follow; of each token the `size` newest are kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._guesses: dict[int, list[Gram]] = {}

    def of(self, token: int) -> list[Gram]:
        """The guesses at what follows a token, the newest first."""
        return self._guesses.get(token, [])[::-1]

    def add(self, grams: Iterable[Gram]) -> None:
        """One after the other; one that is there already becomes the newest."""
        for gram in grams:
            self.drop(gram)
            kept = self._guesses.setdefault(gram[0], [])
            kept.append(gram[1:])
            del kept[: -self.size]

    def drop(self, gram: Gram) -> None:
        kept = self._guesses.get(gram[0], [])
        if gram[1:] in kept:
            kept.remove(gram[1:])


class Window:
    """The lookahead branch: rows of a Jacobi iteration, from the oldest to the newest.

    rows[r][c] is a guess at the token r + c below the root; (0, 0) stands for the root itself. A slot sees row 0 up to its own
    column, and its column down to itself. Those are its ancestors, if row 0 is a chain and every column hangs on its token of
    row 0: the window is a tree, and needs neither a mask nor positions of its own. What the target says behind the last row is
    the next row, and a column together with it an n-gram.
    """

    def __init__(self, prompt: Sequence[int], depth: int, columns: int) -> None:
        """One row is there at first, of the prompt's tokens in their order (drawn from it at random in the published code).

        With each of `depth` - 1 passes the window gains a row and loses a column; from then on it gains a row and loses one.
        """
        self.depth = depth
        self.rows = [[int(prompt[column % len(prompt)]) for column in range(columns + depth - 1)]]

    def aboard(self, tree: DraftTree, room: int) -> DraftTree:
        """The tree with the window's slots as passengers, row by row; no column that would reach deeper than `room`."""
        columns = min(len(self.rows[0]), max(0, room - len(self.rows) + 2))
        self.rows = [row[:columns] for row in self.rows]
        tokens = [token for row in self.rows for token in row][1:]
        above = [slot - 1 if slot < columns else slot - columns for slot in range(1, len(tokens) + 1)]
        parents = [_node(slot, tree) for slot in above]
        joint = DraftTree.of([*tree.tokens.tolist(), *tokens], [*tree.parents.tolist(), *parents])
        return replace(joint, passengers=len(tokens))

    def advance(self, tree: Tree, said: Sequence[int]) -> list[Gram]:
        """`said` are the target's likeliest tokens behind all nodes of a tree that the window rode in; the text has gone on by
        one token at least. Returns the columns of a whole window, each an n-gram."""
        columns = len(self.rows[0])
        last = range(columns * (len(self.rows) - 1), columns * len(self.rows))
        rows = [*self.rows, [said[_node(slot, tree.proposals)] for slot in last]]
        grown_up = len(rows) > self.depth
        self.rows = rows[1:] if grown_up else [row[1:] for row in rows]
        if not (grown_up and columns):
            return []
        return list(zip([tree.token(ROOT), *rows[0][1:]], *rows[1:], strict=True))


def _node(slot: int, proposals: Tree) -> int:
    """The node of a slot, counted row by row: passengers sit behind the proposals, slot 0 is the root."""
    return len(proposals) - 1 + slot if slot else ROOT


def grown(tree: DraftTree, node: int, guesses: Iterable[Sequence[int]]) -> DraftTree:
    """A tree with guesses at what follows one of its nodes; those that begin alike share what they share."""
    tokens, parents = tree.tokens.tolist(), tree.parents.tolist()
    place = {(parent, token): child for child, (parent, token) in enumerate(zip(parents, tokens, strict=True))}
    for guess in guesses:
        at = node
        for token in guess:
            if (at, token) not in place:
                place[at, token] = len(tokens)
                tokens.append(token)
                parents.append(at)
            at = place[at, token]
    return DraftTree.of(tokens, parents)
