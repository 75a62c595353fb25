"""Reproduce a witness: the same text with the same random numbers, or the same rule on the same tree."""

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
from harness.distributions.scoring import load_target
from harness.enumeration.boundary import BoundaryCoins
from harness.enumeration.coins import EnumeratedCoins, SymbolicToken, Unrepeatable, executions, is_symbolic, unfold
from harness.implementations import Implementation
from harness.implementations.engine import AdapterError, BlockTrace, Engine, Missing, Output
from harness.pairs import Pair, shipped
from harness.record.model import Witness
from harness.replay.recording_coins import Draw, RecordedTrail, RecordingCoins, decisive

ROUNDING = {"float64": 1e-12}
"""Total variation after a prefix that rounding may cause, by the dtype of the engine; 1e-5 for all others."""


@dataclass(frozen=True)
class Step:
    """The step that emits the wrong token: its tree, the path accepted before it, and the node after which it is emitted."""

    tree: DraftTree
    path: list[int]
    node: int


@dataclass(frozen=True)
class Reproduction:
    """Outcome of a replay.

    Args:
        token: the token of the witness.
        emitted: whether it was emitted again.
        departs: whether the implementation's law differs from the target's.
        p: the target's law at this place, [V]; at temperature 0 that of temperature 1, whose most likely token is correct.
        q: the implementation's probability of the token, if its random numbers can be enumerated.
        step: the step that emits the token, if the implementation reports its trees.
        draws: the random numbers of that step.
        decisive: the one that decided the token.
    """

    token: int
    emitted: bool
    departs: bool
    p: Tensor
    q: float | None
    step: Step | None
    draws: Sequence[Draw]
    decisive: Draw | None


def reproduce(implementation: Implementation, seen: Witness, pair: Pair, settings: Mapping[str, str]) -> Reproduction:
    """Reproduce a witness with the dtype and device of the run.

    Raises:
        Unrepeatable: a recorded choice does not exist any more.
        Missing: the witness is invalid.
    """
    common = {name: settings[name] for name in ("dtype", "device") if name in settings and implementation.takes(name)}
    complete = seen.model_copy(update={"options": {**common, **seen.options}})
    if not _valid(seen, pair):
        raise Missing("the witness is invalid: it has tokens outside the vocabulary, or its tree is not a tree")
    return (
        _reproduce_rule(implementation, complete, pair)
        if seen.node is not None
        else _reproduce_text(implementation, complete, pair)
    )


def pair_of(seen: Witness, given: Pair | None) -> Pair:
    """The pair of a witness: a shipped one or the user's. For a rule alone any pair will do."""
    if given and given.name == seen.pair:
        return given
    try:
        return shipped(seen.pair or "coin4")
    except BadInput:
        hint = "give --target and --draft: the folders of that pair"
        raise BadInput(f"the pair {seen.pair[:80]!r} of this witness is not shipped", hint) from None


def _valid(seen: Witness, pair: Pair) -> bool:
    """Whether a witness can be reproduced at all: a record may hold anything."""
    if seen.node is None:
        return seen.position >= 0 and all(0 <= token < pair.vocab_size for token in (*seen.prompt, seen.emitted))
    vocab_size = len(seen.law[0]) if seen.law else 0
    fits = len(seen.tokens) == len(seen.law) and all(len(row) == vocab_size for row in seen.law)
    known = all(0 <= token < vocab_size for token in (*seen.tokens, seen.emitted))
    return fits and known and 0 <= seen.node < len(seen.tokens) and _is_tree(seen.tokens, seen.parents)


def _is_tree(tokens: Sequence[int], parents: Sequence[int]) -> bool:
    """Whether parents are those of a tree: every parent comes before its children."""
    return len(tokens) == len(parents) > 0 and all(-1 < parent < i for i, parent in enumerate(parents) if i)


# --- a text --------------------------------------------------------------------------------------------------------


def _reproduce_text(implementation: Implementation, seen: Witness, pair: Pair) -> Reproduction:
    engine = _open(implementation, seen, pair)
    output, draws = _decode(engine, seen)
    before = tuple(int(token) for token in output.tokens[: seen.position])
    emitted = seen.position < len(output.tokens) and _can_be(output.tokens[seen.position], seen.emitted)
    params = SamplingParams.of(seen.params)
    p = _target_law(params, seen.prompt, before, pair)
    q, departs = (None, True) if seen.choices is None else _enumerate(engine, seen, before, p)
    if params.temperature == 0:  # a point mass shows nothing: print the law that its token is the most likely one of
        p = _target_law(replace(params, temperature=1.0), seen.prompt, before, pair)
    step, start = _step(output, seen.position)
    own = [draw for draw in draws if draw.position == len(seen.prompt) + start]
    return Reproduction(seen.emitted, emitted, departs, p, q, step, own, decisive(own, seen.position - start))


def _decode(engine: Engine, seen: Witness) -> tuple[Output, list[Draw]]:
    """The text with the recorded random numbers, and how they were used; an engine's own numbers are not visible."""
    prompt, params = list(seen.prompt), seen.params
    if seen.choices is None and not seen.keyed:
        if seen.seed is None:
            raise Missing("the witness has neither choices nor a seed")
        return engine.generate([prompt], [params], [seen.seed])[0], []
    engine.implementation.require("coins")
    source = KeyedCoins(seen.seed or 0) if seen.choices is None else EnumeratedCoins(RecordedTrail(seen.choices))
    coins = RecordingCoins(source)
    return engine.decode(prompt, params, coins), coins.draws


