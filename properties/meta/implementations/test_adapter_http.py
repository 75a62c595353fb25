"""The adapters for servers, tested with a local server that answers in the formats of vLLM and SGLang."""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from math import log
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

from eagle2_ref.sampling import SamplingParams
from harness.distributions.exact import next_token_law
from harness.distributions.scoring import load_target
from harness.implementations.adapters import openai, sglang
from harness.pairs import shipped
from harness.record.model import read_record
from harness.verdict import FAULT, PASS
from properties.meta.helpers.command import eagle2

DEPTH = 2
MODELS = ("coin4", "coin6")


@cache
def law(model: str, text: tuple[int, ...], params: SamplingParams) -> list[float]:
    p: list[float] = next_token_law(_plain(model), torch.tensor([text]), params)[0].tolist()
    return p


@cache
def _plain(model: str) -> Any:
    return load_target(shipped(model), "float64", "cpu")


def decode(
    model: str, prompt: list[int], params: dict[str, Any], seed: int, bonus: float = 1.0
) -> tuple[list[int], list[float], Counter[str]]:
    """Decode with DEPTH drafted tokens, each the target's most likely one, and the rule `walk`.

    Args:
        bonus: factor on the temperature of the bonus token; a value other than 1 is a fault.

    Returns:
        The new tokens, their log-probabilities, and the counters of SGLang.
    """
    coins, text, probabilities = random.Random(seed), list(prompt), []  # noqa: S311
    right = SamplingParams.of(params)
    bonus_params = SamplingParams.of({**params, "temperature": params["temperature"] * bonus})
    length = min(right.max_new_tokens, shipped(model).context - len(prompt))
    counts: Counter[str] = Counter()
    while True:
        counts.update({"spec_verify_ct": 1, "spec_draft_token_num": DEPTH})
        for offset in range(DEPTH + 1):
            p = law(model, tuple(text), right if offset < DEPTH else bonus_params)
            u = coins.random() * sum(p)
            token = next(x for x, below in enumerate(accumulate(p)) if u < below)
            text.append(token)
            probabilities.append(p[token])
            if len(text) - len(prompt) == length or token in right.eos:
                return text[len(prompt) :], [log(p) for p in probabilities], counts
            if p[token] < max(p):
                break
            counts["spec_accept_token_num"] += offset < DEPTH


