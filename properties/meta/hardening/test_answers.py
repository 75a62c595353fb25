"""Answers of engines: what is no token, block or log-probability is refused in one short line, and never rounded."""

from __future__ import annotations

import itertools
import json
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from harness.implementations import Implementation, serve
from harness.implementations.engine import AdapterError, BlockTrace, Output
from harness.pairs import shipped
from properties.meta.hardening import case, promise

COIN4 = shipped("coin4")


class Answers:
    """An engine that gives one answer to every prompt."""

    def __init__(self, _target: str, _draft: str | None, answer: Any) -> None:
        self.answer = answer

    def generate(self, prompts: list[Any], _params: list[Any], _seeds: list[int]) -> list[Any]:
        return [self.answer for _ in prompts]


def generate(answer: Any) -> Output:
    """The answer to a request of three tokens, as the harness reads it."""
    engine = Implementation("answers", partial(Answers, answer=answer)).open(COIN4)
    return engine.generate([[1]], [{"temperature": 1.0, "max_new_tokens": 3}], [0])[0]


BLOCK = {"accepted": 0, "tokens": [1], "parents": [-1]}


def blocks(**changed: Any) -> dict[str, Any]:
    return {"tokens": [0, 1, 2], "blocks": [BLOCK, {**BLOCK, **changed}]}


def logprobs(*values: Any) -> dict[str, Any]:
    return {"tokens": [0, 1, 2], "logprobs": values}


FAULTS = [
    case(
        "a token with a fraction",
        "exit code 4 with the token and its place",
        [0, 3.7, 1],
        "token 1 of an answer is 3.7, not a whole number",
    ),
    case(
        "a token that is a whole float",
        "exit code 4 with the token and its place",
        [0, 1, 2.0],
        "token 2 of an answer is 2.0, not a whole number",
    ),
    case("a token that is a float of NumPy", "exit code 4", [np.float32(1)] * 3, "token 0 of an answer is np.float32"),
    case("a tensor of floats as an answer", "exit code 4", torch.ones(3), "token 0 of an answer is tensor"),
    case("a tensor of booleans as an answer", "exit code 4", torch.ones(3, dtype=torch.bool), "token 0 of an answer is tensor"),
    case(
        "a tensor of two dimensions as an answer",
        "exit code 4",
        torch.ones(1, 3, dtype=torch.int64),
        "token 0 of an answer is tensor",
    ),
    case("a tensor without dimensions as an answer", "exit code 4", torch.tensor(3), "an answer is tensor"),
    case(
        "a token that is a string",
        "exit code 4 with the token and its place",
        ["1", 1, 1],
        "token 0 of an answer is '1', not a whole number",
    ),
    case("a string as an answer", "exit code 4", "123", "an answer is '123', not a list of token ids"),
    case("a token that is a boolean", "exit code 4 with the token and its place", [True, 1, 1], "token 0 of an answer is True"),
    case(
        "an infinite token",
        "exit code 4 with the token and its place",
        [1, float("inf"), 1],
        "token 1 of an answer is inf, not a whole number",
    ),
    case(
        "a token that is NaN or None",
        "exit code 4 with the token and its place",
        [1, None, float("nan")],
        "token 1 of an answer is None",
    ),
    case("a token of 400 digits", "exit code 4 without the digits", [10**400, 1, 1], "token a whole number of 1329 bits"),
    case("a token of 5,000 digits", "exit code 4 without the digits", [10**5000, 1, 1], "token a whole number of 16610 bits"),
    case(
        "a token outside the vocabulary",
        "exit code 4 with the token and the vocabulary",
        [1, 4, 1],
        "token 4; the vocabulary is 0 to 3",
    ),
    case(
        "a dict without tokens as an answer",
        "exit code 4 with the dict",
        {"text": "abc"},
        "an answer is {'text': 'abc'}, not a list",
    ),
    case("a set as an answer", "exit code 4", {0, 1, 2}, r"an answer is {0, 1, 2}, not a list"),
    case("None as an answer", "exit code 4", None, "an answer is None"),
    case(
        "an endless generator as an answer",
        "exit code 4; no more is read than was requested",
        itertools.repeat(1),
        "more than 3 tokens; at most 3 were",
    ),
    case("an endless generator of refused tokens", "exit code 4", itertools.repeat("x"), "token 0 of an answer is 'x'"),
    case(
        "30 million tokens as an answer",
        "exit code 4 at once, with the number",
        [1] * 30_000_000,
        "30000000 tokens; at most 3 were requested",
    ),
    case(
        "an answer that is too short",
        "exit code 4 with both lengths",
        [1, 1],
        "2 tokens, without an end-of-text token; 3 were requested",
    ),
    case("blocks that are no list", "exit code 4", {"tokens": [0, 1, 2], "blocks": 7}, "'blocks' is 7, not a list"),
    case(
        "an endless generator of blocks",
        "exit code 4",
        {"tokens": [0, 1, 2], "blocks": itertools.repeat(BLOCK)},
        "'blocks' is repeat.*, not a list",
    ),
    case(
        "a block without parents",
        "exit code 4 with the block",
        {"tokens": [0, 1, 2], "blocks": [{"accepted": 0}]},
        "block 0 of 'blocks' is {'accepted': 0}, not a dict with",
    ),
    case(
        "a block with a fraction of accepted tokens",
        "exit code 4 with its place",
        blocks(accepted=0.5),
        "accepted of block 1 is 0.5, not a whole number",
    ),
    case(
        "a block with a boolean as the number of accepted tokens",
        "exit code 4 with its place",
        blocks(accepted=True),
        "accepted of block 1 is True",
    ),
    case(
        "a block with a token that is a string",
        "exit code 4 with its place",
        blocks(tokens=["1"]),
        r"tokens\[0\] of block 1 is '1'",
    ),
    case(
        "a block with an endless tree",
        "exit code 4",
        blocks(tokens=itertools.count()),
        r"tokens of block 1 is count\(0\), not a list",
    ),
    case(
        "a block with a parent that is a fraction",
        "exit code 4 with its place",
        blocks(parents=[-0.5]),
        r"parents\[0\] of block 1 is -0.5",
    ),
    case(
        "log-probabilities that are no list",
        "exit code 4",
        {"tokens": [0, 1, 2], "logprobs": "abc"},
        "'logprobs' is 'abc', not a list",
    ),
    case(
        "an endless generator of log-probabilities",
        "exit code 4",
        {"tokens": [0, 1, 2], "logprobs": itertools.repeat(-1.0)},
        "'logprobs' is repeat",
    ),
    case(
        "a log-probability that is a string",
        "exit code 4 with its place",
        logprobs(-1.0, "-1.0", -1.0),
        "logprob 1 of an answer is '-1.0', not the logarithm",
    ),
    case(
        "a log-probability that is a boolean",
        "exit code 4 with its place",
        logprobs(-1.0, -1.0, False),
        "logprob 2 of an answer is False",
    ),
    case(
        "a log-probability that is NaN",
        "exit code 4 with its place",
        logprobs(float("nan"), -1.0, -1.0),
        "logprob 0 of an answer is nan",
    ),
    case(
        "a log-probability of 400 digits",
        "exit code 4 without the digits",
        logprobs(-(10**400), -1.0, -1.0),
        "logprob 0 of an answer is a whole number of 1329 bits",
    ),
    case(
        "a log-probability too few",
        "exit code 4 with both numbers",
        logprobs(-1.0, -1.0),
        "'logprobs' has 2 numbers for 3 tokens",
    ),
]


