"""A load generator that costs little: it runs in its own process and shares the processors with what it measures.

    python -m benchmarks.harness.load http://127.0.0.1:8000/jobs bodies.jsonl --connections 16 --seconds 6

Closed loop: every connection sends its next request when it has the answer to the last one (`--pause` seconds later,
to ask now and then instead of loading the service). Requests are bytes that
were built before the clock starts; an answer is read as far as its status and its length. Prints one JSON object.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends request after request until the deadline."""

    def __init__(
        self, requests: Iterator[bytes], deadline: float, pause: float, times: list[float], statuses: Counter[str]
    ) -> None:
        self._requests = requests
        self._deadline = deadline
        self._pause = pause
        self._times = times
        self._statuses = statuses
        self._received = b""
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = answer_end(received)
        if end == 0 or len(received) < end:
            self._received = received
            return
        self._received = b""
        now = time.perf_counter()
        self._times.append(now - self._sent_at)
        self._statuses[received[9:12].decode()] += 1
        if now >= self._deadline:
            self._transport.close()
        elif self._pause:
            asyncio.get_running_loop().call_later(self._pause, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self._deadline:
            self._statuses["closed"] += 1
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))


def answer_end(received: bytes) -> int:
    """Return where the answer in `received` ends, or 0 while its head is incomplete."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return 0
    head = received[:head_end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
    stop = head.find(b"\r\n", at)
    return head_end + 4 + int(head[at + 15 : stop if stop > 0 else None])


def build_requests(url: str, bodies: list[bytes]) -> list[bytes]:
    """Return the bytes of one POST for each body."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


async def run(
    url: str, bodies: list[bytes], *, connections: int, seconds: float, pause: float = 0.0
) -> dict[str, object]:
    """Load `url` and return what came of it: counts by status, wall-clock start and end, latencies in ms."""
    parts = urlsplit(url)
    requests = cycle(build_requests(url, bodies))
    times: list[float] = []
    statuses: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    cpu = time.process_time()
    started_at, started = time.time(), time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: Connection(requests, started + seconds, pause, times, statuses), parts.hostname, parts.port
        )
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(connection.done for _, connection in made)), seconds + 60)
    elapsed = time.perf_counter() - started
    return {
        "started_at": started_at,
        "seconds": elapsed,
        "requests": len(times),
        "per_second": len(times) / elapsed,
        "statuses": dict(statuses),
        "p50_ms": quantile(times, 0.50) * 1e3,
        "p99_ms": quantile(times, 0.99) * 1e3,
        "mean_ms": statistics.fmean(times) * 1e3 if times else 0.0,
        "load_cpu_us": (time.process_time() - cpu) / max(len(times), 1) * 1e6,
    }


def quantile(values: list[float], share: float) -> float:
    """Return the nearest-rank quantile of unsorted values; 0 for none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path, help="one JSON request body a line")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between an answer and the next request")
    args = parser.parse_args()
    bodies = args.bodies.read_bytes().splitlines()
    options = {"connections": args.connections, "seconds": args.seconds, "pause": args.pause}
    print(json.dumps(uvloop.run(run(args.url, bodies, **options))))


if __name__ == "__main__":
    main()
