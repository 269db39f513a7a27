"""Limits of connections: bytes, headers and seconds before a request is complete, and their number.

uvicorn bounds none of these. A proxy in front usually does, but the port may also be reached without one. Requests that
keep to the limits pay a few additions; everything that needs a clock is done once a second for all connections.
"""

import asyncio
import resource
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

PROBES = frozenset({"/livez", "/readyz", "/health"})  # answered also when there are too many connections
KEPT_DESCRIPTORS = 128  # of the process: database, Redis, files, models
_USUAL_DESCRIPTORS = 65_536
_LOOK_SECONDS = 0.001  # in which the event loop takes from the sockets what has come, before a clock judges a caller


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each connection, and of all of them together."""

    connections: int = 1_000
    probes: int = 16  # connections beyond it, for probes only
    url_bytes: int = 16_384
    headers: int = 100  # header fields and trailer fields of one request
    head_bytes: int = 65_536  # in a row that are not of a body: URL and headers, trailers, an extension of a chunk
    framing_bytes: int = 262_144  # of all the chunks of one body (sizes, extensions, line ends) beside what follows
    framing_share: int = 2  # and for each byte of the body: who sends three or more in a chunk meets no limit
    head_seconds: float = 15  # from the first byte, or from the connection, to the end of the headers
    slow_head_seconds: float = 2  # after which a connection without headers makes room where there are too many
    body_seconds: float = 30  # and a second more for each `body_rate` bytes that came
    body_rate: int = 1_000  # bytes per second, less than any modem
    rest_seconds: float = 10  # what still comes of a body after its answer is thrown away for so long
    write_seconds: float = 60  # for an answer that its reader does not take, and as much for each `body_rate` bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is closed: the status and the words of its last answer."""

    status: HTTPStatus
    code: str
    title: str
    detail: str

    def body(self) -> bytes:
        """Return the problem document (RFC 9457)."""
        problem = {
            "type": f"urn:guichet:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        return orjson.dumps(problem)

    def response(self, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the whole answer, as bytes of HTTP/1.1."""
        body = self.body()
        headers = [
            *default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return STATUS_LINE[self.status] + lines + b"\r\n" + body


MALFORMED = Refusal(HTTPStatus.BAD_REQUEST, "malformed_request", "Malformed request", "This is not HTTP/1.1.")
CROWDED = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable",
    "Service unavailable",
    "There are too many connections to this service: close those that you do not use, and try again soon.",
)
UNKNOWN_CODING = Refusal(
    HTTPStatus.NOT_IMPLEMENTED,
    "not_implemented",
    "Not implemented",
    "The only Transfer-Encoding that this service reads is chunked. A compressed body needs Content-Encoding.",
)


class _TooMuchError(Exception):
    """Raised inside a callback of the parser: it ends there."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection within limits. `bounded` makes the class with the limits in force."""

    # Beyond thirty attributes, an instance has a dictionary of keys of its own, and each access costs more (CPython).
    __slots__ = (
        "_body_bytes",
        "_body_since",
        "_closing_since",
        "_head_since",
        "_in_a_row",
        "_in_head",
        "_overhead",
        "_piece",
        "_refusal",
        "_rest_since",
        "_running",
        "_stalled_since",
        "_trailer_count",
    )

    limits: ClassVar[Limits] = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection: beyond the limit, an idle one is closed, or this one serves only probes."""
        super().connection_made(transport)
        self._refusal: Refusal | None = None
        self._running: RequestResponseCycle | None = None
        self._overhead = 0  # bytes of this request that are not of its body
        self._in_a_row = 0  # of those, how many came since the last one of its body
        self._piece = 0  # bytes that came last, in one piece
        self._body_bytes = 0
        self._trailer_count = 0
        self._in_head = True
        self.url = b""
        self._head_since: float | None = self.loop.time()  # None: between two requests, or after the headers
        self._body_since: float | None = None
        self._rest_since: float | None = None
        self._stalled_since: float | None = None
        self._closing_since: float | None = None
        if len(self.connections) > self.limits.connections and not self._make_room():
            if len(self.connections) > self.limits.connections + self.limits.probes:
                transport.abort()
            else:
                self.app = _for_probes_only(self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered that its caller has left: uvicorn tells the one that came last."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as uvicorn has it
        self._running = cycle
        HttpToolsProtocol._start_asgi_task(self, cycle, app)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; data above a limit ends the connection with an answer that names the limit."""
        self._unset_keepalive_if_required()
        size = self._piece = len(data)
        self._overhead += size
        self._in_a_row += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to a protocol that this service does not speak: the request is answered as it is
        except httptools.HttpParserError:
            self._end(self._refusal or MALFORMED)
            return
        if self._overhead:  # most requests come in one piece: they are complete, and need neither clock nor limit
            self._wait_for_rest()

    def _wait_for_rest(self) -> None:
        """Start the clock of what is still to come, and end the connection if what came is too much."""
        if self._in_head:
            self._head_since = self._head_since or self.loop.time()
        else:
            self._body_since = self._body_since or self.loop.time()
        if self._in_a_row > self.limits.head_bytes:
            self._end(self._head_too_large())
        elif self._overhead > self.limits.framing_bytes + self.limits.framing_share * self._body_bytes:
            self._end(self._framing_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field. Trailer fields come here too: they are counted and dropped (RFC 9110, section 6.5)."""
        if not self._in_head:
            self._trailer_count += 1
            if len(self.headers) + self._trailer_count > self.limits.headers:
                self._refuse(self._head_too_large())
            return
        name = name.lower()
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._refuse(UNKNOWN_CODING)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Pass the request on; its body has its own time limit."""
        if len(self.headers) > self.limits.headers or len(self.url) > self.limits.url_bytes or self._has_large_head():
            self._refuse(self._head_too_large())
        self._in_head = False
        self._head_since = self._body_since = None
        HttpToolsProtocol.on_headers_complete(self)

    def _has_large_head(self) -> bool:
        """Tell whether the head of this request, all of which has come, has too many bytes."""
        if self._piece <= self.limits.head_bytes and self._in_a_row <= self.limits.head_bytes:
            return False  # nearly always: they are not counted one by one
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.head_bytes

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, as uvicorn does where there are no WebSockets."""
        size = len(body)
        self._body_bytes += size
        self._overhead -= size
        self._in_a_row = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Wait for the next request, and count anew."""
        self._overhead = self._in_a_row = self._body_bytes = self._trailer_count = 0
        self._in_head = True
        self._rest_since = None
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
            return
        # the rest of its body has stopped the clock that its answer had started
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close this idle connection, unless a request came while the process stood still: data takes this clock back.

        After a pause (of a container, of a virtual machine) the loop runs clocks before it looks at its sockets. To
        close then would reset the connection under a request that came in time.
        """
        close = HttpToolsProtocol.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(_LOOK_SECONDS, close, self)

    def check(self, now: float) -> None:
        """Close this connection if it has been too slow. Called once a second."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > self.limits.write_seconds:
                self.transport.abort()  # the last bytes of an answer that nobody takes
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self._head_since is not None and now - self._head_since > self.limits.head_seconds:
                self._time_out(f"The headers were not complete within {self.limits.head_seconds:g} s.")
            elif not self._in_head:
                self._rest_since = self._rest_since or now
                if now - self._rest_since > self.limits.rest_seconds:
                    self.transport.close()
        elif cycle.more_body:
            since = self._body_since or now
            if self.flow.read_paused or cycle.waiting_for_100_continue:
                self._body_since = since + 1  # it is the service that does not read
            elif now - since > self.limits.body_seconds + self._body_bytes / self.limits.body_rate:
                self._time_out(f"The body came more slowly than {self.limits.body_rate:,} bytes per second.")
        if not self.flow.write_paused:
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = now + self.transport.get_write_buffer_size() / self.limits.body_rate
        elif now - self._stalled_since > self.limits.write_seconds:
            self.transport.abort()

    def is_idle_at(self, now: float) -> bool:
        """Return whether no request is under way, not even its first byte."""
        return self.cycle is not None and self.cycle.response_complete and self._head_since is None

    def is_slow_at(self, now: float) -> bool:
        """Return whether its headers have been awaited longer than an honest client needs."""
        between = self.cycle is None or self.cycle.response_complete
        return between and self._head_since is not None and now - self._head_since > self.limits.slow_head_seconds

    def _make_room(self) -> bool:
        """Close a connection that is idle or slow with its headers; return whether there was one."""
        others = [one for one in self.connections if isinstance(one, GuardedProtocol) and one is not self]
        now = self.loop.time()
        for is_spare in (GuardedProtocol.is_idle_at, GuardedProtocol.is_slow_at):
            for other in others:
                if is_spare(other, now) and not other.transport.is_closing():
                    other.transport.close()
                    return True
        return False

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _TooMuchError

    def _head_too_large(self) -> Refusal:
        if len(self.url) > self.limits.url_bytes:
            return Refusal(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                "uri_too_long",
                "URI too long",
                f"The address is longer than {self.limits.url_bytes:,} bytes: send large values in a body.",
            )
        return Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "Headers too large",
            f"The request has more than {self.limits.headers} header fields, or more than"
            f" {self.limits.head_bytes:,} bytes beside its body: send fewer.",
        )

    def _framing_too_large(self) -> Refusal:
        return Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "chunks_too_small",
            "Chunks too small",
            f"The sizes and extensions of the body's chunks take more than {self.limits.framing_bytes:,} bytes and"
            f" {self.limits.framing_share} for each byte of the body: send larger chunks, or a Content-Length.",
        )

    def _time_out(self, detail: str) -> None:
        self._end(Refusal(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "Request timeout", detail))

    def _end(self, refusal: Refusal) -> None:
        """Send the reason, unless an answer has begun or was sent already, and close."""
        if not self.transport.is_closing():
            if self._owes_answer():
                self.transport.write(refusal.response(self.server_state.default_headers))
            self.transport.close()

    def _owes_answer(self) -> bool:
        """Return whether what comes now belongs to a request that no byte was answered to, and no other is answered."""
        running = self._running
        if running is None or not running.response_started:
            return True
        return running.response_complete and (self._in_head or running is not self.cycle)


class Server(uvicorn.Server):
    """uvicorn's server, which looks at its connections once a second."""

    async def on_tick(self, counter: int) -> bool:
        """Close slow connections; return whether the server is to stop."""
        if counter % 10 == 0:
            await asyncio.sleep(_LOOK_SECONDS)  # see timeout_keep_alive_handler: the same after a pause
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, GuardedProtocol):
                    connection.check(now)
        return await super().on_tick(counter)


def bounded(limits: Limits) -> type[GuardedProtocol]:
    """Return the protocol of connections within these limits."""
    return type("BoundedProtocol", (GuardedProtocol,), {"limits": limits})


def raise_descriptors() -> int:
    """Raise this process' limit of descriptors as far as possible, up to 65,536; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > _USUAL_DESCRIPTORS:
        hard = _USUAL_DESCRIPTORS
    if soft == resource.RLIM_INFINITY:
        return _USUAL_DESCRIPTORS
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(soft, hard)


def affordable(connections: int, descriptors: int) -> int:
    """Return the number of connections that a process with this number of descriptors can hold: at least 16."""
    return max(16, min(connections, descriptors - KEPT_DESCRIPTORS))


def _for_probes_only(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        body = CROWDED.body()
        headers: list[tuple[bytes, Any]] = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", b"5"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": CROWDED.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
