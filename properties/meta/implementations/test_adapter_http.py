"""The HTTP adapters, against a real server on this machine that answers in the formats of vLLM and SGLang."""

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
    """Speculation: DEPTH drafted tokens, each the target's likeliest, and the `walk` rule. bonus: a factor on the temperature of
    the bonus token, 1 where it is right. The new tokens, their probabilities, and the counts of SGLang."""
    coins, text, probabilities = random.Random(seed), list(prompt), []  # noqa: S311
    asked = SamplingParams.of(params)
    wrong = SamplingParams.of({**params, "temperature": params["temperature"] * bonus})
    length = min(asked.max_new_tokens, shipped(model).context - len(prompt))
    counts: Counter[str] = Counter()
    while True:
        counts.update({"spec_verify_ct": 1, "spec_draft_token_num": DEPTH})
        for offset in range(DEPTH + 1):
            p = law(model, tuple(text), asked if offset < DEPTH else wrong)
            u = coins.random() * sum(p)
            token = next(x for x, below in enumerate(accumulate(p)) if u < below)
            text.append(token)
            probabilities.append(p[token])
            if len(text) - len(prompt) == length or token in asked.eos:
                return text[len(prompt) :], [log(p) for p in probabilities], counts
            if p[token] < max(p):
                break
            counts["spec_accept_token_num"] += offset < DEPTH


class Handler(BaseHTTPRequestHandler):
    """/v1/models, /v1/completions, /get_model_info and /generate. Everything asked is kept in `server.asked`."""

    protocol_version = "HTTP/1.1"
    server: Local

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
        self.server.asked.append((body, self.headers))
        if self.server.failures:
            self._reply(self.server.failures.pop(), {"error": {"message": "no room"}})
            return
        self.server.going.wait()
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
        asked = body["sampling_params"]
        params = _params(asked) | {"max_new_tokens": asked["max_new_tokens"], "eos_token_id": asked["stop_token_ids"]}
        tokens, logprobs, counts = decode("coin4", body["input_ids"], params, asked["sampling_seed"], self.server.bonus)
        told = {"finish_reason": {"type": self.server.style}, "completion_tokens": len(tokens), **counts}
        told["output_token_logprobs"] = [[*pair, None] for pair in zip(logprobs, tokens, strict=True)]
        return {"text": "text", "meta_info": told, **({"output_ids": tokens} if self.server.style == "ids" else {})}

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_words: Any) -> None:
        """Nothing."""


def _params(body: dict[str, Any]) -> dict[str, Any]:
    """The sampling parameters that are on."""
    off = {"top_k": -1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    return {"temperature": body["temperature"], **{name: body[name] for name in off if body[name] != off[name]}}


class Local(ThreadingHTTPServer):
    """style: how tokens are told. bonus: see `decode`. failures: statuses to answer first. going: cleared, none is answered."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.style, self.bonus = "ids", 1.0
        self.failures: list[int] = []
        self.asked: list[tuple[dict[str, Any], Any]] = []
        self.going = Event()
        self.going.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Local]:
    local = Local()
    Thread(target=local.serve_forever, args=(0.02,), daemon=True).start()
    yield local
    local.going.set()
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
DUE = [decode("coin4", *row) for row in zip(PROMPTS, PARAMS, SEEDS, strict=True)]
ADAPTERS = pytest.mark.parametrize("adapter", [openai, sglang], ids=["openai", "sglang"])


@ADAPTERS
@pytest.mark.parametrize("style", ["ids", "spelled"])
def test_rows_come_back_as_they_were_asked(adapter: Any, style: str, server: Local) -> None:
    """Each with its own seed, parameters, length and end; all parameters are said, also those that are off."""
    server.style = style
    found = adapter.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)
    assert [row["tokens"] if isinstance(row, dict) else row for row in found] == [tokens for tokens, _, _ in DUE]
    assert DUE[2][0][-1] == 1 and len(DUE[2][0]) < 9
    told = [body.get("sampling_params", body) for body, _ in server.asked]
    assert all({"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "ignore_eos"} <= set(body) for body in told)


def test_log_probabilities_are_handed_on(server: Local) -> None:
    engine = openai.Engine(*COIN4, url=server.url + "/v1/", logprobs="processed")
    assert [row["logprobs"] for row in engine.generate(PROMPTS, PARAMS, SEEDS)] == [pytest.approx(due) for _, due, _ in DUE]
    told = openai.Engine.describe(url=server.url, logprobs="processed")
    assert "logprobs" in told["capabilities"] and told["version"] == "server 7"
    assert sglang.Engine.describe(url=server.url)["version"] == "sglang"  # it was not told
    assert "logprobs" not in openai.Engine.describe(url=server.url)["capabilities"]


def test_counters_add_up(server: Local) -> None:
    engine = sglang.Engine(*COIN4, url=server.url)
    assert engine.counters() == {"passes": 0, "drafted": 0, "accepted": 0}
    for _ in range(2):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    due = sum((counts for _, _, counts in DUE), Counter())
    names = {"passes": "spec_verify_ct", "drafted": "spec_draft_token_num", "accepted": "spec_accept_token_num"}
    assert engine.counters() == {ours: 2 * due[theirs] for ours, theirs in names.items()}


@ADAPTERS
def test_a_busy_server_is_asked_again_and_told(adapter: Any, server: Local, caplog: pytest.LogCaptureFixture) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, retries=2)
    server.failures = [503, 429]
    with caplog.at_level(logging.WARNING):
        engine.generate(PROMPTS[:1], PARAMS[:1], SEEDS[:1])
    assert [record.getMessage().rsplit("; ", 1)[1] for record in caplog.records] == ["retry 1 of 2", "retry 2 of 2"]
    assert "HTTP 429: no room" in caplog.text


@ADAPTERS
@pytest.mark.parametrize(
    ("status", "raised", "asked"), [(500, ConnectionError, 3), (422, NotImplementedError, 1), (404, RuntimeError, 1)]
)
def test_what_does_not_pass_is_raised(adapter: Any, status: int, raised: type[Exception], asked: int, server: Local) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, retries=2)
    server.failures = [status] * 3
    with pytest.raises(raised, match=f"HTTP {status}: no room"):
        engine.generate(PROMPTS[:1], PARAMS[:1], SEEDS[:1])
    assert len(server.asked) == asked


@ADAPTERS
def test_a_server_that_hangs_meets_the_time_out(adapter: Any, server: Local) -> None:
    engine = adapter.Engine(*COIN4, url=server.url, timeout=0.2)
    server.going.clear()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    assert time.monotonic() - began < 5
    assert len(server.asked) <= 3


def test_a_server_that_is_not_there_is_told(server: Local) -> None:
    server.server_close()
    with pytest.raises(ConnectionError, match="ConnectError"):
        openai.Engine(*COIN4, url=server.url, retries=1)


def test_texts_without_token_ids_are_refused(server: Local) -> None:
    server.style = "text"
    with pytest.raises(NotImplementedError, match="cannot be mapped back"):
        openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


def test_another_prompt_than_asked_is_seen(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that puts a token of its own in front continues another text."""
    honest = Handler._completion
    monkeypatch.setattr(Handler, "_completion", lambda self, body: honest(self, {**body, "prompt": [0, *body["prompt"]]}))
    with pytest.raises(ValueError, match="the server continued"):
        openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


def test_a_request_that_was_given_up_is_no_text(server: Local) -> None:
    server.style = "abort"
    with pytest.raises(RuntimeError, match="gave up"):
        sglang.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)


