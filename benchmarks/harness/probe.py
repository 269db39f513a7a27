"""Submit to stored result at low load: one row at a time, timed until another connection can read its outcome.

    python -m benchmarks.harness.probe http://127.0.0.1:8000/jobs bodies.jsonl DATABASE_URL --count 100

The clock runs from the first byte sent until a SELECT of a separate database connection finds the job succeeded, so
it counts HTTP, both commits and every wake-up between them. The SELECT repeats every 0.3 ms: that is the resolution.
Prints one JSON object.
"""

import argparse
import json
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
from sqlalchemy import make_url

from benchmarks.harness.load import answer_end, build_requests, quantile

PAUSE = 0.02  # seconds between two jobs: every one finds the service idle
EVERY = 0.0003
PATIENCE = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("bodies", type=Path, help="one JSON request body a line")
    parser.add_argument("database", help="SQLAlchemy URL of the database with the table `jobs`")
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    parts = urlsplit(args.url)
    requests = build_requests(args.url, args.bodies.read_bytes().splitlines())
    submits, results = [], []
    with connect(args.database) as database, socket.create_connection((parts.hostname, parts.port)) as http:
        http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        database.autocommit = True
        cursor = database.cursor()
        cursor.execute("PREPARE state (uuid) AS SELECT state FROM jobs WHERE id = $1")
        for number in range(args.count):
            time.sleep(PAUSE)
            started = time.perf_counter()
            http.sendall(requests[number % len(requests)])
            job_id = json.loads(read_body(http))["id"]
            submits.append(time.perf_counter() - started)
            wait_for(cursor, job_id, deadline=started + PATIENCE)
            results.append(time.perf_counter() - started)
    print(
        json.dumps(
            {
                "count": args.count,
                "submit_p50_ms": quantile(submits, 0.5) * 1e3,
                "submit_p99_ms": quantile(submits, 0.99) * 1e3,
                "result_p50_ms": quantile(results, 0.5) * 1e3,
                "result_p99_ms": quantile(results, 0.99) * 1e3,
            }
        )
    )


def connect(url: str) -> "psycopg2.extensions.connection":
    """Return a psycopg2 connection to the database that a SQLAlchemy URL names."""
    parsed = make_url(url)
    return psycopg2.connect(user=parsed.username, dbname=parsed.database, host=parsed.query.get("host") or parsed.host)


def read_body(http: socket.socket) -> bytes:
    """Read one answer and return its body."""
    received = b""
    while (end := answer_end(received)) == 0 or len(received) < end:
        piece = http.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        received += piece
    return received.partition(b"\r\n\r\n")[2]


def wait_for(cursor: "psycopg2.extensions.cursor", job_id: str, *, deadline: float) -> None:
    """Return when the job has succeeded."""
    while True:
        cursor.execute("EXECUTE state (%s)", (job_id,))
        row = cursor.fetchone()
        if row is not None and row[0] == "succeeded":
            return
        if time.perf_counter() > deadline:
            raise TimeoutError(f"job {job_id} is {row and row[0]} after {PATIENCE:.0f} s")
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
