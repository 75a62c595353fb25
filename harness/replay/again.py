"""Run a witness again: the same text with the same coins, or the same rule on the same tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.errors import BadInput
from eagle2_ref.rules import Accepted, Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.exact import next_token_law
from harness.distributions.teacher import load_plain
from harness.enumeration.boundary import BoundaryCoins
from harness.enumeration.coins import EnumeratedCoins, LazyToken, Unrepeatable, executions, undecided, unfold
from harness.implementations import Implementation
from harness.implementations.engine import AdapterError, BlockTrace, Engine, Missing, Output
from harness.pairs import Pair, shipped
from harness.record.model import Witness
from harness.replay.coins import Coin, Recorded, TellingCoins, decisive

ROUNDING = {"float64": 1e-12}
"""Total variation that rounding may leave after a prefix, by the dtype an engine was opened with; 1e-5 for all others."""


@dataclass(frozen=True)
class Step:
    """The step in which the bad token was due: its tree, the path accepted before it, and the node after which it came."""

    tree: DraftTree
    path: list[int]
    node: int


@dataclass(frozen=True)
class Found:
    """What came this time.

    token, came: the token that is looked at, and whether it came. p [V]: the target's law there; at temperature 0 that of
    temperature 1, of which the likeliest is due. q: the implementation's probability of the token, if all coins could be
    enumerated. departs: the two are not the same law. coins: those of the step; coin: the one that brought the token.
    """

    token: int
    came: bool
    departs: bool
    p: Tensor
    q: float | None
    step: Step | None
    coins: Sequence[Coin]
    coin: Coin | None


def again(implementation: Implementation, seen: Witness, pair: Pair, settings: Mapping[str, str]) -> Found:
    """Run it, with the dtype and the device of the run's settings. Raises Unrepeatable where a recorded choice is not there."""
    common = {name: settings[name] for name in ("dtype", "device") if name in settings and implementation.takes(name)}
    told = seen.model_copy(update={"options": {**common, **seen.options}})
    if not _sensible(seen, pair):
        raise Missing("the witness makes no sense: it has tokens out of the vocabulary, or a tree that is none")
    return _instance(implementation, told, pair) if seen.node is not None else _text(implementation, told, pair)


def pair_of(seen: Witness, given: Pair | None) -> Pair:
    """The pair of a witness: a shipped one, or the user's. A rule alone needs some pair to be opened on, and any will do."""
    if given and given.name == seen.pair:
        return given
    try:
        return shipped(seen.pair or "coin4")
    except BadInput:
        hint = "give --target and --draft: the folders of that pair"
        raise BadInput(f"the pair {seen.pair[:80]!r}, on which this was seen, is not shipped", hint) from None


def _sensible(seen: Witness, pair: Pair) -> bool:
    """Whether a witness can be run at all: a record may hold anything."""
    if seen.node is None:
        return seen.position >= 0 and all(0 <= token < pair.vocab_size for token in (*seen.prompt, seen.emitted))
    vocab_size = len(seen.law[0]) if seen.law else 0
    fits = len(seen.tokens) == len(seen.law) and all(len(row) == vocab_size for row in seen.law)
    known = all(0 <= token < vocab_size for token in (*seen.tokens, seen.emitted))
    return fits and known and 0 <= seen.node < len(seen.tokens) and _sound(seen.tokens, seen.parents)


def _sound(tokens: Sequence[int], parents: Sequence[int]) -> bool:
    """Whether these are a tree: every parent stands before its child."""
    return len(tokens) == len(parents) > 0 and all(-1 < parent < i for i, parent in enumerate(parents) if i)


# --- a text --------------------------------------------------------------------------------------------------------


