"""How a fault is planted: the reference implementation with a faulty class in place of one of its own.

A mutant is a subclass of `Fault` with a nested class, which overrides the public method that the fault is in:

    class CacheReversed(Fault):
        class FaultyTarget(Target):
            def commit(self, cache: KVCache, path: abc.Sequence[int]) -> None:
                super().commit(cache, path[::-1])
"""

from __future__ import annotations

import inspect
from collections import abc
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle2 import Eagle2
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Accepted, Rule, exclude, residual
from eagle2_ref.sequence import Sequence
from eagle2_ref.tree import ROOT, DraftTree, SampledTree
from harness.implementations.reference import Engine, Reference, engine

D = TypeVar("D", bound=Drafter)
PathAndToken = tuple[list[int], int]
"""Result of a plain rule: the accepted path, and the token after it."""

# Arguments and result of `generate`
Prompts = abc.Sequence[list[int]]
Params = abc.Sequence[dict[str, Any]]
Seeds = abc.Sequence[int]
Results = list[dict[str, Any]]


def without_batch(implementation: type[Reference]) -> inspect.Signature:
    """The options of an implementation, except the batch size."""
    options = inspect.signature(implementation).parameters.values()
    return inspect.Signature([option for option in options if option.name != "batch"])


class Fault(Engine):
    """The reference implementation of EAGLE-2 with a fault. It decodes one sequence at a time; for batches see batch.py.

    A mutant replaces one of the four classes.
    """

    FaultyDecoder: type[Decoder] = Decoder
    FaultyTarget: type[Target] = Target
    FaultyDrafter: type[Eagle2] = Eagle2
    FaultySequence: type[Sequence] = Sequence

    capabilities = Engine.capabilities - {"batch"}
    __signature__ = without_batch(Engine)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        if isinstance(drafter, Eagle2):
            drafter = self.FaultyDrafter(drafter.head, drafter.lm_head, drafter.budget, drafter.vocabulary)
        decoder = self.FaultyDecoder(self.FaultyTarget(target.network, target.name), drafter, rule)
        decoder.sequence_type = self.FaultySequence
        return decoder


class MethodFault(Reference):
    """The reference implementation of another drafting method with a fault, where there is speculation.

    class FirstCopyUnverified(MethodFault, method="lookup"): ...
    """

    FaultyDecoder: type[Decoder] = Decoder
    FaultyTarget: type[Target] = Target
    FaultyDrafter: type[Drafter] | None = None

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, method: str = "") -> None:
        super().__init_subclass__()
        if method:
            reference = engine(method)
            cls.family, cls.capabilities = reference.family, reference.capabilities - {"batch"}
            cls.__signature__ = without_batch(reference)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        if drafter is None:
            return super().make_decoder(target, drafter, rule)
        self.rule = self.make_rule(rule)
        drafter = with_class(drafter, self.FaultyDrafter or type(drafter))
        return self.FaultyDecoder(self.FaultyTarget(target.network, target.name), drafter, self.rule)

    def make_rule(self, rule: Rule) -> Rule:
        """The faulty acceptance rule, given the right one."""
        return rule


def with_class(drafter: Drafter, faulty: type[D]) -> D:
    """A drafter of a subclass, with the attributes of a loaded drafter."""
    new = faulty.__new__(faulty)
    vars(new).update(vars(drafter))
    return new


def faulty_reject(
    tree: DraftTree,
    p: Tensor,
    coins: Coins,
    residual: Callable[[Tensor, int], Tensor] = exclude,
    accepts: Callable[[Tensor, int, Any], bool] = lambda r, x, u: u < r[x],
    last: Callable[[Tensor, Uniform | None, Tensor | None], int] | None = None,
    order: Callable[[list[int], Tensor], list[int]] = lambda children, _r: children,
) -> PathAndToken:
    """`rules.reject` with replaceable parts.

    Args:
        residual: (r, x) -> the distribution after token x was rejected.
        accepts: (r, x, u) -> whether uniform number u accepts token x.
        last: (r, u, above) -> the last token of the block, where u is the uniform number of the last rejection at this node, and
            above is the residual at the parent, if a sibling was rejected there.
        order: (children, r) -> the children in the order in which they are offered.
    """
    path: list[int] = []
    node, above = ROOT, None
    while True:
        r, rejected = p[node], None
        for child in order(tree.children(node), r):
            x, u = tree.token(child), coins.uniform()
            if accepts(r, x, u):
                break
            r, rejected = residual(r, x), u
        else:
            return path, last(r, rejected, above) if last else coins.categorical(r)
        path.append(child)
        node, above = child, (r if rejected is not None else None)


def faulty_sampled(
    accepts: Callable[[Tensor, Tensor, int], Any] = lambda r, q, x: r[x] / q[x],
    rest: Callable[[Tensor, Tensor, int], Tensor] = lambda r, q, _x: residual(r, q),
    then: Callable[[Tensor, int], Tensor] = exclude,
) -> Rule:
    """`rules.sampled` with replaceable parts.

    Args:
        accepts: (r, q, x) -> the probability with which token x is accepted.
        rest: (r, q, x) -> the residual distribution after token x was rejected.
        then: (q, x) -> the distribution of the next sibling after x was drafted.
    """

    def rule(tree: SampledTree, p: Tensor, coins: Coins) -> Accepted:
        path: list[int] = []
        node = ROOT
        while True:
            r, q = p[node], tree.q[node]
            for child in tree.children(node):
                x = tree.token(child)
                if coins.uniform() < accepts(r, q, x):
                    break
                r, q = rest(r, q, x), then(q, x)
            else:
                return Accepted(path, coins.categorical(r))
            path.append(child)
            node = child

    return rule


def invert(p: Tensor, u: Uniform) -> int:
    """Sample from p [V] by inversion, with comparisons only, so that u may be the symbolic number of an enumeration."""
    return next((x for x, cumulative in enumerate(p.double().cumsum(0)) if u < cumulative), int(p.nonzero()[-1]))
