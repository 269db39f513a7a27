"""`make bench-guards`: what the guards in front of the hot path cost, beside the same service without them.

One process serves three ports from the same services, on a PostgreSQL and a Redis of its own: one as it is run, and two
whose connections have no limits, whose answers have no security headers, and which take any Host. Submissions go to
each in turn, a few at a time, so that all meet the same weather; what is compared is the processor time of the server
(every thread of the process). The client is a process of its own that reads no more of an answer than its length: one
in a thread of the server's would hold the interpreter longer for each header that it parses. The two without guards are
alike: what they differ by is the error of the measurement.

CPython makes each place of the code faster for the types that it meets there. Services that shared their code would
meet each other's types, as no service does that runs alone; so each has a copy of the modules around its requests.
"""

import argparse
import asyncio
import gc
import importlib.util
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http import httptools_impl

from api.fast_path import FastPath
from api.http import middleware
from api.http.connections import Limits, Server, bounded
from api.http.prefix import Prefix
from api.http.security_headers import SecurityHeaders
from api.main import ROUTERS, create_app, serve
from benchmarks.command import Result, run_command
from benchmarks.machine import describe
from benchmarks.stacks import ROOT, free_port
from scripts.servers.postgres import Postgres
from scripts.servers.processes import wait_until
from scripts.servers.redis import Redis
from shared.config.settings import Settings, get_settings
from tests.support.databases import migrate

BODY = ROOT / "examples" / "attrition" / "request.json"
WARM = 50  # submissions on each connection before anything is measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="rounds of each, in turn (default 400)")
    parser.add_argument("--connections", type=int, default=16, help="to each port; all send at once (default 16)")
    parser.add_argument("--submissions", type=int, default=4, help="on each connection in a round (default 4)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with Postgres(folder / "pg") as postgres, Redis(folder / "redis") as redis:
        url = postgres.url_of("guichet")
        migrate(url)
        os.environ.update(
            RUNTIME="queue",
            AUTH="open",
            DATABASE_URL=url,
            REDIS_URL=redis.url,
            DATA_DIR=str(folder),
            MODELS_DIR=str(folder / "models"),
            MAX_QUEUED="10000000",
        )
        get_settings.cache_clear()
        subprocess.run([sys.executable, "-m", "examples.build", "--only", "attrition"], cwd=ROOT, check=True)
        with serving(get_settings()) as ports, submitting(ports, args.connections) as client:
            for name in ports:
                cost(name, client, args.connections, WARM)
            gc.collect()
            gc.freeze()
            rounds: dict[str, list[float]] = {name: [] for name in ports}
            for place in range(args.rounds):
                order = list(ports)
                turn = place % len(order)
                for name in [*order[turn:], *order[:turn]]:
                    rounds[name].append(cost(name, client, args.connections, args.submissions))
    return {
        "rounds": args.rounds,
        "connections": args.connections,
        "submissions": args.submissions,
        "us": {name: statistics.median(times) for name, times in rounds.items()},
        "ratios": {name: compare(rounds[name], rounds["plain"]) for name in ("guarded", "control")},
        "machine": describe(folder),
    }


def compare(times: list[float], plain: list[float]) -> Result:
    """Compare the costs of one service with those of the plain one: of all rounds, and of neighbouring ones."""
    ratios = sorted(one / other for one, other in zip(times, plain, strict=True))
    return {
        "of_medians": statistics.median(times) / statistics.median(plain),
        "of_rounds": statistics.median(ratios),
        "interval_95": interval(ratios),
    }


def copy_of(module: ModuleType) -> Any:
    """Return another module from the same file, with functions and classes of its own."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@contextmanager
def serving(settings: Settings) -> Iterator[dict[str, int]]:
    """Serve all three from one event loop in a thread of its own; yield the port of each."""
    app = create_app(settings)
    prefix = Prefix(settings.root_path, proxy_hops=settings.proxy_hops)

    def note(*entry: object) -> None:
        app.state.services.request_log.note(*entry)

    def plain(middleware: Any) -> ASGIApp:
        middleware.may_be_kept = lambda _: True
        headers = SecurityHeaders(settings.frame_ancestors)
        headers.page, headers.answer = [], []
        context: ASGIApp = middleware.RequestContext(FastPath(app, ROUTERS), prefix, headers, note)
        return context

    ports = {name: free_port() for name in ("plain", "guarded", "control")}
    common = {"host": "127.0.0.1", "ws": "none", "access_log": False, "log_config": None, "server_header": False}
    common |= {"proxy_headers": False, "timeout_keep_alive": 75}
    servers = [
        Server(uvicorn.Config(serve(app), port=ports["guarded"], http=bounded(Limits()), **common)),
        *(
            uvicorn.Server(
                uvicorn.Config(
                    plain(copy_of(middleware)),
                    port=ports[name],
                    http=copy_of(httptools_impl).HttpToolsProtocol,
                    lifespan="off",
                    **common,
                )
            )
            for name in ("plain", "control")
        ),
    ]

    async def run() -> None:
        first = asyncio.create_task(servers[0].serve())
        while not servers[0].started and not first.done():
            await asyncio.sleep(0.05)  # the services start with the first one
        await asyncio.gather(first, *(server.serve() for server in servers[1:]))

    def loop() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        if not wait_until(lambda: all(server.started for server in servers) or not thread.is_alive(), timeout=60):
            raise RuntimeError("the servers did not start within 60 s")
        yield ports
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(30)


@contextmanager
def submitting(ports: dict[str, int], connections: int) -> Iterator[Connection]:
    """Start the client; yield the line to it: a port's name there, None back when each connection has its answer."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=submit, args=(theirs, ports, connections, BODY.read_bytes())
    )
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join(10)


