"""`make bench-monitoring`: drift of 43 features over 30 days of hourly counters, beside a scan of the stored rows.

One PostgreSQL of our own. It stores some rows of 43 features with their scores, counts them as the service does, and
then asks for drift by the counters and by reading every row. Then it stores many scores of another model, of which a
tenth have an outcome, and decides them again by another threshold: by the packed scores and by the rows, in turn.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
from sqlalchemy import Connection, Engine, text

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.machine import describe
from scripts.servers.postgres import Postgres
from shared.database.engine import make_engine, reader, take_time
from shared.monitoring.counting import Counting
from shared.monitoring.drift.comparison import compare
from shared.monitoring.drift.windows import Window, find_drift, find_profile
from shared.monitoring.kpis import Scope, find_confusion, list_days
from shared.scoring.outputs import Output
from tests.support.databases import migrate

FEATURES = [f"feature_{number}" for number in range(43)]
START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
PIECE = 20_000
JOB = "00000000-0000-7000-8000-000000000001"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows that are stored (default 200000)")
    parser.add_argument("--scores", type=int, default=1_000_000, help="scores that are decided again (default 1000000)")
    parser.add_argument("--reads", type=int, default=200, help="readings of drift (default 200)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with Postgres(folder / "pg") as server:
        url = server.url_of("bench")
        admin = psycopg2.connect(server.url_of("postgres").replace("+psycopg2", ""))
        admin.autocommit = True
        admin.cursor().execute("CREATE DATABASE bench")
        admin.close()
        migrate(url)
        engine = make_engine(url)
        store(engine, folder, args.rows)
        result = {"rows": args.rows, **count(engine, folder), **read(engine, args.reads), **scan(engine)}
        store_scores(engine, folder, args.scores)
        result |= {"scores": args.scores, **decide(engine)}
        engine.dispose()
    return {**result, "machine": describe(folder)}


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, len(FEATURES))).round(6)
    return [dict(zip(FEATURES, row, strict=True)) for row in values.tolist()]


def store(engine: Engine, folder: Path, rows: int) -> None:
    features = [{"name": name, "type": "number"} for name in FEATURES]
    labels = {"0": "no", "1": "yes"}
    card = {"name": "m", "version": 1, "task": "binary", "sha256": "0" * 64, "labels": labels, "features": features}
    package = folder / "models" / "m" / "1"
    package.mkdir(parents=True)
    (package / "reference.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(500, 1)))
    with engine.begin() as connection:
        take_time(connection)
        connection.execute(
            text(
                "INSERT INTO model_versions (id, name, version, sha256, uri, card, scorer) "
                "VALUES (1, 'm', 1, :sha256, 'm/1', :card, '{}')"
            ),
            {"sha256": "0" * 64, "card": json.dumps(card)},
        )
        connection.execute(
            text(
                "INSERT INTO jobs (id, kind, lane, state, model_version_id, request_id, row_count, max_attempts, "
                "timeout_seconds, finished_at) VALUES (:id, 'batch', 'bulk', 'succeeded', 1, 'r', :rows, 1, 1, now())"
            ),
            {"id": JOB, "rows": rows},
        )
        cursor = connection.connection.cursor()
        for first in range(0, rows, PIECE):
            piece = rows_of(min(PIECE, rows - first), first + 2)
            numbers = range(first + 1, first + 1 + len(piece))
            inputs = [f"{n}\t{JOB}\t{n}\t{json.dumps(row)}\n" for n, row in zip(numbers, piece, strict=True)]
            columns = "id, job_id, row_index, features"
            cursor.copy_expert(f"COPY model_inputs ({columns}) FROM STDIN", io.StringIO("".join(inputs)))
            scores = (1 / (1 + np.exp(-row[FEATURES[0]])) for row in piece)
            outputs = [
                f"{n}\t{n}\t1\tbinary\t{int(p >= 0.5)}\t{'yes' if p >= 0.5 else 'no'}\t{p!r}\t0.5\t"
                f"{(START + timedelta(days=DAYS) * (n - 1) / rows).isoformat()}\n"
                for n, p in zip(numbers, map(float, scores), strict=True)
            ]
            columns = "id, input_id, model_version_id, task, prediction, label, probability, threshold, created_at"
            cursor.copy_expert(f"COPY model_outputs ({columns}) FROM STDIN", io.StringIO("".join(outputs)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def count(engine: Engine, folder: Path) -> Result:
    def score(_: int, rows: list[dict[str, Any]]) -> list[Output]:
        chances = [1 / (1 + np.exp(-row[FEATURES[0]])) for row in rows]
        return [Output("binary", float(chance >= 0.5), "no", float(chance)) for chance in chances]

    began, worked = time.perf_counter(), time.process_time()
    rows = Counting(engine, folder / "models", None, score).run(seconds=3600.0)
    seconds = time.perf_counter() - began
    return {
        "counted_per_second": rows / seconds,
        "count_us_per_row": seconds / rows * 1e6,
        "count_cpu_us_per_row": (time.process_time() - worked) / rows * 1e6,
    }


def read(engine: Engine, times: int) -> Result:
    windows = {
        "30_days": Window(START, START + timedelta(days=DAYS)),
        "uneven": Window(START + timedelta(hours=5), START + timedelta(days=DAYS - 1, hours=19)),
    }
    result: Result = {}
    for name, window in windows.items():
        durations = []
        for _ in range(times):
            began = time.perf_counter()
            with reader(engine).connect() as connection:  # as the route does
                stored = find_profile(connection, 1)
                assert stored is not None
                drift = find_drift(connection, 1, stored.profile, window, "reference")
            durations.append((time.perf_counter() - began) * 1000)
        result[f"drift_ms_{name}"] = statistics.median(durations)
        result[f"drift_ms_{name}_best"] = min(durations)
        result[f"drift_ms_{name}_p99"] = sorted(durations)[int(len(durations) * 0.99)]
        result[f"rows_{name}"] = drift.rows
    return result


def scan(engine: Engine) -> Result:
    """Do what drift would take without counters: read every row of the window."""
    with engine.connect() as connection:
        stored = find_profile(connection, 1)
        assert stored is not None
        profile = stored.profile

        def brute() -> int:
            take_time(connection)
            query = text(
                "SELECT features, label AS decision, probability AS score FROM model_outputs "
                "JOIN model_inputs ON model_inputs.id = input_id WHERE model_version_id = 1"
            )
            total = np.zeros(sum(bins.width for bins in profile.all), dtype=np.int64)
            rows = 0
            for piece in connection.execution_options(yield_per=5000).execute(query).partitions(5000):
                scores = [{"score": row.score, "decision": row.decision} for row in piece]
                total += np.array(profile.count([row.features for row in piece], scores))
                rows += len(piece)
            compare(profile, total.tolist(), rows=rows, baseline=None, baseline_rows=profile.rows)
            return rows

        return {"scan_ms": timed(brute)}


def store_scores(engine: Engine, folder: Path, rows: int) -> None:
    """Store scores of a model of one feature over 30 days, a tenth of them with an outcome, and count them."""
    features = [{"name": "x", "type": "number"}]
    labels = {"0": "no", "1": "yes"}
    card = {"name": "d", "version": 1, "task": "binary", "sha256": "0" * 64, "labels": labels, "features": features}
    package = folder / "models" / "d" / "1"
    package.mkdir(parents=True)
    (package / "reference.jsonl").write_text("".join(json.dumps({"x": place / 100}) + "\n" for place in range(500)))
    job = JOB.replace("-7000-", "-7001-")
    statements = (
        "INSERT INTO model_versions (id, name, version, sha256, uri, card, scorer) "
        "VALUES (2, 'd', 1, :sha256, 'd/1', :card, '{}')",
        "INSERT INTO jobs (id, kind, lane, state, model_version_id, request_id, row_count, max_attempts, "
        "timeout_seconds, finished_at) VALUES (:job, 'batch', 'bulk', 'succeeded', 2, 'r', :rows, 1, 1, now())",
        "INSERT INTO model_inputs (id, job_id, row_index, features) "
        "SELECT CAST(:first AS bigint) + n, CAST(:job AS uuid), n, jsonb_build_object('x', n % 500 / 100.0) "
        "FROM generate_series(1, :rows) n",
        "INSERT INTO model_outputs "
        "(id, input_id, model_version_id, task, prediction, label, probability, threshold, created_at) "
        "SELECT CAST(:first AS bigint) + n, CAST(:first AS bigint) + n, 2, 'binary', (p >= 0.5)::int, "
        "CASE WHEN p >= 0.5 THEN 'yes' ELSE 'no' END, p, 0.5, "
        "CAST(:start AS timestamptz) + n * interval '30 days' / (:rows + 1) "
        "FROM (SELECT n, random() AS p FROM generate_series(1, :rows) n) scores",
        "INSERT INTO outcomes (input_id, revision, actual, label, request_id) "
        "SELECT CAST(:first AS bigint) + n, 1, n / 10 % 2, CASE n / 10 % 2 WHEN 1 THEN 'yes' ELSE 'no' END, 'r' "
        "FROM generate_series(1, :rows, 10) n",
    )
    values: dict[str, Any] = {
        "sha256": "0" * 64,
        "card": json.dumps(card),
        "job": job,
        "rows": rows,
        "start": START.isoformat(),
    }
    with engine.begin() as connection:
        take_time(connection)
        values["first"] = connection.scalar(text("SELECT coalesce(max(id), 0) FROM model_inputs"))
        for statement in statements:
            connection.execute(text(statement), {key: values[key] for key in values if f":{key}" in statement})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        take_time(connection)
        connection.execute(text("VACUUM ANALYZE"))
    Counting(engine, folder / "models", None, lambda *_: None).run(seconds=36_000.0)


def decide(engine: Engine, times: int = 5) -> Result:
    """Decide every score again by another threshold, and compare with the outcomes: packed and by rows, in turn."""
    scope = Scope(2, "binary", "yes", START, START + timedelta(days=DAYS), 0.3)
    questions: dict[str, Callable[[Connection], object]] = {
        "threshold": lambda connection: list_days(connection, scope, margin=0.05),
        "confusion": lambda connection: find_confusion(connection, scope, cost_fp=1.0, cost_fn=5.0),
    }
    durations: dict[str, list[float]] = {}
    answers: dict[str, object] = {}
    for _ in range(times):
        for name, ask in questions.items():
            for way in ("packed", "rows"):
                with engine.connect() as connection:  # rolled back at its end
                    take_time(connection)
                    if way == "rows":
                        connection.execute(text("UPDATE feature_profiles SET packed_through = 0"))
                        connection.execute(text("DELETE FROM score_parts"))
                    began = time.perf_counter()
                    answer = ask(connection)
                    durations.setdefault(f"{name}_ms_{way}", []).append((time.perf_counter() - began) * 1000)
                if name == "confusion":
                    assert answers.setdefault(name, answer) == answer
    return {name: statistics.median(each) for name, each in durations.items()}


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def render(result: Result) -> str:
    lines = [
        f"drift of 43 features over 30 days of hourly counters: {result['drift_ms_30_days']:.2f} ms "
        f"(best {result['drift_ms_30_days_best']:.2f}, p99 {result['drift_ms_30_days_p99']:.2f}); "
        f"from 5:00 to 19:00: {result['drift_ms_uneven']:.2f} ms",
        f"a scan of the {result['rows']:,} rows themselves: {result['scan_ms']:,.0f} ms, "
        f"{result['scan_ms'] / result['drift_ms_30_days']:,.0f} times as long",
        f"counting: {result['counted_per_second']:,.0f} rows/s, {result['count_us_per_row']:.1f} us a row, "
        f"of which {result['count_cpu_us_per_row']:.1f} us are the worker's CPU",
        f"{result['scores']:,} scores decided by another threshold: {result['threshold_ms_packed']:.0f} ms, "
        f"by the rows {result['threshold_ms_rows']:.0f} ms "
        f"({result['threshold_ms_rows'] / result['threshold_ms_packed']:.1f} times as long)",
        f"beside {result['scores'] // 10:,} outcomes: {result['confusion_ms_packed']:.0f} ms, "
        f"by the rows {result['confusion_ms_rows']:.0f} ms "
        f"({result['confusion_ms_rows'] / result['confusion_ms_packed']:.1f} times as long)",
        result["machine"] if isinstance(result["machine"], str) else json.dumps(result["machine"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
