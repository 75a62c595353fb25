"""A sequence owns its state: it can be set aside and resumed, continued with another turn, and moved between batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eagle2_ref.coins import Coins, KeyedCoins, SeededCoins
from eagle2_ref.decode import Block, Decoder, Sequence
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.methods import METHODS
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.pairs import shipped
from properties.meta.helpers import tiny

GREEDY = SamplingParams(0.0, max_new_tokens=20)
SAMPLED = SamplingParams(1.0, max_new_tokens=20)


def decoder(kind: type[Decoder] = Decoder, lean: bool = True) -> Decoder:
    one = tiny.decoder(lean=lean)
    return kind(one.target, one.drafter, walk)


def drain(one: Decoder, sequence: Sequence) -> list[int]:
    """Decode to the end of the turn, and return the new tokens."""
    return [token for block in one.blocks(sequence) for token in block.tokens]


@pytest.mark.parametrize("kind", [Decoder, FixedShapeDecoder])
def test_sequences_decoded_in_turn_are_those_decoded_alone(kind: type[Decoder]) -> None:
    """One step of each in turn: each is set aside, and resumed, after every block."""
    one = decoder(kind)
    prompts = [tiny.tokens(n, seed=n) for n in (13, 1, 30)]
    due = [one.generate(prompt, SAMPLED, SeededCoins(row)).tokens for row, prompt in enumerate(prompts)]
    sequences = [one.start(prompt, SAMPLED, SeededCoins(row)) for row, prompt in enumerate(prompts)]
    streams = [one.blocks(sequence) for sequence in sequences]
    while not all(sequence.finish for sequence in sequences):
        for stream in streams:
            next(stream, None)
    assert [sequence.generation().tokens for sequence in sequences] == due


@pytest.mark.parametrize("lean", [True, False], ids=["llama.py", "hf_model.py"])
def test_a_sequence_set_aside_survives_other_batches(lean: bool) -> None:
    """Its row of the shared cache is needed by other sequences: it moves to a storage of its own."""
    one, prompts = decoder(lean=lean), [tiny.tokens(n, seed=n) for n in (13, 5, 30, 2)]
    due = [one.generate(prompt, SAMPLED, KeyedCoins(row)).tokens for row, prompt in enumerate(prompts)]
    sequences = [one.start(prompt, SAMPLED, KeyedCoins(row)) for row, prompt in enumerate(prompts)]
    one.prefill(sequences)
    for batch in ([0, 1, 2, 3], [2, 3], [3, 0, 1], [1], [0, 2, 3], [1, 0], [3, 2, 1, 0]):
        one.step([sequences[row] for row in batch if not sequences[row].finish])
    assert [sequence.tokens[sequence.start :] + drain(one, sequence) for sequence in sequences] == due


@pytest.mark.parametrize("kind", [Decoder, FixedShapeDecoder])
@pytest.mark.parametrize("params", [GREEDY, SAMPLED, SamplingParams(0.0, max_new_tokens=30, eos_token_id=tuple(range(20, 40)))])
def test_a_second_turn_equals_a_new_sequence_over_the_whole_text(kind: type[Decoder], params: SamplingParams) -> None:
    """On the same caches, with coins keyed by position; also after a block that an end-of-text token cut short."""
    one, plain = decoder(kind), decoder()
    coins: list[Coins] = [SeededCoins(1), SeededCoins(1)] if kind is FixedShapeDecoder else [KeyedCoins(1), KeyedCoins(1)]
    sequence = one.start(tiny.tokens(9), params, coins[0])
    drain(one, sequence)
    for turn, more in enumerate((tiny.tokens(4, seed=3), [], [7])):
        text = [*sequence.tokens, *more]
        greedy = SamplingParams(0.0, max_new_tokens=8)
        sequence.extend(more, greedy)
        again = plain.start(text, greedy, coins[1])
        assert drain(one, sequence) == drain(plain, again), turn
        fresh = plain.target.cache()
        plain.target.prefill([fresh], [sequence.tokens[:-1]])
        assert sequence.cache.length == len(sequence.tokens) - 1
        difference = (sequence.cache.entries() - fresh.entries()).abs().max()
        assert difference <= 1e-9, "the cache is that of a pass over the text without its newest token"


def test_a_second_turn_drafts_as_a_new_sequence_does() -> None:
    """The head has read all of both turns: trees are those of a sequence that begins with the whole text."""
    one = decoder()
    sequence = one.start(tiny.tokens(9), GREEDY, SeededCoins(0))
    drain(one, sequence)
    text = [*sequence.tokens, 3, 1]
    sequence.extend([3, 1])
    again = one.start(text, GREEDY, SeededCoins(0))
    for ours, theirs in zip(one.blocks(sequence), one.blocks(again), strict=True):
        assert ours.tree.tokens.tolist() == theirs.tree.tokens.tolist() and ours.start == theirs.start
        assert isinstance(ours.tree, DraftTree) and isinstance(theirs.tree, DraftTree)
        assert (ours.tree.values - theirs.tree.values).abs().max() <= 1e-6
    assert sequence.generation().target_passes == again.generation().target_passes, "counts are those of the turn"
    assert sequence.generation().draft_passes == again.generation().draft_passes


@pytest.mark.parametrize("method", METHODS)
def test_every_drafter_can_continue_a_turn(method: str) -> None:
    """The greedy text of two turns is that of one."""
    pair, spec = shipped("dice8"), METHODS[method]
    one = Decoder.load(pair.target, pair.drafter(spec.checkpoint), spec.make(), walk, "float64")
    params = SamplingParams(0.0, max_new_tokens=8)
    sequence = one.start([1, 2, 3], params, SeededCoins(0))
    drain(one, sequence)
    sequence.extend([])
    drain(one, sequence)
    assert sequence.tokens == [1, 2, 3, *one.generate([1, 2, 3], SamplingParams(0.0, max_new_tokens=16), SeededCoins(0)).tokens]


def test_a_turn_that_does_not_fit_the_context_is_refused() -> None:
    sequence = decoder().start(tiny.tokens(9), GREEDY, SeededCoins(0))
    drain(decoder(), sequence)
    with pytest.raises(BadInput, match="the context has 96"):
        sequence.extend(tiny.tokens(70))


def test_blocks_are_cut_at_the_first_end_of_text_and_at_the_limit() -> None:
    """`append` cuts tokens, path, log-probabilities and the count of accepted tokens alike."""

    def appended(tokens: list[int], **params: Any) -> tuple[Sequence, Block]:
        sequence = Sequence([0], SamplingParams.of(params), SeededCoins(0), decoder().target.cache(), context=9)
        n = len(tokens) - 1
        logprobs = [-float(i) for i in range(n + 1)]
        return sequence, sequence.append(Block(1, tokens, n, DraftTree.root_only(0), list(range(1, n + 1)), logprobs))

    sequence, block = appended([5, 6, 7, 6], eos_token_id=[6, 7])
    assert (sequence.finish, block.tokens, block.accepted, block.path, block.logprobs) == ("eos", [5, 6], 2, [1, 2], [-0.0, -1.0])
    sequence, block = appended([5, 6, 7], max_new_tokens=2)
    assert (sequence.finish, sequence.tokens, block.accepted) == ("length", [0, 5, 6], 2)
    sequence, block = appended([5] * 9)
    assert (sequence.finish, len(sequence.tokens)) == ("context", 9)
    sequence, block = appended([5, 6, 7], max_new_tokens=4)
    assert (sequence.finish, sequence.max_depth, sequence.blocks) == (None, 0, [block])
    assert torch.tensor(sequence.unread).tolist() == [0, 5, 6, 7]
