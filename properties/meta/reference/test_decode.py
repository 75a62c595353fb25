"""The loop: texts end where they should, blocks add up, what was spent is counted, and speculation changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Block, Decoder, Generation
from eagle2_ref.drafters.base import Drafter, DraftState
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.model.checkpoint import save_head
from eagle2_ref.model.target import DTYPES, Target
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny
from properties.meta.reference.test_target import running

CONTEXT = 96


class Oracle(Drafter):
    """A drafter that knows the text to come: a chain of it, each link with a wrong sibling before it."""

    def __init__(self, text: Sequence[int], depth: int) -> None:
        self.text, self.depth = list(text), depth

    def start(self, sequence: Text) -> DraftState:  # noqa: ARG002
        self.features: list[Tensor] = []
        return DraftState()

    def observe(self, sequence: Text, tokens: Sequence[int], features: Tensor) -> None:  # noqa: ARG002
        assert len(tokens) == len(features)
        self.features.append(features)

    def propose_one(self, sequence: Text) -> DraftTree:
        known = len(sequence.tokens)
        chain = self.text[known : known + min(sequence.max_depth, self.depth)]
        tokens, parents, above = [sequence.tokens[-1]], [-1], 0
        for token in chain:
            tokens += [(token + 1) % 64, token]
            parents += [above, above]
            above = len(tokens) - 1
        return DraftTree.of(tokens, parents)


@cache
def model() -> PreTrainedModel:
    return tiny.target()


@cache
def target() -> Target:
    return running(model(), lean=True)


def drafted(k: int = 3, depth: int = 4, m: int = 12, rule: str = "reject") -> Decoder:
    return Decoder(target(), Eagle2(tiny.fitting(model()), target().network.lm_head, Budget(k, depth, m)), RULES[rule])


def control(rule: str = "walk") -> Decoder:
    return Decoder(target(), None, RULES[rule])


def greedy(decoder: Decoder, prompt: Sequence[int], n: int, eos: Any = None) -> Generation:
    return decoder.generate(
        prompt, SamplingParams.of({"temperature": 0, "max_new_tokens": n, "eos_token_id": eos}), SeededCoins(0)
    )


@cache
def whole(n: int = 40) -> tuple[int, ...]:
    """The greedy text after a prompt of five tokens, one token at a time."""
    return tuple(greedy(control(), tiny.tokens(5), n).tokens)


def oracle(depth: int, rule: str = "reject") -> Decoder:
    return Decoder(target(), Oracle([*tiny.tokens(5), *whole()], depth), RULES[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_a_text_has_exactly_as_many_tokens_as_were_asked_for(depth: int, rule: str) -> None:
    """For every n from 1 to 20, whether drafts are accepted in full or not at all."""
    for n in range(1, 21):
        for decoder in (oracle(depth, rule), drafted(2, depth, depth, rule)):
            made = greedy(decoder, tiny.tokens(5), n)
            assert tuple(made.tokens) == whole()[:n] and made.finish == "length"


@pytest.mark.parametrize("several", [False, True], ids=["one id", "a list"])
def test_the_first_end_of_text_ends_the_text(several: bool) -> None:
    """At every offset of a block: the text ends with it, and the block tells of no token behind it."""
    text, offsets = whole(), set()
    for at in sorted({text.index(token) for token in text}):
        decoder = oracle(4)
        made = greedy(decoder, tiny.tokens(5), 40, [text[at], *text[at + 1 :]] if several else text[at])
        first = min(text.index(token) for token in (text[at:] if several else text[at : at + 1]))
        assert tuple(made.tokens) == text[: first + 1] and made.finish == "eos"
        last = made.blocks[-1]
        assert [last.tree.token(node) for node in last.path] == last.tokens[: last.accepted]
        offsets.add(len(last.tokens))
    assert several or offsets == {1, 2, 3, 4, 5}


def test_an_end_of_text_that_does_not_come_changes_nothing() -> None:
    """Nor does one that stands in the prompt."""
    absent = next(token for token in range(64) if token not in whole())
    assert tuple(greedy(oracle(4), tiny.tokens(5), 40, [absent, 1000]).tokens) == whole()
    there = next(token for token in tiny.tokens(5) if token not in whole()[:10])
    assert tuple(greedy(oracle(4), tiny.tokens(5), 10, there).tokens) == whole()[:10]


@pytest.mark.parametrize("room", range(1, 9))
@pytest.mark.parametrize("make", [drafted, control])
def test_at_the_limit_of_the_context_the_text_stops(make: Any, room: int) -> None:
    """With all the tokens that have room, and no error; asked for just as many, it ends by length."""
    prompt = tiny.tokens(CONTEXT - room)
    made = greedy(make(), prompt, 50)
    assert len(made.tokens) == room and made.finish == "context"
    assert greedy(make(), prompt, room).finish == "length"
    assert greedy(make(), prompt, 50).tokens == greedy(control(), prompt, room).tokens


def test_prompts_of_one_token() -> None:
    """There is no feature before the first token; the text is that of the control arm."""
    for token in range(0, 64, 7):
        assert greedy(drafted(), [token], 20).tokens == greedy(control(), [token], 20).tokens


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_speculation_does_not_change_coupled_text(temperature: float) -> None:
    """With the rule `walk` and keyed coins the text is the control arm's, for every budget, oracle or head."""
    params = SamplingParams(temperature, top_k=20, repetition_penalty=1.1, max_new_tokens=30)
    for seed in range(4):
        prompt = tiny.tokens(5)
        expected = control().generate(prompt, params, KeyedCoins(seed)).tokens
        for decoder in (drafted(1, 1, 1, "walk"), drafted(4, 3, 20, "walk"), oracle(5, "walk")):
            assert decoder.generate(prompt, params, KeyedCoins(seed)).tokens == expected


