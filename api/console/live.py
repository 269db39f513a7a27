"""The live figures of the overview: read once for all who look at them, and sent to each as server-sent events.

A tick reads the seconds since the last one, not the whole quarter of an hour: what it costs does not grow with the
window. The quarter of an hour before somebody looked is read minute by minute, a few at each tick.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.console.asking import Refused, ask, read
from api.console.language import Words, language_of
from api.console.plots import Gauge, gauge
from api.console.rendering import render
from api.console.session import viewer_of
from api.services import Services, services_of
from shared.errors import Unavailable

TICK = 5.0  # seconds between two readings while somebody looks
FRESH = 4.0  # seconds for which a reading serves everybody
STEP = timedelta(seconds=15)  # that a bar is wide
MINUTE = timedelta(minutes=1)  # that a bar is wide of the time before somebody looked
SPAN = timedelta(minutes=15)
LAG = timedelta(seconds=2)  # by which requests and ends of jobs are stored
MINUTES_A_TICK = 3
MAX_VIEWERS = 500
_NONE = -1  # the number of no reading

Write = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of a stretch of time."""

    start: datetime
    end: datetime
    requests: int
    server_errors: int
    p95_ms: float | None
    rows: int
    failed: int  # jobs
    ended: int  # jobs

    def per_second(self, count: int) -> float:
        """Return a count of this stretch as a rate."""
        return count / (self.end - self.start).total_seconds()


@dataclass(frozen=True, slots=True)
class Reading:
    """All that the overview shows of the whole service at one moment."""

    at: datetime
    health: dict[str, Any]
    lanes: dict[str, dict[str, float]]
    file_rows: int
    now: Point  # of the last 15 seconds
    points: list[Point]  # of the last 15 minutes, the oldest first

    @property
    def failed(self) -> int:
        """Jobs that failed."""
        return sum(point.failed for point in self.points)

    @property
    def server_errors(self) -> int:
        """Requests that were answered with a status of 500 or more."""
        return sum(point.server_errors for point in self.points)

    @property
    def success_rate(self) -> float | None:
        """Share of the ended jobs that did not fail; None where none ended."""
        ended = sum(point.ended for point in self.points)
        return 1 - self.failed / ended if ended else None

    def charts(self, words: Words) -> list[Gauge]:
        """Return the charts of the overview, in the reader's language."""
        last = max([self.now.start, *(point.end for point in self.points)])
        stretches = [(point.start, point.end, point) for point in self.points] + [(last, self.at, self.now)]

        def chart(
            key: str, figure: Callable[[Point], float | None], now: str, write: Write, *, is_bad: bool = False
        ) -> Gauge:
            bars = [
                (((start - self.at) / SPAN + 1, (end - self.at) / SPAN + 1), figure(point))
                for start, end, point in stretches
            ]
            return gauge(words(key), bars, now, write, is_bad=is_bad)

        def number(value: float) -> str:
            return words.number(value, 1)

        def milliseconds(value: float) -> str:
            return f"{words.number(value, 0)} ms"

        def rows(point: Point) -> float:
            return point.per_second(point.rows)

        def requests(point: Point) -> float:
            return point.per_second(point.requests)

        now, errors = self.now, self.server_errors
        p95 = "–" if now.p95_ms is None else milliseconds(now.p95_ms)
        return [
            chart("overview.rows_per_second", rows, number(rows(now)), number),
            chart("overview.requests_per_second", requests, number(requests(now)), number),
            chart("overview.latency", lambda point: point.p95_ms, p95, milliseconds),
            chart(
                "overview.server_errors",
                lambda point: None if point is now else float(point.server_errors),  # the total is of whole steps
                words.number(errors),
                lambda value: words.number(int(value)),
                is_bad=errors > 0,
            ),
        ]


