"""`make bench-lists`: pages of the list of jobs among a million, by every filter, on PostgreSQL and SQLite.

The filters that find few jobs, or old ones, are those that a list without an index of its own would read the whole
table for. Then rows are submitted, claimed and ended on PostgreSQL with the four indexes of the list and without them,
in turn: what they cost those who never look.
"""

import argparse
import io
import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
from sqlalchemy import Engine, text

from benchmarks.harness.command import Result, run_command
from benchmarks.harness.machine import describe
from scripts.servers.postgres import Postgres
from shared.database.engine import make_engine, reader
from shared.jobs.queries.listing import JobQuery, ListPlace, list_jobs
from shared.jobs.transitions import submit
from tests.support.databases import add_versions, end, migrate, submission, take

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = (
    "id, kind, lane, state, model_version_id, owner, request_id, row_count, max_attempts, timeout_seconds, "
    "created_at, started_at, finished_at, claim_token, run_after"
)
INDEXES = ("ix_jobs_arrival", "ix_jobs_owner", "ix_jobs_version", "ix_jobs_unsuccessful")
PAGE = 51
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "succeeded": {"states": ["succeeded"]},
    "failed: 100, old": {"states": ["failed"]},
    "queued: 5, the oldest": {"states": ["queued"]},
    "running: 3": {"states": ["running"]},
    "expired: none": {"states": ["expired"]},
    "a model of the past: 100": {"model_version_ids": [2]},
    "a model of now": {"model_version_ids": [1]},
    "both versions": {"model_version_ids": [1, 2]},
    "a key with 10 old jobs": {"owner": "rare"},
    "a key with half of them": {"owner": "common"},
    "a key with none": {"owner": "nobody"},
    "that key's failed ones": {"owner": "common", "states": ["failed"]},
    "failed ones of the model of the past": {"model_version_ids": [2], "states": ["failed"]},
    "queued ones of the model of the past": {"model_version_ids": [2], "states": ["queued"]},
    "failed ones since the middle": {"states": ["failed"], "since": BEGIN + timedelta(days=11)},
    "what can be canceled": {"states": ["queued", "running"], "can_be": "cancel"},
    "what can be taken up": {"states": ["failed", "canceled", "expired"], "can_be": "retry"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs in the table (default 1000000)")
    parser.add_argument("--pages", type=int, default=40, help="pages of each filter (default 40)")
    parser.add_argument("--writes", type=int, default=200, help="groups of 50 jobs that are written (default 200)")
    run_command(parser, measure, render)


def measure(folder: Path, args: argparse.Namespace) -> Result:
    with Postgres(folder / "pg") as server:
        admin = psycopg2.connect(server.url_of("postgres").replace("+psycopg2", ""))
        admin.autocommit = True
        for name in ("bench", "writes"):
            admin.cursor().execute(f"CREATE DATABASE {name}")
        admin.close()
        engine = prepare(server.url_of("bench"))
        fill_postgres(server.url_of("bench"), args.jobs)
        pages = {"postgresql": read_pages(engine, args.pages, args.jobs)}
        engine.dispose()
        engine = prepare(server.url_of("writes"))
        writes = write(engine, args.writes)
        engine.dispose()
    engine = prepare(f"sqlite:///{folder / 'guichet.db'}")
    fill_sqlite(engine, args.jobs)
    pages["sqlite"] = read_pages(engine, args.pages, args.jobs)
    engine.dispose()
    return {"jobs": args.jobs, "pages": pages, "writes": writes, "machine": describe(folder)}


def prepare(url: str) -> Engine:
    migrate(url)
    engine = make_engine(url, autocommit=not url.startswith("sqlite"))
    with engine.begin() as connection:
        add_versions(connection)
    return engine


def jobs(count: int) -> Iterator[tuple[Any, ...]]:
    """Yield jobs, one every two seconds; every fifth has the random id of a visitor."""
    rng = random.Random(1)
    for number in range(count):
        at = BEGIN + timedelta(seconds=2 * number)
        job_id = UUID(int=rng.getrandbits(128), version=4)
        if number % 5:
            job_id = UUID(int=(int(at.timestamp() * 1000) << 80) | 7 << 76 | 2 << 62 | rng.getrandbits(62))
        state = "failed" if number % (count // 200) == 3 and number < count // 2 else "succeeded"
        if number < 5 or number >= count - 3:
            state = "queued" if number < 5 else "running"
        owner = ("rare" if number % 100 == 7 else "common" if number % 2 else None) if number < 1_000 else None
        owner = owner or ("common" if number % 2 else None)
        version = 2 if number < count * 0.03 and number % 300 == 0 else 1
        finished = at if state in ("succeeded", "failed") else None
        started = at if state != "queued" else None
        token = 1 if state == "running" else None
        yield (
            *(str(job_id), "predict", "interactive", state, version, owner, "r", 1, 3, 30.0),
            *(at, started, finished, token, at),
        )


def fill_postgres(url: str, count: int) -> None:
    lines = io.StringIO()
    for job in jobs(count):
        lines.write("\t".join("\\N" if value is None else str(value) for value in job) + "\n")
    lines.seek(0)
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    connection.cursor().copy_expert(f"COPY jobs ({COLUMNS}) FROM STDIN", lines)
    connection.commit()
    connection.autocommit = True
    connection.cursor().execute("VACUUM ANALYZE jobs")
    connection.close()


def fill_sqlite(engine: Engine, count: int) -> None:
    def plain(value: Any) -> Any:
        return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value

    marks = ", ".join("?" for _ in COLUMNS.split(","))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO jobs ({COLUMNS}) VALUES ({marks})", [tuple(map(plain, job)) for job in jobs(count)]
        )


def read_pages(engine: Engine, pages: int, count: int) -> dict[str, dict[str, float]]:
    """Read pages of each filter, every third from the newest job on, the others from anywhere; return milliseconds."""
    rng = random.Random(2)
    figures = {}
    for name, options in FILTERS.items():
        durations = []
        for number in range(pages):
            place = None
            if number % 3:
                at = BEGIN + timedelta(seconds=2 * rng.randrange(count))
                place = ListPlace(at, str(UUID(int=rng.getrandbits(128), version=4)))
            began = time.perf_counter()
            with reader(engine).connect() as connection:
                list_jobs(connection, JobQuery(**options), before=place, limit=PAGE)
            durations.append((time.perf_counter() - began) * 1000)
        durations.sort()
        figures[name] = {"p50": statistics.median(durations), "p95": durations[int(pages * 0.95) - 1]}
    return figures


def write(engine: Engine, groups: int) -> dict[str, float]:
    """Submit, claim and end groups of jobs with the indexes and without them, in turn; return jobs a second."""
    with engine.connect() as connection:
        kept = [connection.scalar(text(f"SELECT pg_get_indexdef('{name}'::regclass)")) for name in INDEXES]
    rates: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(6):
        way = "with" if turn % 2 == 0 else "without"
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE jobs CASCADE"))
            for name, definition in zip(INDEXES, kept, strict=True):
                connection.execute(text(f"DROP INDEX IF EXISTS {name}"))
                if way == "with":
                    connection.execute(text(definition))
        began = time.perf_counter()
        for _ in range(groups):
            group = [submission() for _ in range(50)]
            with engine.connect() as connection:
                submit(connection, group)
                end(connection, take(connection))
        rates[way].append(groups * 50 / (time.perf_counter() - began))
    return {way: statistics.median(each) for way, each in rates.items()}


def render(result: Result) -> str:
    postgres, sqlite, writes = result["pages"]["postgresql"], result["pages"]["sqlite"], result["writes"]
    share = 1 - writes["with"] / writes["without"]
    lines = [
        f"pages of 50 among {result['jobs']:,} jobs, p95 in milliseconds:",
        "",
        "| filter | PostgreSQL | SQLite |",
        "|---|---:|---:|",
        *(f"| {name} | {postgres[name]['p95']:.1f} | {sqlite[name]['p95']:.1f} |" for name in FILTERS),
        "",
        f"jobs submitted, claimed and ended: {writes['with']:,.0f}/s with the indexes of the list, "
        f"{writes['without']:,.0f}/s without: {share:.1%} less",
        str(result["machine"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
