"""What an explanation costs: through the queue and in bulk, beside shap called directly, in one run.

    python benchmarks/explain.py [--requests 100] [--rows 1000] [--out FILE.json]

With the example model `attrition`: 200 boosted trees, a reference sample of 200 rows. shap is measured where it is
installed (`.venv/bin/python -m pip install shap`); the service does without it. Nothing is asserted. Each figure:

- POST /explain: from the request to the answer with the explanation, one at a time, through the queue: stored, claimed,
  computed, stored, answered. POST /predict in the same way, for comparison.
- bulk: POST /jobs/{id}/explain of a CSV job with so many rows, from the request to the end of the job, with one worker
  process; beside it, how long the same worker took to score the file.
- one row, rows/s: `explain_rows` in this process on one core, sentences and checks included.
- shap: `TreeExplainer.shap_values` of encoded rows against the same 200 encoded rows, without its additivity check;
  gap: the most by which its values miss the model's own output on these rows.
- memory: PSS of the worker's processes after scoring, and after explaining too.
"""

import sys

if not __package__:
    # As a script, this folder leads sys.path, and the standard library's own `import queue` would find a file there.
    sys.path.pop(0)
    sys.path.insert(0, __file__.rpartition("benchmarks/")[0] or ".")

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from sqlalchemy.orm import Session

from benchmarks.harness import stacks
from benchmarks.harness.command import run_command
from examples.attrition.data import TARGET, generate
from shared.database.engine import make_engine
from shared.encoding.compile import compile_encoding
from shared.explanations.explain import explain_rows, reference_sample
from shared.registry.loading import LoadedModel, load
from shared.registry.versions import resolve
from shared.scoring.threads import one_thread

Result = dict[str, Any]


def rows_of(count: int) -> list[dict[str, Any]]:
    """Return generated rows of the example."""
    frame = generate(count, seed=7).drop(columns=TARGET)
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records"))
    return rows


def milliseconds(call: Callable[[int], object], times: int) -> list[float]:
    """Return how long each of so many calls takes; three before it do not count."""
    for number in range(3):
        call(number)
    durations = []
    for number in range(times):
        began = time.perf_counter()
        call(number)
        durations.append((time.perf_counter() - began) * 1000)
    return sorted(durations)


def through_queue(stack: stacks.Stack, rows: list[dict[str, Any]], requests: int) -> Result:
    """Measure one request at a time, and the memory of the worker before and after explanations."""
    with httpx2.Client(base_url=stack.url, timeout=60, headers={"Prefer": "wait=30"}) as client:

        def ask(route: str) -> Callable[[int], None]:
            def call(number: int) -> None:
                body = {"model": "attrition", "features": rows[number % len(rows)]}
                client.post(route, json=body).raise_for_status()

            return call

        predict = milliseconds(ask("/predict"), requests)
        before = stacks.memory_mb(stack.processes("worker"))["pss_mb"]
        explain = milliseconds(ask("/explain"), requests)
        after = stacks.memory_mb(stack.processes("worker"))["pss_mb"]
        table = ",".join(rows[0]) + "\n"
        table += "".join(",".join("" if cell is None else str(cell) for cell in row.values()) + "\n" for row in rows)
        scored, seconds = finished(
            client, "/models/attrition/predict_csv", content=table, headers={"Content-Type": "text/csv"}
        )
        _, bulk_seconds = finished(client, f"/jobs/{scored}/explain")
        after_bulk = stacks.memory_mb(stack.processes("bulk"))["pss_mb"]
    return {
        "predict_p50_ms": statistics.median(predict),
        "explain_p50_ms": statistics.median(explain),
        "explain_p99_ms": explain[int(len(explain) * 0.99)],
        "worker_mb_scoring": before,
        "worker_mb_explaining": after,
        "csv_rows_per_s": len(rows) / seconds,
        "bulk_explained_rows_per_s": len(rows) / bulk_seconds,
        "bulk_worker_mb": after_bulk,
    }


def finished(client: httpx2.Client, route: str, **request: Any) -> tuple[str, float]:
    """Submit a job of chunks and wait for its end; return its id, and the seconds that it took."""
    began = time.perf_counter()
    answer = client.post(route, **request)
    answer.raise_for_status()
    job_id: str = answer.json()["id"]
    while True:
        job = client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=30"}).json()
        if job["status"] == "succeeded":
            return job_id, time.perf_counter() - began
        if job["status"] not in ("queued", "running"):
            raise RuntimeError(f"the job {job['status']}: {job.get('error')}")


def in_process(model: LoadedModel, rows: list[dict[str, Any]]) -> Result:
    """Measure our own arithmetic, and shap's where it is installed."""
    one = milliseconds(lambda number: explain_rows(model, rows[number : number + 1]), 50)
    began = time.perf_counter()
    explain_rows(model, rows)
    result: Result = {
        "one_row_p50_ms": statistics.median(one),
        "rows_per_s": len(rows) / (time.perf_counter() - began),
    }
    try:
        import shap
    except ImportError:
        return result
    encoding, final = compile_encoding(model.card, model.estimator)
    encoded = encoding.encode(rows)
    explainer = shap.TreeExplainer(
        final, encoding.encode(reference_sample(model.reference)), feature_perturbation="interventional"
    )
    durations = milliseconds(
        lambda number: explainer.shap_values(encoded[number : number + 1], check_additivity=False), 50
    )
    began = time.perf_counter()
    values = explainer.shap_values(encoded[:200], check_additivity=False)
    seconds = time.perf_counter() - began
    gap = np.abs(values.sum(axis=1) + explainer.expected_value - final.decision_function(encoded[:200])).max()
    return result | {
        "shap_version": shap.__version__,
        "shap_one_row_p50_ms": statistics.median(durations),
        "shap_rows_per_s": 200 / seconds,
        "shap_gap": float(gap),
    }


def measure(folder: Path, args: argparse.Namespace) -> Result:
    """Start the queue, measure, and stop it."""
    models = args.models or folder / "models"
    models.mkdir(exist_ok=True)
    rows = rows_of(args.rows)
    with stacks.servers(folder) as (postgres, redis):
        stack = stacks.guichet_queue(folder, models, postgres, redis)
        try:
            stack.start_worker(1)
            stack.start("bulk", stacks.guichet_bulk())
            stack.start_api()
            result = through_queue(stack, rows, args.requests)
            assert stack.database is not None
            engine = make_engine(stack.database)
            with Session(engine) as session:
                model = load(resolve(session, "attrition"), models)
            engine.dispose()
        finally:
            stack.stop()
    with one_thread():  # after the model's libraries were loaded: it limits those that there are
        return result | in_process(model, rows)


def render(result: Result) -> str:
    """Return the figures as Markdown."""
    lines = ["| figure | value |", "|---|---|"]
    for name, value in result.items():
        lines.append(f"| {name} | {value if isinstance(value, str) else f'{value:,.3g}'} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100, help="requests of each kind, one at a time")
    parser.add_argument("--rows", type=int, default=1000, help="rows that are explained in one call")
    run_command(parser, measure, render)


if __name__ == "__main__":
    main()
