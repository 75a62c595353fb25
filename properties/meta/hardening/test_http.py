"""Servers that do not answer as they should: every request has one deadline, and errors name the address and quote the reply."""

from __future__ import annotations

import contextlib
import socketserver
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import socket
from threading import Event, Thread

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.implementations import connect
from harness.implementations.engine import AdapterError
from harness.pairs import shipped
from harness.verdict import BROKEN, USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2

COIN4 = shipped("coin4")


class Server(socketserver.ThreadingTCPServer):
    """Reads a request of any kind, and lets `answer` write to the connection. `ended` tells endless answers to stop."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.answer: Callable[[socket, Event], None] = lambda _connection, _ended: None
        self.ended = Event()
        self.requests = 0

    def finish_request(self, request: socket, _client_address: object) -> None:  # type: ignore[override]
        with contextlib.suppress(OSError):
            request.recv(2**16)
            self.requests += 1
            self.answer(request, self.ended)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    local = Server()
    Thread(target=local.serve_forever, args=(0.02,), daemon=True).start()
    yield local
    local.ended.set()
    local.shutdown()
    local.server_close()


def reply(body: bytes, status: str = "200 OK", headers: str = "") -> Callable[[socket, Event], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
    return lambda connection, _ended: connection.sendall(head + body)


def endless(start: bytes, piece: bytes, pause: float) -> Callable[[socket, Event], None]:
    """Send a start, and then a piece again and again."""

    def answer(connection: socket, ended: Event) -> None:
        connection.sendall(start)
        while not ended.wait(pause):
            connection.sendall(piece)

    return answer


BODY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
HTML = b"<html><title>Welcome to nginx</title></html>"

FAULTS = [
    case(
        "a server never ends a body, a byte at a time",
        "exit code 4 after the timeout of a request",
        endless(BODY, b"1", 0.05),
        r"/v1/models: no answer within 0\.3 s",
    ),
    case(
        "a server never ends its headers, a byte at a time",
        "exit code 4 after the timeout of a request",
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
        r"/v1/models: no answer within 0\.3 s",
    ),
    case(
        "a server does not answer",
        "exit code 4 after the timeout of a request",
        endless(b"", b"", 0.05),
        r"/v1/models: no answer within 0\.3 s",
    ),
    case(
        "a server sends a body without an end",
        "exit code 4; the message names the largest reply",
        endless(BODY, b"1," * 2**20, 0),
        "/v1/models: a reply of more than 64 MiB",
    ),
    case(
        "a server answers with an HTML page",
        "exit code 4 with address, status and page",
        reply(HTML),
        "/v1/models: HTTP 200: the reply is not JSON: '<html><title>Welcome",
    ),
    case(
        "a server answers an error with an HTML page",
        "exit code 4 with address, status and page",
        reply(HTML, "404 Not Found"),
        "/v1/models: HTTP 404: <html><title>Welcome",
    ),
    case(
        "a server redirects to a file",
        "exit code 4 with the target, which is not read",
        reply(b"", "302 Found", "Location: file:///etc/passwd\r\n"),
        "/v1/models: HTTP 302: a redirect to 'file:///etc/passwd', which is not followed",
    ),
    case(
        "a server redirects to itself",
        "exit code 4 with the target",
        reply(b"", "307 Temporary Redirect", "Location: /v1/models\r\n"),
        "HTTP 307: a redirect to '/v1/models', which is not followed",
    ),
    case(
        "a server answers with null",
        "exit code 4 with address and reply",
        reply(b"null"),
        "/v1/models: HTTP 200: TypeError: .* in the reply 'null'",
    ),
    case(
        "a server answers with another object",
        "exit code 4 with address, reply and the missing field",
        reply(b'{"models": []}'),
        r"HTTP 200: KeyError: 'data' in the reply '{\"models\": \[\]}'",
    ),
    case(
        "a server answers with nothing", "exit code 4 with address", reply(b""), "/v1/models: HTTP 200: the reply is not JSON: ''"
    ),
    case(
        "a server answers with cut JSON",
        "exit code 4 with address and reply",
        reply(b'{"data": ['),
        'HTTP 200: the reply is not JSON: \'{"data": ',
    ),
    case(
        "a server answers with JSON nested 100,000 deep",
        "exit code 4 with address",
        reply(b"[" * 100_000),
        r"HTTP 200: the reply is not JSON: '\[\[\[",
    ),
    case(
        "a server answers with bytes that are not UTF-8",
        "exit code 4 with address",
        reply(b'{"data": "\xff"}'),
        "HTTP 200: the reply is not JSON",
    ),
    case(
        "a server compresses wrongly",
        "exit code 4 with address",
        reply(HTML, headers="Content-Encoding: gzip\r\n"),
        "/v1/models: DecodingError",
    ),
    case(
        "a server closes the connection",
        "exit code 4 with address",
        lambda _connection, _ended: None,
        "/v1/models: RemoteProtocolError",
    ),
    case(
        "a server does not speak HTTP",
        "exit code 4 with address",
        lambda connection, _ended: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "/v1/models: RemoteProtocolError",
    ),
    case(
        "a server refuses the key",
        "exit code 4 with the words of the server",
        reply(b'{"error": {"message": "bad key"}}', "401 Unauthorized"),
        "/v1/models: HTTP 401: bad key",
    ),
]


@pytest.mark.parametrize(("answer", "message"), FAULTS)
def test_server_that_answers_wrongly_is_an_error(answer: Callable[[socket, Event], None], message: str, server: Server) -> None:
    """An AdapterError is exit code 4, of every command."""
    server.answer = reply(b"{}")
    timeout = 0.3 if "no answer" in message else 20
    engine = connect(f"openai:url={server.url},timeout={timeout},retries=0").open(COIN4)
    server.answer = answer
    begun = time.monotonic()
    with pytest.raises(AdapterError, match=message) as caught:
        engine.raw  # noqa: B018
    assert server.url in str(caught.value) and len(str(caught.value)) < 600
    assert time.monotonic() - begun < 15 and server.requests == 2


@promise("a server that is asked for its version never ends the reply", "the version is unknown after 2 s")
def test_endless_version_is_unknown(server: Server) -> None:
    server.answer = endless(BODY, b"1", 0.05)
    begun = time.monotonic()
    assert connect(f"openai:url={server.url}").version == "server"
    assert time.monotonic() - begun < 10


@promise("a server answers slowly for longer than --time-limit", "exit code 4 after --time-limit; the message says which call")
def test_time_limit_ends_a_request(server: Server) -> None:
    server.answer = reply(b"{}")
    engine = connect(f"openai:url={server.url}", 0.5).open(COIN4)
    server.answer = endless(BODY, b"1", 0.02)
    begun = time.monotonic()
    with pytest.raises(AdapterError, match=r"hung: opening it on coin4 took more than 0\.5 s"):
        engine.raw  # noqa: B018
    assert time.monotonic() - begun < 5


@promise("a server answers with an HTML page, judged by a command", "exit code 4; address and page are shown, no traceback")
def test_command_shows_the_page_of_a_server(server: Server, tmp_path: Path) -> None:
    server.answer = reply(HTML)
    done = eagle2(["smoke", f"openai:url={server.url},control_url={server.url}", "--pair", "coin4"], tmp_path)
    assert done.returncode == BROKEN and "Welcome to nginx" in done.stdout and server.url in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


WRONG = [
    case("openai: without a url", "exit code 2 with an example", "openai:", "openai: there is no url"),
    case("sglang: without a url", "exit code 2 with an example", "sglang:depth=3", "sglang: there is no url"),
    case(
        "a url of a file",
        "exit code 2; nothing is read",
        "openai:url=file:///etc/passwd",
        "url is 'file:///etc/passwd', not an http address",
    ),
    case(
        "a url without http://",
        "exit code 2 with an example",
        "openai:url=localhost:8000",
        "url is 'localhost:8000', not an http address",
    ),
    case("a url that is a number", "exit code 2 with an example", "openai:url=8000", "url is 8000, not an http address"),
    case("a url with a wrong port", "exit code 2 with an example", "openai:url=http://localhost:port", "not an http address"),
    case("a url without a host", "exit code 2 with an example", "openai:url=http://", "not an http address"),
    case(
        "a wrong control_url",
        "exit code 2; the message names the option",
        "sglang:url=http://x,control_url=ftp://x",
        "control_url is 'ftp://x'",
    ),
    case("a request timeout of 0", "exit code 2 with the bound", "openai:url=http://x,timeout=0", "timeout is 0"),
    case("a request timeout that is NaN", "exit code 2 with the bound", "openai:url=http://x,timeout=nan", "timeout is nan"),
    case("a fraction of retries", "exit code 2 with the bound", "openai:url=http://x,retries=1.5", "retries is 1.5"),
    case("no request at a time", "exit code 2 with the bound", "openai:url=http://x,concurrency=0", "concurrency is 0"),
]


@pytest.mark.parametrize(("connectable", "message"), WRONG)
def test_wrong_address_is_a_usage_error(connectable: str, message: str) -> None:
    done = CliRunner().invoke(app, ["verify", connectable])
    first, *hints = done.stderr.splitlines()
    assert done.exit_code == USAGE and message in first and len(hints) == 1, done.output
