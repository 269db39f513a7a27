"""Connections by raw sockets: what is too much, too slow or too many ends with an answer, and others are served."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from api.http.connections import KEPT_DESCRIPTORS, Limits, Server, affordable, bounded, raise_descriptors

LIMITS = Limits(
    connections=20,
    probes=2,
    url_bytes=2_000,
    headers=20,
    head_bytes=10_000,
    head_seconds=1,
    slow_head_seconds=0.3,
    body_seconds=1,
    body_rate=1_000,
    rest_seconds=1,
    write_seconds=1,
)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the size of the body and the names of the headers.

    /large with 50 MB, /early before it has read anything, /wait when it is left.
    """
    if scope["type"] != "http":
        return
    size = 0
    while scope["path"] not in ("/large", "/early"):
        message = await receive()
        if message["type"] == "http.disconnect":
            ended.append(size)
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    if scope["path"] == "/wait":
        ended.append((await receive())["type"])
        return
    names = [name.decode() for name, _ in scope["headers"]]
    body = b"x" * 50_000_000 if scope["path"] == "/large" else json.dumps({"size": size, "names": names}).encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


ended: list[Any] = []


def make_server() -> Server:
    """Return a server within the limits above, on a free port, which closes idle connections after 3 s."""
    http = bounded(LIMITS)
    return Server(
        uvicorn.Config(app, port=0, http=http, ws="none", lifespan="off", log_config=None, timeout_keep_alive=3)
    )


