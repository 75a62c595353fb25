"""The exact distribution of unedited code: every execution is run under interception, and their probabilities are summed.

See README.md in this folder for the idea, an example and the limits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.exact import Law, first_deviation, first_surplus, total_variation
from harness.enumeration.coins import ChoiceTrail, Unrepeatable, is_symbolic
from harness.enumeration.induction import NextTokens, RuleDeviation, protected
from harness.enumeration.intercept import NotEnumerable, intercepted

Progress = Callable[[int, float], None]
"""Called with the number of executions and the probability covered so far."""

HIDDEN = "hidden randomness, or state left over from an earlier execution"


@dataclass(frozen=True)
class Enumeration:
    """The distribution of outcomes, the executions it took, and the probability of executions that were not run."""

    law: Law
    executions: int
    unfinished: float

    def distance(self, target: Law) -> float:
        """Total variation from a law; a lower bound of it if executions were not run.

        The bound is the probability by which outcomes are more frequent than under `target` already: what was not run can only
        add to an outcome.
        """
        if not self.unfinished:
            return total_variation(self.law, target)
        return sum(max(0.0, q - target.get(outcome, 0.0)) for outcome, q in self.law.items())

    def describe_deviation(self, target: Law) -> str:
        """Where the law departs from `target`, in words. Conditional probabilities are quoted of a whole enumeration only."""
        if not self.unfinished:
            first = first_deviation(self.law, target)
            return f"after {list(first.prefix)} token {first.token} has probability {first.q:.6g}, the target gives {first.p:.6g}"
        text, q, p = first_surplus(self.law, target)
        return (
            f"texts that begin with {list(text)} have probability {q:.6g} in the executions that were run, which are"
            f" {1 - self.unfinished:.3g} of all; the target gives {p:.6g}"
        )


@dataclass(frozen=True)
class Leaf:
    """Executions that differ in the last token at most.

    Attributes:
        before: tokens before the last one.
        weight: probability of these executions.
        last: the last token, or its distribution [V].
    """

    before: tuple[int, ...]
    weight: float
    last: int | Tensor

    def outcomes(self) -> Iterator[tuple[tuple[int, ...], float]]:
        """Every outcome of these executions with its probability."""
        if isinstance(self.last, int):
            yield (*self.before, self.last), self.weight
            return
        for token in self.last.nonzero()[:, 0].tolist():
            yield (*self.before, token), self.weight * float(self.last[token])


def enumerate_law(
    run: Callable[[], Sequence[int]], *, most: int = 100_000, window: int | None = None, progress: Progress | None = None
) -> Enumeration:
    """The exact distribution of the tokens that `run` returns, over everything that it samples.

    Args:
        run: code that returns tokens. Objects that draw when they are built (a model draws its weights) must exist already.
        most: executions to run at most.
        window: length of a complete outcome. If the last draw of an execution completes an outcome of this length, it is not
            run once for each value; its distribution is known where it is drawn.
        progress: called after every leaf.

    Raises:
        NotEnumerable: for randomness that cannot be followed, or was drawn unseen. The message names the call if known.
    """
    executions = Executions(run, lambda outcome: len(outcome) == window, most)
    law: Law = defaultdict(float)
    for leaf in executions.leaves():
        for outcome, weight in leaf.outcomes():
            law[outcome] += weight
        if progress is not None:
            progress(executions.count, executions.mass)
    return Enumeration(dict(law), executions.count, executions.unfinished)


def enumerate_rule(
    accept: Callable[[DraftTree, Tensor], tuple[Sequence[int], Any]], tree: DraftTree, p: Tensor, *, most: int = 10_000
) -> RuleDeviation:
    """As induction.rule_deviation, for a rule that draws from torch, random or numpy itself.

    A rule costs one execution for each node at which it can stop, for any vocabulary. If it looks at the last token, the
    likeliest, the least likely and the last value are run.

    Args:
        accept: the rule; returns the accepted nodes and the last token.
        tree: draft tree of m proposals.
        p: target distribution after every node, [m + 1, V].
        most: executions to run at most.
    """
    current, sums = protected(p), NextTokens(tree, p)

    def run() -> tuple[Any, ...]:
        path, token = accept(tree, current())
        return (*path, token)

    executions = Executions(run, lambda _: True, most)
    for leaf in executions.leaves():
        path = list(leaf.before)
        if path != tree.path(path[-1] if path else ROOT):
            raise ValueError(f"nodes {path} are not a path of the tree")
        if isinstance(leaf.last, int) and not 0 <= leaf.last < p.shape[1]:
            raise ValueError(f"token {leaf.last} is outside a vocabulary of {p.shape[1]}")
        sums.add(path, leaf.last, leaf.weight)
    return sums.largest_deviation(executions.count, executions.unfinished)


class Executions:
    """All executions of `run`, depth first. Executions that differ only in the value of their last draw are merged.

    Attributes:
        count: executions that were run.
        mass: probability of the leaves so far.
        cut_off: whether `most` executions were not enough.
    """

    def __init__(self, run: Callable[[], Sequence[Any]], complete: Callable[[Sequence[int]], bool], most: int) -> None:
        self._run, self._complete, self._most = run, complete, most
        self.count, self.mass, self.cut_off = 0, 0.0, False

    @property
    def unfinished(self) -> float:
        """Probability of the executions that were not run."""
        return max(0.0, 1 - self.mass) if self.cut_off else 0.0

    def leaves(self) -> Iterator[Leaf]:
        """Run all executions.

        Raises:
            NotEnumerable: if the first execution, run again, ends differently.
        """
        script: Any = []
        first: tuple[Any, Leaf] | None = None
        while script is not None:
            if self.count >= self._most:
                self.cut_off = True
                return
            trail, leaf = self._execute(script)
            first = first or (list(trail.taken), leaf)
            merged = self._merge_last_draw(trail, leaf)
            leaf, script = merged or (leaf, trail.next_script())
            self.mass += leaf.weight
            yield leaf
        assert abs(self.mass - 1) < 1e-4, f"the probabilities of all executions sum to {self.mass}"
        if first is not None and not _same(self._execute(first[0])[1], first[1]):
            raise NotEnumerable(f"{HIDDEN}: the first execution ended differently when it was run again")

    def _execute(self, script: Any) -> tuple[ChoiceTrail, Leaf]:
        trail = ChoiceTrail(script)
        self.count += 1
        try:
            with intercepted(trail):
                *before, last = self._run()
                path = tuple(int(token) for token in before)
                end = last.law.clone() if is_symbolic(last) else int(last)
        except Exception as error:
            cause = error.__cause__ or error  # an adapter may have wrapped it
            if isinstance(cause, Unrepeatable):
                raise NotEnumerable(f"{HIDDEN}: {cause}") from error
            raise
        if len(trail.taken) < len(script):
            raise NotEnumerable(f"{HIDDEN}: an execution made fewer choices than when the same beginning was run before")
        return trail, Leaf(path, float(trail.weight), end)

    def _merge_last_draw(self, trail: ChoiceTrail, leaf: Leaf) -> tuple[Leaf, Any] | None:
        """Merge the executions for all values of the last draw, if the outcome differs in that value alone.

        Some values are run to check this: the likeliest, the least likely and the last.

        Returns:
            The merged leaf and the script after it; None if the executions may differ in more.
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


def _equal(a: int | Tensor, b: int | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return isinstance(a, int) and isinstance(b, int) and a == b


def _same(a: Leaf, b: Leaf) -> bool:
    return a.before == b.before and abs(a.weight - b.weight) <= 1e-9 and _equal(a.last, b.last)
