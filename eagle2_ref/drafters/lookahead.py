"""Lookahead decoding: n-grams from the target's own Jacobi iteration (Fu et al., arXiv 2402.02057)."""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from eagle2_ref.drafters.base import Checkpoint, Drafter, DraftState, require_whole
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree

Gram = tuple[int, ...]
"""An n-gram: a token, and a guess of the tokens that follow it."""


@dataclass(frozen=True)
class Lookahead:
    """Options of lookahead decoding: k, depth and window are the paper's G, N - 1 and W.

    k: n-grams stored for each token; all are proposed. depth: length of a guess. window: number of columns of the Jacobi
    iteration. text: whether n-grams of the text itself are guesses too (POOL_FROM_PROMPT in the published code, where it is off).
    """

    k: int = 7
    depth: int = 4
    window: int = 7
    text: bool = True

    checkpoint: ClassVar[Checkpoint] = "none"

    def drafter(self, target: Target, draft: Path | str) -> LookaheadDrafter:  # noqa: ARG002
        require_whole(self, k=1, depth=1, window=1)
        return LookaheadDrafter(self, target.context)


@dataclass(frozen=True)
class LookaheadTree(DraftTree):
    """A tree whose last nodes are scored by the target, but never accepted.

    lookahead_nodes: number of trailing nodes that belong to the window. The rule sees `proposals` only.
    """

    lookahead_nodes: int

    @property
    def proposals(self) -> DraftTree:
        n = len(self) - self.lookahead_nodes
        return DraftTree(self.tokens[:n], self.parents[:n], self.values[:n])


class LookaheadState(DraftState):
    """The n-grams and the window of one sequence."""

    def __init__(self, pool: NgramPool, window: Window) -> None:
        self.pool, self.window = pool, window
        self.pooled = 0  # number of tokens of the text whose n-grams are in the pool


class LookaheadDrafter(Drafter):
    """Both branches of the paper in one tree: n-grams that begin with the newest token are proposals, the rest is the window.

    Guesses depend only on the past: they are chosen, not sampled, and `reject` is lossless at any temperature. After a guess
    that is accepted whole there is one more token. (The published code emits none.)
    """

    def __init__(self, method: Lookahead, context: int) -> None:
        self.method, self.context = method, context

    def start(self, sequence: Sequence) -> LookaheadState:
        window = Window(sequence.tokens, self.method.depth, self.method.window)
        return LookaheadState(NgramPool(self.method.k), window)

    def propose_one(self, sequence: Sequence) -> LookaheadTree:
        text, state = sequence.tokens, sequence.draft
        if self.method.text:
            self.pool_text(sequence)
        guesses = (guess[: sequence.max_depth] for guess in state.pool.after(text[-1]))
        tree = with_guesses(DraftTree.root_only(text[-1]), ROOT, guesses)
        attached: LookaheadTree = state.window.attach(tree, self.context - len(text))
        return attached

    def learn(self, sequence: Sequence, tree: Tree, logits: Tensor, path: abc.Sequence[int]) -> None:  # noqa: ARG002
        sequence.draft.pool.add(sequence.draft.window.advance(tree, logits.argmax(-1).tolist()))

    def pool_text(self, sequence: Sequence) -> None:
        """Add the n-grams that the text has gained."""
        n, text, state = self.method.depth + 1, sequence.tokens, sequence.draft
        state.pool.add(tuple(text[end - n : end]) for end in range(max(state.pooled + 1, n), len(text) + 1))
        state.pooled = len(text)


class NgramPool:
    """N-grams by their first token; for each token the `size` newest are stored."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._guesses: dict[int, list[Gram]] = {}

    def after(self, token: int) -> list[Gram]:
        """The guesses of what follows a token, the newest first."""
        return self._guesses.get(token, [])[::-1]

    def add(self, grams: Iterable[Gram]) -> None:
        """Add n-grams, one after the other. One that is stored already becomes the newest."""
        for gram in grams:
            self.drop(gram)
            guesses = self._guesses.setdefault(gram[0], [])
            guesses.append(gram[1:])
            del guesses[: -self.size]

    def drop(self, gram: Gram) -> None:
        """Remove an n-gram, if it is stored."""
        guesses = self._guesses.get(gram[0], [])
        if gram[1:] in guesses:
            guesses.remove(gram[1:])


class Window:
    """The lookahead branch (section 3.2): rows of a Jacobi iteration, from the oldest to the newest.

    rows[r][c] is a guess of the token at r + c below the root; (0, 0) is the root itself. A cell attends to row 0 up to its own
    column, and to its column down to itself. If row 0 is a chain, and every column hangs on its token of row 0, these are its
    ancestors: the window is a tree, and needs no mask or positions of its own. What the target predicts after the last row is
    the next row, and a column with that prediction is an n-gram.
    """

    def __init__(self, prompt: abc.Sequence[int], depth: int, columns: int) -> None:
        """Begin with one row, tokens of the prompt in their order. (The published code takes random tokens of it.)

        In each of the first `depth` - 1 steps the window gains a row and loses a column; then it gains a row and loses one.
        """
        self.depth = depth
        self.rows = [[int(prompt[column % len(prompt)]) for column in range(columns + depth - 1)]]

    def attach(self, tree: DraftTree, max_depth: int) -> LookaheadTree:
        """The tree with the cells of the window as trailing nodes, row by row, without columns deeper than `max_depth`."""
        columns = min(len(self.rows[0]), max(0, max_depth - len(self.rows) + 2))
        self.rows = [row[:columns] for row in self.rows]
        tokens = [token for row in self.rows for token in row][1:]
        above = [cell - 1 if cell < columns else cell - columns for cell in range(1, len(tokens) + 1)]
        parents = [_node(cell, tree) for cell in above]
        joint = DraftTree.of([*tree.tokens.tolist(), *tokens], [*tree.parents.tolist(), *parents])
        return LookaheadTree(joint.tokens, joint.parents, joint.values, len(tokens))

    def advance(self, tree: Tree, predicted: abc.Sequence[int]) -> list[Gram]:
        """Move the window on by one step of the iteration.

        Args:
            tree: the tree with the window's cells.
            predicted: the target's most likely token after each of its nodes.

        Returns:
            The columns of a full window, each an n-gram.
        """
        columns = len(self.rows[0])
        last = range(columns * (len(self.rows) - 1), columns * len(self.rows))
        rows = [*self.rows, [predicted[_node(cell, tree.proposals)] for cell in last]]
        full = len(rows) > self.depth
        self.rows = rows[1:] if full else [row[1:] for row in rows]
        if not (full and columns):
            return []
        return list(zip([tree.token(ROOT), *rows[0][1:]], *rows[1:], strict=True))


def _node(cell: int, proposals: Tree) -> int:
    """The node of a cell, counted row by row: cell 0 is the root, the others follow the proposals."""
    return len(proposals) - 1 + cell if cell else ROOT


def with_guesses(tree: DraftTree, node: int, guesses: Iterable[abc.Sequence[int]]) -> DraftTree:
    """The tree with guesses of what follows a node. Guesses with a common beginning share its nodes."""
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
