"""Engines that are servers with a JSON API: bounded retries with a warning, a timeout, refusals in the server's own words."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

import httpx2

from .common import SAMPLING, chain_budget, end_tokens

REFUSAL_STATUSES = (400, 422, 501)
"""The server understood the request and does not support it."""

FIRST_PAUSE = 0.1
"""Seconds before the first retry; each later pause is twice as long."""

log = logging.getLogger(__name__)


class Server:
    """Connection to a server at `url`, with or without a final /v1.

    An API key is read from the environment variable EAGLE2_API_KEY, so that it is never part of a record.
    """

    def __init__(self, url: str, timeout: float = 60.0, retries: int = 3, concurrency: int = 8) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        key = os.environ.get("EAGLE2_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(base_url=self.url, timeout=timeout, headers=headers)

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """Replies to several requests, of which at most `concurrency` are in flight."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(lambda body: self.request(path, body), bodies))

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST a body, or GET without one, and return the decoded reply.

        Lost connections and the statuses 429 and 5xx are retried, each time with a warning. This does not select among texts,
        since a request contains its seed. A timeout is not retried.

        Raises:
            NotImplementedError: the server refuses the request.
            TimeoutError, ConnectionError, RuntimeError: it did not answer, is unavailable, or reports another error.
        """
        for attempt in range(self.retries):
            try:
                return self._request_once(path, body)
            except ConnectionError as error:
                log.warning("%s; retry %d of %d", error, attempt + 1, self.retries)
                time.sleep(FIRST_PAUSE * 2**attempt)
        return self._request_once(path, body)

    def _request_once(self, path: str, body: dict[str, Any] | None) -> Any:
        where = self.url + path
        try:
            response = self._client.request("GET" if body is None else "POST", path, json=body)
        except httpx2.TimeoutException:
            raise TimeoutError(f"{where}: no answer within {self.timeout:g} s") from None
        except httpx2.TransportError as error:
            raise ConnectionError(f"{where}: {type(error).__name__}: {error}") from None
        if response.is_success:
            return response.json()
        failure = f"{where}: HTTP {response.status_code}: {_message(response)}"
        if response.status_code in REFUSAL_STATUSES:
            raise NotImplementedError(failure)
        if response.status_code == 429 or response.is_server_error:
            raise ConnectionError(failure)
        raise RuntimeError(failure)

    def close(self) -> None:
        self._client.close()


class ServerEngine:
    """A model on a server. The server at `url` speculates; the one at `control_url` serves the same model without speculation."""

    def __init__(self, draft: str | None, url: str, control_url: str, timeout: float, retries: int, concurrency: int) -> None:
        if draft is None and not control_url:
            raise NotImplementedError("no control_url: the address of a server of the same model that does not speculate")
        self.server = Server(control_url if draft is None else url, timeout, retries, concurrency)

    def close(self) -> None:
        self.server.close()


def describe_server(engine: str, url: str, version_path: str, depth: int) -> dict[str, Any]:
    """The description that the servers' adapters have in common."""
    return {
        "capabilities": SAMPLING,
        "version": f"{engine} {version(url, version_path)}".strip(),
        "checkpoint": "none",
        "budget": chain_budget(depth),
    }


def sampling_fields(params: dict[str, Any]) -> dict[str, Any]:
    """Sampling parameters of a request.

    All are sent, also those that are off: a server may have defaults of its own, or of the model's generation_config.json.
    """
    return {
        "temperature": params["temperature"],
        "top_k": params.get("top_k", -1),
        "top_p": params.get("top_p", 1.0),
        "min_p": params.get("min_p", 0.0),
        "repetition_penalty": params.get("repetition_penalty", 1.0),
        "stop_token_ids": end_tokens(params),
        "skip_special_tokens": False,
    }


def model_name(path: str) -> str:
    """Name of the model in a folder: the folder's last part, or the part above it if the last is `target`."""
    found = PurePath(path)
    return found.parent.name if found.name == "target" else found.name


def version(url: str, path: str) -> str:
    """The version that a server reports; empty if it reports none."""
    try:
        return str(Server(url, timeout=2.0, retries=0).request(path)["version"])
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):  # NotImplementedError is a RuntimeError
        return ""


def _message(response: httpx2.Response) -> str:
    """The innermost message of an error's JSON, or the start of the body."""
    try:
        message = response.json()
    except ValueError:
        return response.text[:300]
    while isinstance(message, dict) and (inner := message.get("error") or message.get("message") or message.get("detail")):
        message = inner
    return str(message)[:300]
