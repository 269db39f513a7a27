"""Following a job by server-sent events: the parser, and a stream that resumes after the last event.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from guichet.flows.calls import job_path
from guichet.records import Body, Counts, Progress
from guichet.transport.streams import Stream
from guichet.transport.wire import Answer, Request

LAST = "finished"
SILENCE = 45.0  # seconds: a heartbeat comes every 15


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job: its type is accepted, started, progress or finished."""

    id: str
    type: str
    status: str
    counts: Counts | None
    progress: Progress | None
    body: Body = field(repr=False, compare=False)


class EventParser:
    """Cuts a stream of bytes into events."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_seconds: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._is_first = True
        self._type = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Take bytes as they come; yield (type, data) of every event that is complete."""
        text = self._decoder.decode(data)
        if self._is_first and text:
            text = text.removeprefix("\ufeff")
            self._is_first = False
        self._text += text
        while (line := self._next_line()) is not None:
            if line:
                self._field(line)
                continue
            if self._data:
                yield self._type or "message", "\n".join(self._data)
            self._type, self._data = "", []

    def _next_line(self) -> str | None:
        ends = [place for place in (self._text.find("\n"), self._text.find("\r")) if place >= 0]
        if not ends:
            return None
        end = min(ends)
        if self._text[end] == "\r" and end + 1 == len(self._text):
            return None  # perhaps half of a CR LF
        after = end + (2 if self._text[end : end + 2] == "\r\n" else 1)
        line, self._text = self._text[:end], self._text[after:]
        return line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")  # a line that begins with a colon is a comment, the heartbeat
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000


class Following(Stream):
    """The events of one job, each once, up to the last one."""

    def __init__(self, job_id: str, *, after: str | None, retries: int) -> None:
        super().__init__(retries, cut_off="The stream of events ends again and again before the job does.")
        self._path = f"{job_path(job_id)}/events"
        self._last_id = after or ""
        self._last_type = ""
        self._parser = EventParser()

    def request(self) -> Request:
        """Return the request that resumes after the last event."""
        self._parser = EventParser()
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        return Request("GET", self._path, headers=headers, wait=SILENCE)

    def accepts(self, answer: Answer) -> bool:
        """Return whether an answer is a stream of events; 204 means that no events follow."""
        self._is_ended = answer.status == 204
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        return answer.status == 200 and kind == "text/event-stream"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take bytes as they come; yield every event that is complete and new."""
        for kind, text in self._parser.feed(data):
            if self._is_old(self._parser.last_id):
                continue
            self._last_id = self._parser.last_id or self._last_id
            self._moved()
            event = _read(self._last_id, kind, text)
            if event is not None:
                self._last_type = kind
                yield event

    def finish(self) -> None:
        """Take the end of a connection for that of the job only after its last event.

        The last event alone is not enough: a job that was taken up again has more than one.
        """
        self._is_ended = self._last_type == LAST
        self._retry_after = self._parser.retry_seconds

    def _is_old(self, event_id: str) -> bool:
        both = event_id, self._last_id
        return all(text.isascii() and text.isdigit() for text in both) and int(both[0]) <= int(both[1])


def _read(event_id: str, kind: str, text: str) -> Event | None:
    try:
        body = json.loads(text)
        counts, progress = body.get("counts"), body.get("progress")
        return Event(
            id=event_id,
            type=kind,
            status=str(body.get("status", "")),
            counts=None if counts is None else Counts.read(counts),
            progress=None if progress is None else Progress.read(progress),
            body=body,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a kind of event that this version does not know
