"""Engines that are servers with a JSON API: bounded retries with a warning, a deadline, refusals in the server's own words."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, TypeVar

import httpx2

from .common import SAMPLING, chain_budget, end_tokens

REFUSAL_STATUSES = (400, 422, 501)
"""The server understood the request and does not support it."""

FIRST_PAUSE = 0.1
"""Seconds before the first retry; each later pause is twice as long."""

LARGEST_REPLY = 64 * 2**20
"""Bytes of the longest reply that is read."""

QUOTED = 300
"""Characters of a reply that an error quotes."""

log = logging.getLogger(__name__)

B = TypeVar("B")
T = TypeVar("T")


class Server:
    """Connection to a server at `url`, with or without a final /v1.

    An API key is read from the environment variable EAGLE2_API_KEY, so that it is never part of a record.
    """

    def __init__(self, url: str, timeout: float = 60.0, retries: int = 3, concurrency: int = 8) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout, self.retries, self.concurrency = timeout, retries, concurrency
        key = os.environ.get("EAGLE2_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A client for each call, so that nothing stays open. The deadline is that of asyncio: a timeout of the client begins
        # again with every byte that a server sends.
        tls = httpx2.create_ssl_context()
        self._connect = partial(httpx2.AsyncClient, base_url=self.url, timeout=None, headers=headers, verify=tls)

    def post_all(self, path: str, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any], Any], T]) -> list[T]:
        """What `read` finds in the replies, given request and reply. At most `concurrency` requests are in flight."""
        return asyncio.run(self._request_all(path, bodies, read))

    def request(self, path: str, read: Callable[[Any], T]) -> T:
        """GET, and return what `read` finds in the decoded reply.

        Lost connections and the statuses 429 and 5xx are retried, each time with a warning. This does not select among texts,
        since a request contains its seed. A timeout is not retried.

        Raises:
            NotImplementedError: the server refuses the request.
            TimeoutError, ConnectionError, RuntimeError: it did not answer, is unavailable, or its reply is not the expected one.
        """
        return asyncio.run(self._request_all(path, [None], lambda _body, reply: read(reply)))[0]

    async def _request_all(self, path: str, bodies: Sequence[B], read: Callable[[B, Any], T]) -> list[T]:
        free = asyncio.Semaphore(self.concurrency)

        async def request(client: httpx2.AsyncClient, body: B) -> T:
            async with free:
                return await self._request(client, path, body, partial(read, body))

        async with self._connect() as client:
            return await asyncio.gather(*(request(client, body) for body in bodies))

    async def _request(self, client: httpx2.AsyncClient, path: str, body: Any, read: Callable[[Any], T]) -> T:
        for attempt in range(self.retries):
            try:
                return await self._request_once(client, path, body, read)
            except ConnectionError as error:
                log.warning("%s; retry %d of %d", error, attempt + 1, self.retries)
                await asyncio.sleep(FIRST_PAUSE * 2**attempt)
        return await self._request_once(client, path, body, read)

    async def _request_once(self, client: httpx2.AsyncClient, path: str, body: Any, read: Callable[[Any], T]) -> T:
        where, content = self.url + path, bytearray()
        try:
            async with (
                asyncio.timeout(self.timeout),
                client.stream("GET" if body is None else "POST", path, json=body) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > LARGEST_REPLY:
                        raise RuntimeError(f"{where}: a reply of more than {LARGEST_REPLY >> 20} MiB")
        except TimeoutError:
            raise TimeoutError(f"{where}: no answer within {self.timeout:g} s") from None
        except httpx2.TransportError as error:
            raise ConnectionError(f"{where}: {type(error).__name__}: {error}") from None
        except httpx2.RequestError as error:
            raise RuntimeError(f"{where}: {type(error).__name__}: {error}") from None
        where = f"{where}: HTTP {response.status_code}"
        if response.is_success:
            return _read(content, read, where)
        if response.is_redirect:
            target = response.headers.get("location", "")[:QUOTED]
            raise RuntimeError(f"{where}: a redirect to {target!r}, which is not followed: give the address of the server itself")
        failure = f"{where}: {_message(content)}"
        if response.status_code in REFUSAL_STATUSES:
            raise NotImplementedError(failure)
        if response.status_code == 429 or response.is_server_error:
            raise ConnectionError(failure)
        raise RuntimeError(failure)


class ServerEngine:
    """A model on a server. The server at `url` speculates; the one at `control_url` serves the same model without speculation."""

    def __init__(self, draft: str | None, url: str, control_url: str, timeout: float, retries: int, concurrency: int) -> None:
        if draft is None and not control_url:
            raise NotImplementedError("no control_url: the address of a server of the same model that does not speculate")
        self.server = Server(control_url if draft is None else url, timeout, retries, concurrency)


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
        return Server(url, timeout=2.0, retries=0).request(path, lambda reply: str(reply["version"])[:QUOTED])
    except (OSError, RuntimeError):  # NotImplementedError is a RuntimeError
        return ""


def _read(content: bytearray, read: Callable[[Any], T], where: str) -> T:
    """What `read` finds in a reply. Errors quote the reply and name its address."""
    text = repr(content[:QUOTED].decode(errors="replace")) + ("…" if len(content) > QUOTED else "")
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        raise RuntimeError(f"{where}: the reply is not JSON: {text}") from None
    try:
        return read(reply)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RuntimeError(f"{where}: {type(error).__name__}: {error} in the reply {text}") from None


def _message(content: bytearray) -> str:
    """The innermost message of an error's JSON, or the start of the body."""
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        return content[:QUOTED].decode(errors="replace")
    while isinstance(message, dict) and (inner := message.get("error") or message.get("message") or message.get("detail")):
        message = inner
    return str(message)[:QUOTED]
