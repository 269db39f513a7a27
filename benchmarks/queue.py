"""Guichet beside the naive design (benchmarks/naive), in one run, on one machine, with the same model and rows.

    python benchmarks/queue.py [--seconds 6] [--rounds 3] [--connections 16,64] [--out FILE.json]

Rounds are interleaved (naive, Guichet, naive, Guichet, ...) and medians reported, ratios first: absolute figures do
not carry over to another machine. Nothing is asserted. What each figure means:

- jobs/s: POST /jobs for some seconds, then wait until every accepted job is terminal in PostgreSQL;
  succeeded jobs / (last finished_at - first request sent). The naive design is loaded for a sixth of the time,
  because it must drain what it accepted, which takes several times as long; the ratio does not depend on it.
- submit p50/p99: of those same POST /jobs requests, under that load.
- submit to stored result: benchmarks/harness/probe.py, one row at a time.
- /predict: the answer with the score; through the queue, or scored at once (sync runtime: every row is stored in
  SQLite; the naive route stores nothing).
- CPU us per job: processor time of each part over a cell, its drain included.
"""

import sys

if not __package__:
    # As a script, this folder leads sys.path, and the standard library's own `import queue` would find this file.
    sys.path.pop(0)
    sys.path.insert(0, __file__.rpartition("benchmarks/")[0] or ".")

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import machine, report, stacks
from benchmarks.harness.command import run_command
from benchmarks.harness.stacks import ROOT, Stack
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis

NAIVE_SHARE = 6  # the naive design is loaded for seconds / this
ROWS = 500  # different bodies; every connection takes the next one

Cell = dict[str, Any]


def write_bodies(path: Path) -> None:
    """Write one request body a line: the example rows first, then generated ones."""
    from examples.attrition.data import TARGET, generate

    frame = generate(ROWS, seed=7).drop(columns=TARGET)
    rows = json.loads((ROOT / "examples/attrition/rows.json").read_text())
    rows = [row.get("features", row) for row in (rows if isinstance(rows, list) else rows["rows"])]
    rows += frame.to_dict(orient="records")
    lines = [json.dumps({"model": "attrition", "features": row}, ensure_ascii=False) for row in rows[:ROWS]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_module(*words: object) -> Cell:
    """Run `python -m ...` as a process of its own and return the JSON that it prints."""
    command = [sys.executable, "-m", *map(str, words)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"`{' '.join(command[1:4])}` failed:\n{run.stderr[-3000:]}")
    cell: Cell = json.loads(run.stdout)
    return cell


def load(stack: Stack, path: str, bodies: Path, *, connections: int, seconds: float) -> Cell:
    """Load a route from a process of its own."""
    words = (stack.url + path, bodies, "--connections", connections, "--seconds", seconds)
    stack.check_alive()
    cell = run_module("benchmarks.harness.load", *words)
    stack.check_alive()
    return cell


def measure_jobs(stack: Stack, bodies: Path, postgres: Postgres, *, connections: int, seconds: float) -> Cell:
    """Submit for some seconds and wait until all is done; return what came of it."""
    assert stack.database is not None
    parts = {
        "api": stack.processes("api"),
        "worker": stack.processes("worker"),
        "postgres": [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children()],
    }
    before = {part: stacks.cpu_seconds(processes) for part, processes in parts.items()}
    cell = load(stack, "/jobs", bodies, connections=connections, seconds=seconds)
    stacks.wait_until_idle(stack)
    count, last = stacks.count_jobs(stack.database, cell["started_at"])
    cell |= {"accepted": cell["statuses"].get("202", 0), "succeeded": count}
    cell["jobs_per_s"] = count / max(last - cell["started_at"], 1e-9)
    cell["drain_s"] = last - cell["started_at"] - cell["seconds"]
    for part in parts:
        cell[f"{part}_cpu_us"] = stacks.cpu_used(before[part]) / max(count, 1) * 1e6
    return cell


def warm(stack: Stack, bodies: Path, *, seconds: float = 0.5) -> None:
    """Let every process score its first rows before the clock starts."""
    load(stack, "/jobs", bodies, connections=8, seconds=seconds)
    stacks.wait_until_idle(stack)


def measure_queue(
    guichet: Stack,
    naive: Stack,
    bodies: Path,
    postgres: Postgres,
    *,
    seconds: float,
    rounds: int,
    connections: list[int],
) -> dict[str, list[Cell]]:
    """Measure both designs behind the queue, round after round; return cells by name."""
    cells: dict[str, list[Cell]] = {}
    for number in range(rounds):
        for processes in (1, 2):
            say(f"round {number + 1} of {rounds}: queue, {processes} worker process(es)")
            naive.start_worker(processes)
            guichet.start_worker(processes)
            warm(guichet, bodies)
            warm(naive, bodies, seconds=0.2)
            for count in connections:
                for stack, duration in ((naive, seconds / NAIVE_SHARE), (guichet, seconds)):
                    cell = measure_jobs(stack, bodies, postgres, connections=count, seconds=duration)
                    add(cells, f"{stack.name}/jobs/{processes}w/{count}c", cell)
            if processes == 1:
                for stack in (naive, guichet):
                    words = (f"{stack.url}/jobs", bodies, stack.database, "--count", 60)
                    add(cells, f"{stack.name}/low", run_module("benchmarks.harness.probe", *words))
                    add(cells, f"{stack.name}/memory", stacks.memory_mb(stack.processes("api", "worker")))
                for count in (1, 16):
                    cell = load(guichet, "/predict", bodies, connections=count, seconds=seconds / 2)
                    add(cells, f"guichet/predict/{count}c", cell)
            naive.stop("worker")
            guichet.stop("worker")
    return cells


def measure_sync(
    guichet: Stack, naive: Stack, bodies: Path, *, seconds: float, rounds: int, connections: list[int]
) -> dict[str, list[Cell]]:
    """Measure `/predict` scored at once; Guichet stores every row in SQLite, the naive route stores nothing."""
    cells: dict[str, list[Cell]] = {}
    for stack in (naive, guichet):
        load(stack, "/predict", bodies, connections=8, seconds=0.5)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}: sync")
        for count in connections:
            for stack in (naive, guichet):
                before = stacks.cpu_seconds(stack.processes("api"))
                cell = load(stack, "/predict", bodies, connections=count, seconds=seconds / 2)
                cell["api_cpu_us"] = stacks.cpu_used(before) / max(cell["requests"], 1) * 1e6
                add(cells, f"{stack.name}/sync/{count}c", cell)
    return cells


