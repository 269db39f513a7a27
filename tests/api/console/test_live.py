"""The live figures: what a reading asks for, and who shares it."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from api.console import live
from api.console.language import Words
from api.console.live import MINUTE, SPAN, STEP, Live, Point, Reading, written

NOON = datetime(2026, 11, 29, 12, 0, 7, tzinfo=UTC)
REQUEST: Any = None  # what is windows_read is answered below


@pytest.fixture
def windows_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[datetime, datetime]]:
    """The windows that were asked for; each second of them has two requests."""
    windows: list[tuple[datetime, datetime]] = []

    async def read(request: Any, path: str, **query: str) -> dict[str, Any]:
        start, end = (datetime.fromisoformat(query[name]) for name in ("from", "to"))
        windows.append((start, end))
        await asyncio.sleep(0)
        count = int((end - start).total_seconds() * 2)
        requests = {"count": count, "server_errors": 0, "p95_ms": 5.0}
        jobs = {"finished": {"failed": 1, "succeeded": 3}, "rows": count}
        return {"requests": requests, "jobs": jobs, "queue": {"lanes": {}, "file_rows": 0}}

    async def ask(request: Any, method: str, path: str) -> Any:
        return SimpleNamespace(body={"status": "ok"})

    monkeypatch.setattr(live, "read", read)
    monkeypatch.setattr(live, "ask", ask)
    return windows


def look(figures: Live, monkeypatch: pytest.MonkeyPatch, at: datetime, *, viewers: int = 1) -> list[Reading]:
    """Let so many viewers look at once."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return at

    monkeypatch.setattr(live, "datetime", Clock)

    async def all_of_them() -> list[Reading]:
        return list(await asyncio.gather(*(figures.look(REQUEST) for _ in range(viewers))))

    return asyncio.run(all_of_them())


def test_twenty_viewers_share_one_reading(
    windows_read: list[tuple[datetime, datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = Live()
    first = look(figures, monkeypatch, NOON)
    count = len(windows_read)
    again = look(figures, monkeypatch, NOON + timedelta(seconds=3), viewers=20)
    assert len(windows_read) == count
    assert all(reading is first[0] for reading in again)
    look(figures, monkeypatch, NOON + timedelta(seconds=5), viewers=20)
    assert figures.number == 2


def test_a_tick_asks_for_seconds_and_fills_the_past_little_by_little(
    windows_read: list[tuple[datetime, datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = Live()
    for tick in range(0, 120, 5):
        del windows_read[:]
        look(figures, monkeypatch, NOON + timedelta(seconds=tick))
        assert len(windows_read) <= 5  # the present, at most one step that has ended, three minutes of the past
        assert all(end - start <= MINUTE for start, end in windows_read)
    assert len(windows_read) <= 2  # the past is read
    reading = figures.reading
    assert reading is not None
    spans = [(point.start, point.end) for point in reading.points]
    assert all(end == start for (_, end), (start, _) in pairwise(spans)), "without gap or overlap"
    assert spans[0][0] < NOON + timedelta(seconds=115) - SPAN + 2 * MINUTE
    assert spans[-1][1] > NOON + timedelta(seconds=115) - 2 * STEP
    assert {point.per_second(point.requests) for point in reading.points} == {2.0}
    assert reading.success_rate == 0.75


def test_time_in_which_nobody_looked_is_read_by_the_minute(
    windows_read: list[tuple[datetime, datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = Live()
    look(figures, monkeypatch, NOON)
    del windows_read[:]
    later = NOON + timedelta(hours=1)
    (reading,) = look(figures, monkeypatch, later)
    assert len(windows_read) == 4
    assert all(start >= later - SPAN for start, _ in windows_read)
    assert all(point.start >= later - SPAN - MINUTE for point in reading.points)


def test_charts_end_with_the_present() -> None:
    past = Point(NOON - 2 * MINUTE, NOON - MINUTE, 60, 0, 10.0, 120, 0, 5)
    now = Point(NOON - STEP, NOON, 30, 1, None, 45, 0, 1)
    reading = Reading(NOON, {}, {}, 0, now, [past])
    rows, _, latency, errors = reading.charts(Words("en"))
    assert (rows.now, rows.top, len(rows.bars)) == ("3", "3", 2)
    assert (latency.now, latency.top) == ("–", "10 ms")
    assert (errors.now, errors.bars, errors.is_bad) == ("0", [], False)


def test_event_holds_every_line_of_its_text() -> None:
    assert written("figures", "<p>\n\n  a</p>\n") == b"event: figures\ndata: <p>\ndata:   a</p>\n\n"
    assert written("ended", "") == b"event: ended\ndata: \n\n"
