"""Following a job by server-sent events: from the start, after a break, in another process, to the end."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from tests.contracts.helpers import (
    beside,
    check_accepted,
    check_problem,
    check_result,
    paused,
    wait_for_job,
    wait_until,
)
from tests.support.csv_jobs import erase, let_go, put_file, wake
from tests.support.stack import Stack

NOBODY = "0195f5e8-7a3c-7def-8123-456789abcdef"


class Stream:
    """What a follower has received, read by a thread of its own."""

    def __init__(self, stack: Stack, job_id: str, **headers: str) -> None:
        self.lines: list[str] = []
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.status = 0
        self.headers = httpx2.Headers()
        self.client = stack.client(**headers)
        self._thread = threading.Thread(target=self._read, args=(f"/jobs/{job_id}/events",), daemon=True)
        self._thread.start()

    def _read(self, path: str) -> None:
        try:
            with self.client.stream("GET", path) as answer:
                self.status, self.headers = answer.status_code, answer.headers
                for line in answer.iter_lines():
                    self.lines.append(line)
        except httpx2.HTTPError as error:
            self.error = error
        self.ended.set()

    @property
    def events(self) -> list[tuple[int, str, dict[str, Any]]]:
        return read_events("\n".join(self.lines))

    def wait_for(self, kind: str) -> dict[str, Any]:
        return wait_until(lambda: next((data for _, name, data in self.events if name == kind), None), seconds=15)

    def close(self) -> None:
        self.client.close()


def read_events(content: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Return (id, type, data) of every event that is complete."""
    events = []
    for block in content.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line and not line.startswith(":"))
        if fields.keys() >= {"id", "event", "data"}:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return events