@torch.inference_mode()
def test_the_drafter_is_shown_the_targets_features() -> None:
    """One for every position of the text but the last, as a plain pass over the whole has them."""
    decoder = oracle(4)
    made = greedy(decoder, tiny.tokens(5), 30)
    assert isinstance(decoder.drafter, Oracle)
    text = torch.tensor([[*tiny.tokens(5), *made.tokens]])
    plain = model().base_model(text).last_hidden_state[0, :-1]
    assert (torch.cat(decoder.drafter.features) - plain).abs().max() <= 1e-9


def test_keyed_coins_are_asked_for_absolute_positions() -> None:
    """The token at position i of the text, the prompt counted, is the draw of position i."""
    prompt, params, coins = tiny.tokens(5), SamplingParams(1.0, max_new_tokens=12), KeyedCoins(3)
    made, text = oracle(3, "walk").generate(prompt, params, KeyedCoins(3)).tokens, list(prompt)
    for token in made:
        coins.seek(len(text))
        with torch.inference_mode():
            assert token == coins.categorical(model()(torch.tensor([text])).logits[0, -1].softmax(-1))
        text.append(token)


def test_streaming_is_generating() -> None:
    """The blocks of `stream` are those of `generate`; they start where the text is, and add up to it."""
    decoder, params = drafted(), SamplingParams(0.9, max_new_tokens=25, eos_token_id=3)
    blocks = list(decoder.stream(tiny.tokens(9), params, SeededCoins(5)))
    made = decoder.generate(tiny.tokens(9), params, SeededCoins(5))
    assert [(b.start, b.tokens, b.accepted, b.path) for b in blocks] == [
        (b.start, b.tokens, b.accepted, b.path) for b in made.blocks
    ]
    position = 9
    for block in blocks:
        assert block.start == position
        position += len(block.tokens)
    assert [token for block in blocks for token in block.tokens] == made.tokens


def test_blocks_tell_their_trees() -> None:
    """A block's tree is rooted in the token before it; its accepted tokens are those of its path; one more token follows."""
    decoder, text = drafted(), tiny.tokens(9)
    made = decoder.generate(text, SamplingParams(0.9, max_new_tokens=40), SeededCoins(1))
    assert (len(made.blocks[0].tree), made.blocks[0].path, made.blocks[0].accepted) == (1, [], 0)
    for block in made.blocks:
        assert block.tree.token(0) == text[-1]
        assert [block.tree.token(node) for node in block.path] == block.tokens[: block.accepted]
        assert len(block.tokens) == block.accepted + 1
        text += block.tokens


