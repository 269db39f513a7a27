"""How many workers a load needs: Erlang's formula, and `make bench-capacity`, which holds it against a running service.

A model whose row takes a fixed time (it sleeps, so that other work on the machine does not change it) is asked at
random moments (a Poisson process) at several shares of what its workers can do. The latency of each job is read from
the table: from its acceptance to its stored result. `--plan` only calculates:

    python -m benchmarks.capacity --plan --rate 30 --milliseconds 20 --limit 200
"""

import argparse
import http.client
import json
import math
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.load import quantile
from benchmarks.harness.machine import describe, summary
from benchmarks.harness.probe import connect
from benchmarks.harness.stacks import ROOT, Stack, guichet_queue, servers, wait_until_idle

MODEL = "slow"
SHARES = (0.3, 0.5, 0.7, 0.85)  # of what the workers can do
SENDERS = 48
_CODE = """import time
from pathlib import Path

import numpy


class Slow:
    n_features_in_ = 1
    _estimator_type = "regressor"

    def __init__(self, seconds, flag):
        self.seconds = seconds
        self.flag = flag  # a file: without it, the model is quick, so that its proof is

    def fit(self, rows, answers=None):
        return self

    def predict(self, rows):
        if Path(self.flag).exists():
            time.sleep(self.seconds * len(rows))
        return 2.0 * numpy.asarray(rows, dtype=float)[:, 0]
"""
_DUMP = "import joblib, slow, sys; joblib.dump(slow.Slow(float(sys.argv[1]), sys.argv[2]), 'model.joblib')"


def waiting_probability(workers: int, load: float) -> float:
    """Return the probability that a job must wait, by Erlang's formula C.

    `load` is the number of workers that the jobs keep busy (jobs a second, times the seconds of one); it must be less
    than `workers`.
    """
    lost = 1.0
    for busy in range(1, workers + 1):
        lost = load * lost / (busy + load * lost)
    share = load / workers
    return lost / (1 - share + share * lost)


def mean_wait(workers: int, rate: float, seconds: float) -> float:
    """Return the mean wait of a job in seconds, all jobs counted, in a queue M/M/c."""
    return waiting_probability(workers, rate * seconds) / (workers / seconds - rate)


def wait_of_95(workers: int, rate: float, seconds: float) -> float:
    """Return the wait that 95 % of the jobs do not exceed, in seconds, in a queue M/M/c."""
    chance = waiting_probability(workers, rate * seconds)
    return max(0.0, math.log(chance / 0.05) / (workers / seconds - rate))


