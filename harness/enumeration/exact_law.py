"""The exact law of unedited code: every execution it can have is run, and their weights are added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.exact import Law
from harness.enumeration.coins import Trail, Unrepeatable, undecided
from harness.enumeration.intercept import NotEnumerable, intercepted

Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Enumeration:
    """The law of a code's outcomes, how many executions it took, and the probability of those that were not run."""

    law: Law
    executions: int
    unfinished: float


@dataclass(frozen=True)
class Leaf:
    """Executions that differ in their last token at most: the tokens before it, their weight, and that token or its law [V]."""

    before: tuple[int, ...]
    weight: float
    last: int | Tensor

    def outcomes(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every outcome of these executions, with its probability."""
        if isinstance(self.last, int):
            yield (*self.before, self.last), self.weight
            return
        for token in self.last.nonzero()[:, 0].tolist():
            yield (*self.before, token), self.weight * float(self.last[token])


def enumerate_law(
    run: Callable[[], Sequence[int]], *, most: int = 100_000, window: int | None = None, progress: Progress | None = None
) -> Enumeration:
    """The law of what `run` returns, over everything it draws; of at most `most` executions.

    window: the length of a whole outcome. A token drawn last of all, which completes an outcome of this length, is not run
    once for each value: its law is known where it is drawn. `progress` hears of executions and of the mass that is done.
    Raises NotEnumerable, naming the call, for randomness that cannot be followed or was not seen. What `run` uses is made
    before: to build a model draws its weights.
    """
    walk = Walk(run, lambda outcome: len(outcome) == window, most)
    law: Law = defaultdict(float)
    for leaf in walk.leaves():
        for outcome, weight in leaf.outcomes():
            law[outcome] += weight
        if progress is not None:
            progress(walk.executions, walk.mass)
    return Enumeration(dict(law), walk.executions, max(0.0, 1 - walk.mass) if walk.cut else 0.0)


@dataclass(frozen=True)
class Induction:
    """The largest total variation between a rule's next token and p, over the nodes it reaches; and what it took to know it.

    At that node, `token` comes too often: with probability q.
    """

    distance: float
    node: int
    token: int
    q: float
    executions: int
    unfinished: float


def rule_departure(
    accept: Callable[[DraftTree, Tensor], tuple[Sequence[int], Any]], tree: DraftTree, p: Tensor, *, most: int = 10_000
) -> Induction:
    """As induction.departure, for a rule that draws for itself: the induction over nodes, with everything it draws followed.

    Over all executions: Q(reaches node v, then emits x) must be Q(reaches v) p[v, x]. The last token's law is taken whole, so
    that a rule costs one execution for each node it can stop at, whatever the vocabulary; where the rule looks at it, its
    likeliest, its least likely and its last value are run.
    """

    given = p.clone()
    untouched = given._version

    def run() -> tuple[Any, ...]:
        nonlocal given, untouched
        if given._version != untouched:  # a rule that writes into p must not spoil the next execution
            given = p.clone()
            untouched = given._version
        path, token = accept(tree, given)
        return (*path, token)

    walk = Walk(run, lambda _: True, most)
    joint: dict[int, Tensor] = defaultdict(lambda: torch.zeros(p.shape[1], dtype=torch.float64))
    for leaf in walk.leaves():
        path = list(leaf.before)
        if path != tree.path(path[-1] if path else ROOT):
            raise ValueError(f"nodes {path} are no path of the tree")
        for node, child in zip([ROOT, *path], path, strict=False):
            joint[node][tree.token(child)] += leaf.weight
        last = joint[path[-1] if path else ROOT]
        if isinstance(leaf.last, Tensor):
            last += leaf.weight * leaf.last
        elif 0 <= leaf.last < len(last):
            last[leaf.last] += leaf.weight
        else:
            raise ValueError(f"token {leaf.last} is none of a vocabulary of {len(last)}")
    distances = {node: float((q - q.sum() * p[node].double()).abs().sum()) / 2 for node, q in joint.items()}
    worst = max(distances, key=lambda node: distances[node])
    found = joint[worst] / joint[worst].sum()
    token = int((found - p[worst].double()).argmax())
    unfinished = max(0.0, 1 - walk.mass) if walk.cut else 0.0
    return Induction(distances[worst], worst, token, float(found[token]), walk.executions, unfinished)


class Walk:
    """Through all executions, depth first. Executions that share everything but the value of a last draw are merged."""

    def __init__(self, run: Callable[[], Sequence[Any]], complete: Callable[[Sequence[int]], bool], most: int) -> None:
        self._run, self._complete, self._most = run, complete, most
        self.executions, self.mass, self.cut = 0, 0.0, False

    def leaves(self) -> Iterator[Leaf]:
        script: Any = []
        first: tuple[Any, Leaf] | None = None
        while script is not None:
            if self.executions >= self._most:
                self.cut = True
                return
            trail, leaf = self._execute(script)
            first = first or (list(trail.taken), leaf)
            merged = self._siblings(trail, leaf)
            leaf, script = merged or (leaf, trail.next_script())
            self.mass += leaf.weight
            yield leaf
        assert abs(self.mass - 1) < 1e-4, f"the weights of all executions add up to {self.mass}"
        if first is not None and not _same(self._execute(first[0])[1], first[1]):
            raise NotEnumerable(f"{UNSEEN}: the first execution, run again, came to another end")

    def _execute(self, script: Any) -> tuple[Trail, Leaf]:
        trail = Trail(script)
        self.executions += 1
        try:
            with intercepted(trail):
                *before, last = self._run()
                path = tuple(int(token) for token in before)
                end = last.law.clone() if undecided(last) else int(last)
        except Exception as error:
            why = error.__cause__ or error  # an adapter may have wrapped it
            if isinstance(why, Unrepeatable):
                raise NotEnumerable(f"{UNSEEN}: {why}") from error
            raise
        if len(trail.taken) < len(script):
            raise NotEnumerable(f"{UNSEEN}: an execution ended before the choices it had when its beginning was run before")
        return trail, Leaf(path, float(trail.weight), end)

    def _siblings(self, trail: Trail, leaf: Leaf) -> tuple[Leaf, Any] | None:
        """The leaf of all values of the last draw and the script that comes after them; None where they may differ in more.

        Some of the values are really run: the likeliest, the least likely and the last.
        """
        if not trail.taken or not isinstance(leaf.last, int) or not self._complete((*leaf.before, leaf.last)):
            return None
        index, weights = trail.taken[-1]
        law = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
        possible = law.nonzero()[:, 0]
        if leaf.last != index or index != int(possible[0]) or len(possible) == 1:
            return None
        between, last = possible[1:-1], int(possible[-1])
        extremes = [int(between[law[between].argmax()]), int(between[law[between].argmin()])] if len(between) else []
        for token in dict.fromkeys([*extremes, last]):
            other, found = self._execute([*trail.taken[:-1], (token, weights)])
            if len(other.taken) != len(trail.taken) or found.before != leaf.before or not _equal(found.last, token):
                return None
        merged = Leaf(leaf.before, leaf.weight / float(law[index]) * float(law.sum()), law / law.sum())
        return merged, other.next_script()


UNSEEN = "something is drawn out of our sight, or state is left over from an earlier execution"


def _equal(a: int | Tensor, b: int | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return isinstance(a, int) and isinstance(b, int) and a == b


def _same(a: Leaf, b: Leaf) -> bool:
    return a.before == b.before and abs(a.weight - b.weight) <= 1e-9 and _equal(a.last, b.last)