@ADAPTERS
def test_only_the_model_that_is_served_is_judged(adapter: Any, server: Local) -> None:
    make = partial(adapter.Engine, str(shipped("stdlib").target), "", url=server.url)
    with pytest.raises(NotImplementedError, match="not stdlib"):
        make()
    make(serves="stdlib")
    with pytest.raises(NotImplementedError, match="control_url"):
        adapter.Engine(COIN4[0], None, url=server.url)


def test_ends_that_sglang_cannot_tell_apart_are_refused(server: Local, tmp_path: Path) -> None:
    """Its ignore_eos switches stop_token_ids off too."""
    (tmp_path / "coin4").mkdir()
    (tmp_path / "coin4" / "config.json").write_text('{"eos_token_id": 3}')
    engine = sglang.Engine(str(tmp_path / "coin4"), "", url=server.url)
    with pytest.raises(NotImplementedError, match=r"end at \[1\]"):
        engine.generate(PROMPTS, PARAMS, SEEDS)
    engine.generate(PROMPTS, [{**params, "eos_token_id": [1, 3]} for params in PARAMS], SEEDS)


def test_a_key_is_sent_from_the_environment(server: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLE2_API_KEY", "secret")
    openai.Engine(*COIN4, url=server.url).generate(PROMPTS, PARAMS, SEEDS)
    assert {headers["Authorization"] for _, headers in server.asked} == {"Bearer secret"}


CELL = "LAW-4[coin4, T=1.0, k=2 depth=2 m=4]"


def judged(kind: str, chapter: str, server: Local, folder: Path) -> tuple[int, dict[str, set[str]]]:
    """The exit code, and the verdicts of each property."""
    words = ["verify", f"{kind}:url={server.url},control_url={server.url},depth={DEPTH}", "--pair", "coin4", "--only", chapter]
    done = eagle2([*words, "-n", "0", "--out", "out"], folder)
    verdicts: dict[str, set[str]] = {}
    for result in read_record(folder / "out" / "record.jsonl").results:
        verdicts.setdefault(result.property, set()).add(result.verdict)
    return done.returncode, verdicts


@pytest.mark.parametrize(
    ("kind", "chapter", "due"),
    [
        ("openai", "SMOKE", {"SMOKE-1": {"pass"}, "SMOKE-2": {"pass"}}),
        ("openai", "GREEDY", {"GREEDY-1": {"pass"}, "GREEDY-2": {"n/a"}, "GREEDY-3": {"pass"}, "GREEDY-4": {"pass"}}),
        ("openai", CELL, {"LAW-4": {"pass"}}),
        ("sglang", CELL, {"LAW-4": {"pass"}}),
        ("sglang", "TOLD-2", {"TOLD-2": {"pass"}}),
    ],
)
def test_a_sound_server_passes(kind: str, chapter: str, due: dict[str, set[str]], server: Local, tmp_path: Path) -> None:
    assert judged(kind, chapter, server, tmp_path) == (PASS, due)


def test_a_bonus_at_the_wrong_temperature_is_seen(server: Local, tmp_path: Path) -> None:
    server.bonus = 0.5
    assert judged("openai", CELL, server, tmp_path) == (FAULT, {"LAW-4": {"fault"}})
