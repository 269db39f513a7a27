"""`make bench-training`: trainings of the four examples beside the script that somebody writes by hand, in one run.

Each round sends a file of each example to `POST /train`, with the kind of estimator that the example's own script has,
and waits until the candidate is registered; then it runs the script on the same file (benchmarks/by_hand.py), which
searches as many draws of the same parameters with as many folds. Everything runs on this machine, each with one thread:
API, one bulk worker process, PostgreSQL, Redis. Nothing is asserted.

A training does more than the script: it types the columns, looks for leaks, computes intervals, threshold, calibration
and importance, proves a fast scorer, and registers the version.
"""

import argparse
import csv
import http.client
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.bulk import wait_for_file
from benchmarks.harness import machine, stacks
from benchmarks.harness.command import run_command
from benchmarks.harness.report import table
from benchmarks.harness.stacks import ROOT, Stack
from benchmarks.queue import say

Cell = dict[str, Any]
ESTIMATORS = {
    "attrition": "hist_gradient_boosting",
    "credit": "linear",
    "energy": "hist_gradient_boosting",
    "turnover": "linear",
}


def write_example(name: str, path: Path, rows: int) -> str:
    """Write rows of an example to a CSV file; return the column with the answer."""
    data, script = (importlib.import_module(f"examples.{name}.{part}") for part in ("data", "train"))
    columns = [*(feature.name for feature in script.FEATURES), data.TARGET]
    data.generate(rows)[columns].to_csv(path, index=False, quoting=csv.QUOTE_MINIMAL)
    return str(data.TARGET)


def measure_training(stack: Stack, name: str, path: Path, target: str, draws: int) -> Cell:
    """Train on a file over HTTP; return the seconds from the request to the registered version."""
    query = f"name=bench-{name}&target={target}&estimators={ESTIMATORS[name]}&draws={draws}"
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", stack.port, timeout=600)) as connection:
        connection.request("POST", f"/train?{query}", path.read_bytes(), {"Content-Type": "text/csv"})
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 202:
        raise RuntimeError(f"/train was answered {answer.status}: {text[:500]!r}")
    wait_for_file(stack, json.loads(text)["id"])
    return {"seconds": time.perf_counter() - began}


def measure_script(name: str, path: Path, draws: int) -> Cell:
    """Run the script on the same file; return its seconds, with its start as a process."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.by_hand", name, str(path), str(draws)]
    began = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True, check=True)
    seconds, inside = time.perf_counter() - began, json.loads(run.stdout)
    return {"seconds": seconds - inside["fit_s"], "fit_s": inside["fit_s"]}


def measure(folder: Path, args: argparse.Namespace) -> Cell:
    """Run everything and return the whole result."""
    began = time.perf_counter()
    described = machine.describe(folder)
    files = {name: folder / f"{name}.csv" for name in ESTIMATORS}
    targets = {name: write_example(name, path, args.rows) for name, path in files.items()}
    cells: dict[str, dict[str, list[Cell]]] = {name: {"training": [], "script": []} for name in ESTIMATORS}
    with stacks.servers(folder) as (postgres, redis):
        stack = stacks.guichet_queue(folder, args.models or folder / "models", postgres, redis)
        try:
            stack.start_api()
            stack.start("bulk", stacks.guichet_bulk())
            measure_training(stack, "credit", files["credit"], targets["credit"], 1)  # the worker has started
            for number in range(args.rounds):
                for name, path in files.items():
                    say(f"round {number + 1} of {args.rounds}: {name}")
                    cells[name]["training"].append(measure_training(stack, name, path, targets[name], args.draws))
                    cells[name]["script"].append(measure_script(name, path, args.draws))
            stack.check_alive()
        finally:
            stack.stop()
    return {
        "machine": described,
        "minutes": (time.perf_counter() - began) / 60,
        "rows": args.rows,
        "draws": args.draws,
        "cells": cells,
    }


def render(result: Cell) -> str:
    """Return the report as Markdown."""
    rows = []
    for name, cells in result["cells"].items():
        trained = [cell["seconds"] for cell in cells["training"]]
        by_hand = [cell["seconds"] for cell in cells["script"]]
        ratios = [one / other for one, other in zip(trained, by_hand, strict=True)]
        fit = statistics.median(cell["fit_s"] for cell in cells["script"])
        rows.append(
            (
                name,
                ESTIMATORS[name],
                f"{statistics.median(trained):.1f}",
                f"{statistics.median(by_hand):.1f}",
                f"{fit:.2f}",
                ", ".join(f"{ratio:.2f}" for ratio in ratios),
            )
        )
    return "\n\n".join(
        [
            f"## Trainings on {result['rows']:,} rows, {result['draws']} draws, five folds",
            table(("example", "estimator", "training s", "script s", "one fit s", "ratios, round by round"), rows),
            machine.summary(result),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--draws", type=int, default=10, help="combinations of parameters, of each")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved repetitions; medians are reported")
    run_command(parser, measure, render)


if __name__ == "__main__":
    main()
