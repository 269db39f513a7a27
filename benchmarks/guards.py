"""`make bench-guards`: what the guards in front of the hot path cost, beside the same service without them.

Three processes serve the same PostgreSQL and Redis: one as it is run, and two whose connections have no limits, whose
answers have no security headers, and which take any Host. Submissions go to each in turn, a few at a time, so that all
meet the same weather; what is compared is the processor time of each process (every thread of it). The client reads no
more of an answer than its length. The two without guards are alike: what they differ by is the error of the
measurement. Two processes of the same code differ a little for as long as they live, by where their memory lies: so all
three are started anew several times.
"""

import argparse
import gc
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.fast_path import FastPath
from api.http import middleware
from api.http.connections import Limits, Server, bounded
from api.http.prefix import Prefix
from api.http.security_headers import SecurityHeaders
from api.main import ROUTERS, create_app, serve
from benchmarks.harness.command import Result, run_command
from benchmarks.harness.machine import describe
from benchmarks.harness.stacks import ROOT, answers, free_port
from scripts.servers.postgres import Postgres
from scripts.servers.processes import wait_until
from scripts.servers.redis import Redis
from shared.config.settings import get_settings
from tests.support.databases import migrate

SERVICES = ("plain", "guarded", "control")
BODY = ROOT / "examples" / "attrition" / "request.json"
WARM = 50  # submissions on each connection before anything is measured


class Serving(NamedTuple):
    """One service: its port, and the clock of its process' time."""

    port: int
    clock: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=16, help="times that all three are started (default 16)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each in a start, in turn (default 40)")
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
            PYTHONHASHSEED="0",
        )
        subprocess.run([sys.executable, "-m", "examples.build", "--only", "attrition"], cwd=ROOT, check=True)
        costs: dict[str, list[float]] = {name: [] for name in SERVICES}
        starts = []
        for _ in range(args.starts):
            with serving() as processes, submitting(processes, args.connections) as client:
                rounds = measure_start(processes, client, args)
            starts.append({name: statistics.median(times) for name, times in rounds.items()})
            for name, times in rounds.items():
                costs[name] += times
    return {
        "starts": starts,
        "rounds": args.rounds,
        "connections": args.connections,
        "submissions": args.submissions,
        "us": {name: statistics.median(times) for name, times in costs.items()},
        "ratios": {name: compare(name, costs, starts) for name in ("guarded", "control")},
        "machine": describe(folder),
    }


def measure_start(
    processes: dict[str, Serving], client: Connection, args: argparse.Namespace
) -> dict[str, list[float]]:
    """Return the costs of submissions to each process, in us, by round."""
    for name, process in processes.items():
        cost(process, name, client, args.connections, WARM)
    rounds: dict[str, list[float]] = {name: [] for name in processes}
    for place in range(args.rounds):
        order = list(processes)
        turn = place % len(order)
        for name in [*order[turn:], *order[:turn]]:
            rounds[name].append(cost(processes[name], name, client, args.connections, args.submissions))
    return rounds


def compare(name: str, costs: dict[str, list[float]], starts: list[dict[str, float]]) -> Result:
    """Compare the costs of one service with those of the plain one: in neighbouring rounds, and by start."""
    ratios = sorted(one / other for one, other in zip(costs[name], costs["plain"], strict=True))
    return {
        "of_medians": statistics.median(costs[name]) / statistics.median(costs["plain"]),
        "of_rounds": statistics.median(ratios),
        "interval_95": interval(ratios),
        "of_starts": sorted(start[name] / start["plain"] for start in starts),
    }


@contextmanager
def serving() -> Iterator[dict[str, Serving]]:
    """Start a process for each service; yield what is known of each when all of them are ready."""
    ports = {name: free_port() for name in SERVICES}
    context = multiprocessing.get_context("spawn")
    processes = {name: context.Process(target=serve_one, args=(name, port)) for name, port in ports.items()}
    for process in processes.values():
        process.start()
    try:
        for name, process in processes.items():
            if (
                not wait_until(partial(answers, f"http://127.0.0.1:{ports[name]}/readyz"), timeout=90)
                or not process.is_alive()
            ):
                raise RuntimeError(f"the {name} service did not start within 90 s")
        yield {name: Serving(ports[name], clock_of(process.pid or 0)) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join(30)


def clock_of(pid: int) -> int:
    """Return the clock of the processor time of another process (clock_getcpuclockid(3) on Linux)."""
    return ~pid << 3 | 2


def serve_one(name: str, port: int) -> None:
    """Serve with guards, or without any."""
    app = create_app(get_settings())
    gc.collect()
    gc.freeze()
    common: dict[str, Any] = {"host": "127.0.0.1", "port": port, "loop": "uvloop", "ws": "none", "access_log": False}
    common |= {"log_config": None, "server_header": False, "proxy_headers": False, "timeout_keep_alive": 75}
    if name == "guarded":
        Server(uvicorn.Config(serve(app), http=bounded(Limits()), **common)).run()
    else:
        uvicorn.Server(uvicorn.Config(plain(app), http=HttpToolsProtocol, **common)).run()


def plain(app: FastAPI) -> ASGIApp:
    """Return the application without the guards of `serve`."""
    settings = get_settings()
    layer: Any = middleware
    layer.may_be_kept = lambda _: True
    headers = SecurityHeaders(settings.frame_ancestors)
    headers.page, headers.answer = [], []

    def note(*entry: Any) -> None:
        app.state.services.request_log.note(*entry)

    prefix = Prefix(settings.root_path, proxy_hops=settings.proxy_hops)
    return middleware.RequestContext(FastPath(app, ROUTERS), prefix, headers, note)


@contextmanager
def submitting(processes: dict[str, Serving], connections: int) -> Iterator[Connection]:
    """Start the client; yield the line to it: a port's name there, None back when each connection has its answer."""
    ours, theirs = multiprocessing.Pipe()
    ports = {name: process.port for name, process in processes.items()}
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


def cost(process: Serving, name: str, client: Connection, connections: int, times: int) -> float:
    """Return the processor time of a service for a submission, in us, over so many on each connection."""
    began = time.clock_gettime_ns(process.clock)
    for _ in range(times):
        client.send(name)
        client.recv()
    return (time.clock_gettime_ns(process.clock) - began) / times / connections / 1000


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
        f"{len(result['starts'])} starts of {result['rounds']} rounds, of {result['submissions']} on each of "
        f"{result['connections']} connections): "
        f"{ratio(result['ratios']['guarded'])}.\n"
        f"The same service without guards, in another process: {ratio(result['ratios']['control'])}.\n"
        f"{json.dumps(result['machine'])}"
    )


def ratio(compared: Result) -> str:
    """Return a comparison as text."""
    low, high = compared["interval_95"]
    return (
        f"ratio {compared['of_medians']:.4f}; of neighbouring rounds {compared['of_rounds']:.4f}"
        f" (95 %: {low:.4f} to {high:.4f}); by start {', '.join(f'{start:.4f}' for start in compared['of_starts'])}"
    )


if __name__ == "__main__":
    main()
