"""Acceptance of a draft head along the target's own texts, without a server: what `eagle2 acceptance` measures.

A tree of chosen tokens depends on the text before it and on nothing else, and a decoding step emits the path of the tree that the
text follows, and one token more. So for a given text the target's passes follow from the accepted length at every position:
the first root is the first new token, and from a root at which a tokens are accepted, the next one is a + 1 tokens further on.
The number of passes that this walk takes is that of decoding the same text, apart from rounding. At temperature 0 there is one
text; at another temperature it is a sample from the target, with the law that decoding has, since decoding is lossless.

The features are those of one target pass over the whole text, and the head reads the text in one pass. Many positions are then
drafted at once. Depth and m need no expansion of their own: the pool of a shallower tree is the upper layers of a deeper one's,
and a tree of m nodes the first m of its pool by value, so that one pool per k gives all cells of the grid.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eagle2_ref.coins import KeyedCoins
from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.decode import Sequence as Text
from eagle2_ref.drafters.base import Drafter, DraftState
from eagle2_ref.drafters.medusa import MedusaDrafter
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.benchmark.acceptance_ceiling import ceiling
from harness.benchmark.acceptance_figures import acceptance_figures, check_comparable, checked_cells, passes_of
from harness.benchmark.acceptance_grid import grid_of, largest, method_of, sized
from harness.benchmark.acceptance_record import (
    FEWEST_CHECKED,
    AcceptanceFooter,
    AcceptanceHeader,
    AcceptanceRecord,
    CeilingText,
    Cell,
    DecodedText,
    TextAcceptance,
)
from harness.benchmark.chat import Chat
from harness.benchmark.prompts import read_prompts, spread
from harness.benchmark.record import Reliability
from harness.benchmark.reliability import binned
from harness.benchmark.repetition import repeated_ngrams
from harness.benchmark.runner import Progress, header_facts, record_run, threads
from harness.benchmark.settings import AcceptanceSettings
from harness.pairs import Pair, Prompt

ROOTS = 32
"""Positions that are drafted at once."""

TEXTS = 16
"""Texts that are generated at once."""

Ints = NDArray[np.int64]


# --- what a text follows of a tree ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Followed:
    """The candidates of one position that the text follows.

    dynamic: trees are chosen by value, and near the end of a text from the upper layers alone (EAGLE-2); a static tree then only
    loses its lower layers (Medusa).
    ranks: how many candidates a smaller tree keeps before each of them, by the depth of the tree, [n, depth + 1].
    confidences, accepted: of all candidates whose parent the text follows; accepted is 1 for those that it follows too.
    """

    dynamic: bool
    ranks: Ints
    confidences: NDArray[np.float64]
    accepted: NDArray[np.float64]

    @classmethod
    def of(cls, tree: DraftTree, text: Sequence[int], dynamic: bool) -> Followed:
        """From a tree of all candidates.

        Args:
            tree: the candidates; of a dynamic tree layer by layer.
            text: the tokens after the root.
            dynamic: candidates of higher value are kept first, of equal ones the earlier; otherwise they are kept in their order.
        """
        tokens, parents, values = (field.numpy() for field in (tree.tokens, tree.parents, tree.values))
        path, confidences, accepted, node = list[int](), list[NDArray[np.float64]](), list[NDArray[np.float64]](), 0
        for token in text:
            children = np.flatnonzero(parents == node)
            if not len(children):
                break
            confidences.append(np.exp((values[children] - values[node]).astype(float)))
            accepted.append((tokens[children] == token).astype(float))
            if not accepted[-1].any():
                break
            node = int(children[accepted[-1].argmax()])
            path.append(node)
        depths = _depths(parents)
        nodes, chosen = np.arange(len(parents)), np.array(path, dtype=int)[:, None]
        before = nodes < chosen
        if dynamic:
            before = (values > values[chosen]) | (values == values[chosen]) & before
        before[:, 0] = False  # the root is in every tree
        deepest = int(depths.max())
        ranks = np.stack([(before & (depths <= d)).sum(1) for d in range(deepest + 1)], axis=1)
        return cls(dynamic, ranks, np.concatenate([*confidences, []]), np.concatenate([*accepted, []]))

    def accepted_tokens(self, depth: int, m: int, room: int) -> int:
        """Tokens of the text that are accepted from the tree of m nodes in `depth` layers, where `room` layers are useful."""
        limit = min(depth, room)
        if limit < 1:
            return 0
        column = min(limit if self.dynamic else depth, self.ranks.shape[1] - 1)
        return int((self.ranks[:limit, column] < m).sum())


def _depths(parents: Ints) -> Ints:
    """Depth of every node; parents come before their children."""
    depths = np.zeros(len(parents), dtype=np.int64)
    while True:
        deeper = np.where(parents < 0, 0, depths[parents] + 1)
        if (deeper == depths).all():
            return depths
        depths = deeper


# --- texts and positions --------------------------------------------------------------------------------------------------


def target_texts(
    target: Target, prompts: Sequence[Prompt], settings: AcceptanceSettings, ends: tuple[int, ...], progress: Progress
) -> Iterator[tuple[float, Prompt, Generation]]:
    """The target's own texts, decoded without drafts, in batches. The seed of a text is the place of its prompt."""
    decoder = Decoder(target)
    requests = [(t, number, prompt) for t in settings.temperatures for number, prompt in enumerate(prompts)]
    for first in range(0, len(requests), TEXTS):
        progress("texts of the target", first, len(requests))
        part = requests[first : first + TEXTS]
        texts = decoder.generate_batch(
            [prompt.tokens for _, _, prompt in part],
            [params_of(t, settings, ends) for t, _, _ in part],
            [KeyedCoins(settings.seed + number) for _, number, _ in part],
        )
        yield from ((t, prompt, text) for (t, _, prompt), text in zip(part, texts, strict=True))