def measure_starts(stack: Stack, *, count: int) -> list[Cell]:
    """Start the API several times (the first start, which fills the caches, is not counted); leaves it running."""
    stack.start_api()
    cells = []
    for _ in range(count):
        stack.stop("api")
        cells.append({"ready_s": stack.start_api()})
    return cells


def add(cells: dict[str, list[Cell]], name: str, cell: Cell) -> None:
    cells.setdefault(name, []).append(cell)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run everything and return the whole result."""
    began = time.perf_counter()
    options = {"seconds": args.seconds, "rounds": args.rounds, "connections": args.connections}
    described = machine.describe(folder)
    bodies = folder / "bodies.jsonl"
    write_bodies(bodies)
    models = args.models or folder / "models"
    with stacks.servers(folder) as (postgres, redis):
        cells = compare(folder, models, bodies, postgres, redis, options=options)
    result = {"machine": described, "options": options, "minutes": (time.perf_counter() - began) / 60}
    return result | {"medians": report.medians(cells), "rounds": cells}


def compare(
    folder: Path, models: Path, bodies: Path, postgres: Postgres, redis: Redis, *, options: dict[str, Any]
) -> dict[str, list[Cell]]:
    """Start both designs, measure them, stop them."""
    say("preparing: migrations, model")
    guichet = stacks.guichet_queue(folder, models, postgres, redis)
    model = max((models / "attrition").glob("*/model.joblib"), key=lambda path: int(path.parent.name))
    naive = stacks.naive(folder, model, postgres, redis)
    sync = stacks.guichet_sync(folder, models)
    try:
        cells = {f"{stack.name}/start": measure_starts(stack, count=options["rounds"]) for stack in (naive, guichet)}
        guichet.start("bulk", stacks.guichet_bulk())
        cells |= measure_queue(guichet, naive, bodies, postgres, **options)
        guichet.stop()
        cells["guichet-sync/start"] = measure_starts(sync, count=options["rounds"])
        cells |= measure_sync(sync, naive, bodies, **options)
        add(cells, "guichet-sync/memory", stacks.memory_mb(sync.processes("api")))
    finally:
        for stack in (guichet, naive, sync):
            stack.stop()
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one cell's load")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions; medians are reported")
    parser.add_argument("--connections", type=lambda text: [int(word) for word in text.split(",")], default=[16, 64])
    run_command(parser, measure, report.render)


if __name__ == "__main__":
    main()
