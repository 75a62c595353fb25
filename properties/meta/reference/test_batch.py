"""Batches: each sequence is the one that it is alone, and one pass serves all."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from eagle2_ref.coins import Coins, KeyedCoins, SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.model.cache import KVCache
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams, target_distribution
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import DraftTree, Tree
from harness.enumeration.coins import EnumeratedCoins, executions, unfold
from harness.implementations.reference import between
from harness.kill_matrix.stage import Stage
from harness.mutants.batch import ONE_LENGTH
from harness.mutants.laws import WrongDistribution
from harness.mutants.planting import Fault
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, propose_together, summary
from properties.meta.reference.test_target import ROUNDING, WAYS

CONTEXT = 96
LENGTHS = (1, 13, 5, CONTEXT - 4, 2, 40, CONTEXT - 1, 9)
TEMPERATURES = (0.0, 0.7, 1.3)


@cache
def decoder(kind: str = "llama", lean: bool = True, rule: str = "reject", draft: bool = True) -> Decoder:
    one = tiny.decoder(tiny.target(kind), rule=RULES[rule], lean=lean)
    return one if draft else Decoder(one.target, None, one.rule)


def requests(n: int = 12, **changes: Any) -> tuple[list[list[int]], list[SamplingParams]]:
    """Prompts of many lengths, two of which fill the context, with various temperatures, limits and end-of-text tokens."""
    prompts = [tiny.tokens(LENGTHS[row % 8], seed=row) for row in range(n)]
    params = [
        {
            "temperature": TEMPERATURES[row % 3],
            "max_new_tokens": (17, 1, 30, 8, 2)[row % 5],
            "eos_token_id": [3, 7, 20, 33, 41, 55] if row % 5 in (0, 2) else None,
            "repetition_penalty": (None, None, None, 1.3)[row % 4],
            "top_k": (None, 12)[row % 2],
            **changes,
        }
        for row in range(n)
    ]
    return prompts, [SamplingParams.of(param) for param in params]


def coins(row: int) -> Coins:
    return KeyedCoins(row) if row % 2 else SeededCoins(row)


@pytest.mark.parametrize(("kind", "lean"), WAYS)
def test_sequences_in_a_batch_equal_sequences_alone(kind: str, lean: bool) -> None:
    """Tokens, blocks with their trees, finish and counts of passes, for prompts that end at different times."""
    prompts, params = requests()
    alone = [decoder(kind, lean).generate(prompts[row], params[row], coins(row)) for row in range(len(prompts))]
    assert {result.finish for result in alone} == {"eos", "length", "context"}
    result = decoder(kind, lean).generate_batch(prompts, params, [coins(row) for row in range(len(prompts))], 5)
    assert [summary(row) for row in result] == [summary(row) for row in alone]


@pytest.mark.parametrize("size", [1, 2, 7, 12, 100])
@pytest.mark.parametrize("draft", [True, False], ids=["drafted", "control"])
@pytest.mark.parametrize("rule", RULES)
def test_every_batch_size_gives_the_same_sequences(size: int, rule: str, draft: bool) -> None:
    """With more sequences than fit in a batch and with fewer, with a drafter and without."""
    prompts, params = requests(9)
    one = decoder(rule=rule, draft=draft)
    result = one.generate_batch(prompts, params, [coins(row) for row in range(9)], size)
    assert [summary(row) for row in result] == [summary(one.generate(prompts[row], params[row], coins(row))) for row in range(9)]


@pytest.mark.parametrize(("kind", "lean"), WAYS)
@torch.inference_mode()
def test_batched_passes_equal_single_passes(kind: str, lean: bool) -> None:
    """Logits, features and caches, for prompts of 13, 30 and 2 tokens, then for trees of 9, 1 and 3 nodes."""
    target, prompts = decoder(kind, lean).target, [tiny.tokens(n, seed=n) for n in (13, 30, 2)]
    tree = DraftTree.of([7, 1, 2, 3, 1, 5, 9, 11, 0], [-1, 0, 0, 1, 1, 2, 3, 6, 7])
    trees = [tree, DraftTree.root_only(4), DraftTree.of([8, 2, 9], [-1, 0, 1])]
    joint, single = ([target.cache() for _ in trees] for _ in range(2))
    first = target.prefill(joint, prompts)
    alone = [target.prefill([own], [prompt])[0] for own, prompt in zip(single, prompts, strict=True)]
    same(kind, joint, single, first, alone)
    second, alone = (
        target.verify(joint, trees),
        [target.verify([single_cache], [own])[0] for single_cache, own in zip(single, trees, strict=True)],
    )
    for caches in (joint, single):
        for kept, own in zip(caches, trees, strict=True):
            kept.keep(range(len(own)))  # all nodes, so that the entries of all are compared
    same(kind, joint, single, second, alone)


def same(kind: str, joint: list[KVCache], single: list[KVCache], ours: list[ModelOutput], theirs: list[ModelOutput]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.logits.shape == b.logits.shape and (a.logits - b.logits).abs().max() <= ROUNDING[kind]
        assert a.features.shape == b.features.shape and (a.features - b.features).abs().max() <= ROUNDING[kind]
    for text, alone in zip(joint, single, strict=True):
        for kept, expected in zip(text.entries(), alone.entries(), strict=True):
            assert kept.shape == expected.shape and (kept - expected).abs().max() <= ROUNDING[kind]


def test_batched_drafts_equal_single_drafts() -> None:
    """With different numbers of new tokens, and maximal depths from 0 to 9."""
    drafter = tiny.decoder(budget=Budget(3, 4, 20)).drafter
    assert drafter
    drafters = [OneSequence(drafter) for _ in range(8)]
    joint, single = drafters[:4], drafters[4:]
    for step in range(5):
        for row in range(4):
            n = (17, 1, 4, 30)[row] if step == 0 else (1, 5, 2, 3)[(row + step) % 4]
            tokens = tiny.tokens(n, seed=10 * step + row)
            features = torch.randn(n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(row))
            for one in (joint[row], single[row]):
                one.observe(tokens, features)
        depths = [(4, 9, 0, 2)[(row + step) % 4] if step < 4 else 4 for row in range(4)]  # a bare tree may leave it for later
        for tree, one, depth in zip(propose_together(joint, depths), single, depths, strict=True):
            expected = one.propose(depth)
            assert torch.equal(tree.tokens, expected.tokens) and torch.equal(tree.parents, expected.parents)
            assert (tree.values - expected.values).abs().max() <= 1e-12
    for ours, theirs in ((a.state, b.state) for a, b in zip(joint, single, strict=True)):
        assert ours.passes == theirs.passes and ours.cache.length == theirs.cache.length
        assert (ours.cache.entries() - theirs.cache.entries()).abs().max() <= 1e-12


def test_one_pass_serves_the_batch() -> None:
    """As many passes of the target, and of the head, as the longest sequence takes alone."""
    one, calls = decoder(), Counter[str]()
    assert isinstance(one.drafter, Eagle2)
    network, head = one.target.network, one.drafter.head

    def counted(what: str, part: Any) -> Any:
        return between(part, lambda *given: (calls.update([what]), part(*given))[1])

    one.target.network, one.drafter.head = counted("target", network), counted("head", head)
    try:
        prompts, params = requests(1)
        result = one.generate_batch(prompts * 8, params * 8, [coins(row) for row in range(8)], 8)
    finally:
        one.target.network, one.drafter.head = network, head
    assert calls["target"] == max(row.target_passes for row in result) < sum(row.target_passes for row in result)
    assert calls["head"] == max(row.draft_passes for row in result)


def test_rows_are_independent() -> None:
    """Over all random numbers the joint distribution of two sequences is the product of their distributions alone."""
    one = tiny.decoder(tiny.target(vocab_size=4), Budget(1, 1, 1), RULES["reject"])
    prompts, params = [[1, 2, 3], [0]], [SamplingParams(t, max_new_tokens=2) for t in (0.7, 1.3)]

    def pairs(coins: EnumeratedCoins) -> list[list[int]]:
        return [row.tokens for row in one.generate_batch(prompts, params, [coins, coins], 2)]

    joint, alone = Counter[Any](), [Counter[Any](), Counter[Any]()]
    for (first, second), weight in executions(pairs):
        for left, odds in unfold(first):
            for right, more in unfold(second):
                joint[left, right] += weight * odds * more
    for odds_alone, prompt, param in zip(alone, prompts, params, strict=True):
        for tokens, weight in executions(lambda coins: one.generate(prompt, param, coins).tokens):  # noqa: B023
            for text, odds in unfold(tokens):
                odds_alone[text] += weight * odds
    assert len(joint) == 256 and abs(sum(joint.values()) - 1) <= 1e-12
    assert all(abs(weight - alone[0][left] * alone[1][right]) <= 1e-12 for (left, right), weight in joint.items())


def test_a_bad_prompt_is_refused_before_decoding_starts() -> None:
    params, coins = [SamplingParams(0.0)] * 2, [KeyedCoins(0)] * 2
    with pytest.raises(BadInput, match="the prompt has token 64"):
        decoder().generate_batch([[1], [64]], params, coins)
    for size in (0, 2.5, "2", float("nan"), True):
        with pytest.raises(BadInput, match=f"batch is {size!r}"):
            decoder().generate_batch([], [], [], size)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="2 prompts, 2 sets of parameters and 1 coins"):
        decoder().generate_batch([[1], [2]], params, coins[:1])
    assert decoder().generate_batch([], [], []) == []


class LastOfTiesTogether(Fault):
    """A fault that takes the last of equally likely tokens in a call of several rows, the first in a call of one."""

    capabilities = frozenset({"temperature", "budget"})

    def generate(self, prompts: Any, params: Any, seeds: Any) -> Any:
        self.decoder.alone = len(prompts) == 1  # type: ignore[attr-defined]
        return super().generate(prompts, params, seeds)

    class FaultyDecoder(WrongDistribution):
        alone = True

        def change(self, p: torch.Tensor, sequence: Text, tree: Tree, logits: torch.Tensor) -> torch.Tensor:
            if self.alone or sequence.params.temperature:
                return p
            return target_distribution(logits.flip(-1), tree, sequence.tokens, sequence.params).flip(-1)


class SecondBestTogether(LastOfTiesTogether):
    """Takes the second most likely token in a call of several rows."""

    class FaultyDecoder(LastOfTiesTogether.FaultyDecoder):
        def change(self, p: torch.Tensor, sequence: Text, tree: Tree, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
            second = logits.scatter(-1, logits.argmax(-1, keepdim=True), float("-inf"))
            return p if self.alone or sequence.params.temperature else second.softmax(-1)


@pytest.mark.parametrize(("planted", "expected"), [("LastOfTiesTogether", "tie"), ("SecondBestTogether", "fault")])
def test_greedy_rows_of_a_black_box_are_judged_by_their_margin(planted: str, expected: str, tmp_path: Path) -> None:
    """Rows may differ from single calls only where two tokens are equally likely."""
    (tmp_path / "bytes").symlink_to(shipped("coin6").target.parent)  # the pair with ties, where the stage has its own
    result = Stage(tmp_path).result("BATCH-1", ONE_LENGTH, f"py:{__name__}:{planted}")
    assert result.verdict == expected, result.summary
