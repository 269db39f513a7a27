"""`make bench-console`: the console over HTTP, among a million jobs: its first view, its lists, and its viewers.

The first view is opened in Chromium, each time by a browser without cache: what is sent, and when its scripts have run.
Pages of lists are asked for one after the other, each filter from the newest job on and from anywhere. Then a load of
single predictions runs in rounds, in turn with so many open overviews and without one, so that both meet the same
weather: what the viewers cost is the ratio of neighbouring rounds.
"""

import argparse
import http.client
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID

from playwright.sync_api import sync_playwright

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.load import quantile
from benchmarks.harness.machine import describe
from benchmarks.harness.stacks import ROOT, Stack, guichet_queue, guichet_sync, servers
from benchmarks.lists import BEGIN, fill_postgres, fill_sqlite
from benchmarks.queue import load, write_bodies
from shared.database.engine import make_engine
from shared.jobs.queries.listing import ListPlace
from tests.e2e.browser import find_chromium

MODELS = ("attrition", "credit")  # that jobs of the table were scored by: versions 1 and 2
LISTS = {
    "all jobs": "/console/jobs",
    "succeeded": "/console/jobs?status=succeeded",
    "failed: 100, old": "/console/jobs?status=failed",
    "expired: none": "/console/jobs?status=expired",
    "a model of the past: 100": "/console/jobs?model=credit",
    "failed ones of that model": "/console/jobs?model=credit&status=failed",
    "failed ones since the middle": f"/console/jobs?status=failed&since={BEGIN + timedelta(days=11):%Y-%m-%d}",
    "models": "/console/models",
    "requests": "/console/logs/requests",
    "refusals": "/console/logs/errors",
    "audit": "/console/logs/audit",
    "overview": "/console",
}
LIMIT_MS = 150.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=["queue", "sync"], default="queue")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs in the table (default 1000000)")
    parser.add_argument("--views", type=int, default=20, help="first views in Chromium (default 20)")
    parser.add_argument("--pages", type=int, default=100, help="pages of each list (default 100)")
    parser.add_argument("--viewers", type=int, default=20, help="open overviews (default 20)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds with viewers and without, in turn (default 12)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a round (default 15)")
    parser.add_argument("--connections", type=int, default=8, help="connections of the load (default 8)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    began = time.monotonic()
    with running(folder, args) as stack:
        result: Result = {"runtime": args.runtime, "jobs": args.jobs, "viewers": args.viewers}
        result["first_view"] = view(stack, args.views)
        result["lists"] = read_lists(stack, args.pages, args.jobs)
        result["load"] = compare(stack, folder, args)
    return {**result, "minutes": (time.monotonic() - began) / 60, "machine": describe(folder)}


@contextmanager
def running(folder: Path, args: argparse.Namespace) -> Iterator[Stack]:
    """Yield a service with two models and a table full of jobs."""
    models = args.models or folder / "models"
    with ExitStack() as parts:
        if args.runtime == "queue":
            postgres, redis = parts.enter_context(servers(folder))
            stack = guichet_queue(folder, models, postgres, redis)
        else:
            stack = guichet_sync(folder, models)
        stack.env |= {"MAX_QUEUED": "10000000"}
        build = [sys.executable, "-m", "examples.build", "--native", "--only", MODELS[1]]
        subprocess.run(build, cwd=ROOT, env=stack.env, check=True, capture_output=True)
        if stack.database is not None:
            fill_postgres(stack.database, args.jobs)
        else:
            engine = make_engine(f"sqlite:///{stack.env['DATA_DIR']}/guichet.db")
            fill_sqlite(engine, args.jobs)
            engine.dispose()
        try:
            stack.start_api()
            if args.runtime == "queue":
                stack.start_worker(1)
            wait_until_it_scores(stack)
            yield stack
        finally:
            stack.stop()


def wait_until_it_scores(stack: Stack) -> None:
    body = (ROOT / "examples" / MODELS[0] / "request.json").read_bytes()
    deadline = time.monotonic() + 180
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the service does not score: {status}")
        time.sleep(0.2)


# ── the first view ───────────────────────────────────────────────────────────────────────────────────────────────


def view(stack: Stack, views: int) -> Result:
    """Return the bytes of the front page with all that it loads, and the ms until its scripts have run."""
    sizes: list[int] = []
    times: list[float] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(views):
            page = browser.new_context().new_page()
            page.on("response", lambda answer: sizes.append(answer.request.sizes()["responseBodySize"]))
            page.goto(stack.url, wait_until="networkidle")
            entry = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
            times.append(float(page.evaluate(entry)))
            page.context.close()
        browser.close()
    return {"bytes": sum(sizes) // views, "p50_ms": statistics.median(times), "p95_ms": quantile(times, 0.95)}


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_lists(stack: Stack, pages: int, jobs: int) -> Result:
    """Return the ms of pages of each list: of jobs, two of three begin anywhere."""
    rng = random.Random(3)
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    figures: Result = {}
    for name, path in LISTS.items():
        times = []
        for number in range(pages):
            at = BEGIN + timedelta(seconds=2 * rng.randrange(jobs))
            before = urlencode({"before": ListPlace(at, str(UUID(int=rng.getrandbits(128), version=4))).text})
            is_older = number % 3 and path.startswith("/console/jobs")
            times.append(ask(connection, f"{path}{'&' if '?' in path else '?'}{before}" if is_older else path))
        figures[name] = {"p50_ms": statistics.median(times), "p95_ms": quantile(times, 0.95)}
    connection.close()
    return figures


def ask(connection: http.client.HTTPConnection, path: str) -> float:
    """Return the ms until a page has come whole."""
    began = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return (time.perf_counter() - began) * 1e3


# ── viewers ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Viewer(threading.Thread):
    """An open overview: it reads the live figures until it is closed."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.events = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", "/console/live", headers={"Accept": "text/event-stream"})
        self._answer = self._connection.getresponse()
        self._is_closed = False

    def run(self) -> None:
        while not self._is_closed and (line := self._answer.readline()):
            self.events += line.startswith(b"event: figures")

    def stop(self) -> None:
        """Let it end with its next line, which comes with the next reading."""
        self._is_closed = True

    def close(self) -> None:
        self.join(30)
        self._connection.close()


def compare(stack: Stack, folder: Path, args: argparse.Namespace) -> Result:
    """Return requests per second with the viewers and without, and the ratios of neighbouring rounds."""
    bodies = folder / "bodies.jsonl"
    write_bodies(bodies)
    rates: dict[str, list[float]] = {"with": [], "without": []}
    events = 0

    def one_round(viewers: int) -> float:
        nonlocal events
        watching = [Viewer(stack.port) for _ in range(viewers)]
        for viewer in watching:
            viewer.start()
        cell = load(stack, "/predict", bodies, connections=args.connections, seconds=args.seconds)
        for viewer in watching:
            viewer.stop()
        for viewer in watching:
            viewer.close()
        events += sum(viewer.events for viewer in watching)
        if set(cell["statuses"]) != {"200"}:
            raise RuntimeError(f"answers of the load: {cell['statuses']}")
        return float(cell["per_second"])

    one_round(args.viewers)  # warm: the figures of the time before are read, too
    for number in range(args.rounds):
        for way in sorted(rates, reverse=bool(number % 2)):
            rates[way].append(one_round(args.viewers if way == "with" else 0))
    ratios = sorted(a / b for a, b in zip(rates["with"], rates["without"], strict=True))
    return {
        "per_second": {way: statistics.median(each) for way, each in rates.items()},
        "ratio_of_rounds": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[len(ratios) * 3 // 4]],
        "events": events,
    }


def render(result: Result) -> str:
    first, load_figures = result["first_view"], result["load"]
    low, high = load_figures["quartiles"]
    slowest = max(result["lists"].values(), key=lambda each: float(each["p95_ms"]))["p95_ms"]
    lines = [
        f"{result['runtime']}: first view {first['bytes']:,} bytes, interactive after {first['p50_ms']:.0f} ms "
        f"(p95 {first['p95_ms']:.0f} ms)",
        "",
        f"pages over HTTP among {result['jobs']:,} jobs, in milliseconds (slowest p95 {slowest:.0f}, "
        f"limit {LIMIT_MS:.0f}):",
        "",
        "| page | p50 | p95 |",
        "|---|---:|---:|",
        *(f"| {name} | {each['p50_ms']:.1f} | {each['p95_ms']:.1f} |" for name, each in result["lists"].items()),
        "",
        f"predictions with {result['viewers']} viewers: {load_figures['per_second']['with']:,.0f}/s, without: "
        f"{load_figures['per_second']['without']:,.0f}/s; ratio of neighbouring rounds "
        f"{load_figures['ratio_of_rounds']:.3f} (quartiles {low:.3f} to {high:.3f}), {load_figures['events']} events",
        str(result["machine"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