def params_of(temperature: float, settings: AcceptanceSettings, ends: tuple[int, ...]) -> SamplingParams:
    return SamplingParams(temperature, max_new_tokens=settings.tokens, eos_token_id=ends or None)


@torch.inference_mode()
def positions(decoder: Decoder, trees: Drafter, base: Text, features: torch.Tensor, roots: Sequence[int]) -> list[DraftTree]:
    """The trees that a drafter proposes at several positions of a text, as after a block that ended there.

    Args:
        decoder: target and head.
        trees: drafter with the same head, and trees of the wanted size.
        base: the text, which the head has read: see `read_text`.
        features: the target's features [n, H] at all positions of the text.
        roots: positions of the roots.
    """
    assert decoder.drafter
    sequences = []
    for root in roots:
        sequence = Text(base.tokens[: root + 1], base.params, base.coins, base.cache, base.context)
        sequence.draft = fork(base.draft, root - 1)  # the entries of the tokens after the first, up to the root
        decoder.drafter.observe(sequence, sequence.tokens[-1:], features[root - 1 : root])
        sequences.append(sequence)
    found = trees.propose(sequences)
    assert all(isinstance(tree, DraftTree) for tree in found), "only chosen tokens depend on the text alone"
    return [tree for tree in found if isinstance(tree, DraftTree)]


def read_text(decoder: Decoder, text: Sequence[int], depth: int) -> tuple[Text, torch.Tensor]:
    """One pass of the target, and one of the head, over a text.

    Returns:
        The sequence, with the head's state after the text, and the target's features [n, H]. A tree that is drafted from it has
        `depth` layers at most.
    """
    assert decoder.drafter
    sequence = decoder.start(text, SamplingParams(0.0, max_new_tokens=depth + 1), KeyedCoins(0))
    (output,) = decoder.target.prefill([decoder.target.cache()], [text])
    decoder.drafter.observe(sequence, text[1:], output.features[:-1])
    sized(decoder.drafter, Cell(k=1, depth=1, m=1)).propose([sequence])
    return sequence, output.features


