"""Ouroboros: a small model drafts a chain by lookahead, and whole phrases continue it (Zhao et al., arXiv 2402.13720)."""

from __future__ import annotations

from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from eagle2_ref.drafters.base import Checkpoint, Drafter, DraftState, require_whole
from eagle2_ref.drafters.lookahead import Gram, NgramPool, Window, with_guesses
from eagle2_ref.drafters.small_model import load_small
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.target import Target
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree


@dataclass(frozen=True)
class Ouroboros:
    """Options of Ouroboros. The defaults are those with which the published code runs Spec-Bench.

    k: phrases proposed after the chain. depth: of the tree, a chain and phrases after it; the chain has what the phrases leave,
    at least half. phrase: tokens of a phrase. window: columns of the small model's lookahead, and phrases stored for each token.
    warm: phrases are kept from one sequence to the next, so that drafts depend on what was decoded before.
    """

    k: int = 3
    depth: int = 10
    phrase: int = 4
    window: int = 15
    warm: bool = False

    checkpoint: ClassVar[Checkpoint] = "small"

    @property
    def chain(self) -> int:
        """Number of tokens of the chain, gamma in the paper."""
        return max(self.depth - self.phrase, (self.depth + 1) // 2)

    def drafter(self, target: Target, draft: Path | str) -> OuroborosDrafter:
        require_whole(self, k=1, depth=1, phrase=1, window=1)
        return OuroborosDrafter(self, Target(load_small(target, draft), str(draft)))


class OuroborosState(DraftState):
    """The small model's cache of a sequence, its window, the phrases, and the parts of the last draft."""

    def __init__(self, cache: KVCache, window: Window, pool: NgramPool) -> None:
        self.cache, self.window, self.pool = cache, window, pool
        self.chain: list[int] = []
        self.phrases: list[Gram] = []


class OuroborosDrafter(Drafter):
    """A chain, the small model's greedy continuation of the text, and after its end phrases that followed this token before.

    The small model decodes by lookahead, as its own target: a phrase that it agrees with costs one pass. Phrases come from its
    window, and from the target: from its output after rejected tokens, and after the phrases that were proposed. All tokens
    are chosen, not sampled, and `reject` is lossless at any temperature. (The published code is greedy only.)
    """

    def __init__(self, method: Ouroboros, small: Target) -> None:
        self.method, self.small = method, small
        self.warm_pool = NgramPool(method.window)

    def start(self, sequence: Sequence) -> OuroborosState:
        pool = self.warm_pool if self.method.warm else NgramPool(self.method.window)
        return OuroborosState(self.small.cache(), Window(sequence.tokens, self.method.phrase, self.method.window), pool)

    def propose_one(self, sequence: Sequence) -> DraftTree:
        text, state = sequence.tokens, sequence.draft
        depth = max(0, min(sequence.max_depth, self.method.depth, self.small.context - len(text)))
        state.chain = self.continuation(sequence, min(depth, self.method.chain))
        tokens = [text[-1], *state.chain]
        tree = DraftTree.of(tokens, list(range(-1, len(state.chain))))
        state.phrases = [phrase[: depth - len(state.chain)] for phrase in state.pool.after(tokens[-1])[: self.method.k]]
        return with_guesses(tree, len(state.chain), state.phrases)

    def learn(self, sequence: Sequence, tree: Tree, logits: Tensor, path: abc.Sequence[int]) -> None:
        state, n = sequence.draft, self.method.phrase
        predicted, end = logits.argmax(-1).tolist(), len(state.chain)
        state.pool.add(corrected(state.chain[len(path) :], predicted[1 + len(path) : 1 + end], n))
        for phrase in state.phrases:
            if len(phrase) == n:  # a phrase that was proposed is replaced by what the target would have written
                state.pool.drop((tree.token(end), *phrase))
                state.pool.add([(tree.token(end), *rewritten(tree, predicted, end, phrase))])

    def continuation(self, sequence: Sequence, n: int) -> list[int]:
        """The n tokens with which the small model continues the text, greedily."""
        if n < 1:
            return []
        text, state, small = sequence.tokens, sequence.draft, self.small
        self.catch_up(sequence)
        tokens = [text[-1]]
        while len(tokens) <= n:
            guesses = (guess[: n - len(tokens)] for guess in state.pool.after(tokens[-1]))
            tree = with_guesses(DraftTree.root_only(tokens[-1]), ROOT, guesses)
            tree = state.window.attach(tree, small.context - len(text) + 1 - len(tokens))
            (output,) = small.verify([state.cache], [tree])
            state.passes += 1
            predicted = output.logits.argmax(-1).tolist()
            path = greedy_path(tree.proposals, predicted)
            small.commit(state.cache, path)
            state.pool.add(state.window.advance(tree, predicted))
            tokens += [predicted[node] for node in (ROOT, *path)]
        return tokens[1:]

    def catch_up(self, sequence: Sequence) -> None:
        """Bring the small model's cache up to the root: drop rejected tokens, read those that it did not draft."""
        text, state = sequence.tokens, sequence.draft
        root = len(text) - 1
        state.cache.truncate(root)
        if state.cache.length < root:
            self.small.prefill([state.cache], [text[state.cache.length : root]])
            state.passes += 1


def greedy_path(tree: Tree, predicted: abc.Sequence[int]) -> list[int]:
    """The path through a tree that follows a model's most likely token after each node."""
    path: list[int] = []
    node = ROOT
    while (child := tree.child(node, predicted[node])) is not None:
        path.append(child)
        node = child
    return path


def corrected(tokens: abc.Sequence[int], predicted: abc.Sequence[int], n: int) -> Iterator[Gram]:
    """Phrases from a rejected draft: n-grams that begin with one of its tokens and continue as the target does.

    The target has read the draft only: a phrase must agree with the draft up to its last token, which is the target's.
    """
    for first in range(len(tokens) - n + 1):
        if list(tokens[first + 1 : first + n]) == list(predicted[first : first + n - 1]):
            yield tokens[first], *predicted[first : first + n]


def rewritten(tree: Tree, predicted: abc.Sequence[int], node: int, phrase: abc.Sequence[int]) -> list[int]:
    """The target's most likely token in place of each token of a phrase that was proposed after a node."""
    words = []
    for token in phrase:
        words.append(predicted[node])
        node = tree.child(node, token) or node  # the phrase is in the tree
    return words