@dataclass(slots=True)
class Live:
    """The reading that everybody shares, and what is known of the time before."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    reading: Reading | None = None
    number: int = 0  # of the reading
    viewers: int = 0
    _points: dict[datetime, Point] = field(default_factory=dict)  # by their beginning
    _gaps: list[tuple[datetime, datetime]] = field(default_factory=list)  # that are still to be read, the oldest first
    _read_until: datetime | None = None
    _texts: dict[str, bytes] = field(default_factory=dict)  # by language

    async def look(self, request: Request) -> Reading:
        """Return a reading that is FRESH seconds old at most; raise Refused where the routes refuse this reader."""
        async with self.lock:
            now = datetime.now(UTC)
            if self.reading is None or now - self.reading.at > timedelta(seconds=FRESH):
                self.reading = await self._read(request, now)
                self.number += 1
                self._texts.clear()
            return self.reading

    async def text(self, request: Request) -> tuple[int, bytes]:
        """Return the present reading as an event, and its number; it is written once in each language."""
        reading = await self.look(request)
        number, language = self.number, language_of(request)
        if language not in self._texts:
            words = Words(language)
            html = await render("live.html", t=words, live=reading, charts=reading.charts(words), trouble=None)
            event = written("figures", html)
            if number == self.number:
                self._texts[language] = event
            return number, event
        return number, self._texts[language]

    async def _read(self, request: Request, now: datetime) -> Reading:
        health: dict[str, Any] = (await ask(request, "GET", "/health")).body
        end = now - LAG
        body = await _window(request, end - STEP, end)
        await self._read_points(request, end)
        present = _point(body, end - STEP, end)
        begins = end - SPAN
        self._points = {start: point for start, point in self._points.items() if start >= begins}
        points = [self._points[start] for start in sorted(self._points)]
        queue = body["queue"]
        return Reading(now, health, queue["lanes"], queue["file_rows"], present, points)

    async def _read_points(self, request: Request, end: datetime) -> None:
        """Read the steps that have ended since the last reading, and some minutes of the time before."""
        whole = _floor(end, STEP)
        begins = _floor(end - SPAN, MINUTE) + MINUTE
        since = self._read_until
        if since is None or whole - since > MINUTE:  # nobody has looked
            first = begins if since is None else max(since, begins)
            minute = _floor(whole, MINUTE)
            while first < minute:
                self._gaps.append((first, min(_floor(first, MINUTE) + MINUTE, minute)))
                first = self._gaps[-1][1]
            since = max(first, begins)
        while since < whole:
            self._points[since] = _point(await _window(request, since, since + STEP), since, since + STEP)
            since += STEP
            self._read_until = since
        self._read_until = whole
        self._gaps = [gap for gap in self._gaps if gap[0] >= begins]
        for _ in range(min(MINUTES_A_TICK, len(self._gaps))):
            start, stop = self._gaps[-1]
            self._points[start] = _point(await _window(request, start, stop), start, stop)
            self._gaps.pop()


_live: "WeakKeyDictionary[Services, Live]" = WeakKeyDictionary()


def live_of(request: Request) -> Live:
    """Return the live figures of this process."""
    return _live.setdefault(services_of(request), Live())


async def _window(request: Request, start: datetime, end: datetime) -> dict[str, Any]:
    body: dict[str, Any] = await read(request, "/metrics/system", **{"from": start.isoformat(), "to": end.isoformat()})
    return body


def _point(body: dict[str, Any], start: datetime, end: datetime) -> Point:
    requests, jobs = body["requests"], body["jobs"]
    finished = jobs["finished"]
    return Point(
        start,
        end,
        requests=requests["count"],
        server_errors=requests["server_errors"],
        p95_ms=requests["p95_ms"],
        rows=jobs["rows"],
        failed=finished.get("failed", 0),
        ended=sum(finished.values()),
    )


def _floor(moment: datetime, step: timedelta) -> datetime:
    beginning = datetime(2020, 1, 1, tzinfo=UTC)
    return beginning + (moment - beginning) // step * step


# ── as a stream ──────────────────────────────────────────────────────────────────────────────────────────────────


def figures_response(request: Request) -> Response:
    """Return the stream of the figures; raise Unavailable where this process has too many viewers.

    For a reader who may not look, the answer is 401, and its only event says that the figures have ended: the page
    that follows them leads to the sign-in.
    """
    if not viewer_of(request).may_list:
        return Response(written("ended", ""), 401, {"Cache-Control": "no-store"}, media_type="text/event-stream")
    if live_of(request).viewers >= MAX_VIEWERS:
        raise Unavailable("Too many people look at the figures of this service: load the page now and then.")
    return StreamingResponse(
        _events(request),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},  # nginx would hold events back
        media_type="text/event-stream",
    )


async def _events(request: Request) -> AsyncIterator[bytes]:
    """Yield every reading, until the process stops, or the reader's session ends or may look no longer."""
    live, closing = live_of(request), services_of(request).closing
    live.viewers += 1
    seen = _NONE
    try:
        yield b"retry: 2000\n\n"
        while not closing.is_set():
            if not viewer_of(request).may_list:
                yield written("ended", "")
                return
            try:
                number, event = await live.text(request)
            except Refused as refusal:
                if refusal.reply.status in (401, 403):
                    yield written("ended", "")
                    return
                number, event = _NONE, await _trouble(request, refusal)
            yield b": keep-alive\n\n" if number == seen and number != _NONE else event
            seen = number
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await closing.wait()
    finally:
        live.viewers -= 1


async def _trouble(request: Request, refusal: Refused) -> bytes:
    """Return the event that says what is wrong; the figures that were read last stay."""
    words = Words(language_of(request))
    html = await render("live.html", t=words, live=None, charts=[], trouble=refusal.reply.body)
    return written("figures", html)


def written(kind: str, text: str) -> bytes:
    """Return a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip()) or "data: \n"
    return f"event: {kind}\n{lines}\n".encode()