def needed_workers(rate: float, seconds: float, limit: float, base: float = 0.0) -> int:
    """Return the fewest worker processes with which 95 % of the jobs have a result within `limit` seconds.

    `base` is what a job takes without waiting and scoring. ValueError where no number of workers is enough.
    """
    if base + seconds >= limit:
        raise ValueError(f"one job alone takes {base + seconds:g} s: no number of workers makes it {limit:g} s")
    for workers in count(math.floor(rate * seconds) + 1):
        if base + seconds + wait_of_95(workers, rate, seconds) <= limit:
            return workers
    raise AssertionError("count() does not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="only calculate the number of workers")
    parser.add_argument("--rate", type=float, default=30.0, help="with --plan: rows a second (default 30)")
    parser.add_argument("--milliseconds", type=float, default=20.0, help="one row takes a worker so long (default 20)")
    parser.add_argument("--limit", type=float, default=200.0, help="with --plan: the 95 %% latency in ms (default 200)")
    parser.add_argument("--base", type=float, default=15.0, help="with --plan: ms of a job beside that (default 15)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load (default 20)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="worker processes (default 1 2)")
    args, _ = parser.parse_known_args()
    if args.plan:
        print(needed_workers(args.rate, args.milliseconds / 1e3, args.limit / 1e3, args.base / 1e3))
        return
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    began, seconds, loads = time.monotonic(), args.milliseconds / 1e3, []
    with servers(folder) as (postgres, redis):
        stack = guichet_queue(folder, args.models or folder / "models", postgres, redis)
        add_model(stack, folder, seconds)
        try:
            stack.start_api()
            for workers in args.workers:
                stack.start_worker(workers)
                wait_for_model(stack)
                base = statistics.median(latencies(stack, [0.3 * place for place in range(20)])) - seconds
                rate = capacity(stack, workers, seconds)
                for share in SHARES:
                    loads.append({"workers": workers, "share": share, "base": base, "capacity": rate})
                    loads[-1] |= one_load(stack, share * rate, args.seconds)
                stack.stop("worker")
        finally:
            stack.stop()
    minutes = (time.monotonic() - began) / 60
    about = {"milliseconds": args.milliseconds, "seconds": args.seconds, "loads": loads, "minutes": minutes}
    return about | {"machine": describe(folder)}


def add_model(stack: Stack, folder: Path, seconds: float) -> None:
    """Train and register the model that sleeps."""
    home = folder / MODEL
    home.mkdir()
    (home / "slow.py").write_text(_CODE)
    (home / "rows.csv").write_text("a\n" + "\n".join(map(str, range(8))) + "\n")
    subprocess.run([sys.executable, "-c", _DUMP, str(seconds), str(home / "flag")], cwd=home, check=True)
    words = ["add", str(home / "model.joblib"), "--reference", str(home / "rows.csv"), "--name", MODEL]
    words += ["--code", str(home / "slow.py"), "--task", "regression"]
    subprocess.run([sys.executable, "-m", "shared.registry", *words], cwd=ROOT, env=stack.env, check=True)
    (home / "flag").touch()


def wait_for_model(stack: Stack) -> None:
    """Return when a worker has scored a row of the model."""
    client = http.client.HTTPConnection("127.0.0.1", stack.port)
    deadline = time.monotonic() + 120
    while submit(client, f"/models/{MODEL}/predict") != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("no worker scores the model")
        time.sleep(0.5)
    client.close()


def submit(client: http.client.HTTPConnection, path: str = "/jobs") -> int:
    """Send one row; return the status."""
    body = {"features": {"a": 1.0}} if path != "/jobs" else {"model": MODEL, "features": {"a": 1.0}}
    client.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = client.getresponse()
    answer.read()
    return answer.status


def latencies(stack: Stack, moments: list[float]) -> list[float]:
    """Submit a row at each of these moments, in seconds from now; return how long each job took, in seconds."""
    local, start, since = threading.local(), time.monotonic() + 0.2, time.time()

    def send(moment: float) -> None:
        if not hasattr(local, "client"):
            local.client = http.client.HTTPConnection("127.0.0.1", stack.port)
        time.sleep(max(0.0, start + moment - time.monotonic()))
        status = submit(local.client)
        if status != 202:
            raise RuntimeError(f"/jobs was answered with {status}")

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, moments))
    wait_until_idle(stack)
    assert stack.database is not None
    statement = (
        "SELECT extract(epoch FROM finished_at - created_at) FROM jobs"
        " WHERE created_at >= to_timestamp(%s) AND state = 'succeeded'"
    )
    with closing(connect(stack.database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, (since,))
        times = [float(row[0]) for row in cursor]
    if len(times) != len(moments):
        raise RuntimeError(f"{len(times)} of {len(moments)} jobs succeeded")
    return times


def capacity(stack: Stack, workers: int, seconds: float) -> float:
    """Return how many jobs a second the workers do when jobs always wait."""
    jobs = int(8 * workers / seconds)
    began = time.monotonic()
    latencies(stack, [0.0] * jobs)
    return jobs / (time.monotonic() - began - 0.2)


def one_load(stack: Stack, rate: float, seconds: float) -> Result:
    """Submit rows at random moments for so long; return the rate, the mean and the 95 % latency in seconds."""
    draw, moments, moment = random.Random(7), [], 0.0
    while (moment := moment + draw.expovariate(rate)) < seconds:
        moments.append(moment)
    times = latencies(stack, moments)
    return {
        "jobs": len(times),
        "rate": len(times) / seconds,
        "mean": statistics.fmean(times),
        "p95": quantile(times, 0.95),
    }


def render(result: Result) -> str:
    lines = [
        "| workers | jobs/s | busy | mean: measured | M/D/c to M/M/c | 95 %: measured | M/M/c |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in result["loads"]:
        workers, rate = load["workers"], load["rate"]
        service = workers / load["capacity"]
        alone, wait = load["base"] + service, mean_wait(workers, rate, service)
        late = alone + wait_of_95(workers, rate, service)
        lines.append(
            f"| {workers} | {rate:.1f} | {rate * service / workers:.0%} | {load['mean'] * 1e3:.0f} ms "
            f"| {(alone + wait / 2) * 1e3:.0f} to {(alone + wait) * 1e3:.0f} ms | {load['p95'] * 1e3:.0f} ms "
            f"| {late * 1e3:.0f} ms |"
        )
    head = f"A row takes {result['milliseconds']:g} ms; {result['seconds']:g} s of each load.\n\n"
    return head + "\n".join(lines) + "\n\n" + summary(result)


if __name__ == "__main__":
    main()
