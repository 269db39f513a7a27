"""A small HTTP client on raw sockets: it costs little, sends what is asked of it and nothing else, and can leave."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Self

JSON = {"Content-Type": "application/json"}
CSV = {"Content-Type": "text/csv"}
SECONDS = 60.0  # for one answer; nothing is claimed about the time


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Wire:
    """One connection, opened when it is needed and again when the service has closed it."""

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        self._port = port
        self._headers = headers or {}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def open(self) -> asyncio.StreamWriter:
        """Connect, unless that is done; return where to write."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        return self._writer

    def leave(self) -> None:
        """Hang up, in the middle of whatever goes on."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._reader = None

    async def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send a request and return its answer."""
        async with asyncio.timeout(SECONDS):
            await self.send(method, path, body, headers)
            return await self.receive()

    async def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send a request; its answer is received later, or never."""
        fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **self._headers, **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer = await self.open()
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await writer.drain()

    async def receive(self) -> Answer:
        """Return the next answer."""
        status, headers = await self.receive_head()
        assert self._reader is not None
        if "content-length" in headers:
            body = await self._reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(await self._reader.readline(), 16):
                pieces.append(await self._reader.readexactly(size))
                await self._reader.readline()
            await self._reader.readline()
            body = b"".join(pieces)
        else:
            body = b"" if status in (204, 304) else await self._reader.read()
        if headers.get("connection") == "close":
            self.leave()
        return Answer(status, headers, body)

    async def receive_head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the headers, with small names, of the next answer."""
        assert self._reader is not None
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = (line.partition(":") for line in lines)
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}
