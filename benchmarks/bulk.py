"""CSV files: from upload to downloadable output, where the time goes, memory, and what single predictions feel of it.

    python benchmarks/bulk.py [--sizes 10000,100000,1000000] [--rounds 3] [--out FILE.json]

Everything runs on this machine: client, API, one interactive and one bulk worker process, PostgreSQL, Redis. Files have
the 43 features of `attrition`, an id column, and no bad rows. Nothing is asserted. What each figure means:

- rows/s: data rows / seconds from the first byte sent to `POST /predict_csv` until the job has succeeded, that is,
  until every input and output is a row in PostgreSQL and output.csv can be read. The download is timed after it.
- naive: the same upload to benchmarks/naive, which makes one Celery task of each row (a smaller file: the rate does
  not depend on the size, and a large one would take hours), until its last row is stored.
- stages: microseconds a row of each step, one process alone (benchmarks/stages.py).
- peak memory: the kernel's VmHWM of each process over the whole run of that size.
- isolation: `POST /predict` once every 20 ms over one connection, idle and while the largest file runs.
"""

import sys

if not __package__:
    # As a script, this folder leads sys.path, and the standard library's own `import queue` would find our file.
    sys.path.pop(0)
    sys.path.insert(0, __file__.rpartition("benchmarks/")[0] or ".")

import argparse
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness import machine, stacks
from benchmarks.harness.command import run_command
from benchmarks.harness.probe import connect
from benchmarks.harness.report import table
from benchmarks.harness.stacks import Stack
from benchmarks.queue import load, run_module, say, warm, write_bodies
from scripts.servers.postgres import Postgres

NAIVE_ROWS = 2_000
STAGES_ROWS = 200_000  # at most: the steps take the same for every row
PIECE = 256 * 1024  # bytes sent at once
PAUSE = 0.02  # seconds between two single predictions

Cell = dict[str, Any]


def write_csv(path: Path, rows: int) -> None:
    """Write a file of generated employees, some hundred thousand rows at a time."""
    from examples.attrition.data import TARGET, generate

    with path.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, rows, 100_000):
            frame = generate(min(100_000, rows - start), seed=start + 11).drop(columns=TARGET)
            frame.insert(0, "matricule_id", [f"E{start + number:07d}" for number in range(len(frame))])
            frame.to_csv(file, index=False, header=start == 0)


def upload(stack: Stack, path: Path, *, kind: str = "text/csv") -> Cell:
    """Send a file and return the answer's JSON; it is read from disk in pieces."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=600)
    with closing(connection), path.open("rb") as file:
        body: Iterator[bytes] = iter(lambda: file.read(PIECE), b"")
        headers = {"Content-Type": kind, "Content-Length": str(path.stat().st_size)}
        if kind != "text/csv":  # the naive route takes forms only
            start = (
                b'--part\r\nContent-Disposition: form-data; name="file"; filename="rows.csv"\r\n'
                b"Content-Type: text/csv\r\n\r\n"
            )
            content = start + file.read() + b"\r\n--part--\r\n"
            body, headers = iter([content]), {"Content-Type": kind, "Content-Length": str(len(content))}
        connection.request("POST", "/predict_csv", body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 202:
            raise RuntimeError(f"{stack.name} answered {answer.status} to a CSV file: {text[:500]!r}")
    ticket: Cell = json.loads(text)
    return ticket


def download(stack: Stack, path: str) -> int:
    """Read a download to its end; return its lines."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=600)
    lines = 0
    with closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}: {answer.read()[:500]!r}")
        while piece := answer.read(PIECE):
            lines += piece.count(b"\n")
    return lines