def _text(implementation: Implementation, seen: Witness, pair: Pair) -> Found:
    engine = _open(implementation, seen, pair)
    output, told = _decoded(engine, seen)
    before = tuple(int(token) for token in output.tokens[: seen.position])
    came = seen.position < len(output.tokens) and _is(output.tokens[seen.position], seen.emitted)
    params = SamplingParams.of(seen.params)
    p = _due(params, seen.prompt, before, pair)
    q, departs = (None, True) if seen.choices is None else _enumerated(engine, seen, before, p)
    if params.temperature == 0:  # a law of one token says little: shown is what that token was the likeliest of
        p = _due(replace(params, temperature=1.0), seen.prompt, before, pair)
    step, start = _step(output, seen.position)
    coins = [coin for coin in told if coin.position == len(seen.prompt) + start]
    return Found(seen.emitted, came, departs, p, q, step, coins, decisive(coins, seen.position - start))


def _decoded(engine: Engine, seen: Witness) -> tuple[Output, list[Coin]]:
    """The text with the coins that it was made with then, and what these were asked; nothing of a decoder's own coins."""
    prompt, params = list(seen.prompt), seen.params
    if seen.choices is None and not seen.keyed:
        if seen.seed is None:
            raise Missing("the witness tells neither coins nor a seed")
        return engine.generate([prompt], [params], [seen.seed])[0], []
    engine.implementation.require("coins")
    coins = TellingCoins(
        EnumeratedCoins(Recorded(seen.choices)) if seen.choices is not None else KeyedCoins(seen.seed or 0),
    )
    return engine.decode(prompt, params, coins), coins.told


@torch.inference_mode()
def _due(params: SamplingParams, prompt: Sequence[int], before: tuple[int, ...], pair: Pair) -> Tensor:
    """p [V] after the prompt and the tokens before; all zero where the text has ended already."""
    p = next_token_law(load_plain(pair, "float64"), torch.tensor([[*prompt, *before]]), params)[0]
    return p * 0 if any(params.ends(token) for token in before) else p


def _enumerated(engine: Engine, seen: Witness, before: tuple[int, ...], p: Tensor) -> tuple[float | None, bool]:
    """q, and whether it departs. One text alone shows no fault: a right decoder emits it too, as often as is due."""
    try:
        texts = [
            (text, float(weight * share))
            for output, weight in executions(lambda coins: engine.decode(list(seen.prompt), seen.params, coins))
            for text, share in unfold(output.tokens)
        ]
    except Unrepeatable:  # something is left over from one text to the next, which is a fault of its own
        return None, True
    law = _after(texts, before)
    return _share(law, seen.emitted), _departs(law, p, seen)


def _is(token: object, emitted: int) -> bool:
    """Whether a token is the one, or can be where chance has left it open."""
    return float(token.law[emitted]) > 0 if isinstance(token, LazyToken) and undecided(token) else token == emitted


def _step(output: Output, position: int) -> tuple[Step | None, int]:
    """The step whose block holds a new token, if the implementation tells its trees; and the first new token of the block."""
    start = 0
    for block in output.blocks or ():
        if position <= start + block.accepted:
            tree = _tree(block)
            return (_down(tree, output.tokens[start:position]) if tree else None), start
        start += block.accepted + 1
    return None, start


def _tree(block: BlockTrace) -> DraftTree | None:
    """The tree of a block; None for the prompt's pass, and for a trace that is no tree."""
    sound = _sound(block.tokens, block.parents)
    return DraftTree.of(list(block.tokens), list(block.parents)) if sound else None


def _down(tree: DraftTree, tokens: Sequence[int]) -> Step:
    """As far down the tree as the emitted tokens lead."""
    path: list[int] = []
    for token in tokens:
        child = tree.child(path[-1] if path else ROOT, int(token))
        if child is None:
            break
        path.append(child)
    return Step(tree, path, path[-1] if path else ROOT)


# --- a rule alone --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Execution:
    """What a rule did with one run of the coins."""

    accepted: Accepted
    tokens: list[int]
    told: list[Coin]
    weight: float

    def texts(self) -> Iterator[tuple[tuple[int, ...], float]]:
        for text, share in unfold(self.tokens):
            yield text, self.weight * float(share)