def test_what_was_spent_is_counted() -> None:
    """One target pass a block, the prompt's included; tau counts the blocks of drafts alone; one head pass a layer."""
    made = greedy(oracle(4), tiny.tokens(5), 1 + 5 * 4 + 3)
    assert [len(block.tokens) for block in made.blocks] == [1, 5, 5, 5, 5, 3]
    assert made.target_passes == 6 and made.tau == 23 / 5 and made.draft_passes == 0
    headed = greedy(drafted(3, 4, 12), tiny.tokens(5), 30)
    rooms = [5 + 30 - block.start - 1 for block in headed.blocks[1:]]
    assert headed.draft_passes == sum(min(4, room) for room in rooms) and headed.target_passes == len(headed.blocks)
    alone = greedy(control(), tiny.tokens(5), 30)
    assert (alone.target_passes, alone.draft_passes, alone.tau) == (30, 0, 1.0)
    assert greedy(control(), tiny.tokens(5), 1).tau != greedy(control(), tiny.tokens(5), 1).tau  # nan: nothing to count


def test_a_decoder_forgets_the_text_before() -> None:
    """The second text is that of a new decoder, also where the first was given up half-way."""
    used, params = drafted(), SamplingParams(1.0, max_new_tokens=20)
    next(used.stream(tiny.tokens(30, seed=8), params, SeededCoins(0)))
    greedy(used, tiny.tokens(50, seed=9), 20)
    again, new = (decoder.generate(tiny.tokens(7), params, SeededCoins(2)) for decoder in (used, drafted()))
    assert again.tokens == new.tokens and again.target_passes == new.target_passes and again.draft_passes == new.draft_passes


def test_the_prompt_is_left_alone() -> None:
    """It may be any sequence of integers."""
    prompt = tiny.tokens(5)
    assert greedy(drafted(), tuple(prompt), 8).tokens == greedy(drafted(), prompt, 8).tokens
    assert prompt == tiny.tokens(5)


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([], "the prompt is empty\n  give at least one token"),
        ([3, 64], "the prompt has token 64\n  the target has tokens 0 to 63"),
        ([-1], "the prompt has token -1\n  the target has tokens 0 to 63"),
        ([1] * CONTEXT, "the prompt has 96 tokens, the target can hold 96\n  give a prompt that leaves room for an answer"),
    ],
    ids=["empty", "beyond the vocabulary", "negative", "no room"],
)
def test_a_prompt_that_cannot_be_continued_is_refused(prompt: list[int], told: str) -> None:
    """The error says what is wrong with it, and what may be."""
    with pytest.raises(BadInput) as error:
        greedy(drafted(), prompt, 8)
    assert str(error.value) == told


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_dtype_decodes(tmp_path: Path, dtype: str, device: str) -> None:
    """From disk, in each of the four dtypes, on both devices: blocks, budget, length; in float64 the text is the control's."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = tiny.target()
    model.save_pretrained(tmp_path / "target")
    save_head(tiny.fitting(model), tmp_path / "draft")
    decoder = Decoder.load(tmp_path / "target", tmp_path / "draft", Budget(3, 3, 9), RULES["walk"], dtype, device)
    alone = Decoder.load(tmp_path / "target", dtype=dtype, device=device)
    for temperature in (0.0, 0.8):
        params = SamplingParams(temperature, top_p=0.9, repetition_penalty=1.2, max_new_tokens=20)
        made = decoder.generate(tiny.tokens(6), params, KeyedCoins(0))
        assert len(made.tokens) == 20 and all(0 <= token < 64 for token in made.tokens)
        assert all(len(block.tree) <= 10 for block in made.blocks)
        assert dtype != "float64" or made.tokens == alone.generate(tiny.tokens(6), params, KeyedCoins(0)).tokens


def test_a_damaged_target_is_told_with_its_position() -> None:
    """NaN in its weights is an error that names the first position at which it shows: here the prompt's last."""
    model = tiny.target()
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(BadInput, match=r"not numbers at position 4 \(after token"):
        greedy(Decoder(Target(model)), tiny.tokens(5), 8)


def test_a_block_is_a_plain_value() -> None:
    """Frozen, so that what was streamed cannot change afterwards."""
    block = Block(0, [1], 0, DraftTree.root_only(0), [])
    with pytest.raises(AttributeError):
        block.start = 1  # type: ignore[misc]