def fork(state: DraftState, length: int) -> DraftState:
    """A copy of what a drafter knows of a text, as it was when its caches had so many entries."""
    other = copy(state)
    for name, value in vars(state).items():
        if isinstance(value, KVCache):
            cache = copy(value)
            cache.place(value.storage.copy_row(value.row), 0)
            cache.truncate(length)
            setattr(other, name, cache)
        elif isinstance(value, list):
            setattr(other, name, list(value))
    return other


@dataclass(frozen=True)
class Measured:
    """Acceptance along one text, and the confidences of candidates whose parent the text follows."""

    line: TextAcceptance
    confidences: NDArray[np.float64]
    accepted: NDArray[np.float64]


def measure_text(
    decoder: Decoder, grid: Sequence[Cell], budget: Cell, prompt: Prompt, temperature: float, text: Generation, room: int
) -> Measured:
    """Acceptance at every position of a text, for every cell of a grid.

    Args:
        decoder: target and head; its rule is not used.
        grid: the cells.
        budget: the cell whose accepted lengths are stored.
        prompt: the prompt of the text.
        temperature: its temperature.
        text: the text.
        room: number of new tokens that it could have had.
    """
    assert decoder.drafter
    depth, new = max(cell.depth for cell in grid), len(text.tokens)
    tokens = [*prompt.tokens, *text.tokens]
    accepted: dict[Cell, list[int]] = {}
    confidences, taken = np.empty(0), np.empty(0)
    if new > 1:
        # The last token is no root: the text ends with it.
        base, features = read_text(decoder, tokens[:-1], depth)
    chain = largest(decoder.drafter, 1, depth)
    for k in sorted({1, *(cell.k for cell in grid)}):
        trees = sized(decoder.drafter, largest(decoder.drafter, k, depth))
        dynamic = not isinstance(trees, MedusaDrafter)
        followed = list[Followed]()
        for first in range(0, new - 1, ROOTS):
            roots = [len(prompt.tokens) + i for i in range(first, min(first + ROOTS, new - 1))]
            drafted = positions(decoder, trees, base, features, roots)
            followed += [Followed.of(tree, tokens[root + 1 :], dynamic) for tree, root in zip(drafted, roots, strict=True)]
        for cell in {*grid, budget, chain}:
            if cell.k == k:
                # Near the end of a turn decoding drafts shallower trees: `Sequence.max_depth` is room - i - 2.
                accepted[cell] = [one.accepted_tokens(cell.depth, cell.m, room - i - 2) for i, one in enumerate(followed)]
        if k == budget.k and followed:
            confidences = np.concatenate([one.confidences for one in followed])
            taken = np.concatenate([one.accepted for one in followed])
    line = TextAcceptance(
        temperature=temperature,
        prompt=prompt.id,
        tokens=new,
        finish=text.finish,
        digest=hashlib.sha256(json.dumps([int(token) for token in text.tokens]).encode()).hexdigest()[:16],
        room=room,
        repeated=repeated_ngrams(text.tokens),
        chain=tuple(accepted[chain]),
        tree=tuple(accepted[budget]),
        passes=tuple(passes_of(accepted[cell]) for cell in grid),
    )
    return Measured(line, confidences, taken)


# --- a run ----------------------------------------------------------------------------------------------------------------


