"""Our connections answer as uvicorn's do, byte for byte, in however many pieces requests and answers come."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.connections import Limits, Server, bounded

Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")
POLICY = (b"content-security-policy", b"default-src 'none'")
ANSWERS: dict[str, tuple[int, list[Header], list[bytes]]] = {
    "/whole": (200, [JSON, (b"content-length", b"5"), POLICY], [b"12345"]),
    "/again": (202, [POLICY, (b"Content-Length", b"2"), JSON, (b"x-request-id", b"one")], [b"{}"]),
    "/pieces": (200, [JSON, (b"content-length", b"5")], [b"12", b"", b"345"]),
    "/last-is-empty": (200, [JSON, (b"content-length", b"5")], [b"12345", b""]),
    "/chunks": (200, [JSON, POLICY], [b"12", b"345"]),
    "/empty": (200, [JSON, (b"content-length", b"0")], [b""]),
    "/nothing": (204, [], [b""]),
    "/not-modified": (304, [(b"etag", b'"x"')], [b""]),
    "/close": (200, [JSON, (b"content-length", b"2"), (b"connection", b"close")], [b"{}"]),
    "/too-long": (200, [JSON, (b"content-length", b"1")], [b"123"]),
    "/too-short": (200, [JSON, (b"content-length", b"9")], [b"123"]),
    "/bad-name": (200, [(b"no good", b"x"), (b"content-length", b"2")], [b"{}"]),
    "/bad-value": (200, [(b"content-type", b"a\r\nb: c"), (b"content-length", b"2")], [b"{}"]),
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["path"] == "/read":
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        text = b"read %d" % size
        status, headers, parts = 200, [(b"content-length", str(len(text)).encode())], [text]
    else:
        status, headers, parts = ANSWERS[scope["path"]]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for place, part in enumerate(parts):
        await send({"type": "http.response.body", "body": part, "more_body": place + 1 < len(parts)})


def silent(protocol: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
    """Return the protocol without a log of accesses, as the service has it: pytest adds a handler to every logger."""

    def start(self: HttpToolsProtocol, *args: Any, **named: Any) -> None:
        protocol.__init__(self, *args, **named)
        self.access_log = False

    return type("Silent", (protocol,), {"__init__": start})


@contextmanager
def serving(kind: type[uvicorn.Server], http: Any) -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        app, port=0, http=http, ws="none", lifespan="off", log_config=None, access_log=False, date_header=False
    )
    server = kind(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def servers() -> Iterator[list[uvicorn.Server]]:
    ours_by, theirs_by = silent(bounded(Limits())), silent(HttpToolsProtocol)
    with serving(Server, ours_by) as ours, serving(uvicorn.Server, theirs_by) as theirs:
        yield [ours, theirs]


def conversation(server: uvicorn.Server, requests: bytes, piece: int = 65_536) -> bytes:
    """Send requests in pieces of so many bytes, and return everything that comes back until the server closes."""
    address = server.servers[0].sockets[0].getsockname()
    with closing(socket.create_connection(address, timeout=10)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(requests), piece):
            connection.sendall(requests[start : start + piece])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


def request(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", [path for path in ANSWERS if not path.startswith(("/bad", "/too"))])
def test_answer_is_the_servers_own(servers: list[uvicorn.Server], path: str, method: str, version: str):
    sent = request(method, path, "Connection: close", version=version)
    ours, theirs = (conversation(server, sent) for server in servers)
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 ")


def test_pipelined_answers_come_in_order(servers: list[uvicorn.Server]):
    paths = ["/whole", "/chunks", "/again", "/nothing", "/whole"]
    sent = b"".join(request("GET", path) for path in paths) + request("GET", "/pieces", "Connection: close")
    ours, theirs = (conversation(server, sent) for server in servers)
    assert ours == theirs
    assert ours.count(b"HTTP/1.1 ") == len(paths) + 1


@pytest.mark.parametrize("piece", [1, 7, 64, 1_000])
def test_requests_in_pieces_are_answered_alike(servers: list[uvicorn.Server], piece: int):
    body = b"x" * 300
    sent = (
        request("POST", "/read", f"Content-Length: {len(body)}")
        + body
        + request("POST", "/read", "Transfer-Encoding: chunked")
        + b"12c\r\n"
        + body
        + b"\r\n0\r\n\r\n"
        + request("POST", "/read", "Content-Length: 0", "Connection: close")
    )
    ours, theirs = (conversation(server, sent, piece) for server in servers)
    assert ours == theirs
    assert ours.count(b"read 300") == 2
    assert ours.endswith(b"read 0")


@pytest.mark.parametrize("path", ["/bad-name", "/bad-value"])
def test_header_that_is_none_is_never_sent(servers: list[uvicorn.Server], path: str):
    ours, theirs = (conversation(server, request("GET", path, "Connection: close")) for server in servers)
    assert ours == theirs == b""


@pytest.mark.parametrize("path", ["/too-long", "/too-short"])
def test_body_of_another_length_ends_the_connection(servers: list[uvicorn.Server], path: str):
    ours, theirs = (conversation(server, request("GET", path)) for server in servers)
    assert ours == theirs
