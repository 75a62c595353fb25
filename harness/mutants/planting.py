"""How a fault is planted into the reference decoder: one part of it is changed, the rest stays as it is."""

from __future__ import annotations

import inspect
from collections import abc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Block, Decoder, Sequence
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.drafters.eagle_base import EagleState
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.rules import exclude
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.implementations.reference import Engine, Reference, engine

Answer = tuple[list[int], int]


def broken_reject(
    tree: DraftTree,
    p: Tensor,
    coins: Coins,
    remainder: Callable[[Tensor, int], Tensor] = exclude,
    accepts: Callable[[Tensor, int, Any], bool] = lambda r, x, u: u < r[x],
    last: Callable[[Tensor, Uniform | None, Tensor | None], int] | None = None,
    order: Callable[[list[int], Tensor], list[int]] = lambda children, _r: children,
) -> Answer:
    """`rules.reject`, with parts to be changed. `last` draws the last token from r, the last coin refused at this node, and
    what had remained at the node above."""
    path: list[int] = []
    node, above = ROOT, None
    while True:
        r, refused = p[node], None
        for child in order(tree.children(node), r):
            x, coin = tree.token(child), coins.uniform()
            if accepts(r, x, coin):
                break
            r, refused = remainder(r, x), coin
        else:
            return path, last(r, refused, above) if last else coins.categorical(r)
        path.append(child)
        node, above = child, (r if refused is not None else None)


def inverted(p: Tensor, coin: Uniform) -> int:
    """The token at which the cumulative sum of p first exceeds a coin; comparisons are all it asks of the coin."""
    return next((x for x, cumulative in enumerate(p.double().cumsum(0)) if coin < cumulative), int(p.nonzero()[-1]))


class Alone(Engine):
    """The reference decoder, one text at a time: where texts share a pass, what is planted here would be passed by."""

    capabilities = Engine.capabilities - {"batch"}
    __signature__ = inspect.Signature(
        [option for option in inspect.signature(Engine).parameters.values() if option.name != "batch"]
    )


class Planted(Alone):
    """The reference decoder, with a fault planted into it once it is loaded."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.plant(self.decoder)
        if isinstance(self.decoder.drafter, Eagle2):
            self.plant_drafter(self.decoder.drafter)

    def plant(self, decoder: Decoder) -> None: ...

    def plant_drafter(self, drafter: Eagle2) -> None: ...


class PlantedBlock(Planted):
    """A block comes out of the rule otherwise than it went in."""

    def block(self, block: Block, asked: Asked, coins: Coins) -> Block:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        accept = decoder.accept

        def otherwise(sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
            asked = Asked(tree, logits, sequence.tokens, sequence.params)
            return self.block(accept(sequence, tree, logits), asked, sequence.coins)

        decoder.accept = otherwise  # type: ignore[method-assign]


class Asked(NamedTuple):
    """What the law of a tree's nodes is made of."""

    tree: Tree
    logits: Tensor
    text: list[int]
    params: SamplingParams


class PlantedLaw(Planted):
    """Another law is handed to the rule: `wrong` makes it from p [m + 1, V] and from what p was made of."""

    def wrong(self, p: Tensor, asked: Asked) -> Tensor:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        original = decoder.target_distribution

        def target_distribution(sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
            p, scores = original(sequence, tree, logits)
            return self.wrong(p, Asked(tree, logits, sequence.tokens, sequence.params)), scores

        decoder.target_distribution = target_distribution  # type: ignore[method-assign]


class PlantedRows(Planted):
    """The logits [m + 1, V] of a tree come back from the target's pass otherwise."""

    def logits(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        verify = decoder.target.verify

        def otherwise(caches: abc.Sequence[KVCache], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
            return [replace(output, logits=self.logits(output.logits)) for output in verify(caches, trees)]

        decoder.target.verify = otherwise  # type: ignore[method-assign]


class PlantedPass(Planted):
    """What the target is given for a tree is changed: positions [m + 1], or which nodes [m + 1, m + 1] a node may see."""

    def positions(self, positions: Tensor) -> Tensor:
        return positions

    def seen(self, ancestors: Tensor) -> Tensor:
        return ancestors

    def plant(self, decoder: Decoder) -> None:
        target = decoder.target
        positions, mask = target.positions, target.mask

        def other_mask(cache: KVCache, trees: abc.Sequence[Tree]) -> Tensor | None:
            given = mask(cache, trees)
            if given is None:
                return None
            n = cache.length
            return torch.cat([given[..., :n], self.seen(given[0, :, n:])[None]], dim=-1)

        target.positions = lambda cache, trees: self.positions(positions(cache, trees)[0])[None]  # type: ignore[method-assign]
        target.mask = other_mask  # type: ignore[method-assign]


class PlantedCommit(Planted):
    """What is accepted is kept in the target's cache otherwise. `keep` stands for `Target.commit`, which is handed to it."""

    def keep(self, cache: Any, commit: Callable[[abc.Sequence[int]], None], path: list[int]) -> None:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        commit = decoder.target.commit
        decoder.target.commit = lambda cache, path: self.keep(  # type: ignore[method-assign]
            cache, partial(commit, cache), list(path)
        )


class PlantedChildren(Planted):
    """Other candidates are grown; `children` gets the features [texts, n, H] and values [texts, n] of the expanded nodes."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        raise NotImplementedError

    def plant_drafter(self, drafter: Eagle2) -> None:
        grow = drafter.children
        drafter.children = lambda *layer: self.children(grow, *layer)  # type: ignore[method-assign]


class PlantedObserve(Planted):
    """The drafter is told otherwise what was emitted: tokens [n], and the target's features [n, H] before each of them."""

    def seen(self, state: EagleState, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:
        raise NotImplementedError

    def plant_drafter(self, drafter: Eagle2) -> None:
        observe = drafter.observe

        def otherwise(sequence: Sequence, tokens: abc.Sequence[int], features: Tensor) -> None:
            observe(sequence, *self.seen(sequence.draft, list(tokens), features))

        drafter.observe = otherwise  # type: ignore[method-assign]


class PlantedSequence(Planted):
    """A sequence ends elsewhere: `sequence` overrides where."""

    sequence: ClassVar[type[Sequence]]

    def plant(self, decoder: Decoder) -> None:
        decoder.sequence_type = self.sequence


class Drafting(Reference):
    """The reference drafting by a method of the family, one text at a time, with a fault planted into it once it is loaded."""

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, method: str = "") -> None:
        super().__init_subclass__()
        if method:
            made = engine(method)
            cls.family, cls.capabilities = made.family, made.capabilities - {"batch"}
            options = inspect.signature(made).parameters.values()
            cls.__signature__ = inspect.Signature([option for option in options if option.name != "batch"])

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.decoder.drafter:
            self.plant(self.decoder)
            self.rule = self.decoder.rule  # which may be another by now

    def plant(self, decoder: Decoder) -> None:
        raise NotImplementedError