def measure_file(stack: Stack, path: Path, rows: int, postgres: Postgres) -> Cell:
    """Upload a file, wait until it is scored, download the output; return what that took."""
    parts = {
        "api": stack.processes("api"),
        "worker": stack.processes("bulk"),
        "postgres": [psutil.Process(postgres.pid), *psutil.Process(postgres.pid).children()],
    }
    for process in (*parts["api"], *parts["worker"]):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts again from here
    before = {part: stacks.cpu_seconds(processes) for part, processes in parts.items()}
    started = time.perf_counter()
    job = upload(stack, path)
    uploaded = time.perf_counter()
    wait_for_file(stack, job["id"])
    ready = time.perf_counter()
    lines = download(stack, f"/jobs/{job['id']}/output.csv")
    done = time.perf_counter()
    if lines != rows + 1:
        raise RuntimeError(f"the output has {lines} lines for {rows} rows and a header")
    cell: Cell = {
        "rows": rows,
        "rows_per_s": rows / (ready - started),
        "seconds": ready - started,
        "upload_s": uploaded - started,
        "download_s": done - ready,
        "api_peak_mb": peak_mb(parts["api"]),
        "worker_peak_mb": peak_mb(parts["worker"]),
    }
    for part in parts:
        cell[f"{part}_cpu_us"] = stacks.cpu_used(before[part]) / rows * 1e6
    return cell