def submit(line: Connection, ports: dict[str, int], connections: int, body: bytes) -> None:
    """Send submissions, one on each connection at a time, until None comes."""
    sockets = {
        name: [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
        for name, port in ports.items()
    }
    head = b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body
    while (name := line.recv()) is not None:
        for connection in sockets[name]:
            connection.sendall(request)
        for connection in sockets[name]:
            read_answer(connection)
        line.send(None)


def read_answer(connection: socket.socket) -> None:
    """Read an answer of status 202 to its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += (part := connection.recv(65_536))
        if not part:
            raise RuntimeError("the server closed the connection")
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 202"):
        raise RuntimeError(f"a submission was answered with {head!r}")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)


def cost(name: str, client: Connection, connections: int, times: int) -> float:
    """Return the processor time of the server for a submission, in us, over so many on each connection."""
    began = time.process_time_ns()
    for _ in range(times):
        client.send(name)
        client.recv()
    return (time.process_time_ns() - began) / times / connections / 1000


def interval(ordered: list[float]) -> list[float]:
    """Return the 95 % interval of the median of ordered figures, by their ranks."""
    half = 0.98 * len(ordered) ** 0.5
    middle = len(ordered) / 2
    return [ordered[max(0, int(middle - half))], ordered[min(len(ordered) - 1, int(middle + half))]]


def render(result: Result) -> str:
    """Return the report as text."""
    guarded, plain = result["us"]["guarded"], result["us"]["plain"]
    return (
        f"A submission costs the API {guarded:.1f} us with the guards and {plain:.1f} us without (medians of "
        f"{result['rounds']} rounds of {result['submissions']} on each of {result['connections']} connections): "
        f"{ratio(result['ratios']['guarded'])}.\n"
        f"The same service without guards, on another port: {ratio(result['ratios']['control'])}.\n"
        f"{json.dumps(result['machine'])}"
    )


def ratio(compared: Result) -> str:
    """Return a comparison as text."""
    low, high = compared["interval_95"]
    return (
        f"ratio {compared['of_medians']:.4f}; of neighbouring rounds {compared['of_rounds']:.4f}"
        f" (95 %: {low:.4f} to {high:.4f})"
    )


if __name__ == "__main__":
    main()
