"""`make bench-observability`: requests with metrics, logs and counters on, beside the same service with them off.

Two services of one runtime side by side, each with databases of its own: one as it is run, and one that counts nothing,
notes no request (REQUEST_LOG_ROWS=0), counts no rows for drift (MONITOR_SECONDS=0) and logs errors only. Requests go to
each in turn, a few at a time, so that both meet the same weather. Compared are the requests per second of neighbouring
rounds, and the processor time of all processes of each service over the whole run, which holds what is done beside the
requests, too. With `--jobs`, so many ended jobs are then stored, and /metrics is scraped before and after. With
`--self-audit`, the second service is like the first one but for the self-audit, which is off (SELF_AUDIT_SHARE=0).
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg2

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.machine import describe
from benchmarks.harness.stacks import CELERY, QUIET, ROOT, Stack, free_port
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from tests.support.databases import migrate

BODY = ROOT / "examples" / "attrition" / "request.json"
WARM = 100  # requests to each before anything is measured
OFF = {"REQUEST_LOG_ROWS": "0", "MONITOR_SECONDS": "0", "LOG_LEVEL": "ERROR"}
NOT_AUDITED = {"SELF_AUDIT_SHARE": "0"}
SCRAPES = 8
CACHED_SECONDS = 2.1  # an answer of /metrics is up to two seconds old


def main() -> None:
    if sys.argv[1:2] == ["--serve-without-metrics"]:
        serve_without_metrics(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=["queue", "sync"], default="queue")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of each, in turn (default 100)")
    parser.add_argument("--requests", type=int, default=50, help="requests of one round (default 50)")
    parser.add_argument("--self-audit", action="store_true", help="measure what the self-audit alone costs")
    parser.add_argument("--jobs", type=int, default=0, help="scrape /metrics with so many stored jobs (queue runtime)")
    run_command(parser, measure, render)


def serve_without_metrics(command: list[str]) -> None:
    """Run a part of the service in which nothing is counted for /metrics."""
    from shared.observability.metrics import Metrics

    for name in ("count", "observe", "flush"):
        setattr(Metrics, name, lambda *_, **__: None)
    if command == ["api"]:
        from api.__main__ import main as run
    else:
        from celery.__main__ import main as run

        sys.argv = command
    run()


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with ExitStack() as stack:
        without = NOT_AUDITED if args.self_audit else OFF
        stacks = {
            name: stack.enter_context(running(folder / name, args.runtime, name, env))
            for name, env in (("on", {}), ("off", without))
        }
        routes = {"/predict": 200} | ({"/jobs": 202} if args.runtime == "queue" else {})
        result: Result = {"runtime": args.runtime, "rounds": args.rounds, "requests": args.requests, "routes": {}}
        for route, status in routes.items():
            result["routes"][route] = compare(stacks, route, status, args)
        if args.jobs and args.runtime == "queue":
            result |= scrape(stacks["on"], args.jobs)
    return {**result, "machine": describe(folder)}


@contextmanager
def running(folder: Path, runtime: str, name: str, settings: dict[str, str]) -> Iterator[Stack]:
    """Yield one service with its own databases and these settings; with those of OFF, it counts and notes nothing."""
    is_bare = settings is OFF
    folder.mkdir()
    port = free_port()
    env = {**os.environ, "RUNTIME": runtime, "AUTH": "open", "PORT": str(port), "DATA_DIR": str(folder)}
    env |= {"MODELS_DIR": str(folder / "models"), "MAX_QUEUED": "10000000", "LOG_LEVEL": "INFO"}
    with ExitStack() as servers:
        if runtime == "queue":
            postgres, redis = servers.enter_context(Postgres(folder / "pg")), servers.enter_context(Redis(folder / "r"))
            env |= {"DATABASE_URL": postgres.url_of("guichet"), "REDIS_URL": redis.url}
        else:
            env["DATABASE_URL"] = f"sqlite:///{folder / 'guichet.db'}"
        migrate(env["DATABASE_URL"])
        subprocess.run([sys.executable, "-m", "examples.build", "--only", "attrition"], cwd=ROOT, env=env, check=True)
        start = [sys.executable, "-m"]
        env |= settings
        if is_bare:
            start += ["benchmarks.observability", "--serve-without-metrics"]
        worker = ["-A", "worker.main:app", "worker", "-Q", "interactive,bulk,maintenance", *QUIET]
        stack = Stack(name, folder, env, [*start, "api"], port, env["DATABASE_URL"])
        stack.worker_command = [*start, "celery", *worker] if is_bare else [*CELERY, *worker]
        try:
            stack.start_api()
            if runtime == "queue":
                stack.start_worker(1)
            client = http.client.HTTPConnection("127.0.0.1", port)
            deadline = time.monotonic() + 120
            while ask(client, "/predict") != 200:  # its model is being loaded
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the service {name} does not score")
                time.sleep(0.2)
            yield stack
        finally:
            stack.stop()
            shutil.rmtree(folder / "models", ignore_errors=True)


def ask(client: http.client.HTTPConnection, route: str) -> int:
    """Send the example row; return the status."""
    client.request("POST", route, BODY.read_bytes(), {"Content-Type": "application/json"})
    answer = client.getresponse()
    answer.read()
    return answer.status


def compare(stacks: dict[str, Stack], route: str, status: int, args: argparse.Namespace) -> Result:
    clients = {name: http.client.HTTPConnection("127.0.0.1", stack.port) for name, stack in stacks.items()}
    rounds: dict[str, list[float]] = {name: [] for name in stacks}
    for name in stacks:
        send(clients[name], route, status, WARM)
    before = {name: processor_seconds(stack) for name, stack in stacks.items()}
    for place in range(args.rounds):
        for name in sorted(stacks, reverse=bool(place % 2)):
            rounds[name].append(send(clients[name], route, status, args.requests))
    time.sleep(6)  # what is written beside the requests
    count = args.rounds * args.requests
    us = {name: (processor_seconds(stack) - before[name]) / count * 1e6 for name, stack in stacks.items()}
    ratios = sorted(on / off for on, off in zip(rounds["on"], rounds["off"], strict=True))
    return {
        "per_second": {name: statistics.median(each) for name, each in rounds.items()},
        "ratio_of_rounds": statistics.median(ratios),
        "quartiles": [ratios[len(ratios) // 4], ratios[len(ratios) * 3 // 4]],
        "processor_us": us,
        "processor_ratio": us["on"] / us["off"],
    }


def send(client: http.client.HTTPConnection, route: str, status: int, count: int) -> float:
    """Return the requests per second of `count` requests, one after the other."""
    began = time.perf_counter()
    for _ in range(count):
        if (answered := ask(client, route)) != status:
            raise RuntimeError(f"{route} was answered with {answered}")
    return count / (time.perf_counter() - began)


def processor_seconds(stack: Stack) -> float:
    """Return the processor time of the API, the workers and what they have started, in seconds."""
    total = 0.0
    for child in stack.children.values():
        parent = psutil.Process(child.pid)
        for process in (parent, *parent.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def scrape(stack: Stack, jobs: int) -> Result:
    """Return the ms of a scrape of /metrics before and after so many ended jobs are stored, and of the first one."""
    before = statistics.median(scrapes(stack.port, SCRAPES))
    assert stack.database is not None
    connection = psycopg2.connect(stack.database.replace("+psycopg2", ""))
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO jobs (id, kind, lane, state, model_version_id, request_id, row_count, max_attempts, "
            "timeout_seconds, created_at, started_at, finished_at) SELECT gen_random_uuid(), 'predict', "
            "'interactive', CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'succeeded' END, "
            "(SELECT min(id) FROM model_versions), 'r', 1, 3, 60, at, at, at FROM "
            "(SELECT n, now() - interval '30 days' + n * interval '29 days' / %s AS at "
            "FROM generate_series(1, %s) n) jobs",
            (jobs, jobs),
        )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE jobs")  # which autovacuum does within minutes
    connection.close()
    first, *others = scrapes(stack.port, SCRAPES + 1)
    return {
        "jobs": jobs,
        "scrape_ms_before": before,
        "scrape_ms_first": first,
        "scrape_ms": statistics.median(others),
        "scrape_ms_best": min(others),
    }


def scrapes(port: int, count: int) -> list[float]:
    """Return the ms of so many scrapes, none of which finds the last one's figures."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    durations = []
    for _ in range(count):
        time.sleep(CACHED_SECONDS)
        began = time.perf_counter()
        client.request("GET", "/metrics")
        answer = client.getresponse()
        answer.read()
        durations.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"/metrics was answered with {answer.status}")
    return durations


def render(result: Result) -> str:
    """Return the report as text."""
    lines = []
    for route, figures in result["routes"].items():
        on, off = figures["per_second"]["on"], figures["per_second"]["off"]
        low, high = figures["quartiles"]
        lines.append(
            f"{route}, {result['runtime']} runtime, {result['rounds']} rounds of {result['requests']} in turn: "
            f"{on:.0f}/s on, {off:.0f}/s off; of neighbouring rounds {figures['ratio_of_rounds']:.3f} "
            f"(quartiles {low:.3f} to {high:.3f}); processor time a request {figures['processor_us']['on']:.0f} us on, "
            f"{figures['processor_us']['off']:.0f} us off: {figures['processor_ratio']:.3f}."
        )
    if "jobs" in result:
        lines.append(
            f"A scrape of /metrics with {result['jobs']:,} ended jobs: {result['scrape_ms']:.1f} ms (best "
            f"{result['scrape_ms_best']:.1f}; the first one {result['scrape_ms_first']:.0f}); "
            f"without them {result['scrape_ms_before']:.1f} ms."
        )
    return "\n".join([*lines, json.dumps(result["machine"])])


if __name__ == "__main__":
    main()