def wait_for_file(stack: Stack, job_id: str) -> None:
    """Return when a CSV job has succeeded with every row."""
    assert stack.database is not None
    with closing(connect(stack.database)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            while True:
                cursor.execute("SELECT state, failed_count FROM jobs WHERE id = %s", (job_id,))
                state, failed = cursor.fetchone()
                if state not in ("queued", "running"):
                    break
                time.sleep(0.01)
    if (state, failed) != ("succeeded", 0):
        raise RuntimeError(f"the file {state} with {failed} failed rows")


def measure_naive(stack: Stack, path: Path, rows: int) -> Cell:
    """Upload a file to the naive design and wait until its last row is stored."""
    started_at, started = time.time(), time.perf_counter()
    upload(stack, path, kind="multipart/form-data; boundary=part")
    uploaded = time.perf_counter()
    stacks.wait_until_idle(stack, timeout=600)
    assert stack.database is not None
    count, last = stacks.count_jobs(stack.database, started_at)
    if count != rows:
        raise RuntimeError(f"the naive design stored {count} of {rows} rows")
    return {"rows": rows, "rows_per_s": rows / (last - started_at), "upload_s": uploaded - started}


def measure_isolation(stack: Stack, path: Path, rows: int, bodies: Path) -> dict[str, Cell]:
    """Predict single rows now and then, idle and while a file is scored."""
    seconds = 10.0
    words: tuple[object, ...] = (f"{stack.url}/predict", bodies, "--connections", 1, "--pause", PAUSE)
    idle = run_module("benchmarks.harness.load", *words, "--seconds", seconds)
    result: dict[str, Any] = {}

    def score() -> None:
        result["cell"] = upload(stack, path)
        wait_for_file(stack, result["cell"]["id"])
        result["ended"] = time.time()

    file = threading.Thread(target=score)
    began = time.time()
    file.start()
    busy = run_module("benchmarks.harness.load", *words, "--seconds", seconds)
    covered = "ended" not in result or result["ended"] > busy["started_at"] + seconds
    file.join()
    busy["file_rows_per_s"] = rows / (result["ended"] - began)
    busy["covered"] = covered
    return {"idle": idle, "busy": busy}


def peak_mb(processes: list[psutil.Process]) -> float:
    """Return the highest peak of resident memory among processes, in MB."""
    lines = [line for process in processes for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measure(folder: Path, args: argparse.Namespace) -> Cell:
    """Run everything and return the whole result."""
    began = time.perf_counter()
    described = machine.describe(folder)
    bodies = folder / "bodies.jsonl"
    write_bodies(bodies)
    say("writing files")
    files = {rows: folder / f"rows-{rows}.csv" for rows in sorted({*args.sizes, NAIVE_ROWS})}
    for rows, path in files.items():
        write_csv(path, rows)
    models = args.models or folder / "models"
    cells: dict[str, list[Cell]] = {}
    with stacks.servers(folder) as (postgres, redis):
        guichet = stacks.guichet_queue(folder, models, postgres, redis)
        model = max((models / "attrition").glob("*/model.joblib"), key=lambda path: int(path.parent.name))
        naive = stacks.naive(folder, model, postgres, redis)
        try:
            guichet.start_api()
            guichet.start_worker(1)
            guichet.start("bulk", stacks.guichet_bulk())
            naive.start_api()
            warm(guichet, bodies)
            measure_file(guichet, files[NAIVE_ROWS], NAIVE_ROWS, postgres)  # loads what files need
            for number in range(args.rounds):
                if not args.no_naive:
                    say(f"round {number + 1} of {args.rounds}: naive, {NAIVE_ROWS} rows")
                    naive.start_worker(2)
                    if number == 0:
                        warm(naive, bodies)
                    cells.setdefault("naive", []).append(measure_naive(naive, files[NAIVE_ROWS], NAIVE_ROWS))
                    naive.stop("worker")
                for rows in args.sizes:
                    if number and rows > 200_000 and not args.all_rounds:
                        continue  # once is enough for what takes half a minute
                    say(f"round {number + 1} of {args.rounds}: {rows} rows")
                    cell = measure_file(guichet, files[rows], rows, postgres)
                    cells.setdefault(f"csv/{rows}", []).append(cell)
            largest = max(args.sizes)
            say(f"isolation: single predictions beside {largest} rows")
            isolation = measure_isolation(guichet, files[largest], largest, bodies)
            load(guichet, "/predict", bodies, connections=1, seconds=0.5)
            guichet.check_alive()
        finally:
            guichet.stop()
            naive.stop()
        say("stages, one process alone")
        stages = run_module("benchmarks.stages", files[max(rows for rows in files if rows <= STAGES_ROWS)], models)
    return {
        "machine": described,
        "minutes": (time.perf_counter() - began) / 60,
        "cells": cells,
        "medians": {name: medians(rounds) for name, rounds in cells.items()},
        "isolation": isolation,
        "stages": stages,
    }


def medians(cells: list[Cell]) -> Cell:
    """Return the median of every number over the rounds."""
    return {key: statistics.median(cell[key] for cell in cells) for key in cells[0]}


def render(result: Cell) -> str:
    """Return the report as Markdown."""
    by_name = result["medians"]
    idle, busy = result["isolation"]["idle"], result["isolation"]["busy"]
    files = [cell for name, cell in by_name.items() if name.startswith("csv/")]
    parts = []
    if "naive" in by_name:
        naive = by_name["naive"]["rows_per_s"]
        rows = ((f"{cell['rows']:,.0f}", f"{cell['rows_per_s'] / naive:.0f}") for cell in files)
        parts += [
            f"## Ratios to one task per row (naive: {naive:.0f} rows/s)",
            table(("rows", "times the naive rate"), rows),
        ]
    columns = ("rows", "rows/s", "upload s", "all s", "download s", "API us/row", "worker", "PostgreSQL")
    parts += [
        "## From upload to output ready",
        table(
            (*columns, "API peak MB", "worker peak MB"),
            (
                (
                    f"{cell['rows']:,.0f}",
                    f"{cell['rows_per_s']:,.0f}",
                    f"{cell['upload_s']:.2f}",
                    f"{cell['seconds']:.2f}",
                    f"{cell['download_s']:.2f}",
                    f"{cell['api_cpu_us']:.1f}",
                    f"{cell['worker_cpu_us']:.1f}",
                    f"{cell['postgres_cpu_us']:.1f}",
                    f"{cell['api_peak_mb']:.0f}",
                    f"{cell['worker_peak_mb']:.0f}",
                )
                for cell in files
            ),
        ),
        "## Where a row's time goes, in one process alone (us)",
        table(("step", "us a row"), ((name, f"{value:.2f}") for name, value in result["stages"].items())),
        "## Single predictions beside the largest file",
        table(
            ("", "p50 ms", "p99 ms", "requests"),
            (
                (name, f"{cell['p50_ms']:.1f}", f"{cell['p99_ms']:.1f}", str(cell["requests"]))
                for name, cell in (("idle", idle), ("beside the file", busy))
            ),
        ),
        f"p99 beside the file: {busy['p99_ms'] / idle['p99_ms']:.1f} times the idle one; the file went at"
        f" {busy['file_rows_per_s']:,.0f} rows/s meanwhile{'' if busy['covered'] else ' (and ended first)'}.",
        machine.summary(result),
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=lambda text: [int(word) for word in text.split(",")], default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions; medians are reported")
    parser.add_argument("--all-rounds", action="store_true", help="repeat the largest files, too")
    parser.add_argument("--no-naive", action="store_true", help="leave the baseline out, to look at something quickly")
    run_command(parser, measure, render)


if __name__ == "__main__":
    main()