def follow(client: httpx2.Client, job_id: str, **headers: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Follow a job to its end."""
    answer = client.get(f"/jobs/{job_id}/events", headers=headers)
    assert answer.status_code == 200
    return read_events(answer.text)


def kinds(events: list[tuple[int, str, dict[str, Any]]]) -> list[tuple[int, str]]:
    return [(number, kind) for number, kind, _ in events]


@pytest.fixture
def streams() -> Iterator[list[Stream]]:
    """Streams that are closed in the end."""
    opened: list[Stream] = []
    yield opened
    for stream in opened:
        stream.close()


# ── CSV jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ended_file_is_told_from_its_beginning_to_its_end(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    job_id = put_file(engine, [[attrition_row] * 2, [attrition_row] * 3], held=False)
    wake(client, attrition_row)
    wait_for_job(client, job_id)
    answer = client.get(f"/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text.startswith("retry: 1000\n\n")
    events = read_events(answer.text)
    assert kinds(events) == [(1, "accepted"), (2, "started"), (3, "progress"), (4, "finished")]
    for _, _, data in events:
        assert data.keys() == {"status", "counts", "progress"}
        assert data["counts"].keys() == {"total", "succeeded", "failed", "pending"}
    assert [data["status"] for _, _, data in events] == ["queued", "running", "running", "succeeded"]
    assert [data["counts"]["pending"] for _, _, data in events][::3] == [5, 0]
    job = client.get(f"/jobs/{job_id}").json()
    assert events[-1][2]["counts"] == job["counts"]
    assert events[-1][2]["progress"].keys() == job["progress"].keys()


def test_stream_goes_on_after_the_last_event_that_was_received(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    job_id = put_file(engine, [[attrition_row]] * 3, held=False)
    wake(client, attrition_row)
    wait_for_job(client, job_id)
    whole = follow(client, job_id)
    assert follow(client, job_id, **{"Last-Event-ID": "2"}) == whole[2:]
    assert read_events(client.get(f"/jobs/{job_id}/events?last_event_id=3").text) == whole[3:]
    for strange in ("", "x", "-1", "1.5", "9" * 30):
        assert follow(client, job_id, **{"Last-Event-ID": strange}) == whole
    for last in (len(whole), 999):
        answer = client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": str(last)})
        assert (answer.status_code, answer.content) == (204, b"")
    check_problem(client.get(f"/jobs/{job_id}/events?last_event_id=-1"), 422)


def test_follower_hears_of_what_happens_until_the_end(
    stack: Stack, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], streams: list[Stream]
) -> None:
    job_id = put_file(engine, [[attrition_row]] * 3)
    streams += [Stream(stack, job_id), Stream(stack, job_id)]
    for stream in streams:
        stream.wait_for("accepted")
    let_go(engine, job_id, 1)
    wake(client, attrition_row)
    for stream in streams:
        assert stream.wait_for("progress")["counts"]["pending"] == 2
        assert not stream.ended.is_set()
    streams.append(Stream(stack, job_id, **{"Last-Event-ID": "2"}))
    let_go(engine, job_id)
    wake(client, attrition_row)
    for stream in streams:
        assert stream.wait_for("finished")["counts"]["succeeded"] == 3
        assert stream.ended.wait(3)
        assert stream.error is None
    whole = follow(client, job_id)
    assert [stream.events for stream in streams] == [whole, whole, whole[2:]]


def test_file_that_is_taken_up_again_is_followed_past_its_first_end(
    stack: Stack, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], streams: list[Stream]
) -> None:
    job_id = put_file(engine, [[attrition_row]] * 2)
    client.post(f"/jobs/{job_id}/cancel")
    assert kinds(follow(client, job_id)) == [(1, "accepted"), (2, "finished")]
    assert client.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": "2"}).status_code == 204
    engine_holds = "UPDATE job_chunks SET run_after = '2100-01-01 00:00:00' WHERE job_id = :id"
    client.post(f"/jobs/{job_id}/retry")
    with engine.begin() as connection:
        connection.execute(text(engine_holds), {"id": job_id})
    streams += [Stream(stack, job_id), Stream(stack, job_id, **{"Last-Event-ID": "2"})]
    let_go(engine, job_id)
    wake(client, attrition_row)
    for stream in streams:
        assert stream.ended.wait(15)
    assert streams[0].events[:2] == read_events("\n".join(streams[0].lines))[:2]
    types = kinds(streams[0].events)
    assert types[:3] == [(1, "accepted"), (2, "finished"), (3, "accepted")]
    assert types[-1][1] == "finished"
    assert [number for number, _ in types] == list(range(1, len(types) + 1))
    assert kinds(streams[1].events) == types[2:]


@pytest.mark.long
def test_follower_comes_back_to_another_process_when_its_own_stops(
    stack: Stack,
    client: httpx2.Client,
    engine: Engine,
    attrition_row: dict[str, Any],
    streams: list[Stream],
    tmp_path: Path,
) -> None:
    job_id = put_file(engine, [[attrition_row]] * 2)
    with beside(stack, tmp_path) as other:
        streams += [Stream(other, job_id) for _ in range(3)]
        for stream in streams:
            stream.wait_for("accepted")
        began = time.monotonic()
        assert other.stop("api") in (0, -15)
        assert time.monotonic() - began < 4  # the server's patience with open answers is 5 s
        for stream in streams:
            assert stream.ended.wait(1)
            assert stream.error is None
            assert kinds(stream.events) == [(1, "accepted")]
        assert "Traceback" not in other.logs()
    let_go(engine, job_id)
    wake(client, attrition_row)
    events = follow(client, job_id, **{"Last-Event-ID": "1"})
    assert [number for number, _ in kinds(events)] == list(range(2, len(events) + 2))
    assert events[-1][1] == "finished"


@pytest.mark.parametrize("stack", ["queue"], indirect=True)
def test_followers_hold_no_connection(
    stack: Stack, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any], streams: list[Stream]
) -> None:
    job_id = put_file(engine, [[attrition_row]])
    query = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")

    def connections() -> int:
        with engine.connect() as connection:
            return connection.scalar(query) or 0

    before = connections()
    for _ in range(40):
        streams.append(Stream(stack, job_id))
    for stream in streams:
        stream.wait_for("accepted")
    assert connections() < before + 15
    for stream in streams:
        stream.close()
    erase(engine, job_id)
    assert client.get("/livez").status_code == 200


def test_stream_of_an_erased_job_ends(
    stack: Stack, engine: Engine, attrition_row: dict[str, Any], streams: list[Stream]
) -> None:
    job_id = put_file(engine, [[attrition_row]])
    streams.append(Stream(stack, job_id))
    streams[0].wait_for("accepted")
    erase(engine, job_id)
    assert streams[0].ended.wait(5)
    assert streams[0].error is None


# ── jobs of other kinds ──────────────────────────────────────────────────────────────────────────────────────────


def test_job_of_one_row_has_events_of_its_row(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    result = check_result(client.post("/predict", json={"features": attrition_row}))
    events = follow(client, result["job_id"])
    assert kinds(events) == [(1, "accepted"), (2, "started"), (3, "finished")]
    assert [data["status"] for _, _, data in events] == ["queued", "running", "succeeded"]
    assert [data["counts"]["pending"] for _, _, data in events] == [1, 1, 0]
    assert events[2][2]["counts"] == client.get(f"/jobs/{result['job_id']}").json()["counts"]
    assert events[2][2]["progress"]["rows_done"] == 1
    assert kinds(follow(client, result["job_id"], **{"Last-Event-ID": "2"})) == [(3, "finished")]
    answer = client.get(f"/jobs/{result['job_id']}/events", headers={"Last-Event-ID": "3"})
    assert answer.status_code == 204


def test_batch_tells_of_its_rows(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    body = {"rows": [attrition_row, attrition_row | {"age": "old"}, attrition_row]}
    answer = client.post("/predict_batch", json=body, headers={"Prefer": "wait=20"})
    events = follow(client, answer.json()["job_id"])
    assert events[-1][2]["counts"] == {"total": 3, "succeeded": 2, "failed": 1, "pending": 0}


def test_queued_job_is_followed_to_its_end(queue: Stack, attrition_row: dict[str, Any], streams: list[Stream]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
            streams.append(Stream(queue, job_id))
            streams[0].wait_for("accepted")
            time.sleep(0.6)
            assert kinds(streams[0].events) == [(1, "accepted")]
        assert streams[0].wait_for("finished")["status"] == "succeeded"
        assert streams[0].ended.wait(3)


def test_canceled_job_tells_no_start(queue: Stack, attrition_row: dict[str, Any]) -> None:
    with queue.client() as client:
        with paused(queue):
            job_id = check_accepted(client.post("/jobs", json={"features": attrition_row}))["id"]
            client.post(f"/jobs/{job_id}/cancel")
        events = follow(client, job_id)
        assert kinds(events) == [(1, "accepted"), (3, "finished")]
        assert events[-1][2]["status"] == "canceled"


@pytest.mark.parametrize("job_id", [NOBODY, "x", "%00"])
def test_job_that_does_not_exist_cannot_be_followed(client: httpx2.Client, job_id: str) -> None:
    check_problem(client.get(f"/jobs/{job_id}/events"), 404, "not_found")
