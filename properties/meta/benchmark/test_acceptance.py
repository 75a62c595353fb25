"""`eagle2 acceptance`: its estimate is what decoding has, for every tree of the grid."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Pool, rerank
from eagle2_ref.errors import BadInput
from eagle2_ref.methods import METHODS
from eagle2_ref.model.target import Target
from eagle2_ref.rules import reject
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.tree import DraftTree
from harness.benchmark import acceptance
from harness.benchmark.acceptance import Followed, decode, measure_text, params_of, target_texts
from harness.benchmark.acceptance_ceiling import PerfectDrafter, ceiling
from harness.benchmark.acceptance_figures import (
    disagreements,
    passes_of,
    roots_of,
)
from harness.benchmark.acceptance_grid import grid_of, method_of, sized, with_head
from harness.benchmark.acceptance_record import Cell, read_acceptance
from harness.benchmark.figures import tau_interval
from harness.benchmark.prompts import spread
from harness.benchmark.settings import AcceptanceSettings
from harness.pairs import Pair, Prompt, prompts, shipped
from properties.meta.contract import access

STDLIB = shipped("stdlib")
SETTINGS = AcceptanceSettings(tokens=20, dtype="float64", threads=1)
HEADS = {"eagle2": STDLIB.draft, "eagle3": STDLIB.draft.parent / "eagle3", "medusa": STDLIB.draft.parent / "medusa"}


@pytest.fixture(scope="module")
def target() -> Target:
    return Target.load(STDLIB.target, "float64")


def of_each_kind(n: int) -> list[Prompt]:
    return spread(prompts(STDLIB), n)


def decoder_of(target: Target, head: str) -> Decoder:
    return Decoder(target, METHODS[head].make().drafter(target, HEADS[head]))


# --- the estimate -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "tokens", "depths", "number"),
    [((), 20, (1, 3), 2), ((ord("\n"), ord(" ")), 20, (1, 3), 2), ((), 6, (3, 5), 8)],
    ids=["", "texts that end", "trees as deep as the text is long"],
)
@pytest.mark.parametrize("head", HEADS)
def test_every_cell_has_the_passes_of_decoding(
    head: str, ends: tuple[int, ...], tokens: int, depths: tuple[int, ...], number: int, target: Target, monkeypatch: Any
) -> None:
    """The same text decoded with the tree of a cell takes exactly the passes that were estimated without decoding it."""
    monkeypatch.setattr(acceptance, "ROOTS", 7)  # several batches of positions
    decoder = decoder_of(target, head)
    assert decoder.drafter
    settings = SETTINGS.model_copy(update={"tokens": tokens, "k": (5,), "depth": depths, "m": (3, 9), "budget": (3, 4, 7)})
    grid, budget = grid_of(settings, METHODS[head], decoder.drafter, target.vocab_size)
    assert budget in grid and len(grid) >= 3
    chosen, lengths = of_each_kind(number), set()
    for t, prompt, text in target_texts(target, chosen, settings, ends, lambda *_: None):
        line = measure_text(decoder, grid, budget, prompt, t, text, settings.tokens).line
        lengths.add(line.tokens)
        for cell, passes in zip(grid, line.passes, strict=True):
            decoded = decode(decoder, cell, prompt, params_of(t, settings, ends), chosen.index(prompt))
            assert decoded.tokens == text.tokens
            assert passes == len(decoded.blocks) - 1, f"{cell} at T = {t:g}"
        assert passes_of(line.tree) == line.passes[grid.index(budget)]
    assert (max(lengths) < settings.tokens) == bool(ends)


def test_estimate_agrees_with_independent_decoding(target: Target) -> None:
    """At temperature 1, with other coins and the published rule instead of `walk`, the texts differ, and τ is in the interval."""
    decoder, chosen = decoder_of(target, "eagle2"), of_each_kind(12)
    settings, cell = SETTINGS.model_copy(update={"temperatures": (1.0,), "tokens": 32}), Cell(k=4, depth=4, m=12)
    passes = np.zeros((2, len(chosen)))
    for number, (t, prompt, text) in enumerate(target_texts(target, chosen, settings, (), lambda *_: None)):
        passes[0, number] = measure_text(decoder, [cell], cell, prompt, t, text, 32).line.passes[0]
        assert decoder.drafter
        other = Decoder(target, sized(decoder.drafter, cell), reject)
        decoded = other.generate(prompt.tokens, SamplingParams(1.0, max_new_tokens=32), SeededCoins(1000 + number))
        assert decoded.tokens != text.tokens
        passes[1, number] = len(decoded.blocks) - 1
    tokens = np.full(len(chosen), 31.0)
    low, high = tau_interval(tokens, passes[0])
    assert low < tokens.sum() / passes[1].sum() < high
    assert high - low < 1  # not because it is wide


PLANTED: dict[str, tuple[str, Any]] = {
    "an accepted token too many": ("Followed.accepted_tokens", lambda real: lambda *given: real(*given) + 1),
    "the feature of another position": (
        "positions",
        lambda real: lambda decoder, trees, base, features, roots: real(decoder, trees, base, features.roll(1, 0), roots),
    ),
    "a head that has read too little": ("fork", lambda real: lambda state, length: real(state, length // 2)),
    "a node too few": (
        "Followed.accepted_tokens",
        lambda real: lambda one, depth, m, room: real(one, depth, max(1, m // 2), room),
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_planted_bias_is_noticed(what: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Decoding does not have the estimated τ then, and the exit code is 3."""
    name, plant = PLANTED[what]
    holder, _, attribute = name.rpartition(".")
    place = getattr(acceptance, holder) if holder else acceptance
    monkeypatch.setattr(place, attribute, plant(getattr(place, attribute)))
    words = [
        "--k",
        "1",
        "--depth",
        "2",
        "--m",
        "4",
        "--budget",
        "3,3,6",
        "--tokens",
        "24",
        "--threads",
        "1",
        "--temperature",
        "0",
    ]
    done = access.invoke(["acceptance", *words, "--limit", "6", "--checks", "6", "--out", str(tmp_path)])
    assert done.exit_code == 3, done.output
    assert disagreements(read_acceptance(tmp_path)) and "the figures cannot be relied on" in " ".join(done.output.split())


