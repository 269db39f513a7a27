"""Who waits for a job hears of its end: from Redis at once, and by polling when Redis is silent."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from fakeredis import FakeRedis, FakeServer
from redis import Redis
from sqlalchemy import Engine

from api.runtimes.queue.completions import Completions
from scripts.servers.postgres import Postgres
from shared.broker.app import DONE_CHANNEL
from shared.database.engine import dumps
from tests.support.databases import FAULT, empty, end, postgres_engine, queue, refusing_redis, take


@pytest.fixture(scope="module")
def database(session_postgres: Postgres) -> Iterator[Engine]:
    with postgres_engine(session_postgres, "waiting") as engine:
        yield engine


@pytest.fixture
def redis() -> Iterator[Redis]:
    with FakeRedis(server=FakeServer()) as client:
        yield client


@asynccontextmanager
async def started(database: Engine, redis: Redis, *, poll: float = 30.0) -> AsyncIterator[Completions]:
    empty(database)
    waiting = Completions(database, redis, poll_seconds=poll)
    waiting.start()
    await asyncio.sleep(0.1)  # until it listens
    try:
        yield waiting
    finally:
        stopping = asyncio.create_task(asyncio.to_thread(waiting.stop))
        while not waiting._thread.is_stopping:
            await asyncio.sleep(0.01)
        if isinstance(redis, FakeRedis):
            redis.publish(DONE_CHANNEL, "[]")  # so that it looks up from its long wait
        await stopping
        assert not waiting._thread.is_alive()


def add_job(database: Engine) -> str:
    with database.connect() as connection:
        return queue(connection)


def end_job(database: Engine, *, fault: bool = False) -> None:
    from shared.jobs.transitions import finish

    with database.connect() as connection:
        claims = take(connection)
        if fault:
            finish(connection, claims, [[FAULT]] * len(claims), model_version_id=1)
        else:
            end(connection, claims)


def test_waiter_is_woken_by_the_workers_message(database, redis):
    async def main() -> None:
        async with started(database, redis) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 5))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(end_job, database)
            began = time.monotonic()
            redis.publish(DONE_CHANNEL, dumps([job_id, "01a1fc40-9c2f-72bf-9c03-7a7b8c0a727d"]))
            job = await waiter
            assert time.monotonic() - began < 1
            assert job is not None
            assert (job.id, job.state) == (job_id, "succeeded")
            assert job.output is not None

    asyncio.run(main())


def test_waiter_learns_of_a_failed_job_as_well(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.05) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 5))
            await asyncio.to_thread(end_job, database, fault=True)
            job = await waiter
            assert job is not None
            assert (job.state, job.error["code"]) == ("failed", "model_failed")

    asyncio.run(main())


def test_everyone_who_waits_for_a_job_is_woken(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.05) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiters = [asyncio.create_task(waiting.wait(job_id, 5)) for _ in range(5)]
            await asyncio.to_thread(end_job, database)
            assert [job.state for job in await asyncio.gather(*waiters) if job] == ["succeeded"] * 5
            assert waiting._waiters == {}

    asyncio.run(main())


def test_end_that_was_not_announced_is_found_by_polling(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.1) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 5))
            await asyncio.to_thread(end_job, database)
            job = await waiter
            assert job is not None

    asyncio.run(main())


def test_job_that_ended_before_the_wait_is_found(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.1) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            await asyncio.to_thread(end_job, database)
            assert await waiting.wait(job_id, 5) is not None

    asyncio.run(main())


def test_waiters_are_woken_by_polling_while_redis_is_gone(database):
    async def main() -> None:
        refusing = refusing_redis()
        async with started(database, refusing, poll=0.1) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 5))
            await asyncio.to_thread(end_job, database)
            began = time.monotonic()
            assert await waiter is not None
            assert time.monotonic() - began < 1
        refusing.close()

    asyncio.run(main())


def test_wait_that_is_over_gives_nothing_and_leaves_nothing_behind(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.05) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            began = time.monotonic()
            assert await waiting.wait(job_id, 0.2) is None
            assert 0.15 < time.monotonic() - began < 1
            assert waiting._waiters == {}

    asyncio.run(main())


def test_waiter_that_hangs_up_leaves_nothing_behind(database, redis):
    async def main() -> None:
        async with started(database, redis, poll=0.05) as waiting:
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 5))
            other = asyncio.create_task(waiting.wait(job_id, 5))
            await asyncio.sleep(0.05)
            waiter.cancel()
            assert await waiter is None  # the server shuts down: its caller is told where to poll
            await asyncio.to_thread(end_job, database)
            assert await other is not None
            assert waiting._waiters == {}

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("message", ["not json", "17", "{}"])
def test_strange_message_does_not_end_the_thread(database, redis, message):
    """A thread that ends would leave every later waiter to the end of its wait."""

    async def main() -> None:
        async with started(database, redis, poll=0.3) as waiting:
            redis.publish(DONE_CHANNEL, message)
            await asyncio.sleep(0.05)
            job_id = await asyncio.to_thread(add_job, database)
            waiter = asyncio.create_task(waiting.wait(job_id, 1.5))
            await asyncio.to_thread(end_job, database)
            assert await waiter is not None

    asyncio.run(main())