@pytest.mark.parametrize(("answer", "message"), FAULTS)
def test_wrong_answer_is_refused(answer: Any, message: str) -> None:
    """An AdapterError is exit code 4, of every command."""
    begun = time.monotonic()
    with pytest.raises(AdapterError, match=message) as caught:
        generate(answer)
    assert len(str(caught.value)) < 300 and time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "tokens",
    [
        (0, 1, 2),
        np.array([0, 1, 2]),
        [np.int8(0), np.uint64(1), 2],
        torch.tensor([0, 1, 2]),
        [torch.tensor(0), torch.tensor([1]), 2],
        bytes([0, 1, 2]),
        (token for token in (0, 1, 2)),
    ],
    ids=["tuple", "array", "NumPy integers", "tensor", "list of tensors", "bytes", "generator"],
)
def test_integers_of_any_library_are_tokens(tokens: Any) -> None:
    read = generate(
        {"tokens": tokens, "logprobs": np.array([-1, -2, -np.inf], np.float32), "blocks": [{**BLOCK, "tokens": np.array([1])}]}
    )
    assert read == Output((0, 1, 2), (BlockTrace(0, (1,), (-1,)),), (-1.0, -2.0, -np.inf))
    assert {type(token) for token in read.tokens} == {int}


@promise("an engine in another process answers with an endless generator", "exit code 4; serve.py takes 100,000 items of it")
def test_endless_generator_of_a_served_engine_is_cut() -> None:
    server = serve.Server(Answers)
    server.engine = Answers("", None, itertools.repeat(1))
    reply = json.loads(server.answer({"do": "generate", "prompts": [[1]], "params": [{}], "seeds": [0], "id": 3}))
    assert reply["id"] == 3 and len(reply["outputs"][0]) == serve.LONGEST
    with pytest.raises(AdapterError, match="100000 tokens; at most 3 were requested"):
        generate(reply["outputs"][0])