def test_ranks_are_those_of_the_reranking() -> None:
    """For every depth and m the text follows the reranked tree as far as `accepted_tokens` says, with equal values too."""
    random, k, depth = torch.Generator().manual_seed(0), 3, 4
    compared = set()
    for _ in range(40):
        layers, values, parents = [list(range(k))], [0.0] * 0, [-1] * k
        values = [-int(x) / 2 for x in torch.randint(3, (k,), generator=random)]
        for _ in range(1, depth):
            chosen = [layers[-1][int(i)] for i in torch.randperm(len(layers[-1]), generator=random)[:k].sort().values]
            first = len(values)
            for parent in chosen:
                parents += [parent] * k
                values += [values[parent] - int(x) / 2 for x in torch.randint(3, (k,), generator=random)]
            layers.append(list(range(first, len(values))))
        tokens = [i % k for i in range(len(values))]
        text = torch.randint(k, (depth + 1,), generator=random).tolist()
        pool = Pool(*(torch.tensor(field) for field in (tokens, parents, values)))
        followed = Followed.of(rerank(9, pool, len(values)), text, dynamic=True)
        for d in range(1, depth + 1):
            upper = (
                pool.row(0, Budget(k, d).pool)
                if pool.tokens.ndim > 1
                else Pool(*(f[: Budget(k, d).pool] for f in vars(pool).values()))
            )
            for m in range(1, len(upper.values) + 1):
                accepted = follow(rerank(9, upper, m), text)
                assert followed.accepted_tokens(d, m, depth) == accepted
                compared.add(accepted)
    assert compared >= {0, 1, 2, 3}


def follow(tree: DraftTree, text: list[int]) -> int:
    node, accepted = 0, 0
    for token in text:
        child = tree.child(node, token)
        if child is None:
            break
        node, accepted = child, accepted + 1
    return accepted


def test_walk_visits_the_roots_of_decoding() -> None:
    assert roots_of([2, 9, 9, 0, 1, 9, 0]) == [0, 3, 4, 6] and passes_of([2, 9, 9, 0, 1, 9, 0]) == 4
    assert roots_of([]) == [] and roots_of([5]) == [0]


# --- heads and grids --------------------------------------------------------------------------------------------------------


def test_kind_of_head_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    assert {name: method_of(folder).name for name, folder in HEADS.items()} == {name: name for name in HEADS}
    with pytest.raises(BadInput, match=r"config.json is missing\n.*--draft"):
        method_of(tmp_path)


