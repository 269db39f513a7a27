"""Group commit: groups grow while one commits, and everyone gets an answer of their own."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.exc import OperationalError

import api.runtimes.group_commit
from api.runtimes.group_commit import Accepted, Intake
from shared.errors import Conflict, GuichetError, Unavailable
from shared.jobs.submission import Submission
from tests.support.databases import submission


class Commits:
    """A database that commits when it is allowed to, and notes the groups."""

    def __init__(self, *, free: bool = True) -> None:
        self.groups: list[list[str]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.entered = threading.Event()
        if free:
            self.gate.set()
        self.answer: Callable[[Submission], Accepted | GuichetError] = lambda job: Accepted(None, job.id)
        self.error: Exception | None = None

    def __call__(self, group: Sequence[Submission]) -> list[Accepted | GuichetError]:
        self.groups.append([job.id for job in group])
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.gate.wait(5)
        if self.error is not None:
            raise self.error
        return [self.answer(job) for job in group]


@asynccontextmanager
async def started(commits: Commits, *, max_group: int = 256, max_waiting: int = 1000) -> AsyncIterator[Intake]:
    intake = Intake(commits, max_group=max_group, max_waiting=max_waiting)
    intake.start()
    try:
        yield intake
    finally:
        commits.gate.set()
        await asyncio.to_thread(intake.stop)


async def entered(commits: Commits) -> None:
    assert await asyncio.to_thread(commits.entered.wait, 5)
    commits.entered.clear()


def test_lone_submission_is_committed_at_once():
    async def main() -> None:
        commits = Commits()
        async with started(commits) as intake:
            began = time.monotonic()
            job = submission()
            assert (await intake.submit(job)).existing_id == job.id
            assert time.monotonic() - began < 0.5
        assert commits.groups == [[job.id]]

    asyncio.run(main())


def test_submissions_that_come_while_one_commits_form_the_next_group():
    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits) as intake:
            jobs = [submission() for _ in range(21)]
            first = asyncio.create_task(intake.submit(jobs[0]))
            await entered(commits)
            others = [asyncio.create_task(intake.submit(job)) for job in jobs[1:]]
            await asyncio.sleep(0.05)
            commits.gate.set()
            answers = await asyncio.gather(first, *others)
        assert commits.groups == [[jobs[0].id], [job.id for job in jobs[1:]]]
        assert [answer.existing_id for answer in answers] == [job.id for job in jobs]  # each its own
        assert commits.threads == {"intake"}  # the event loop never commits

    asyncio.run(main())


def test_group_is_no_larger_than_the_limit():
    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits, max_group=8) as intake:
            tasks = [asyncio.create_task(intake.submit(submission())) for _ in range(20)]
            await entered(commits)
            await asyncio.sleep(0.05)
            commits.gate.set()
            await asyncio.gather(*tasks)
        assert max(map(len, commits.groups)) == 8
        assert sum(map(len, commits.groups)) == 20

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationalError("INSERT", {}, Exception("the server closed the connection")), Unavailable),
        (Unavailable("full", retry_after=3), Unavailable),
        (ZeroDivisionError("a mistake of ours"), GuichetError),
    ],
)
def test_exception_answers_everyone_who_waits_and_the_next_group_commits(error, expected):
    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits) as intake:
            commits.error = error
            tasks = [asyncio.create_task(intake.submit(submission())) for _ in range(5)]
            await entered(commits)
            commits.gate.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert len(answers) == 5
            assert {type(answer) for answer in answers} == {expected}
            for answer in answers:
                assert isinstance(answer, GuichetError)
                assert "server closed" not in answer.detail
                assert "a mistake" not in answer.detail
            commits.error = None
            job = submission()
            assert (await intake.submit(job)).existing_id == job.id

    asyncio.run(main())


def test_database_that_is_down_asks_to_come_back():
    async def main() -> None:
        commits = Commits()
        commits.error = OperationalError("INSERT", {}, Exception("down"))
        async with started(commits) as intake:
            with pytest.raises(Unavailable) as caught:
                await intake.submit(submission())
            assert caught.value.retry_after

    asyncio.run(main())


def test_refusal_of_one_submission_leaves_its_group_alone():
    async def main() -> None:
        commits = Commits(free=False)
        jobs = [submission() for _ in range(3)]
        commits.answer = lambda job: Conflict("no") if job.id == jobs[1].id else Accepted(None, job.id)
        async with started(commits) as intake:
            tasks = [asyncio.create_task(intake.submit(job)) for job in jobs]
            await entered(commits)
            commits.gate.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [Accepted, Conflict, Accepted]

    asyncio.run(main())


def test_caller_that_hangs_up_neither_loses_its_job_nor_disturbs_the_others():
    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits) as intake:
            busy = asyncio.create_task(intake.submit(submission()))
            await entered(commits)
            gone, stays = submission(), submission()
            leaving = asyncio.create_task(intake.submit(gone))
            staying = asyncio.create_task(intake.submit(stays))
            await asyncio.sleep(0.02)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            commits.gate.set()
            assert (await staying).existing_id == stays.id
            await busy
        assert gone.id in commits.groups[1]

    asyncio.run(main())


def test_too_many_waiting_submissions_are_refused_until_there_is_room():
    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits, max_waiting=3) as intake:
            busy = asyncio.create_task(intake.submit(submission()))
            await entered(commits)
            waiting = [asyncio.create_task(intake.submit(submission())) for _ in range(3)]
            await asyncio.sleep(0.02)
            with pytest.raises(Unavailable) as caught:
                await intake.submit(submission())
            assert (caught.value.status, caught.value.retry_after) == (503, 1)
            commits.gate.set()
            await asyncio.gather(busy, *waiting)
            await intake.submit(submission())
        assert sum(map(len, commits.groups)) == 5

    asyncio.run(main())


def test_stop_commits_what_waits():
    async def main() -> None:
        commits = Commits(free=False)
        intake = Intake(commits, max_group=2, max_waiting=100)
        intake.start()
        tasks = [asyncio.create_task(intake.submit(submission())) for _ in range(5)]
        await entered(commits)
        stopping = asyncio.create_task(asyncio.to_thread(intake.stop))
        await asyncio.sleep(0.02)
        commits.gate.set()
        await stopping
        assert len(await asyncio.gather(*tasks)) == 5

    asyncio.run(main())


def test_everyone_is_answered_while_the_database_is_silent(monkeypatch):
    """Also the large batch whose turn comes after the group that hangs, and who comes later."""
    monkeypatch.setattr(api.runtimes.group_commit, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(api.runtimes.group_commit, "CHECK_SECONDS", 0.05)

    async def main() -> None:
        commits = Commits(free=False)
        async with started(commits) as intake:
            waiters = [asyncio.create_task(intake.submit(submission(rows=count))) for count in (1, 100)]
            first, second = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 3)
            assert isinstance(first, Unavailable)
            assert "may have been accepted" in first.detail
            assert isinstance(second, Unavailable)
            assert "was not accepted" in second.detail
            with pytest.raises(Unavailable):
                await intake.submit(submission())

    asyncio.run(main())


def test_commit_that_hangs_is_a_trouble_and_a_model_that_works_is_none(monkeypatch):
    monkeypatch.setattr(api.runtimes.group_commit, "LATE_SECONDS", 0.1)

    async def main() -> None:
        for is_scoring in (False, True):
            commits = Commits(free=False)
            intake = Intake(commits, max_group=8, max_waiting=8, is_scoring=lambda: is_scoring)  # noqa: B023
            intake.start()
            assert intake.trouble() is None
            task = asyncio.create_task(intake.submit(submission()))
            await entered(commits)
            await asyncio.sleep(0.2)
            assert (intake.trouble() is None) == is_scoring
            commits.gate.set()
            await task
            assert intake.trouble() is None
            await asyncio.to_thread(intake.stop)
            assert "restart" in str(intake.trouble())

    asyncio.run(main())


def test_waiters_behind_a_model_that_takes_long_are_told_that_nothing_of_theirs_was_accepted(monkeypatch):
    """The one whose row it works on waits on: its job has a timeout of its own."""
    monkeypatch.setattr(api.runtimes.group_commit, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(api.runtimes.group_commit, "CHECK_SECONDS", 0.05)

    async def main() -> None:
        commits = Commits(free=False)
        intake = Intake(commits, max_group=8, max_waiting=8, is_scoring=lambda: True)
        intake.start()
        first = asyncio.create_task(intake.submit(submission()))
        await entered(commits)
        with pytest.raises(Unavailable, match="not accepted"):
            await asyncio.wait_for(intake.submit(submission()), 3)
        commits.gate.set()
        await first
        await asyncio.to_thread(intake.stop)
        assert len(commits.groups) == 1

    asyncio.run(main())
