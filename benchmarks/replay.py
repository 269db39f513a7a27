"""A replay beside a CSV file of the same rows, through the queue, in one run.

    python -m benchmarks.replay [--rows 100000] [--rounds 3] [--out FILE.json]

Everything runs on this machine: client, API, one bulk worker process, PostgreSQL, Redis, with the example model
`attrition` (43 features). Nothing is asserted. Each round uploads a file and replays what was decided, by the same
version, from the request until the job has succeeded; the replay must show 0 flips and a shift of 0.0. The result is
read after it, which adds up the tallies. Rows are not counted for drift: the worker would count those of the file while
it replays them.
"""

import argparse
import http.client
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bulk import measure_file, medians, peak_mb, wait_for_file, write_csv
from benchmarks.harness import machine, stacks
from benchmarks.harness.command import run_command
from benchmarks.harness.report import table
from benchmarks.harness.stacks import Stack
from benchmarks.queue import say

Cell = dict[str, Any]
WARM_ROWS = 2_000


def ask(stack: Stack, method: str, path: str, body: Cell | None = None) -> Cell:
    """Send a request and return the answer's JSON."""
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=600)) as connection:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    if answer.status not in (200, 202):
        raise RuntimeError(f"{path} was answered {answer.status}: {text[:500]!r}")
    content_json: Cell = json.loads(text)
    return content_json


def measure_replay(stack: Stack, since: datetime, rows: int) -> Cell:
    """Replay what was decided since then; return what that took."""
    workers = stack.processes("bulk")
    for process in workers:
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak starts again from here
    started = time.perf_counter()
    job = ask(stack, "POST", "/replays", {"model": "attrition@champion", "from": since.isoformat()})
    accepted = time.perf_counter()
    wait_for_file(stack, job["id"])
    ready = time.perf_counter()
    result = ask(stack, "GET", f"/jobs/{job['id']}/result")
    read = time.perf_counter()
    flips, shift = result["flips"]["count"], result["score_shift"]["largest"]
    if (result["pairs"], flips, shift) != (rows, 0, 0.0):
        raise RuntimeError(f"{result['pairs']} pairs of {rows} rows, {flips} flips, a shift of up to {shift}")
    return {
        "rows": rows,
        "rows_per_s": rows / (ready - started),
        "accepted_s": accepted - started,
        "seconds": ready - started,
        "result_s": read - ready,
        "worker_peak_mb": peak_mb(workers),
    }


def measure(folder: Path, args: argparse.Namespace) -> Cell:
    """Run everything and return the whole result."""
    began = time.perf_counter()
    described = machine.describe(folder)
    files = {rows: folder / f"rows-{rows}.csv" for rows in (WARM_ROWS, args.rows)}
    say("writing files")
    for rows, path in files.items():
        write_csv(path, rows)
    cells: dict[str, list[Cell]] = {"csv": [], "replay": []}
    with stacks.servers(folder) as (postgres, redis):
        stack = stacks.guichet_queue(folder, args.models or folder / "models", postgres, redis)
        stack.env["MONITOR_SECONDS"] = "0"
        try:
            stack.start_api()
            stack.start("bulk", stacks.guichet_bulk())
            measure_file(stack, files[WARM_ROWS], WARM_ROWS, postgres)  # loads what files need
            for number in range(args.rounds):
                say(f"round {number + 1} of {args.rounds}: {args.rows} rows")
                since = datetime.now(UTC)
                cells["csv"].append(measure_file(stack, files[args.rows], args.rows, postgres))
                cells["replay"].append(measure_replay(stack, since, args.rows))
            stack.check_alive()
        finally:
            stack.stop()
    return {
        "machine": described,
        "minutes": (time.perf_counter() - began) / 60,
        "cells": cells,
        "medians": {name: medians(rounds) for name, rounds in cells.items()},
        "ratios": [
            replay["rows_per_s"] / file["rows_per_s"]
            for replay, file in zip(cells["replay"], cells["csv"], strict=True)
        ],
    }


def render(result: Cell) -> str:
    """Return the report as Markdown."""
    file, replay = (result["medians"][name] for name in ("csv", "replay"))
    rows = [
        (name, f"{cell['rows_per_s']:,.0f}", f"{cell['seconds']:.2f}", f"{cell['worker_peak_mb']:.0f}")
        for name, cell in (("CSV file", file), ("replay", replay))
    ]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"])
    return "\n\n".join(
        [
            f"## {file['rows']:,.0f} rows as a file, and decided again",
            table(("", "rows/s", "s", "worker peak MB"), rows),
            f"Rate of the replay by that of the file, round by round: {ratios}. It was accepted after "
            f"{replay['accepted_s']:.2f} s; its result was read in {replay['result_s']:.2f} s.",
            machine.summary(result),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions; medians are reported")
    run_command(parser, measure, render)


if __name__ == "__main__":
    main()
