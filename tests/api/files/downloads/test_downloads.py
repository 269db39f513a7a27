"""Downloads from within: ranges and Accept, pieces that are read while they are sent, Parquet that reads back."""

import asyncio
import csv
import io
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import Engine, update
from starlette.requests import Request

from api.files.downloads import outputs
from api.files.downloads import stream as downloads
from api.files.downloads.outputs import find_finished, open_csv
from api.files.downloads.parquet import Layout
from api.files.downloads.stream import Pieces, send_csv, send_parquet
from api.http.conditional import etag_matches, parse_range, preferred_type, resolve_range
from api.models.catalog import Version
from scripts.servers.postgres import Postgres
from shared.cards.card import Card
from shared.cards.validator import RowValidator
from shared.csv.format import CsvFormat
from shared.csv.output import ChunkScores, output_header, output_records
from shared.csv.packing import pack
from shared.database.engine import reader
from shared.errors import Conflict
from shared.faults import Fault
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.jobs.chunks.transitions import submit as submit_csv
from shared.jobs.queries.jobs import StoredJob, find_jobs
from shared.tables import JobChunk
from tests.support.csv_jobs import LONG_AGO, erase, write_output
from tests.support.databases import either_engine, empty, submission

CARD = Card.model_validate(
    {"name": "m", "version": 1, "task": "regression", "sha256": "0" * 64, "features": [{"name": "x", "type": "number"}]}
)
VERSION = Version(1, "0" * 64, CARD, RowValidator(CARD), {}, LONG_AGO)
FORM = CsvFormat(",", "utf-8", ".", ("id", "x"), "id")
HEADER = b"row_no,id,prediction,error\n"


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("header", "byte_range", "part"),
    [
        ("bytes=0-4", (0, 4), (0, 5)),
        ("bytes=2-", (2, None), (2, 10)),
        ("BYTES= 9-9 ", (9, 9), (9, 10)),
        ("bytes=-3", (None, 3), (7, 10)),
        ("bytes=-30", (None, 30), (0, 10)),
        ("bytes=4-99", (4, 99), (4, 10)),
        ("bytes=10-", (10, None), None),
        ("bytes=-0", (None, 0), None),
    ],
)
def test_range_is_settled_by_the_size_of_the_file(header, byte_range, part):
    assert parse_range(header, None, '"e"') == byte_range
    assert resolve_range(byte_range, 10) == part


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "items=0-1", "bytes=1x-", "bytes=" + "9" * 40],
)
def test_what_is_no_single_range_asks_for_the_whole_file(header):
    assert parse_range(header, None, '"e"') is None


def test_range_counts_only_for_the_file_that_if_range_means():
    assert parse_range("bytes=0-1", '"e"', '"e"') == (0, 1)
    for other in ('"f"', 'W/"e"', "Tue, 15 Nov 1994 12:45:26 GMT", ""):
        assert parse_range("bytes=0-1", other, '"e"') is None


def test_etag_is_compared_weakly():
    assert etag_matches('W/"e", "f"', '"e"')
    assert etag_matches("*", '"e"')
    assert not etag_matches('"f"', '"e"')
    assert not etag_matches(None, '"e"')


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "a/x"),
        ("a/*;q=0.2, b/y;q=0.3", "b/y"),
        ("a/x;q=0.3, */*;q=0.3", "a/x"),
        ("*/*;q=nonsense", None),
        ("a/x;q=2", None),
        ("b/*; charset=utf-8 ;q=1.000", "b/y"),
        (",;,", None),
    ],
)
def test_type_is_the_one_that_is_liked_best(accept, media_type):
    assert preferred_type(accept, ("a/x", "b/y")) == media_type


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with either_engine(request.param, "downloads", session_postgres, tmp_path_factory.mktemp("downloads")) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    empty(database)
    return database


LINES = {row: b"%d,a%d,%d.5,\n" % (row + 1, row, row) for row in range(4)}


def upload(engine: Engine, *, filename: str | None = "rows.csv", done: bool = True) -> str:
    """Store a file of four chunks of one row each, all scored or none."""
    packed = [PackedChunk(row, 1, pack(b"a%d,1.5\n" % row)) for row in range(4)]
    job = submission(rows=0, kind="csv", lane="bulk")
    with engine.begin() as connection:
        assert submit_csv(connection, job, CsvUpload(FORM, 4, 1000, filename), packed) is not None
    if done:
        write_output(engine, job.id, LINES)
    return job.id


