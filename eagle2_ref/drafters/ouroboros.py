"""Ouroboros: a small model's draft, made faster and longer by whole phrases (Zhao et al., arXiv 2402.13720)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Checkpoint, FromText, whole
from eagle2_ref.drafters.lookahead import Gram, Pool, Window, grown
from eagle2_ref.drafters.small_model import small_for
from eagle2_ref.model.target import Target
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, Tree


@dataclass(frozen=True)
class Ouroboros:
    """phrase: tokens of a phrase. depth: of the tree, a chain with phrases behind it, which takes what they leave, half at least.

    k: phrases tried there. window: columns of the small model's own lookahead, and phrases kept of each token. warm: phrases
    are kept from text to text, so that what is drafted depends on what was decoded before. (The settings are those with which
    the published code runs on Spec-Bench.)
    """

    k: int = 3
    depth: int = 10
    phrase: int = 4
    window: int = 15
    warm: bool = False

    checkpoint: ClassVar[Checkpoint] = "small"

    @property
    def chain(self) -> int:
        """Tokens of the chain, the paper's gamma."""
        return max(self.depth - self.phrase, (self.depth + 1) // 2)

    def drafter(self, target: Target, draft: Path | str) -> OuroborosDrafter:
        whole(self, k=1, depth=1, phrase=1, window=1)
        return OuroborosDrafter(self, Target(small_for(target, draft), str(draft)))


class OuroborosDrafter(FromText):
    """A chain, the small model's greedy continuation of the text; and behind its end phrases that followed such a token before.

    The small model drafts by lookahead, with itself for a target: a phrase that it agrees with costs it one pass. Phrases come
    from its window, and from the target: what it said behind tokens that were refused, and behind the phrases that were tried.
    All is chosen by the past alone: the rule is that of chosen trees, and the law is the target's at any temperature. (The
    published code compares with the target's likeliest tokens, and is greedy only.)
    """

    def __init__(self, method: Ouroboros, small: Target) -> None:
        self.method, self.small = method, small
        self.pool = Pool(method.window)

    def begin(self, prompt: Sequence[int], params: SamplingParams, coins: Coins) -> None:
        super().begin(prompt, params, coins)
        self.small = copy(self.small)
        self.small.reset()
        self.passes = 0
        if not self.method.warm:
            self.pool = Pool(self.method.window)
        self.window = Window(prompt, self.method.phrase, self.method.window)

    def propose(self, depth: int) -> DraftTree:
        depth = max(0, min(depth, self.method.depth, self.small.context - len(self.text)))
        self._chain = self._continued(min(depth, self.method.chain))
        tokens = [self.text[-1], *self._chain]
        chain = DraftTree.of(tokens, list(range(-1, len(self._chain))))
        self._phrases = [phrase[: depth - len(self._chain)] for phrase in self.pool.of(tokens[-1])[: self.method.k]]
        return grown(chain, len(self._chain), self._phrases)

    def learn(self, tree: Tree, logits: Tensor, path: Sequence[int]) -> None:
        said, end = logits.argmax(-1).tolist(), len(self._chain)
        self.pool.add(corrected(self._chain[len(path) :], said[1 + len(path) : 1 + end], self.method.phrase))
        for phrase in self._phrases:
            if len(phrase) == self.method.phrase:
                self.pool.drop((tree.token(end), *phrase))
                self.pool.add([(tree.token(end), *rewritten(tree, said, end, phrase))])

    def _continued(self, n: int) -> list[int]:
        """The n tokens with which the small model would go on."""
        if n < 1:
            return []
        self._follow()
        tokens = [self.text[-1]]
        while len(tokens) <= n:
            tree = grown(DraftTree.bare(tokens[-1]), ROOT, (guess[: n - len(tokens)] for guess in self.pool.of(tokens[-1])))
            tree = self.window.aboard(tree, self.small.context - len(self.text) + 1 - len(tokens))
            said = self.small.verify(tree).logits.argmax(-1).tolist()
            path = likeliest(tree.proposals, said)
            self.small.commit(path)
            self.pool.add(self.window.advance(tree, said))
            tokens += [said[node] for node in (ROOT, *path)]
        self.passes = self.small.passes
        return tokens[1:]

    def _follow(self) -> None:
        """Bring the small model's cache up to the root: drop what was refused, read what was emitted without it."""
        root = len(self.text) - 1
        self.small.cache.cut(root)
        if self.small.length < root:
            self.small.prefill(self.text[self.small.length : root])


def likeliest(tree: Tree, said: Sequence[int]) -> list[int]:
    """The path that a model takes through a tree, if `said` is what it finds likeliest behind each node."""
    path: list[int] = []
    node = ROOT
    while (child := tree.child(node, said[node])) is not None:
        path.append(child)
        node = child
    return path


def corrected(tokens: Sequence[int], said: Sequence[int], n: int) -> Iterator[Gram]:
    """Of tokens of a draft, with what the target said behind each: n-grams that begin with one of them and go on as the target
    does. It was asked about the draft alone: but for its last token a phrase is the draft's as well."""
    for first in range(len(tokens) - n + 1):
        if list(tokens[first + 1 : first + n]) == list(said[first : first + n - 1]):
            yield tokens[first], *said[first : first + n]


def rewritten(tree: Tree, said: Sequence[int], node: int, phrase: Sequence[int]) -> list[int]:
    """A phrase that was tried behind a node, in the target's words: what it said before each of the tokens."""
    words = []
    for token in phrase:
        words.append(said[node])
        node = tree.child(node, token) or node  # it was put there
    return words