def test_head_of_a_pair_is_chosen_by_its_method(tmp_path: Path) -> None:
    assert {name: with_head(STDLIB, name).draft for name in ("", *HEADS)} == {"": STDLIB.draft, **HEADS}
    own = Pair("own", STDLIB.target, HEADS["medusa"], own=True)
    assert with_head(own, "medusa") == own
    with pytest.raises(BadInput, match="has a head for medusa, not for eagle3"):
        with_head(own, "eagle3")
    with pytest.raises(BadInput, match="alone has no head for medusa"):
        with_head(Pair("alone", STDLIB.target, tmp_path / "draft"), "medusa")
    with pytest.raises(BadInput, match="choose one of eagle2, eagle3, medusa"):
        with_head(STDLIB, "lookup")


def test_grid_has_no_tree_that_is_larger_than_its_pool(target: Target) -> None:
    for head in HEADS:
        drafter = decoder_of(target, head).drafter
        assert drafter
        grid, budget = grid_of(AcceptanceSettings(), METHODS[head], drafter, target.vocab_size)
        assert budget in grid and len(set(grid)) == len(grid)
        for cell in grid:
            assert cell.m <= (63 if head == "medusa" else Budget(cell.k, cell.depth).pool)
            assert head != "medusa" or cell.depth <= 3  # the pair has three heads
    assert budget == Cell(k=10, depth=3, m=61)


def test_target_of_few_tokens_gets_narrow_trees() -> None:
    """k is 8 by default, and coin4 has four tokens."""
    coin = shipped("coin4")
    method, network = METHODS["eagle2"], Target.load(coin.target)
    drafter = method.options(k=1, depth=1, m=1).drafter(network, coin.draft)
    grid, budget = grid_of(AcceptanceSettings(), method, drafter, 4)
    assert budget == Cell(k=4, depth=6, m=25) and {cell.k for cell in grid} == {1, 4}
    for given in ({"k": (5,)}, {"budget": (5, 2, 4)}):
        with pytest.raises(BadInput, match="give --k and --budget with k of at most 4"):
            grid_of(AcceptanceSettings(**given), method, drafter, 4)


# --- a perfect head ---------------------------------------------------------------------------------------------------------


def test_ceiling_at_temperature_0_is_the_depth(target: Target) -> None:
    """The perfect head proposes the text itself: every pass but the last has depth + 1 tokens."""
    chosen, cell = of_each_kind(3), Cell(k=2, depth=4, m=8)
    for text in ceiling(target, cell, chosen, SamplingParams(0.0, max_new_tokens=21), [0, 1, 2]):
        assert (text.tokens, text.passes) == (21, 4)


def test_values_of_a_perfect_head_are_probabilities(target: Target, monkeypatch: Any) -> None:
    """The value of each node is the probability of its path, and its trees need fewer passes than those of a head."""
    chosen, cell, params = of_each_kind(6), Cell(k=4, depth=3, m=9), SamplingParams(1.0, max_new_tokens=40)
    propose, nodes = PerfectDrafter.propose, 0

    def examined(self: PerfectDrafter, sequences: Any) -> list[DraftTree]:
        nonlocal nodes
        trees = propose(self, sequences)
        for sequence, tree in zip(sequences, trees, strict=True):
            (output,) = target.verify([copy(sequence.cache)], [tree])
            p, parents = target_distribution(output.logits, tree, sequence.tokens, params), tree.parents[1:]
            expected = tree.values[parents] + p[parents, tree.tokens[1:]].log()
            torch.testing.assert_close(tree.values[1:], expected, check_dtype=False)
            assert len(tree) == (1 + cell.m if sequence.max_depth > 1 else 1 + cell.k * sequence.max_depth)
            nodes += len(tree) - 1
        return trees

    monkeypatch.setattr(PerfectDrafter, "propose", examined)
    found = list(ceiling(target, cell, chosen, params, range(len(chosen))))
    assert nodes > 500
    head = decoder_of(target, "eagle2")
    assert head.drafter
    with_head = [decode(head, cell, prompt, params, number) for number, prompt in enumerate(chosen)]
    assert [one.tokens for one in found] == [len(text.tokens) for text in with_head] == [40] * len(chosen)
    assert sum(one.passes for one in found) < sum(len(text.blocks) - 1 for text in with_head)