@torch.inference_mode()
def _target_law(params: SamplingParams, prompt: Sequence[int], before: tuple[int, ...], pair: Pair) -> Tensor:
    """p [V] after the prompt and the tokens before; all zero if the text has ended."""
    p = next_token_law(load_target(pair, "float64"), torch.tensor([[*prompt, *before]]), params)[0]
    return p * 0 if any(params.ends(token) for token in before) else p


def _enumerate(engine: Engine, seen: Witness, before: tuple[int, ...], p: Tensor) -> tuple[float | None, bool]:
    """q, and whether the law departs from p. A single text shows no fault: a correct decoder emits it too."""
    try:
        texts = [
            (text, float(weight * share))
            for output, weight in executions(lambda coins: engine.decode(list(seen.prompt), seen.params, coins))
            for text, share in unfold(output.tokens)
        ]
    except Unrepeatable:  # state is carried over from one text to the next, which is a fault too
        return None, True
    law = _after(texts, before)
    return _share(law, seen.emitted), _departs(law, p, seen)


def _can_be(token: object, emitted: int) -> bool:
    """Whether a token is, or can still become, the emitted one: a last token may be symbolic."""
    return float(token.law[emitted]) > 0 if isinstance(token, SymbolicToken) and is_symbolic(token) else token == emitted


def _step(output: Output, position: int) -> tuple[Step | None, int]:
    """The step whose block holds a new token, if trees are reported, and the index of the first token of that block."""
    start = 0
    for block in output.blocks or ():
        if position <= start + block.accepted:
            tree = _tree(block)
            return (_descend(tree, output.tokens[start:position]) if tree else None), start
        start += block.accepted + 1
    return None, start


def _tree(block: BlockTrace) -> DraftTree | None:
    """The tree of a block; None for the prompt's pass, and where what is reported is not a tree."""
    valid = _is_tree(block.tokens, block.parents)
    return DraftTree.of(list(block.tokens), list(block.parents)) if valid else None


def _descend(tree: DraftTree, tokens: Sequence[int]) -> Step:
    """Follow the emitted tokens down the tree, as far as they are in it."""
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
    """One execution of a rule: its result, its random numbers and its probability."""

    accepted: Accepted
    tokens: list[int]
    draws: list[Draw]
    weight: float

    def texts(self) -> Iterator[tuple[tuple[int, ...], float]]:
        for text, share in unfold(self.tokens):
            yield text, self.weight * float(share)


def _reproduce_rule(implementation: Implementation, seen: Witness, pair: Pair) -> Reproduction:
    """Enumerate the rule, and find the token that is emitted too often after the node. If there is none, try boundary numbers."""
    implementation.require("accept")
    rule: Rule = _open(implementation, seen, pair, smallest="budget" in implementation.capabilities).raw.rule
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
        return Reproduction(token, True, True, p[node], _share(law, token), step, first.draws, decisive(first.draws, len(before)))
    boundary = _executions(rule, tree, p, BoundaryCoins)
    if wrong := next((run for run in boundary if _impossible(run, tree, p, node, seen.emitted)), None):
        return Reproduction(seen.emitted, True, True, p[node], None, step, wrong.draws, decisive(wrong.draws, len(before)))
    q = _share(law, seen.emitted)
    return Reproduction(seen.emitted, q > 0, False, p[node], q, step, runs[0].draws, None)


def _executions(rule: Rule, tree: DraftTree, p: Tensor, make: Callable[[EnumeratedCoins], Any]) -> Iterator[Execution]:
    def run(coins: EnumeratedCoins) -> tuple[Accepted, list[Draw]]:
        recording = RecordingCoins(make(coins))
        try:
            return rule(tree, p.clone(), recording), recording.draws
        except Unrepeatable:
            raise
        except Exception as error:
            raise AdapterError(f"the rule raised: {type(error).__name__}: {error}") from error

    for (accepted, draws), weight in executions(run):
        yield Execution(accepted, accepted.tokens(tree), draws, float(weight))


def _impossible(run: Execution, tree: DraftTree, p: Tensor, node: int, token: int) -> bool:
    """Whether the token was emitted after the node although its probability is zero, or as a node that is not a child of it."""
    steps = zip([ROOT, *run.accepted.path], [*run.accepted.path, None], run.tokens, strict=True)
    return any(
        at == node and emitted == token and (p[node, token] <= 0 or (child is not None and tree.parent(child) != node))
        for at, child, emitted in steps
    )


# --- both ----------------------------------------------------------------------------------------------------------


def _open(implementation: Implementation, seen: Witness, pair: Pair, smallest: bool = False) -> Engine:
    """smallest: use a budget that fits any pair, for a rule alone, to which the budget does not matter."""
    budget = {"k": 2, "depth": 2, "m": 4} if smallest else {}
    options: dict[str, Any] = {**budget, **seen.options}
    return implementation.open(pair, **options)


def _after(texts: Iterable[tuple[tuple[int, ...], float]], before: tuple[int, ...]) -> dict[int, float]:
    """Weight of each next token of the texts that begin with `before`."""
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
