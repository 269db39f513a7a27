"""`make bench-guards`: what the guards in front of the hot path cost, beside the same service without them.

One process serves two ports from the same services, on a PostgreSQL and a Redis of its own: one as it is run, and one
whose connections have no limits, whose answers have no security headers, and which takes any Host. Submissions go to
each in turn, a few at a time, so that both meet the same weather; what is compared is the processor time of the server
(every thread of the process, without the client's).
"""

import argparse
import asyncio
import gc
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
import uvloop

from api.fast_path import FastPath
from api.http import middleware
from api.http.connections import Limits, Server, bounded
from api.http.middleware import RequestContext
from api.http.prefix import Prefix
from api.http.security_headers import RawHeaders, SecurityHeaders
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
WARM = 200  # submissions to each before anything is measured


class _NoHeaders(SecurityHeaders):
    def __init__(self, frame_ancestors: str) -> None:
        super().__init__(frame_ancestors)
        self.page: RawHeaders = []
        self.answer: RawHeaders = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400, help="rounds of each, in turn (default 400)")
    parser.add_argument("--submissions", type=int, default=20, help="submissions of one round (default 20)")
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
        body = BODY.read_bytes()
        with serving(get_settings()) as ports:
            clients = {name: http.client.HTTPConnection("127.0.0.1", port) for name, port in ports.items()}
            for name, client in clients.items():
                cost(name, client, body, WARM)
            gc.collect()
            gc.freeze()
            rounds: dict[str, list[float]] = {name: [] for name in clients}
            for place in range(args.rounds):
                order = list(clients) if place % 2 else list(reversed(clients))
                for name in order:
                    rounds[name].append(cost(name, clients[name], body, args.submissions))
    by_name = {name: statistics.median(times) for name, times in rounds.items()}
    ratios = sorted(guarded / plain for guarded, plain in zip(rounds["guarded"], rounds["plain"], strict=True))
    return {
        "rounds": args.rounds,
        "submissions": args.submissions,
        "us": by_name,
        "ratio_of_medians": by_name["guarded"] / by_name["plain"],
        "ratio_of_rounds": {"median": statistics.median(ratios), "interval_95": interval(ratios)},
        "machine": describe(folder),
    }


@contextmanager
def serving(settings: Settings) -> Iterator[dict[str, int]]:
    """Serve both from one event loop in a thread of its own; yield the port of each."""
    app = create_app(settings)
    prefix = Prefix(settings.root_path, proxy_hops=settings.proxy_hops)

    def note(*entry: object) -> None:
        app.state.services.request_log.note(*entry)

    plain = RequestContext(FastPath(app, ROUTERS), prefix, _NoHeaders(settings.frame_ancestors), note)
    ports = {"guarded": free_port(), "plain": free_port()}
    common = {"host": "127.0.0.1", "ws": "none", "access_log": False, "log_config": None, "server_header": False}
    common |= {"proxy_headers": False, "timeout_keep_alive": 75}
    servers = [
        Server(uvicorn.Config(serve(app), port=ports["guarded"], http=bounded(Limits()), **common)),
        uvicorn.Server(uvicorn.Config(plain, port=ports["plain"], http="httptools", lifespan="off", **common)),
    ]

    async def run() -> None:
        first = asyncio.create_task(servers[0].serve())
        while not servers[0].started and not first.done():
            await asyncio.sleep(0.05)  # the services start with the first one
        await asyncio.gather(first, servers[1].serve())

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


def cost(name: str, client: http.client.HTTPConnection, body: bytes, count: int) -> float:
    """Return the processor time of the server for a submission, in us, over `count` of them one after the other."""
    kept, page = middleware.may_be_kept, middleware.is_page
    if name == "plain":
        middleware.may_be_kept, middleware.is_page = (lambda _: True), (lambda _: False)
    try:
        process, own = time.process_time_ns(), time.thread_time_ns()
        for _ in range(count):
            client.request("POST", "/jobs", body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            answer.read()
            if answer.status != 202:
                raise RuntimeError(f"a submission was answered with {answer.status}")
        process, own = time.process_time_ns() - process, time.thread_time_ns() - own
    finally:
        middleware.may_be_kept, middleware.is_page = kept, page
    return (process - own) / count / 1000


def interval(ordered: list[float]) -> list[float]:
    """Return the 95 % interval of the median of ordered figures, by their ranks."""
    half = 0.98 * len(ordered) ** 0.5
    middle = len(ordered) / 2
    return [ordered[max(0, int(middle - half))], ordered[min(len(ordered) - 1, int(middle + half))]]


def render(result: Result) -> str:
    """Return the report as text."""
    low, high = result["ratio_of_rounds"]["interval_95"]
    guarded, plain = result["us"]["guarded"], result["us"]["plain"]
    return (
        f"A submission costs the API {guarded:.1f} us with the guards and {plain:.1f} us without (medians of "
        f"{result['rounds']} rounds of {result['submissions']}): ratio {result['ratio_of_medians']:.4f}; of "
        f"neighbouring rounds {result['ratio_of_rounds']['median']:.4f} (95 %: {low:.4f} to {high:.4f}).\n"
        f"{json.dumps(result['machine'])}"
    )


if __name__ == "__main__":
    main()