class Handler(BaseHTTPRequestHandler):
    """/v1/models, /v1/completions, /get_model_info and /generate. `server.requests` stores every POST."""

    protocol_version = "HTTP/1.1"
    server: LocalServer

    def do_GET(self) -> None:
        entries = [{"id": name, "root": f"/models/{name}/target"} for name in MODELS]
        replies: dict[str, dict[str, Any]] = {
            "/v1/models": {"data": entries},
            "/get_model_info": {"model_path": "/models/coin4"},
            "/version": {"version": "7"},
        }
        self._reply(200 if self.path in replies else 404, replies.get(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((body, self.headers))
        if self.server.failures:
            self._reply(self.server.failures.pop(), {"error": {"message": "overloaded"}})
            return
        self.server.answering.wait()
        self._reply(200, self._completion(body) if self.path == "/v1/completions" else self._generate(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        params = _params(body) | {"max_new_tokens": body["max_tokens"], "eos_token_id": body["stop_token_ids"]}
        tokens, logprobs, _ = decode(body["model"], body["prompt"], params, body["seed"], self.server.bonus)
        spelled = [f"token_id:{token}" for token in tokens] if self.server.style == "spelled" else ["text"] * len(tokens)
        choice: dict[str, Any] = {"text": "text", "logprobs": {"tokens": spelled, "token_logprobs": logprobs}}
        if self.server.style == "ids":
            choice |= {"token_ids": tokens, "prompt_token_ids": body["prompt"]}
        return {"choices": [choice]}

    def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        sampling = body["sampling_params"]
        params = _params(sampling) | {"max_new_tokens": sampling["max_new_tokens"], "eos_token_id": sampling["stop_token_ids"]}
        tokens, logprobs, counts = decode("coin4", body["input_ids"], params, sampling["sampling_seed"], self.server.bonus)
        meta = {"finish_reason": {"type": self.server.style}, "completion_tokens": len(tokens), **counts}
        meta["output_token_logprobs"] = [[*pair, None] for pair in zip(logprobs, tokens, strict=True)]
        return {"text": "text", "meta_info": meta, **({"output_ids": tokens} if self.server.style == "ids" else {})}

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_words: Any) -> None:
        """Do not log."""


def _params(body: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters of a request that are not off."""
    off = {"top_k": -1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    return {"temperature": body["temperature"], **{name: body[name] for name in off if body[name] != off[name]}}


class LocalServer(ThreadingHTTPServer):
    """A server on this machine.

    style: how tokens are returned. bonus: see `decode`. failures: statuses of the first replies. answering: while it is
    cleared, requests are not answered.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.style, self.bonus = "ids", 1.0
        self.failures: list[int] = []
        self.requests: list[tuple[dict[str, Any], Any]] = []
        self.answering = Event()
        self.answering.set()

    def handle_error(self, *_request: Any) -> None:
        """Do not print: a client that gave up has closed its connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[LocalServer]:
    local = LocalServer()
    Thread(target=local.serve_forever, args=(0.02,), daemon=True).start()
    yield local
    local.answering.set()
    local.shutdown()
    local.server_close()


COIN4 = (str(shipped("coin4").target), str(shipped("coin4").draft))
PROMPTS = [[2, 3, 2], [0], [1, 1]]
PARAMS: list[dict[str, Any]] = [
    {"temperature": 1.0, "max_new_tokens": 7},
    {"temperature": 0.0, "max_new_tokens": 3},
    {
        "temperature": 0.7,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "max_new_tokens": 9,
        "eos_token_id": 1,
    },
]
SEEDS = [5, 6, 7]
EXPECTED = [decode("coin4", *row) for row in zip(PROMPTS, PARAMS, SEEDS, strict=True)]
ADAPTERS = pytest.mark.parametrize("adapter", [openai, sglang], ids=["openai", "sglang"])


@ADAPTERS
@pytest.mark.parametrize("style", ["ids", "spelled"])
def test_request_keeps_its_seed_parameters_length_and_end(adapter: Any, style: str, server: LocalServer) -> None:
    """All sampling parameters are sent, also those that are off."""
    server.style = style
    found = adapter.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)
    assert [row["tokens"] if isinstance(row, dict) else row for row in found] == [tokens for tokens, _, _ in EXPECTED]
    assert EXPECTED[2][0][-1] == 1 and len(EXPECTED[2][0]) < 9
    sent = [body.get("sampling_params", body) for body, _ in server.requests]
    assert all({"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "ignore_eos"} <= set(body) for body in sent)


def test_log_probabilities_of_the_server_are_returned(server: LocalServer) -> None:
    engine = openai.Engine(*COIN4, url=server.url + "/v1/", logprobs="processed")
    assert [row["logprobs"] for row in engine.generate(PROMPTS, PARAMS, SEEDS)] == [
        pytest.approx(expected) for _, expected, _ in EXPECTED
    ]
    description = openai.Engine.describe(url=server.url, logprobs="processed")
    assert "logprobs" in description["capabilities"] and description["version"] == "server 7"
    assert sglang.Engine.describe(url=server.url)["version"] == "sglang"  # this server reports none
    assert "logprobs" not in openai.Engine.describe(url=server.url)["capabilities"]


def test_counters_are_summed_over_requests(server: LocalServer) -> None:
    engine = sglang.Engine(*COIN4, url=server.url)
    assert engine.counters() == {"passes": 0, "drafted": 0, "accepted": 0}
    for _ in range(2):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    expected = sum((counts for _, _, counts in EXPECTED), Counter())
    names = {"passes": "spec_verify_ct", "drafted": "spec_draft_token_num", "accepted": "spec_accept_token_num"}
    assert engine.counters() == {ours: 2 * expected[theirs] for ours, theirs in names.items()}


@ADAPTERS
def test_request_to_a_busy_server_is_retried_with_a_warning(
    adapter: Any, server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, retries=2)
    server.failures = [503, 429]
    with caplog.at_level(logging.WARNING):
        engine.generate(PROMPTS[:1], PARAMS[:1], SEEDS[:1])
    assert [record.getMessage().rsplit("; ", 1)[1] for record in caplog.records] == ["retry 1 of 2", "retry 2 of 2"]
    assert "HTTP 429: overloaded" in caplog.text


@ADAPTERS
@pytest.mark.parametrize(
    ("status", "raised", "requests"), [(500, ConnectionError, 3), (422, NotImplementedError, 1), (404, RuntimeError, 1)]
)
def test_failure_of_the_server_is_raised(
    adapter: Any, status: int, raised: type[Exception], requests: int, server: LocalServer
) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, retries=2)
    server.failures = [status] * 3
    with pytest.raises(raised, match=f"HTTP {status}: overloaded"):
        engine.generate(PROMPTS[:1], PARAMS[:1], SEEDS[:1])
    assert len(server.requests) == requests


@ADAPTERS
def test_request_to_a_server_that_hangs_times_out(adapter: Any, server: LocalServer) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, timeout=0.2)
    server.answering.clear()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    assert time.monotonic() - began < 5
    assert len(server.requests) <= 3


def test_connection_to_a_missing_server_fails(server: LocalServer) -> None:
    server.server_close()
    with pytest.raises(ConnectionError, match="ConnectError"):
        openai.Engine(*COIN4, url=server.url, retries=1)


def test_reply_without_token_ids_is_refused(server: LocalServer) -> None:
    server.style = "text"
    with pytest.raises(NotImplementedError, match="cannot be mapped back"):
        openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


def test_continuation_of_another_prompt_is_an_error(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers add a token of their own in front of the prompt."""
    unchanged = Handler._completion
    monkeypatch.setattr(Handler, "_completion", lambda self, body: unchanged(self, {**body, "prompt": [0, *body["prompt"]]}))
    with pytest.raises(RuntimeError, match="continued"):
        openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


def test_aborted_request_is_an_error(server: LocalServer) -> None:
    server.style = "abort"
    with pytest.raises(RuntimeError, match="aborted"):
        sglang.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


@ADAPTERS
def test_engine_refuses_a_model_that_the_server_does_not_serve(adapter: Any, server: LocalServer) -> None:
    make = partial(adapter.Engine, str(shipped("stdlib").target), "", url=server.url)
    with pytest.raises(NotImplementedError, match="not stdlib"):
        make()
    make(serves="stdlib")
    with pytest.raises(NotImplementedError, match="control_url"):
        adapter.Engine(COIN4[0], None, url=server.url)


def test_sglang_refuses_ends_that_do_not_include_those_of_the_model(server: LocalServer, tmp_path: Path) -> None:
    """SGLang's ignore_eos also switches stop_token_ids off."""
    (tmp_path / "coin4").mkdir()
    (tmp_path / "coin4" / "config.json").write_text('{"eos_token_id": 3}')
    engine = sglang.Engine(str(tmp_path / "coin4"), "", url=server.url)
    with pytest.raises(NotImplementedError, match=r"end at \[1\]"):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    engine.generate(PROMPTS, [{**params, "eos_token_id": [1, 3]} for params in PARAMS], SEEDS)


def test_api_key_is_read_from_the_environment(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLE2_API_KEY", "secret")
    openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)
    assert {headers["Authorization"] for _, headers in server.requests} == {"Bearer secret"}


CELL = "LAW-4[coin4, T=1.0, k=2 depth=2 m=4]"


def judge(kind: str, chapter: str, server: LocalServer, folder: Path) -> tuple[int, dict[str, set[str]]]:
    """The exit code of `eagle2 verify`, and the verdicts of each property."""
    words = ["verify", f"{kind}:url={server.url},control_url={server.url},depth={DEPTH}", "--pair", "coin4", "--only", chapter]
    done = eagle2([*words, "-n", "0", "--out", "out"], folder)
    verdicts: dict[str, set[str]] = {}
    for result in read_record(folder / "out" / "record.jsonl").results:
        verdicts.setdefault(result.property, set()).add(result.verdict)
    return done.returncode, verdicts


@pytest.mark.parametrize(
    ("kind", "chapter", "expected"),
    [
        ("openai", "SMOKE", {"SMOKE-1": {"pass"}, "SMOKE-2": {"pass"}}),
        ("openai", "GREEDY", {"GREEDY-1": {"pass"}, "GREEDY-2": {"n/a"}, "GREEDY-3": {"pass"}, "GREEDY-4": {"pass"}}),
        ("openai", CELL, {"LAW-4": {"pass"}}),
        ("sglang", CELL, {"LAW-4": {"pass"}}),
        ("sglang", "TOLD-2", {"TOLD-2": {"pass"}}),
    ],
)
def test_correct_server_passes(
    kind: str, chapter: str, expected: dict[str, set[str]], server: LocalServer, tmp_path: Path
) -> None:
    assert judge(kind, chapter, server, tmp_path) == (PASS, expected)


def test_bonus_token_at_another_temperature_is_a_fault(server: LocalServer, tmp_path: Path) -> None:
    server.bonus = 0.5
    assert judge("openai", CELL, server, tmp_path) == (FAULT, {"LAW-4": {"fault"}})
