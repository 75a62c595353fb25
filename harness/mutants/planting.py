"""How a fault is planted into the reference decoder: one part of it is changed, the rest stays as it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from eagle2_ref.coins import Coins, Uniform
from eagle2_ref.decode import Block, Decoder
from eagle2_ref.drafters.eagle2 import Eagle2, Pool
from eagle2_ref.model.network import Rows
from eagle2_ref.rules import without
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree, Tree
from harness.implementations.reference import Engine, Reference, engine

Answer = tuple[list[int], int]


def broken_reject(
    tree: DraftTree,
    p: Tensor,
    coins: Coins,
    remainder: Callable[[Tensor, int], Tensor] = without,
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
        accept = decoder._accept

        def otherwise(tree: Tree, logits: Tensor, text: list[int], params: SamplingParams, coins: Coins) -> Block:
            return self.block(accept(tree, logits, text, params, coins), Asked(tree, logits, text, params), coins)

        decoder._accept = otherwise  # type: ignore[method-assign]


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
        rule, original = decoder.rule, decoder._accept

        def accept(tree: Tree, logits: Tensor, text: list[int], params: SamplingParams, coins: Coins) -> Block:
            decoder.rule = lambda tree, p, coins: rule(tree, self.wrong(p, Asked(tree, logits, text, params)), coins)
            return original(tree, logits, text, params, coins)

        decoder._accept = accept  # type: ignore[method-assign]


class PlantedRows(Planted):
    """The logits [m + 1, V] of a tree come back from the target's pass otherwise."""

    def logits(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        verify = decoder.target.verify

        def otherwise(tree: Tree) -> Rows:
            rows = verify(tree)
            return replace(rows, logits=self.logits(rows.logits))

        decoder.target.verify = otherwise  # type: ignore[method-assign]


class PlantedPass(Planted):
    """What the target is given for a tree is changed: positions [m + 1], or which nodes [m + 1, m + 1] a node may see."""

    def positions(self, positions: Tensor) -> Tensor:
        return positions

    def seen(self, ancestors: Tensor) -> Tensor:
        return ancestors

    def plant(self, decoder: Decoder) -> None:
        forward, seen = decoder.target._forward, decoder.target._seen

        def given(tokens: Tensor, positions: Tensor, seen: Tensor | None, last: bool = False) -> Rows:
            return forward(tokens, positions if last else self.positions(positions[0])[None], seen, last)

        decoder.target._forward = given  # type: ignore[method-assign]
        decoder.target._seen = lambda ancestors: seen(self.seen(ancestors))  # type: ignore[method-assign]


class PlantedCommit(Planted):
    """What is accepted is kept in the target's cache otherwise. `keep` stands for `Target.commit`, which is handed to it."""

    def keep(self, commit: Callable[[Sequence[int]], None], path: list[int]) -> None:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        commit = decoder.target.commit
        decoder.target.commit = lambda path: self.keep(commit, list(path))  # type: ignore[method-assign]


class PlantedChildren(Planted):
    """Other candidates are grown; `children` gets the features [texts, n, H] and values [texts, n] of the expanded nodes."""

    def children(self, grow: Callable[..., Pool], features: Tensor, values: Tensor, parents: Tensor) -> Pool:
        raise NotImplementedError

    def plant_drafter(self, drafter: Eagle2) -> None:
        grow = drafter._children
        drafter._children = lambda *layer: self.children(grow, *layer)  # type: ignore[method-assign]


class PlantedObserve(Planted):
    """The drafter is told otherwise what was emitted: tokens [n], and the target's features [n, H] before each of them."""

    def seen(self, drafter: Eagle2, tokens: list[int], features: Tensor) -> tuple[list[int], Tensor]:
        raise NotImplementedError

    def plant_drafter(self, drafter: Eagle2) -> None:
        observe = drafter.observe

        def otherwise(tokens: Sequence[int], features: Tensor) -> None:
            observe(*self.seen(drafter, list(tokens), features))

        drafter.observe = otherwise  # type: ignore[method-assign]


class PlantedCut(Planted):
    """Where a block is cut at an end of text inside it. As it stands here it never is."""

    def cut(self, block: Block, text: list[int], params: SamplingParams) -> Block:  # noqa: ARG002
        return block

    def plant(self, decoder: Decoder) -> None:
        super().plant(decoder)
        accept = decoder._accept

        def uncut(tree: Tree, logits: Tensor, text: list[int], params: SamplingParams, coins: Coins) -> Block:
            return self.cut(accept(tree, logits, text, replace(params, eos_token_id=None), coins), text, params)

        decoder._accept = uncut  # type: ignore[method-assign]


class PlantedStream(Planted):
    """The blocks come out of the decoder otherwise than they went in."""

    def stream(
        self, blocks: Callable[..., Iterator[Block]], prompt: list[int], params: SamplingParams, coins: Coins
    ) -> Iterator[Block]:
        raise NotImplementedError

    def plant(self, decoder: Decoder) -> None:
        super().plant(decoder)
        stream = decoder.stream
        decoder.stream = lambda *asked: self.stream(stream, *asked)  # type: ignore[method-assign]


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
