"""The loop: sequences end where they should, blocks add up, passes are counted, and speculation does not change the text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Block, Decoder, Generation
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.checkpoint import save_head
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import DTYPES, Target
from eagle2_ref.rules import RULES
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.sequence import Sequence as Text
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import contents

CONTEXT = 96


class Oracle(Drafter):
    """A drafter that knows the text: a chain of it, each node with a wrong sibling before it."""

    def __init__(self, text: Sequence[int], depth: int) -> None:
        self.text, self.depth = list(text), depth

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
    return tiny.running(model())


def drafted(k: int = 3, depth: int = 4, m: int = 12, rule: str = "reject") -> Decoder:
    return Decoder(target(), Eagle2(tiny.fitting(model()), target().network.lm_head, Budget(k, depth, m)), RULES[rule])


def control(rule: str = "walk") -> Decoder:
    return Decoder(target(), None, RULES[rule])


def greedy(decoder: Decoder, prompt: Sequence[int], n: int, eos: Any = None) -> Generation:
    return decoder.generate(
        prompt, SamplingParams.of({"temperature": 0, "max_new_tokens": n, "eos_token_id": eos}), SeededCoins(0)
    )


@cache
def greedy_text(n: int = 40) -> tuple[int, ...]:
    """The greedy continuation of a prompt of five tokens, one token at a time."""
    return tuple(greedy(control(), tiny.tokens(5), n).tokens)


def oracle(depth: int, rule: str = "reject") -> Decoder:
    return Decoder(target(), Oracle([*tiny.tokens(5), *greedy_text()], depth), RULES[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("depth", [1, 3, 6])
def test_the_number_of_tokens_is_max_new_tokens(depth: int, rule: str) -> None:
    """For every number from 1 to 20, whether all drafts are accepted or none."""
    for n in range(1, 21):
        for decoder in (oracle(depth, rule), drafted(2, depth, depth, rule)):
            result = greedy(decoder, tiny.tokens(5), n)
            assert tuple(result.tokens) == greedy_text()[:n] and result.finish == "length"


@pytest.mark.parametrize("several", [False, True], ids=["one id", "a list"])
def test_the_first_end_of_text_token_ends_the_text(several: bool) -> None:
    """At every offset in a block. The block has no token after it."""
    text, offsets = greedy_text(), set()
    for at in sorted({text.index(token) for token in text}):
        decoder = oracle(4)
        result = greedy(decoder, tiny.tokens(5), 40, [text[at], *text[at + 1 :]] if several else text[at])
        first = min(text.index(token) for token in (text[at:] if several else text[at : at + 1]))
        assert tuple(result.tokens) == text[: first + 1] and result.finish == "eos"
        last = result.blocks[-1]
        assert [last.tree.token(node) for node in last.path] == last.tokens[: last.accepted]
        offsets.add(len(last.tokens))
    assert several or offsets == {1, 2, 3, 4, 5}


def test_an_end_of_text_token_that_is_not_emitted_changes_nothing() -> None:
    """Also if the prompt contains it."""
    absent = next(token for token in range(64) if token not in greedy_text())
    assert tuple(greedy(oracle(4), tiny.tokens(5), 40, [absent, 1000]).tokens) == greedy_text()
    there = next(token for token in tiny.tokens(5) if token not in greedy_text()[:10])
    assert tuple(greedy(oracle(4), tiny.tokens(5), 10, there).tokens) == greedy_text()[:10]


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("make", [drafted, control])
def test_a_full_context_ends_the_text(make: Any, n: int) -> None:
    """The last position of the context is used. If just as many tokens are requested, the finish is `length`."""
    prompt = tiny.tokens(CONTEXT - n)
    result = greedy(make(), prompt, 50)
    assert len(result.tokens) == n and result.finish == "context"
    assert greedy(make(), prompt, n).finish == "length"
    assert greedy(make(), prompt, 50).tokens == greedy(control(), prompt, n).tokens


def test_stream_yields_the_blocks_of_generate() -> None:
    decoder, params = drafted(), SamplingParams(0.9, max_new_tokens=25, eos_token_id=3)
    blocks = list(decoder.stream(tiny.tokens(9), params, SeededCoins(5)))
    result = decoder.generate(tiny.tokens(9), params, SeededCoins(5))
    assert [*map(contents, blocks)] == [*map(contents, result.blocks)]
    position = 9
    for block in blocks:
        assert block.start == position
        position += len(block.tokens)
    assert [token for block in blocks for token in block.tokens] == result.tokens


def test_passes_are_counted() -> None:
    """One target pass for each block, one pass of the head for each layer. tau leaves out the pass over the prompt."""
    result = greedy(oracle(4), tiny.tokens(5), 1 + 5 * 4 + 3)
    assert [len(block.tokens) for block in result.blocks] == [1, 5, 5, 5, 5, 3]
    assert result.target_passes == 6 and result.tau == 23 / 5 and result.draft_passes == 0
    headed = greedy(drafted(3, 4, 12), tiny.tokens(5), 30)
    depths = [5 + 30 - block.start - 1 for block in headed.blocks[1:]]
    assert headed.draft_passes == sum(min(4, depth) for depth in depths) and headed.target_passes == len(headed.blocks)
    alone = greedy(control(), tiny.tokens(5), 30)
    assert (alone.target_passes, alone.draft_passes, alone.tau) == (30, 0, 1.0)
    assert greedy(control(), tiny.tokens(5), 1).tau != greedy(control(), tiny.tokens(5), 1).tau  # nan: nothing to count


def test_a_decoder_has_no_state_between_sequences() -> None:
    """Also if the first sequence was abandoned half-way."""
    used, params = drafted(), SamplingParams(1.0, max_new_tokens=20)
    next(used.stream(tiny.tokens(30, seed=8), params, SeededCoins(0)))
    greedy(used, tiny.tokens(50, seed=9), 20)
    again, new = (decoder.generate(tiny.tokens(7), params, SeededCoins(2)) for decoder in (used, drafted()))
    assert again.tokens == new.tokens and again.target_passes == new.target_passes and again.draft_passes == new.draft_passes


def test_the_prompt_is_not_modified() -> None:
    prompt = tiny.tokens(5)
    assert greedy(drafted(), tuple(prompt), 8).tokens == greedy(drafted(), prompt, 8).tokens
    assert prompt == tiny.tokens(5)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty\n  give at least one token"),
        ([3, 64], "the prompt has token 64\n  the target has tokens 0 to 63"),
        ([-1], "the prompt has token -1\n  the target has tokens 0 to 63"),
        ([1] * CONTEXT, "the prompt has 96 tokens, the target can hold 96\n  give a prompt that leaves room for an answer"),
        ([2.5], "the prompt has token 2.5\n  the target has tokens 0 to 63"),
        ([True], "the prompt has token True\n  the target has tokens 0 to 63"),
        ([None], "the prompt has token None\n  the target has tokens 0 to 63"),
        (["a"], "the prompt has token 'a'\n  the target has tokens 0 to 63"),
        ([[1, 2]], "the prompt has token [1, 2]\n  the target has tokens 0 to 63"),
        ("abc", "the prompt is a str\n  give a list of token ids"),
        (None, "the prompt is a NoneType\n  give a list of token ids"),
        (torch.tensor([1, 2]), "the prompt is a Tensor\n  give a list of token ids"),
    ],
    ids=str,
)
def test_a_bad_prompt_is_refused(prompt: Any, message: str) -> None:
    with pytest.raises(BadInput) as error:
        greedy(drafted(), prompt, 8)
    assert str(error.value) == message


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_dtype_decodes(tmp_path: Path, dtype: str, device: str) -> None:
    """From disk, in four dtypes, on CPU and CUDA. In float64 the text is that of ordinary decoding."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    model = tiny.target()
    model.save_pretrained(tmp_path / "target")
    save_head(tiny.fitting(model), tmp_path / "draft")
    decoder = Decoder.load(tmp_path / "target", tmp_path / "draft", Budget(3, 3, 9), RULES["walk"], dtype, device)
    alone = Decoder.load(tmp_path / "target", dtype=dtype, device=device)
    for temperature in (0.0, 0.8):
        params = SamplingParams(temperature, top_p=0.9, repetition_penalty=1.2, max_new_tokens=20)
        result = decoder.generate(tiny.tokens(6), params, KeyedCoins(0))
        assert len(result.tokens) == 20 and all(0 <= token < 64 for token in result.tokens)
        assert all(len(block.tree) <= 10 for block in result.blocks)
        assert dtype != "float64" or result.tokens == alone.generate(tiny.tokens(6), params, KeyedCoins(0)).tokens


def test_blocks_are_frozen() -> None:
    block = Block(0, [1], 0, DraftTree.root_only(0), [])
    with pytest.raises(AttributeError):
        block.start = 1  # type: ignore[misc]


def test_exports_are_imported_on_first_use() -> None:
    """The version is read without torch, which takes seconds to import."""
    code = (
        "import sys, eagle2_ref; assert eagle2_ref.__version__ and 'torch' not in sys.modules;"
        "from eagle2_ref import Block, Decoder, Generation, SamplingParams, SeededCoins; assert 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
