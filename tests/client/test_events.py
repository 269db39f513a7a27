"""Server-sent events: how bytes become events, and how a stream that breaks goes on."""

import httpx2
import pytest
from guichet import ConnectionFailed, Refused
from guichet.events import EventParser

from tests.client.scripted import JOB_ID, Script, answer, broken, event, events, job, problem, run


def parsed(*pieces: bytes) -> list[tuple[str, str]]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_every_kind_of_line_end_is_read_however_the_bytes_are_cut(newline):
    stream = newline.join([b"\xef\xbb\xbf: hi", b"event: a", b"data: 1", b"data:2", b"", b"data: \xc3\xa9", b"", b""])
    stream += b"\n"  # after a CR, only the next byte tells whether the line has ended
    expected = [("a", "1\n2"), ("message", "é")]
    assert parsed(stream) == expected
    assert parsed(*(stream[place : place + 1] for place in range(len(stream)))) == expected


def test_comments_and_unknown_fields_are_no_events_and_half_an_event_is_not_given():
    assert parsed(b": heartbeat\n\n", b"foo: bar\n\n", b"event: x\n\n", b"data: 1\n") == []


def test_id_lasts_and_retry_is_read():
    parser = EventParser()
    list(parser.feed(b"id: 7\nretry: 1500\ndata: 1\n\nid: a\0b\nretry: soon\ndata: 2\n\n"))
    assert parser.last_id == "7"
    assert parser.retry_seconds == 1.5


def follow(script: Script, **options: object) -> list[tuple[str, int]]:
    with script.client() as client:
        return [(event.id, event.progress.rows_done) for event in client.job(JOB_ID).events(**options)]  # type: ignore[union-attr]


def test_events_come_to_the_last_one(pauses):
    stream = events(b"retry: 1000\n\n", event(1, "accepted"), b": keep-alive\n\n", event(2, "finished", done=10))
    script = Script(answer(200, job("running", "csv")), stream)
    assert follow(script) == [("1", 0), ("2", 10)]
    assert script.headers("accept")[1] == "text/event-stream"
    assert script.headers("last-event-id") == [None, None]


def test_job_that_was_taken_up_again_is_followed_past_its_first_end(pauses):
    stream = events(event(1, "accepted"), event(2, "finished", status="canceled"), event(3, "started"), error=broken())
    script = Script(answer(200, job("running", "csv")), stream, events(event(4, "finished", done=10)))
    assert [number for number, _ in follow(script)] == ["1", "2", "3", "4"]


def test_connection_that_breaks_after_the_last_event_costs_no_more_than_a_question(pauses):
    script = Script(
        answer(200, job("running", "csv")), events(event(1, "finished"), error=broken()), httpx2.Response(204)
    )
    assert follow(script) == [("1", 0)]
    assert script.headers("last-event-id")[2] == "1"


def test_broken_stream_goes_on_after_the_last_event_and_gives_none_twice(pauses):
    script = Script(
        answer(200, job("running", "csv")),
        events(event(1, "accepted"), event(2, "progress", done=1), b"id: 3\nevent: pro", error=broken()),
        httpx2.ConnectError("refused"),
        problem(503, "unavailable", retry_after=3),
        events(event(2, "progress", done=1), event(3, "progress", done=2)),  # it repeats one, then ends too early
        events(event(4, "finished", done=10)),
    )
    assert follow(script) == [("1", 0), ("2", 1), ("3", 2), ("4", 10)]
    assert script.headers("last-event-id") == [None, None, "2", "2", "2", "3"]
    assert pauses == [0.5, 1, 5, 0.5]  # from the beginning, once something new has come


def test_events_after_a_known_one_are_asked_for(pauses):
    script = Script(answer(200, job("running", "csv")), events(event(6, "finished")))
    assert follow(script, after="5") == [("6", 0)]
    assert script.headers("last-event-id")[1] == "5"


def test_event_of_a_newer_service_is_passed_over(pauses):
    strange = b'id: 1\nevent: mood\ndata: good\n\nid: 2\nevent: mood\ndata: {"counts": 3}\n\n'
    script = Script(answer(200, job("running", "csv")), events(strange, event(3, "finished")))
    assert [number for number, _ in follow(script)] == ["3"]


def test_stream_that_ends_again_and_again_is_given_up(pauses):
    script = Script(answer(200, job("running", "csv")), events(event(1, "accepted")), *(events() for _ in range(5)))
    with pytest.raises(ConnectionFailed, match="again and again"):
        follow(script)
    assert len(pauses) == 5


@pytest.mark.parametrize(
    ("strange", "error"),
    [
        (problem(404, "not_found"), Refused),
        (httpx2.Response(200, text="<html>"), ConnectionFailed),
    ],
)
def test_answer_that_is_no_stream_is_told_at_once(pauses, strange, error):
    with pytest.raises(error):
        follow(Script(answer(200, job("running", "csv")), strange))
    assert pauses == []


def test_asynchronous_client_follows_alike(pauses):
    async def follow(script: Script) -> list[str]:
        async with script.async_client() as client:
            return [event.id async for event in (await client.job(JOB_ID)).events()]

    script = Script(
        answer(200, job("running", "csv")),
        events(event(1, "accepted"), error=broken()),
        problem(502, "bad_gateway"),
        events(event(2, "finished")),
    )
    assert run(follow(script)) == ["1", "2"]
    assert script.headers("last-event-id") == [None, None, "1", "1"]