def stored(engine: Engine, job_id: str) -> StoredJob:
    with reader(engine).connect() as connection:
        return find_jobs(connection, [job_id])[job_id]


def request(method: str = "GET", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": named, "path": "/", "query_string": b""})


class Caller:
    """An ASGI server's side of an answer: what was sent, and when the caller went away."""

    def __init__(self, *, leaves_after: int | None = None) -> None:
        self.bodies: list[bytes] = []
        self.status = 0
        self.complete = False
        self._leaves_after = leaves_after
        self._gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if message.get("body"):
            self.bodies.append(bytes(message["body"]))
        self.complete = not message.get("more_body")
        if len(self.bodies) == self._leaves_after:
            self._gone.set()
            await asyncio.sleep(0.05)

    async def take(self, answer: Any) -> bytes:
        scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET"}
        await asyncio.wait_for(answer(scope, self.receive, self.send), 10)
        return b"".join(self.bodies)


def test_file_is_read_one_chunk_at_a_time_and_only_where_it_is_asked_for(engine, monkeypatch):
    job, read = stored(engine, upload(engine)), []

    def watched(connection: Any, job_id: str, first_row: int, part: Any) -> bytes:
        read.append(first_row)
        return real(connection, job_id, first_row, part)

    real = outputs.read_chunk
    monkeypatch.setattr(outputs, "read_chunk", watched)

    async def main() -> None:
        whole = HEADER + b"".join(LINES.values())
        answer = await send_csv(request(), reader(engine), job, VERSION, "output", partial=False)
        assert await Caller().take(answer) == whole
        assert read == [0, 1, 2, 3]
        size = len(LINES[0])
        for header, rows in {
            f"bytes={len(HEADER) + size}-{len(HEADER) + 2 * size - 1}": [1],
            f"bytes={len(HEADER) + size - 1}-{len(HEADER) + size}": [0, 1],
            "bytes=0-5": [],
            "bytes=-1": [3],
        }.items():
            read.clear()
            answer = await send_csv(request(range=header), reader(engine), job, VERSION, "output", partial=False)
            start, stop = resolve_range(parse_range(header, None, "") or (0, 0), len(whole)) or (0, 0)
            assert await Caller().take(answer) == whole[start:stop]
            assert read == rows
        read.clear()
        for method, headers in (("HEAD", {}), ("GET", {"if_none_match": answer.headers["etag"]})):
            answer = await send_csv(request(method, **headers), reader(engine), job, VERSION, "output", partial=False)
            assert await Caller().take(answer) == b""
        assert read == []

    asyncio.run(main())


def test_caller_who_goes_away_stops_the_reading(engine):
    job, read = stored(engine, upload(engine)), []

    async def main() -> None:
        download = open_csv(reader(engine), job, VERSION, "output", partial=False)
        real = download.read
        download.read = lambda first_row: read.append(first_row) or real(first_row)
        caller = Caller(leaves_after=2)
        await caller.take(Pieces(downloads._read_pieces(download, 0, None)))
        assert not caller.complete
        assert read == [0]

    asyncio.run(main())


def test_download_is_cut_off_when_its_rows_change_meanwhile(engine, caplog, monkeypatch):
    monkeypatch.setattr(
        "api.files.downloads.stream.SECONDS_FOR_LENGTH", 30.0
    )  # a busy machine measures the pieces, too
    job_id = upload(engine)
    job = stored(engine, job_id)

    async def main() -> None:
        for content, change in (
            ("output", lambda: write_output(engine, job_id, {2: b"longer than before\n"})),
            ("joined", lambda: erase(engine, job_id)),
        ):
            caller = Caller()
            answer = await send_csv(request("HEAD"), reader(engine), job, VERSION, content, partial=False)
            assert "content-length" in answer.headers
            answer = await send_csv(request(), reader(engine), job, VERSION, content, partial=False)
            change()
            await caller.take(answer)
            assert caller.status == 200
            assert not caller.complete
            write_output(engine, job_id, LINES)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.text.count("a download was cut off (Changed)") == 2


def test_etag_changes_with_every_chunk_that_is_stored(engine):
    job_id = upload(engine, done=False)
    etags = []
    for row in (2, 0, 2):  # the last one again, as after a retry
        write_output(engine, job_id, {row: LINES[row]})
        download = open_csv(reader(engine), stored(engine, job_id), VERSION, "output", partial=True)
        etags.append(download.etag)
        assert download.rows_done == len(download.first_rows)
    assert len(set(etags)) == 3
    assert download.first_rows == [0, 2]


def test_rows_that_are_queued_again_are_not_given_with_what_they_were_before(engine):
    """A retry leaves a chunk's old lines in the table until the new ones replace them."""
    job_id = upload(engine)
    with engine.begin() as connection:
        connection.execute(
            update(JobChunk).where(JobChunk.job_id == job_id, JobChunk.first_row == 1).values({"state": "queued"})
        )
    job = stored(engine, job_id)
    assert [chunk.first_row for chunk in find_finished(reader(engine), job, partial=True)] == [0, 2, 3]
    with pytest.raises(Conflict, match="3 of 4 rows are done"):
        find_finished(reader(engine), job, partial=False)


def test_size_of_a_joined_file_is_kept_for_the_next_request(engine, monkeypatch):
    job, joined = stored(engine, upload(engine)), []
    monkeypatch.setattr(downloads, "SECONDS_FOR_LENGTH", -1.0)

    async def ask(method: str = "GET", **headers: str) -> tuple[Any, bytes]:
        answer = await send_csv(request(method, **headers), reader(engine), job, VERSION, "joined", partial=False)
        return answer, await Caller().take(answer)

    async def main() -> None:
        downloads._known_sizes.clear()
        answer, nothing = await ask("HEAD")
        assert (answer.status_code, nothing, "content-length" in answer.headers) == (200, b"", False)
        answer, whole = await ask()
        assert "content-length" not in answer.headers  # there was no time to find it
        assert whole.splitlines()[:2] == [b"row_no,id,x,prediction,error", b"1,a0,1.5,0.5,"]
        joined.append(whole)
        answer, again = await ask()
        assert (answer.headers["content-length"], again) == (str(len(whole)), whole)
        answer, part = await ask(range="bytes=30-39")
        assert (answer.status_code, part) == (206, whole[30:40])
        downloads._known_sizes.clear()
        answer, part = await ask(range="bytes=-4")
        assert (answer.status_code, part) == (206, whole[-4:])
        assert answer.headers["content-range"].endswith(f"/{len(whole)}")
        downloads._known_sizes.clear()
        monkeypatch.setattr(downloads, "SECONDS_FOR_RANGE", -1.0)
        answer, again = await ask(range="bytes=-4")
        assert (answer.status_code, again) == (200, whole)  # a range may be refused by sending everything
        for number in range(100):
            downloads._sizes_of(str(number))
        assert len(downloads._known_sizes) == downloads.FILES_WITH_SIZES

    asyncio.run(main())


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        (None, None),
        ("rows.csv", "rows-output.csv"),
        ("rows.CSV.gz", "rows-output.csv"),
        ("C:\\Data\\mes lignes.txt", "mes lignes-output.csv"),
        ("../../etc/passwd", "passwd-output.csv"),
        ('a"b\r\nX: y.csv', 'a"bX: y-output.csv'),
        ("/", None),
        ("x" * 500, "x" * 100 + "-output.csv"),
    ],
)
def test_download_is_named_after_the_file_that_was_sent(engine, filename, name):
    job_id = upload(engine, filename=filename)
    download = open_csv(reader(engine), stored(engine, job_id), VERSION, "output", partial=False)
    assert download.name == (name or f"{job_id}-output.csv")
    disposition = downloads._headers(download.name, '"e"', 0)["Content-Disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    assert disposition.count('"') == 2


def test_files_of_many_callers_are_read_by_few_threads_and_leave_no_connection_open(engine):
    job = stored(engine, upload(engine))

    async def main() -> None:
        async def load() -> bytes:
            return await Caller().take(await send_csv(request(), reader(engine), job, VERSION, "output", partial=False))

        assert len(set(await asyncio.gather(*(load() for _ in range(50))))) == 1

    asyncio.run(main())
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────────────────────

LABELS = {"7": "red", "8": "=a;b", "-9": 'gr"een', "10": "-1", "@": "@\nx", "12": "'@\nx"}
NOTES = ["=1+1", "'=1+1", "", "a\r\nb", "é€", "x" * 5000]
CHANCES = [[0.1 + 0.2, 1e-300, 5e-324, 1 / 3, 1.7976931348623157e308 % 1, 0.0]] * 6


@pytest.mark.parametrize(("delimiter", "decimal"), [(",", "."), (";", ","), ("\t", ","), (",", ",")])
def test_parquet_reads_back_exactly(delimiter, decimal):
    card = Card.model_validate(
        {
            "name": "m",
            "version": 1,
            "task": "multiclass",
            "sha256": "0" * 64,
            "labels": LABELS,
            "features": [{"name": "x", "type": "string"}],
        }
    )
    form = CsvFormat(delimiter, "utf-8", decimal, ("note", "x", "label"), None)
    names = list(LABELS.values())
    best = [0.1 * place for place in range(6)]
    answers = ChunkScores([0, 1, 2, 3, 4, 5], [float(place) for place in range(6)], names, best, CHANCES)
    output = output_records(card, form, [NOTES, ["l"] * 6], answers, {}, first_row=10, row_count=6)
    faulty = {0: [Fault("/x", "missing", "is missing; =send it")]}
    nothing = ChunkScores([], [], [], [], None)
    output += output_records(card, form, [["n"], ["m"]], nothing, faulty, first_row=16, row_count=1)
    csv_text = io.StringIO()
    writer = csv.writer(csv_text, delimiter=delimiter)
    writer.writerows([[note, '"v"', "l"] for note in NOTES] + [["n"]])
    for join in (False, True):
        table = Layout(card, form, join=join).read(csv_text.getvalue().encode(), output)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        assert columns["row_no"] == list(range(11, 18))
        assert columns["note"] == [*NOTES, "n"]
        assert columns["input_label"] == ["l"] * 6 + [""]
        assert columns["prediction"] == ["7", "8", "-9", "10", "@", "12", None]
        assert columns["label"] == [*names, None]
        assert columns["probability"] == [*best, None]
        for place, label in enumerate(names):
            assert columns[f"probability_{label}"] == [row[place] for row in CHANCES] + [None]
        assert columns["error"] == [None] * 6 + ["x is missing; =send it"]
        assert columns.get("x") == (['"v"'] * 6 + [""] if join else None)
    [header] = csv.reader(io.StringIO(output_header(card, form).decode(), newline=""), delimiter=delimiter)
    assert Layout(card, form, join=False).schema.names == header


def test_parquet_comes_in_pieces_and_is_cut_off_when_its_rows_are_gone(engine, monkeypatch):
    monkeypatch.setattr("api.files.downloads.parquet.GROUP_ROWS", 2)
    job_id = upload(engine)
    job = stored(engine, job_id)

    async def main() -> None:
        caller = Caller()
        answer = await send_parquet(request(), reader(engine), job, VERSION, join=False, partial=False)
        content = await caller.take(answer)
        assert caller.complete
        assert len(caller.bodies) == 3  # two groups and the footer
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        assert file.num_row_groups == 2
        assert file.read().to_pydict() == {
            "row_no": [1, 2, 3, 4],
            "id": ["a0", "a1", "a2", "a3"],
            "prediction": [0.5, 1.5, 2.5, 3.5],
            "error": [None] * 4,
        }
        head = await send_parquet(request("HEAD"), reader(engine), job, VERSION, join=False, partial=False)
        assert await Caller().take(head) == b""
        caller = Caller()
        answer = await send_parquet(request(), reader(engine), job, VERSION, join=False, partial=False)
        erase(engine, job_id)
        await caller.take(answer)
        assert not caller.complete

    asyncio.run(main())


def test_parquet_of_no_rows_has_the_columns(engine):
    job = stored(engine, upload(engine, done=False))

    async def main() -> None:
        answer = await send_parquet(request(), reader(engine), job, VERSION, join=True, partial=True)
        table = pyarrow.parquet.read_table(io.BytesIO(await Caller().take(answer)))
        assert (table.num_rows, table.column_names) == (0, ["row_no", "id", "x", "prediction", "error"])

    asyncio.run(main())