def run(descriptor: int) -> None:
    """Serve on a socket that listens: what the process of `paused` does."""
    uvloop.run(make_server().serve([socket.socket(fileno=descriptor)]))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = make_server()
    thread = threading.Thread(target=lambda: uvloop.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join(timeout=10)
    assert not thread.is_alive()


@dataclass
class Paused:
    """A server in a process of its own, which can be stopped as `docker pause` does it."""

    process: "subprocess.Popen[bytes]"
    address: tuple[str, int]

    @contextmanager
    def pause(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        yield
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def paused() -> Iterator[Paused]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        command = [sys.executable, "-c", f"from {__name__} import run; run({listening.fileno()})"]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[3], pass_fds=[listening.fileno()])
        try:
            address = listening.getsockname()
            with closing(socket.create_connection(address, timeout=60)) as connection:
                connection.sendall(GET + b"\r\n")
                read_one(connection)
            yield Paused(process, address)
        finally:
            process.kill()
            process.wait()


@contextmanager
def connect(server: Server) -> Iterator[socket.socket]:
    address = server.servers[0].sockets[0].getsockname()
    with closing(socket.create_connection(address, timeout=10)) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes; a reset is an end as well."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def send_pieces(connection: socket.socket, pieces: Iterator[bytes]) -> bytes:
    """Send until the other side has had enough; return its answer."""
    return send_endless(connection, pieces)[0]


def send_endless(connection: socket.socket, pieces: Iterator[bytes]) -> tuple[bytes, int]:
    """Send until the other side has had enough; return its answer, and how many bytes it took at most."""
    sent = 0
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
    except ConnectionError:
        pass
    return read_all(connection), sent


def read_one(connection: socket.socket) -> bytes:
    """Return the body of the next answer, which is no refusal."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    assert response.status == 200
    return response.read()


def problem_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert b"connection: close" in head
    assert problem["detail"].endswith(".")
    assert int(head.split()[1]) == problem["status"]
    return problem["status"], problem["type"].rpartition(":")[2]


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


def test_request_within_the_limits_is_answered_on_a_connection_that_stays(server):
    with connect(server) as connection:
        for size in (0, 5, 100_000):
            connection.sendall(POST + f"Content-Length: {size}\r\n\r\n".encode() + b"x" * size)
            assert json.loads(read_one(connection))["size"] == size


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([GET, *[b"X-A: %d\r\n" % i for i in range(200_000)], b"\r\n"], (431, "headers_too_large")),
        ([GET, b"X-A: ", *[b"a" * 1_000] * 100_000], (431, "headers_too_large")),
        ([GET, *[b"a" * 1_000] * 100_000], (431, "headers_too_large")),
        ([GET + b"X-A: " + b"a" * 15_000 + b"\r\n\r\n"], (431, "headers_too_large")),
        ([GET + (b"X-A: " + b"a" * 1_500 + b"\r\n") * 10 + b"\r\n"], (431, "headers_too_large")),
        ([b"GET /", *[b"a" * 1_000] * 100_000], (414, "uri_too_long")),
        ([b"GET /?q=" + b"a" * 3_000 + b" HTTP/1.1\r\n\r\n"], (414, "uri_too_long")),
        (
            [POST, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"X-T: %d\r\n" % i for i in range(200_000)]],
            (431, "headers_too_large"),
        ),
        (
            [POST, b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: ", *[b"a" * 1_000] * 100_000],
            (431, "headers_too_large"),
        ),
        (
            [POST, b"Transfer-Encoding: chunked\r\n\r\n5;", *[b"a" * 1_000] * 100_000],
            (431, "headers_too_large"),
        ),
        ([b"\x16\x03\x01\x00\xa5" * 100], (400, "malformed_request")),
        ([b"\r\n" * 50_000_000], (431, "headers_too_large")),
        ([POST, b"Transfer-Encoding: gzip\r\n\r\n", b"x" * 100], (501, "not_implemented")),
        ([POST, b"Transfer-Encoding: gzip, chunked\r\n\r\n", b"x" * 100], (501, "not_implemented")),
        ([POST, b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nabcde"], (400, "malformed_request")),
    ],
    ids=[
        "many headers",
        "endless value",
        "endless name",
        "whole head in one piece",
        "whole head of long headers in one piece",
        "endless URL",
        "long query",
        "many trailers",
        "endless trailer",
        "endless extension of a chunk",
        "TLS",
        "empty lines",
        "gzip coding",
        "gzip, then chunked",
        "two lengths",
    ],
)
def test_request_beyond_a_limit_is_refused_before_it_costs_memory(server, pieces, expected):
    with connect(server) as connection:
        assert problem_of(send_pieces(connection, iter(pieces))) == expected


def test_head_of_the_second_request_in_a_piece_is_bounded_too(server):
    with connect(server) as connection:
        connection.sendall(GET + b"\r\n" + GET + b"X-A: " + b"a" * 15_000 + b"\r\n\r\n")
        received = read_all(connection)
    assert b" 431 " in received
    assert b"x-a" not in received  # the application names the headers that it has seen


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def test_small_chunks_of_an_honest_sender_are_taken(server):
    with connect(server) as connection:
        connection.sendall(POST + CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")
        assert json.loads(read_one(connection))["size"] == 30_000


@pytest.mark.parametrize(
    ("chunk", "size"),
    [(b"3\r\nxyz\r\n", 3), (b"0014;signature=0123456789abcdef\r\n%b\r\n" % (b"x" * 20), 20)],
    ids=["three bytes", "a line, with an extension"],
)
def test_chunks_of_some_bytes_are_taken_whatever_their_number(server, chunk, size):
    with connect(server) as connection:
        connection.sendall(POST + CHUNKED + chunk * 200_000 + b"0\r\n\r\n")
        assert json.loads(read_one(connection))["size"] == 200_000 * size


@pytest.mark.parametrize(
    "chunk",
    [b"1\r\nx\r\n", b"01\r\nx\r\n", b"1;a=b\r\nx\r\n", b"8;%b\r\n12345678\r\n" % (b"e" * 2_000)],
    ids=["one byte", "leading zero", "extension", "long extension"],
)
@pytest.mark.parametrize("path", [b"/", b"/early"])
def test_body_without_an_end_in_chunks_that_are_hardly_any_body_is_refused(server, chunk, path):
    with connect(server) as connection:
        connection.sendall(POST.replace(b"/ ", path + b" ") + CHUNKED)
        answer, sent = send_endless(connection, iter([chunk * (60_000 // len(chunk))] * 1_700))
        assert sent < 20_000_000  # most of it stands in the buffers of both sides
        if path == b"/":  # what was answered already is not answered again
            assert problem_of(answer) == (413, "chunks_too_small")
        assert answer.count(b"HTTP/1.1") == 1


def test_rest_of_a_body_is_not_taken_for_long_after_its_answer(server):
    with connect(server) as connection:
        connection.sendall(POST.replace(b"/ ", b"/early ") + CHUNKED)

        def pieces() -> Iterator[bytes]:
            for _ in range(200):
                time.sleep(0.05)
                yield b"5\r\nabcde\r\n"

        began = time.monotonic()
        answer = send_pieces(connection, pieces())
        assert time.monotonic() - began < 8
        assert answer.count(b"HTTP/1.1") == 1


def test_connection_is_kept_when_the_rest_of_a_body_ends_after_its_answer(server):
    with connect(server) as connection:
        connection.sendall(POST.replace(b"/ ", b"/early ") + b"Content-Length: 6\r\n\r\nabc")
        assert json.loads(read_one(connection))["size"] == 0
        connection.sendall(b"def" + POST + b"Content-Length: 2\r\n\r\nxy")
        assert json.loads(read_one(connection))["size"] == 2


def test_trailer_is_no_header(server):
    with connect(server) as connection:
        body = b"1\r\nx\r\n0\r\nAuthorization: Bearer stolen\r\n\r\n"
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        answer = json.loads(read_one(connection))
        assert answer == {"size": 1, "names": ["host", "transfer-encoding"]}


@pytest.mark.parametrize("count", [2, 1_000])
def test_requests_in_one_packet_are_all_answered(server, count):
    with connect(server) as connection:
        connection.sendall((GET + b"\r\n") * (count - 1) + GET + b"Connection: close\r\n\r\n")
        assert read_all(connection).count(b"HTTP/1.1 200") == count


@pytest.mark.parametrize("first", [b"", b"GET", GET, b"\r\n"], ids=["nothing", "a word", "half headers", "empty line"])
def test_connection_without_whole_headers_is_closed(server, first):
    began = time.monotonic()
    with connect(server) as connection:
        connection.sendall(first)
        assert problem_of(read_all(connection)) == (408, "request_timeout")
    assert LIMITS.head_seconds <= time.monotonic() - began < 8


def test_headers_that_trickle_are_closed(server):
    with connect(server) as connection:

        def pieces() -> Iterator[bytes]:
            yield GET
            for _ in range(100):
                time.sleep(0.1)
                yield b"X-A: a\r\n"

        began = time.monotonic()
        send_pieces(connection, pieces())
        assert time.monotonic() - began < 8


def test_body_that_trickles_is_closed_and_its_handler_ends(server):
    ended.clear()
    with connect(server) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nxx")
        assert problem_of(read_all(connection)) == (408, "request_timeout")
    while not ended:
        time.sleep(0.01)
    assert ended == [2]


def test_caller_that_leaves_its_pipeline_is_missed_by_the_request_that_is_being_answered(server):
    ended.clear()
    with connect(server) as connection:
        connection.sendall((POST.replace(b"/ ", b"/wait ") + b"Content-Length: 1\r\n\r\nx") * 20)
        time.sleep(0.1)
        assert ended == []
    deadline = time.monotonic() + 10
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert ended == ["http.disconnect"]  # and the others have not begun


@pytest.mark.parametrize("is_new", [True, False], ids=["new connection", "idle connection"])
def test_request_that_came_while_the_service_was_paused_is_answered(paused: Paused, is_new: bool) -> None:
    """Clocks ran out during the pause: of the headers, or of an idle connection. The request had come before."""
    for _ in range(4):  # what the loop does first after a pause varies
        with closing(socket.create_connection(paused.address, timeout=10)) as caller:
            if not is_new:
                caller.sendall(GET + b"\r\n")
                read_one(caller)
                time.sleep(1.6)
            time.sleep(0.2)  # the connection has been taken
            with paused.pause():
                caller.sendall(GET + b"\r\n")
                time.sleep(2)
            assert json.loads(read_one(caller))["size"] == 0


def test_slow_body_that_keeps_its_rate_is_taken(server):
    with connect(server) as connection:
        connection.sendall(POST + b"Content-Length: 15000\r\n\r\n")
        for _ in range(30):  # three seconds, at five times the least rate
            time.sleep(0.1)
            connection.sendall(b"x" * 500)
        assert json.loads(read_one(connection))["size"] == 15_000


def test_answer_that_nobody_reads_ends_the_connection(server):
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 100
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not server.server_state.connections


def test_idle_connections_make_room_and_probes_are_answered_when_all_are_busy(server):
    with ExitStack() as stack:
        for _ in range(LIMITS.connections):  # idle: they had their answer
            idle = stack.enter_context(connect(server))
            idle.sendall(GET + b"\r\n")
            assert read_one(idle)
        busy = []
        for _ in range(LIMITS.connections):
            one = stack.enter_context(connect(server))
            one.sendall(POST + b"Content-Length: 10000000\r\n\r\n" + b"x" * 60_000)
            busy.append(one)
        time.sleep(0.2)
        with connect(server) as late:
            late.sendall(POST + b"Content-Length: 0\r\n\r\n")
            assert problem_of(read_all(late)) == (503, "unavailable")
        with connect(server) as probe:
            probe.sendall(GET + b"\r\n")
            assert read_one(probe)
        busy.pop().close()
        time.sleep(0.2)
        with connect(server) as next_one:
            next_one.sendall(POST + b"Content-Length: 0\r\n\r\n")
            assert read_one(next_one)


def test_silent_connections_make_room(server):
    with ExitStack() as stack:
        for _ in range(LIMITS.connections):
            stack.enter_context(connect(server))
        time.sleep(LIMITS.slow_head_seconds + 0.1)
        with connect(server) as late:
            late.sendall(POST + b"Content-Length: 0\r\n\r\n")
            assert read_one(late)


def test_connections_leave_descriptors_for_the_rest_of_the_process():
    assert raise_descriptors() >= 512
    assert affordable(1_000, 65_536) == 1_000
    assert affordable(1_000, 512) == 512 - KEPT_DESCRIPTORS
    assert affordable(1_000, 64) == 16
