"""Who follows a job hears of every change in order, holds nothing while nothing happens, and leaves nothing behind."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from api.jobs.queries import events as event_stream
from api.runtimes.followers import Change, JobFollowers, on_shutdown
from scripts.servers.postgres import Postgres
from shared.csv.format import CsvFormat
from shared.csv.packing import pack
from shared.database.engine import reader
from shared.errors import Unavailable
from shared.jobs import transitions as jobs
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import CsvUpload, PackedChunk
from shared.jobs.queries.events import last_event, read_events
from shared.jobs.queries.jobs import StoredJob, find_jobs
from tests.support.csv_jobs import erase
from tests.support.databases import either_engine, empty, submission
from tests.support.databases import queue as queue_job

FORMAT = CsvFormat(",", "utf-8", ".", ("x",), None)


@pytest.fixture(scope="module", params=["postgresql", "sqlite"])
def database(
    request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with either_engine(request.param, "following", session_postgres, tmp_path_factory.mktemp("following")) as engine:
        yield engine


@pytest.fixture
def engine(database: Engine) -> Engine:
    empty(database)
    return database


def upload(engine: Engine) -> str:
    """Submit a file; its log begins with `accepted`."""
    job = submission(rows=0, kind="csv", lane="bulk")
    with engine.begin() as connection:
        assert chunks.submit(connection, job, CsvUpload(FORMAT, 1, 10), [PackedChunk(0, 1, pack(b"1\n"))]) is not None
    return job.id


def tell(engine: Engine, job_id: str, kind: str = "progress") -> None:
    """Let something happen to a file."""
    with engine.begin() as connection:
        chunks.add_event(connection, job_id, kind)


def end(engine: Engine, job_id: str) -> None:
    with engine.begin() as connection:
        assert chunks.cancel(connection, job_id) == "canceled"


def again(engine: Engine, job_id: str) -> None:
    with engine.begin() as connection:
        assert chunks.reopen(connection, job_id)


def stored(engine: Engine, job_id: str) -> StoredJob:
    with reader(engine).connect() as connection:
        return find_jobs(connection, [job_id])[job_id]


@asynccontextmanager
async def started(engine: Engine, **options: Any) -> AsyncIterator[JobFollowers]:
    following = JobFollowers(reader(engine), **{"poll_seconds": 0.02} | options)
    following.start()
    try:
        yield following
    finally:
        following.close()
        await asyncio.to_thread(following.stop)
    assert not following._thread.is_alive()
    async with asyncio.timeout(5):
        while following._followers:
            await asyncio.sleep(0.01)


class Reader:
    """One stream of events, read by a task."""

    def __init__(self, engine: Engine, following: JobFollowers, job_id: str, after: int = 0) -> None:
        services: Any = SimpleNamespace(reader=reader(engine))
        self.pieces: list[bytes] = []
        self._stream = event_stream.stream_events(services, following, job_id, after)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for piece in self._stream:
            self.pieces.append(piece)

    @property
    def events(self) -> list[str]:
        """Numbers and types of what was told, e.g. `1 accepted`; `.` for a heartbeat."""
        lines = [piece.decode().split("\n") for piece in self.pieces[1:]]
        return ["." if line[0].startswith(":") else f"{line[0][4:]} {line[1][7:]}" for line in lines]

    async def wait_for(self, count: int) -> list[str]:
        async with asyncio.timeout(5):
            while len([line for line in self.events if line != "."]) < count:
                await asyncio.sleep(0.01)
        return self.events

    async def end(self) -> list[str]:
        await asyncio.wait_for(self.task, 5)
        return self.events


def in_thread(call: Callable[..., Any], *args: Any) -> Any:
    return asyncio.to_thread(call, *args)


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_followers_of_one_job_are_told_the_same_in_order(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            readers = [Reader(engine, following, job_id) for _ in range(5)]
            for one in readers:
                assert await one.wait_for(1) == ["1 accepted"]
                assert one.pieces[0] == b"retry: 1000\n\n"
            for _ in range(3):
                await in_thread(tell, engine, job_id)
            late = Reader(engine, following, job_id, 2)
            await in_thread(end, engine, job_id)
            whole = ["1 accepted", "2 progress", "3 progress", "4 progress", "5 finished"]
            for one in readers:
                assert await one.end() == whole
            assert await late.end() == whole[2:]

    asyncio.run(main())


def test_events_that_come_in_a_burst_are_all_told(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            one = Reader(engine, following, job_id)
            for _ in range(40):
                await in_thread(tell, engine, job_id)
                await asyncio.sleep(0.004)
            await in_thread(end, engine, job_id)
            events = await one.end()
            assert [line.split()[0] for line in events] == [str(number) for number in range(1, 43)]

    asyncio.run(main())


def test_slow_reader_misses_nothing(engine):
    """While its caller takes nothing, only the newest change is kept for it; the rest is read again."""

    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            stream = event_stream.stream_events(SimpleNamespace(reader=reader(engine)), following, job_id, 0)
            assert await anext(stream) == b"retry: 1000\n\n"
            assert (await anext(stream)).startswith(b"id: 1\n")
            for _ in range(5):
                await in_thread(tell, engine, job_id)
                await asyncio.sleep(0.05)
            await in_thread(end, engine, job_id)
            await asyncio.sleep(0.1)
            assert [piece.split(b"\n")[0] async for piece in stream] == [b"id: %d" % number for number in range(2, 8)]

    asyncio.run(main())


def test_heartbeat_comes_when_nothing_happens(engine, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.1)

    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            one = Reader(engine, following, job_id)
            await asyncio.sleep(0.45)
            assert one.events[:3] == ["1 accepted", ".", "."]
            assert b": keep-alive\n\n" in one.pieces
            await in_thread(end, engine, job_id)
            assert (await one.end())[-1] == "2 finished"

    asyncio.run(main())


def test_first_end_is_not_the_end_of_a_job_that_was_taken_up_again(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            await in_thread(end, engine, job_id)
            assert await Reader(engine, following, job_id).end() == ["1 accepted", "2 finished"]
            await in_thread(again, engine, job_id)
            readers = [Reader(engine, following, job_id), Reader(engine, following, job_id, 2)]
            assert await readers[0].wait_for(3) == ["1 accepted", "2 finished", "3 accepted"]
            assert not readers[0].task.done()
            await in_thread(end, engine, job_id)
            assert (await readers[0].end())[2:] == await readers[1].end() == ["3 accepted", "4 finished"]

    asyncio.run(main())


def test_reader_who_hangs_up_leaves_nothing_behind(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            one, other = Reader(engine, following, job_id), Reader(engine, following, job_id)
            await one.wait_for(1)
            await other.wait_for(1)
            one.task.cancel()
            with suppress(asyncio.CancelledError):
                await one.task
            assert len(following._followers[job_id]) == 1
            await in_thread(end, engine, job_id)
            await other.end()
            assert following._followers == {}

    asyncio.run(main())


def test_stream_ends_when_its_job_is_erased(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            one = Reader(engine, following, job_id)
            await one.wait_for(1)
            await in_thread(erase, engine, job_id)
            assert await one.end() == ["1 accepted"]
            assert await Reader(engine, following, job_id).end() == []

    asyncio.run(main())


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # the sync runtime queues no rows
def test_job_of_one_row_is_told_by_its_row(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(add_row, engine)
            one = Reader(engine, following, job_id)
            assert await one.wait_for(1) == ["1 accepted"]
            await in_thread(cancel_row, engine, job_id)
            assert await one.end() == ["1 accepted", "3 finished"]

    asyncio.run(main())


def add_row(engine: Engine) -> str:
    with engine.begin() as connection:
        return queue_job(connection)


def cancel_row(engine: Engine, job_id: str) -> None:
    with engine.begin() as connection:
        assert jobs.cancel(connection, job_id) == "canceled"


# ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_is_looked_for_while_nobody_follows(engine):
    queries = []

    async def main() -> None:
        async with started(engine) as following:
            await asyncio.sleep(0.2)
            assert queries == []
            job_id = await in_thread(upload, engine)
            with following.follow(job_id) as follower:
                change = await follower.next_change(5)
                assert change is not None
            await asyncio.sleep(0.1)
            queries.clear()
            await asyncio.sleep(0.2)
            assert queries == []

    def note(*_: Any) -> None:
        if threading.current_thread().name == "following":
            queries.append(1)

    event.listen(engine, "before_cursor_execute", note)
    try:
        asyncio.run(main())
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_all_jobs_are_looked_for_in_one_statement(engine):
    queries: list[str] = []

    async def main() -> None:
        async with started(engine) as following:
            ids = [await in_thread(upload, engine) for _ in range(30)]
            readers = [Reader(engine, following, job_id) for job_id in ids for _ in range(3)]
            for one in readers:
                await one.wait_for(1)
            await asyncio.sleep(0.2)
            queries.clear()
            while len(queries) < 5:
                await asyncio.sleep(0.01)
            assert {statement.count("FROM jobs LEFT OUTER JOIN csv_files") for statement in queries} == {1}
            assert engine.pool.checkedout() <= 1  # type: ignore[attr-defined]

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            queries.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        asyncio.run(main())
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_thread_outlives_a_database_that_does_not_answer(engine, monkeypatch):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            one = Reader(engine, following, job_id)
            await one.wait_for(1)
            real, failures = following._look, []

            def fail(job_ids: list[str]) -> dict[str, Change]:
                failures.append(1)
                raise OperationalError("", {}, Exception("gone"))

            async def fail_again() -> None:
                """Wait for a look that fails, and for the end of the one that may be under way."""
                before = len(failures)
                while len(failures) < before + 2:
                    await asyncio.sleep(0.01)

            monkeypatch.setattr(following, "_look", fail)
            await fail_again()
            await in_thread(tell, engine, job_id)
            await fail_again()
            assert one.events == ["1 accepted"]
            monkeypatch.setattr(following, "_look", real)
            assert await one.wait_for(2) == ["1 accepted", "2 progress"]
            await in_thread(end, engine, job_id)
            await one.end()

    asyncio.run(main())


def test_stream_breaks_off_when_its_own_reading_fails(engine, monkeypatch, caplog):
    def fail(*_: Any) -> None:
        raise OperationalError("", {}, Exception("gone"))

    monkeypatch.setattr(event_stream, "_read", fail)

    async def main() -> None:
        async with started(engine) as following:
            assert await Reader(engine, following, await in_thread(upload, engine)).end() == []

    asyncio.run(main())
    assert "broke off (OperationalError)" in caplog.text


def test_waiter_is_told_of_the_end_even_if_it_came_before(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            with following.follow(job_id):  # somebody else, who was told everything already
                await asyncio.sleep(0.1)
                waiter = asyncio.create_task(following.wait_for_end(job_id, 5))
                await asyncio.sleep(0.1)
                assert not waiter.done()
                await in_thread(end, engine, job_id)
                ended = await waiter
                assert ended is not None
                assert ended.state == "canceled"
                await asyncio.sleep(0.1)
                began = time.monotonic()
                assert await following.wait_for_end(job_id, 5) is not None
                assert time.monotonic() - began < 1

    asyncio.run(main())


def test_wait_that_is_over_gives_nothing(engine):
    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            began = time.monotonic()
            assert await following.wait_for_end(job_id, 0.2) is None
            assert 0.15 < time.monotonic() - began < 2
            waiter = asyncio.create_task(following.wait_for_end(job_id, 5))
            await asyncio.sleep(0.05)
            following.close()
            assert await asyncio.wait_for(waiter, 1) is None

    asyncio.run(main())


def test_process_takes_so_many_followers_and_no_more(engine):
    async def main() -> None:
        async with started(engine, max_followers=2) as following:
            with following.follow("a"), following.follow("b"), pytest.raises(Unavailable):
                following.check_room()
            following.check_room()
            following.close()
            with pytest.raises(Unavailable):
                following.check_room()

    asyncio.run(main())


def test_every_stream_ends_when_the_process_is_on_shutdown(engine):
    before: list[int] = []

    async def main() -> None:
        async with started(engine) as following:
            job_id = await in_thread(upload, engine)
            own = signal.signal(signal.SIGTERM, lambda number, _: before.append(number))
            try:
                theirs = signal.getsignal(signal.SIGTERM)
                with on_shutdown(following.close):
                    readers = [Reader(engine, following, job_id) for _ in range(3)]
                    for one in readers:
                        await one.wait_for(1)
                    signal.raise_signal(signal.SIGTERM)
                    for one in readers:
                        assert await one.end() == ["1 accepted"]
                assert signal.getsignal(signal.SIGTERM) is theirs
            finally:
                signal.signal(signal.SIGTERM, own)

    asyncio.run(main())
    assert before == [signal.SIGTERM]  # what the server does at this signal, it does


# ── events of a row ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)  # the sync runtime queues no rows
def test_events_of_a_row_have_numbers_of_their_own(engine):
    job = stored(engine, add_row(engine))
    with engine.connect() as connection:
        [accepted] = read_events(connection, job, after=0)
        assert (accepted.seq, accepted.type, last_event(job)) == (1, "accepted", 1)
        assert accepted.data == {
            "status": "queued",
            "counts": {"total": 1, "succeeded": 0, "failed": 0, "pending": 1},
            "progress": {
                "rows_done": 0,
                "rows_per_second": None,
                "eta_seconds": None,
                "chunks_done": 0,
                "chunks_total": 1,
            },
        }
        job.state, job.started_at = "failed", job.created_at
        job.finished_at = job.created_at
        events = read_events(connection, job, after=1)
    assert [(one.seq, one.type, one.data["status"]) for one in events] == [
        (2, "started", "running"),
        (3, "finished", "failed"),
    ]
    assert events[1].data["counts"] == {"total": 1, "succeeded": 0, "failed": 1, "pending": 0}
    assert events[1].data["progress"]["chunks_done"] == 1
