"""A server that speaks JSON over HTTP: bounded retries that are told, a time-out, refusals in the server's own words."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

import httpx2

REFUSED = (400, 422, 501)
"""The server has understood, and says that it does not do this."""

PAUSE = 0.1
"""Seconds before the first retry; each later pause is twice as long."""

log = logging.getLogger(__name__)


class Server:
    """`url` with or without a closing /v1. A key is taken from the environment, EAGLE2_API_KEY, so that no record holds it."""

    def __init__(self, url: str, timeout: float = 60.0, retries: int = 3, concurrency: int = 8) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        key = os.environ.get("EAGLE2_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(base_url=self.url, timeout=timeout, headers=headers)

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """The answers to several requests, `concurrency` of them under way at a time."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(lambda body: self.ask(path, body), bodies))

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What comes back for a body that is posted, or for a path alone.

        Tried again are lost connections, 429 and 5xx, each time with a warning. A request holds its seed: where the server keeps
        to seeds, trying again chooses among no texts. A time-out is not tried again; a refusal is NotImplementedError.
        """
        for attempt in range(self.retries):
            try:
                return self._once(path, body)
            except ConnectionError as error:
                log.warning("%s; retry %d of %d", error, attempt + 1, self.retries)
                time.sleep(PAUSE * 2**attempt)
        return self._once(path, body)

    def _once(self, path: str, body: dict[str, Any] | None) -> Any:
        """ConnectionError is what may pass."""
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
        if response.status_code in REFUSED:
            raise NotImplementedError(failure)
        if response.status_code == 429 or response.is_server_error:
            raise ConnectionError(failure)
        raise RuntimeError(failure)

    def close(self) -> None:
        self._client.close()


def model_of(target: str) -> str:
    """The name that a folder gives its model: its last part, or the one above where that is called `target`."""
    path = PurePath(target)
    return path.parent.name if path.name == "target" else path.name


def version(url: str, path: str) -> str:
    """What a server says of its version; nothing where it does not say."""
    try:
        return str(Server(url, timeout=2.0, retries=0).ask(path)["version"])
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):  # NotImplementedError is a RuntimeError
        return ""


def ends(params: dict[str, Any]) -> list[int]:
    """End-of-text tokens as a list."""
    eos = params.get("eos_token_id")
    return [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [eos]


def _message(response: httpx2.Response) -> str:
    """The `message` of an error's JSON, wherever it stands, or the body's beginning."""
    try:
        told = response.json()
    except ValueError:
        return response.text[:300]
    while isinstance(told, dict) and (inner := told.get("error") or told.get("message") or told.get("detail")):
        told = inner
    return str(told)[:300]