def _instance(implementation: Implementation, seen: Witness, pair: Pair) -> Found:
    """All executions of the rule; looked at is the token that comes too often after the node. If none does, what coins at the
    edge bring is looked at too."""
    implementation.require("accept")
    rule: Rule = _open(implementation, seen, pair, small="budget" in implementation.capabilities).raw.rule
    tree, p = DraftTree.of(list(seen.tokens), list(seen.parents)), torch.tensor(seen.law, dtype=torch.float64)
    node = seen.node or ROOT
    before = tuple(tree.token(each) for each in tree.path(node))
    step = Step(tree, tree.path(node), node)
    runs = list(_executions(rule, tree, p, lambda coins: coins))
    law = _after((text for run in runs for text in run.texts()), before)
    if _departs(law, p[node], seen):
        reached = sum(law.values())
        token = max(law, key=lambda x: law[x] - reached * float(p[node, x]))
        first = next(run for run in runs for text, _ in run.texts() if text[: len(before) + 1] == (*before, token))
        return Found(token, True, True, p[node], _share(law, token), step, first.told, decisive(first.told, len(before)))
    edge = _executions(rule, tree, p, BoundaryCoins)
    if bad := next((run for run in edge if _impossible(run, tree, p, node, seen.emitted)), None):
        return Found(seen.emitted, True, True, p[node], None, step, bad.told, decisive(bad.told, len(before)))
    q = _share(law, seen.emitted)
    return Found(seen.emitted, q > 0, False, p[node], q, step, runs[0].told, None)


def _executions(rule: Rule, tree: DraftTree, p: Tensor, make: Callable[[EnumeratedCoins], Any]) -> Iterator[Execution]:
    def run(coins: EnumeratedCoins) -> tuple[Accepted, list[Coin]]:
        telling = TellingCoins(make(coins))
        try:
            return rule(tree, p.clone(), telling), telling.told
        except Unrepeatable:
            raise
        except Exception as error:
            raise AdapterError(f"the rule raised: {type(error).__name__}: {error}") from error

    for (accepted, told), weight in executions(run):
        yield Execution(accepted, accepted.tokens(tree), told, float(weight))


def _impossible(run: Execution, tree: DraftTree, p: Tensor, node: int, token: int) -> bool:
    """Whether the token came after the node, though it has probability zero there or came as a node that is no child of it."""
    steps = zip([ROOT, *run.accepted.path], [*run.accepted.path, None], run.tokens, strict=True)
    return any(
        at == node and came == token and (p[node, token] <= 0 or (child is not None and tree.parent(child) != node))
        for at, child, came in steps
    )


# --- both ----------------------------------------------------------------------------------------------------------


def _open(implementation: Implementation, seen: Witness, pair: Pair, small: bool = False) -> Engine:
    """small: with a budget that fits any pair. To a rule alone it is of no matter."""
    budget = {"k": 2, "depth": 2, "m": 4} if small else {}
    options: dict[str, Any] = {**budget, **seen.options}
    return implementation.open(pair, **options)


def _after(texts: Iterable[tuple[tuple[int, ...], float]], before: tuple[int, ...]) -> dict[int, float]:
    """Weight of each token that comes next in texts that begin with `before`."""
    law: dict[int, float] = defaultdict(float)
    for text, weight in texts:
        if len(text) > len(before) and text[: len(before)] == before:
            law[text[len(before)]] += weight
    return law


def _share(law: dict[int, float], token: int) -> float:
    total = sum(law.values())
    return law.get(token, 0.0) / total if total else 0.0


def _departs(law: dict[int, float], p: Tensor, seen: Witness) -> bool:
    reached = sum(law.values())
    distance: float = sum(abs(law.get(x, 0.0) - reached * px) for x, px in enumerate(p.tolist())) / 2
    return distance > ROUNDING.get("float64" if seen.law else str(seen.options.get("dtype")), 1e-5)
