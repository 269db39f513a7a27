"""CSV jobs for the tests: files from example rows, and jobs whose chunks wait until they are let go."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2
from sqlalchemy import Engine, delete, select, update
from uuid_utils import uuid7

from shared.csv.format import CsvFormat
from shared.csv.packing import pack
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.jobs.submission import Submission
from shared.tables import CsvFile, Job, JobChunk, ModelVersion

SOME_DAY = datetime(2100, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def records(rows: Sequence[dict[str, Any]], delimiter: str = ",", decimal: str = ".") -> str:
    """Return rows as CSV without a header."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    for row in rows:
        writer.writerow(
            [
                "" if value is None else str(value).replace(".", decimal) if isinstance(value, float) else value
                for value in row.values()
            ]
        )
    return text.getvalue()


def header(row: dict[str, Any], delimiter: str = ",") -> str:
    """Return the first line of a file with such rows."""
    return records([{name: name for name in row}], delimiter)


def file_of(rows: Sequence[dict[str, Any]], delimiter: str = ",", decimal: str = ".") -> bytes:
    """Return rows as a CSV file."""
    return (header(rows[0], delimiter) + records(rows, delimiter, decimal)).encode()


def read_csv(content: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the lines of a CSV file by column."""
    text = content.decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def send(client: httpx2.Client, content: bytes, **params: Any) -> str:
    """Send a file; return the id of its job."""
    answer = client.post("/predict_csv", content=content, params=params, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def wake(client: httpx2.Client, row: dict[str, Any]) -> None:
    """Have the service look for chunks at once."""
    send(client, file_of([row]))


def form_of(row: dict[str, Any], id_column: str | None = None) -> CsvFormat:
    """Return how files of such rows are written."""
    return CsvFormat(",", "utf-8", ".", tuple(row), id_column)


def put_file(
    engine: Engine,
    parts: Sequence[Sequence[dict[str, Any]]],
    *,
    model: str = "attrition",
    held: bool = True,
    id_column: str | None = None,
    max_error_rate: float | None = None,
    **changes: Any,
) -> str:
    """Store a CSV job with one chunk for each part; `held` chunks are not claimed before they are let go."""
    packed, first_row = [], 0
    for part in parts:
        packed.append(PackedChunk(first_row, len(part), pack(records(part).encode())))
        first_row += len(part)
    with engine.begin() as connection:
        versions = select(ModelVersion.id).where(ModelVersion.name == model).order_by(ModelVersion.version.desc())
        options: dict[str, Any] = {
            "id": str(uuid7()),
            "kind": "csv",
            "lane": "bulk",
            "model_version_id": connection.scalar(versions),
            "request_id": "request-1",
            "rows": [],
            "faults": [],
            "timeout_seconds": 30.0,
            "max_attempts": 3,
        }
        job = Submission(**options | changes)
        file = CsvUpload(form_of(parts[0][0], id_column), first_row, 1000, "rows.csv", max_error_rate)
        assert chunks.submit(connection, job, file, packed) is not None
        if held:
            connection.execute(update(JobChunk).where(JobChunk.job_id == job.id).values(run_after=SOME_DAY))
    return job.id


def let_go(engine: Engine, job_id: str, first_row: int | None = None) -> None:
    """Let a held chunk be claimed, or all of a job."""
    waiting = update(JobChunk).where(JobChunk.job_id == job_id).values(run_after=LONG_AGO)
    with engine.begin() as connection:
        connection.execute(waiting if first_row is None else waiting.where(JobChunk.first_row == first_row))


def write_output(engine: Engine, job_id: str, outputs: dict[int, bytes], *, state: str = "done") -> None:
    """Give chunks these lines of output.csv as if they had been scored; nothing else changes but the counts."""
    with engine.begin() as connection:
        for first_row, output in outputs.items():
            connection.execute(
                update(JobChunk)
                .where(JobChunk.job_id == job_id, JobChunk.first_row == first_row)
                .values(
                    {"state": state, "output": pack(output), "output_bytes": len(output)}
                    | {"errors": pack(b""), "errors_bytes": 0}
                )
            )
        connection.execute(update(CsvFile).where(CsvFile.job_id == job_id).values(event_count=CsvFile.event_count + 1))


def erase(engine: Engine, job_id: str) -> None:
    """Delete a job with all that belongs to it."""
    with engine.begin() as connection:
        connection.execute(delete(Job).where(Job.id == job_id))