def run_acceptance(
    settings: AcceptanceSettings,
    pair: Pair,
    file: Path,
    out: Path,
    command: str,
    progress: Progress,
    before: AcceptanceRecord | None = None,
) -> AcceptanceRecord:
    """Measure a head.

    Args:
        settings: settings of the run.
        pair: target and head.
        file: prompts or questions.
        out: folder of the record.
        command: the command that repeats the run.
        progress: receives what is done now.
        before: an earlier run, which must be comparable.

    Raises:
        BadInput: the head, an option or the prompts are wrong, or the earlier run has others.
    """
    started, method = time.monotonic(), method_of(pair.draft)
    with threads(settings.threads):
        target = Target.load(pair.target, settings.dtype, settings.device)
        decoder = Decoder(target, method.options(k=1, depth=1, m=1).drafter(target, pair.draft), walk)  # trees are sized later
        assert decoder.drafter
        grid, budget = grid_of(settings, method, decoder.drafter, target.vocab_size)
        progress("prompts", 0, 0)
        chat = partial(Chat.of, pair)
        prompts, ends = read_prompts(file, pair, settings, lambda: target, chat)
        if 0 < min(settings.checks, len(prompts)) < FEWEST_CHECKED:
            raise BadInput(
                f"the estimate can be checked on {min(settings.checks, len(prompts))} prompts only, too few for an interval",
                f"give --checks and --limit of {FEWEST_CHECKED} or more, or --checks 0",
            )
        header = AcceptanceHeader(
            **header_facts(settings, prompts, command),
            head=method.name,
            grid=tuple(grid),
            budget=budget,
            trained_on=training_tokens(pair.draft),
        )
        if before:
            check_comparable(header, before.header)  # before minutes of measuring
        lines = measurements(decoder, header, prompts, ends, progress)
        return record_run(out, header, lines, AcceptanceFooter, partial(acceptance_figures, header), started)


def training_tokens(draft: Path) -> int | None:
    """Tokens of text that a head was trained on, if the training.json of `eagle2 train` is next to it."""
    try:
        found = json.loads((draft / "training.json").read_text(encoding="utf-8"))["training_tokens"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def measurements(
    decoder: Decoder, header: AcceptanceHeader, prompts: Sequence[Prompt], ends: tuple[int, ...], progress: Progress
) -> Iterator[TextAcceptance | Reliability | DecodedText | CeilingText]:
    """All lines of a record in their order."""
    settings, grid, budget = header.settings, header.grid, header.budget
    target = Target(decoder.target.network, decoder.target.name)
    texts = list(target_texts(target, prompts, settings, ends, progress))
    examined: dict[float, list[Measured]] = {t: [] for t in settings.temperatures}
    for number, (temperature, prompt, text) in enumerate(texts):
        progress(f"positions at temperature {temperature:g}", number, len(texts))
        room = min(settings.tokens, decoder.target.context - len(prompt.tokens))
        found = measure_text(decoder, grid, budget, prompt, temperature, text, room)
        examined[temperature].append(found)
        yield found.line
    for temperature, measured in examined.items():
        confidences, taken = (np.concatenate([getattr(one, name) for one in measured]) for name in ("confidences", "accepted"))
        if len(confidences):
            yield binned(confidences, taken, temperature, 1.0)
    own = {(t, prompt.id): text.tokens for t, prompt, text in texts}
    numbered = spread(list(enumerate(prompts)), settings.checks) if settings.checks else []
    cells = checked_cells(header)
    done, total = 0, len(settings.temperatures) * len(cells) * len(numbered)
    for temperature in settings.temperatures:
        for cell in cells:
            for number, prompt in numbered:
                progress(f"decoding at temperature {temperature:g}", done, total)
                params = params_of(temperature, settings, ends)
                decoded = decode(decoder, cell, prompt, params, settings.seed + number)
                passes, same = len(decoded.blocks) - 1, decoded.tokens == own[temperature, prompt.id]
                yield DecodedText(
                    temperature=temperature, prompt=prompt.id, cell=cell, tokens=len(decoded.tokens), passes=passes, same=same
                )
                done += 1
    for temperature in settings.temperatures if settings.ceiling else ():
        params = params_of(temperature, settings, ends)
        for first in range(0, len(prompts), TEXTS):
            progress(f"a perfect head at temperature {temperature:g}", first, len(prompts))
            part = prompts[first : first + TEXTS]
            yield from ceiling(target, budget, part, params, [settings.seed + first + i for i in range(len(part))])


def decode(decoder: Decoder, cell: Cell, prompt: Prompt, params: SamplingParams, seed: int) -> Generation:
    """The text of a prompt with drafts. Under the rule `walk`, coins keyed by position give the text that they give without."""
    assert decoder.drafter
    return Decoder(decoder.target, sized(decoder.drafter, cell), walk).generate(prompt.tokens, params, KeyedCoins(seed))
