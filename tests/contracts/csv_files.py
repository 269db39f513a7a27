"""What the tests of uploads share: what is stored of a file, what is left of one, uploads that stop halfway."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import Engine, func, select
from sqlalchemy.engine import RowMapping

from shared.database.engine import reader
from shared.jobs.queries.files import list_chunks, read_chunk
from shared.tables import CsvFile, Job, JobChunk, JobEvent, Table
from tests.contracts.helpers import JOB_ID
from tests.support.stack import Stack

CSV = {"Content-Type": "text/csv"}


def post_csv(client: httpx2.Client, content: Any, path: str = "/predict_csv", **params: Any) -> httpx2.Response:
    """Send a file as the body itself."""
    return client.post(path, content=content, headers=CSV, params=params)


def post_form(
    client: httpx2.Client, content: bytes, filename: str | None = "rows.csv", **params: Any
) -> httpx2.Response:
    """Send a file as a form."""
    return client.post("/predict_csv", files={"file": (filename, content)}, params=params)


def check_taken(answer: httpx2.Response) -> dict[str, Any]:
    """Check that an answer is 202 with a CSV job, where to find it and when to ask; return the job."""
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert JOB_ID.fullmatch(job["id"])
    assert job["kind"] == "csv"
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    return job


def everything(engine: Engine) -> tuple[int, ...]:
    """Return how many jobs, files and chunks are stored; nobody but a submission adds any of them."""
    tables: tuple[type[Table], ...] = (Job, CsvFile, JobChunk)
    with reader(engine).connect() as connection:
        return tuple(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def stored_file(engine: Engine, job_id: str) -> RowMapping:
    """Return the file of a job as it is stored."""
    with reader(engine).connect() as connection:
        return connection.execute(select(CsvFile.__table__).where(CsvFile.job_id == job_id)).mappings().one()


def stored_records(engine: Engine, job_id: str) -> list[bytes]:
    """Return the records in each chunk of a job; check that its chunks follow each other."""
    with reader(engine).connect() as connection:
        places = list_chunks(connection, job_id)
        row = 0
        for place in places:
            assert place.first_row == row
            row += place.row_count
        assert row == connection.scalar(select(Job.row_count).where(Job.id == job_id))
        return [read_chunk(connection, job_id, place.first_row, "payload") for place in places]


def first_event(engine: Engine, job_id: str) -> RowMapping:
    """Return what followers of a job are told first."""
    with reader(engine).connect() as connection:
        query = select(JobEvent.__table__).where(JobEvent.job_id == job_id).order_by(JobEvent.seq).limit(1)
        return connection.execute(query).mappings().one()


def spooled_files(stack: Stack) -> list[str]:
    """Return the files without a name that the API holds open."""
    paths = []
    for entry in Path(f"/proc/{stack.processes['api'].pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # it was closed meanwhile
            continue
        if target.endswith("(deleted)"):
            paths.append(target)
    return paths


@contextmanager
def started(stack: Stack, content: bytes, *headers: str, length: int | None = None) -> Iterator[socket.socket]:
    """Send the head of a request and the beginning of its body, and keep the connection open."""
    size = f"Content-Length: {length if length is not None else 2 * len(content)}"
    if any(header.startswith("Transfer-Encoding") for header in headers):
        size = "Accept: */*"
    lines = ["POST /predict_csv HTTP/1.1", f"Host: 127.0.0.1:{stack.port}", "Content-Type: text/csv", size, *headers]
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        yield connection


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of the answer on a connection."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.recv(65_536)
        assert received, answer
        answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))[15:])
    while len(body) < length:
        body += connection.recv(65_536)
    return int(head.split()[1]), body
