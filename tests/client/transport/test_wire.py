"""What the client takes from its caller, and what it makes of strange answers."""

import json
import ssl
from http import HTTPStatus

import guichet.errors
import httpx2
import numpy as np
import pytest
from guichet import Client, ConnectionFailed, GuichetError, Refused, Unusable

from tests.client.scripted import JOB_ID, Script, answer, job, problem


def family(kind: type[GuichetError] = GuichetError) -> list[type[GuichetError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


def test_every_error_is_drawn_in_the_tree():
    drawing = guichet.errors.__doc__ or ""
    for kind in family():
        assert f"── {kind.__name__} " in drawing or kind is GuichetError, kind


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://x?a=b", "http://[::1", "/jobs", "x y"]
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url):
    with pytest.raises(Unusable, match="address of"):
        Client(url)


def test_address_and_key_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("GUICHET_URL", " http://elsewhere:1/ ")
    monkeypatch.setenv("GUICHET_API_KEY", "guichet_secret\n")
    script = Script(answer(200, {"items": []}))
    with Client(transport=httpx2.MockTransport(script)) as client:
        assert client.url == "http://elsewhere:1"
        assert client.models() == []
    assert script.headers("authorization") == ["Bearer guichet_secret"]
    assert script.headers("user-agent")[0].startswith("guichet-client/")
    with Client("http://here", api_key="guichet_other", transport=httpx2.MockTransport(script)) as client:
        script.steps.append(answer(200, {"items": []}))
        client.models()
    assert script.headers("authorization")[1] == "Bearer guichet_other"


@pytest.mark.parametrize("key", ["two words", "clé", "a\x00b", "a\r\nX-Evil: 1"])
def test_key_that_no_header_carries_is_refused_and_not_shown(key):
    with pytest.raises(Unusable) as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


def test_messages_hide_a_password_in_the_address(pauses):
    with (
        Client(
            "http://me:hush@host", retries=0, transport=httpx2.MockTransport(Script(httpx2.ConnectError("no")))
        ) as it,
        pytest.raises(ConnectionFailed) as caught,
    ):
        it.models()
    assert "hush" not in str(caught.value)
    assert "http://host" in str(caught.value)


def test_numbers_of_numpy_are_sent_as_plain_ones():
    script = Script(answer(202, job()))
    with script.client() as client:
        client.submit({"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True), "d": None, "e": "é"})
    assert json.loads(script.bodies[0]) == {"features": {"a": 3, "b": 0.5, "c": True, "d": None, "e": "é"}}


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (np.float64("inf"), "a missing value is None or NaN"),
        (np.array([1, 2]), "a ndarray is not a number"),
        (object(), "a object is not a number"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_what_json_cannot_say_is_refused_before_anything_is_sent(value, hint):
    script = Script()
    with script.client() as client, pytest.raises(Unusable, match=hint):
        client.submit({"a": value})


def test_misspelt_option_is_a_type_error():
    with Script().client() as client:
        for call in (lambda: client.submit({}, modl="x"), lambda: client.predict_csv(__file__, modl="x")):
            with pytest.raises(TypeError, match="modl"):
                call()


def test_what_is_no_job_id_is_refused_before_anything_is_sent():
    with Script().client() as client, pytest.raises(Unusable, match="is not a job id"):
        client.job("../models")


@pytest.mark.parametrize(
    "strange",
    [
        httpx2.Response(200, text="<html>hello"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"id": JOB_ID}),
        httpx2.Response(204),
        httpx2.Response(200, json=job() | {"created_at": "yesterday"}),
    ],
    ids=lambda response: response.text[:20],
)
def test_answer_of_something_else_is_told_as_such(pauses, strange):
    with (
        Script(strange).client() as client,
        pytest.raises(ConnectionFailed, match="does not look like that of a Guichet"),
    ):
        client.job(JOB_ID)


def test_redirection_is_told_and_not_followed():
    script = Script(httpx2.Response(301, headers={"location": "https://new.test/jobs"}))
    with script.client() as client, pytest.raises(ConnectionFailed, match=r"has moved \(301\): use https://new.test"):
        client.job(JOB_ID)


def test_error_without_a_problem_document_has_a_sentence_all_the_same():
    with Script(httpx2.Response(413, text="<html>")).client() as client, pytest.raises(Refused) as caught:
        client.job(JOB_ID)
    assert str(caught.value) == f"The answer was 413 ({HTTPStatus(413).phrase}), without a reason."
    assert caught.value.code == "http_413"
    with Script(problem(499, "x", errors="none")).client() as client, pytest.raises(Refused) as caught:
        client.job(JOB_ID)
    assert caught.value.faults == []


@pytest.mark.parametrize(
    "strange",
    [
        httpx2.Response(404, text="<html>Not Found"),
        httpx2.Response(404, json={"detail": "Not Found"}),
        httpx2.Response(404, json={"type": "about:blank", "detail": "Not Found"}),
        httpx2.Response(405, json={"error": "no"}),
        httpx2.Response(500, text="oops"),
        httpx2.Response(418),
        httpx2.Response(599, headers={"content-type": "application/problem+json"}, text='{"detail": "ha'),
    ],
    ids=lambda response: f"{response.status_code} {response.text[:20]}",
)
def test_error_of_another_server_is_told_as_such(pauses, strange):
    with Script(strange).client() as client, pytest.raises(ConnectionFailed, match="a Guichet service: check the URL"):
        client.models()
    assert pauses == []


@pytest.mark.parametrize("status", [401, 403, 413, 429, 502, 503, 504])
def test_error_of_a_proxy_keeps_its_meaning(status):
    stopped = httpx2.Response(status, text="<html>")
    with Script(stopped).client(retries=0) as client, pytest.raises(Refused) as caught:
        client.models()
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("detail", "pointer", "message", "notes"),
    [
        ("It must be a number.", "/age", "It must be a number", []),
        ("The form is not valid: /age must be a number.", "/age", "must be a number", []),
        ("The body must be an object.", "", "must be an object", []),
        ("The row is not valid.", "/age", "must be a number", ["/age: must be a number"]),
    ],
)
def test_sentence_is_not_said_twice(detail, pointer, message, notes):
    faults = [{"pointer": pointer, "code": "c", "message": message}]
    with (
        Script(problem(422, "invalid_row", detail, errors=faults)).client() as client,
        pytest.raises(Refused) as caught,
    ):
        client.submit({})
    assert len(caught.value.faults) == 1
    assert getattr(caught.value, "__notes__", []) == caught.value.notes == notes


def test_certificate_that_is_not_trusted_is_not_tried_again(pauses):
    error = httpx2.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError()
    with Script(error).client() as client, pytest.raises(ConnectionFailed, match="certificate"):
        client.models()
    assert pauses == []


def test_fields_of_a_newer_service_are_kept():
    newer = job("succeeded", kind="forecast", mood="good")
    with Script(answer(200, newer)).client() as client:
        forecast = client.job(JOB_ID)
        assert forecast.info.body["mood"] == "good"
        assert repr(forecast) == f"<Job {JOB_ID} forecast succeeded>"
        with pytest.raises(Unusable, match="does not read the results of a job of kind forecast"):
            forecast.result()


def test_jobs_follow_the_pages(pauses):
    first = {"items": [job(), job("running")], "next": f"/jobs?limit=2&before={JOB_ID}&status=queued"}
    script = Script(answer(200, first), answer(200, {"items": [job("failed")], "next": None}))
    with script.client() as client:
        assert [each.status for each in client.jobs(status="queued", page_size=2)] == ["queued", "running", "failed"]
    assert [str(request.url) for request in script.requests] == [
        "http://guichet.test/prefix/jobs?limit=2&status=queued",
        f"http://guichet.test/prefix/jobs?limit=2&before={JOB_ID}&status=queued",
    ]
