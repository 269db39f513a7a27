"""The smoke test of a deployed service: whatever answers at its address, it ends with a sentence and an exit code."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from scripts.release.smoke import main
from shared.version import VERSION

HEALTH = {"status": "ok", "model_loaded": True, "model": "attrition", "model_version": 1}
RESULT = {"label": "Stays", "probability": 0.1, "job_id": "7"}


class Answers(dict[str, tuple[int, bytes]]):
    """What a service answers at each path, and where it is."""

    url: str

    def say(self, path: str, body: object, status: int = 200) -> None:
        """Answer with JSON."""
        self[path] = (status, json.dumps(body).encode())


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A service that answers as it should."""
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = answers.get(self.path, (401, b"{}"))
            if body == b'{"features": {}}':
                status = 422
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + (content == b"cut off")))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

    answers.say("/readyz", {})
    answers.say("/health", HEALTH)
    answers.say("/version", {"version": VERSION})
    answers.say("/models/attrition/predict", RESULT)
    answers.say("/jobs/7", {"id": "7", "status": "succeeded"})
    server = HTTPServer(("127.0.0.1", 0), Handler)
    answers.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield answers
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_service_that_does_what_it_should_passes(answers: Answers, capsys: pytest.CaptureFixture[str]):
    assert main([answers.url, "--version", VERSION, "--wait", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [
        *("ready", "health", "version", "predict", "job", "refusal", "locked")
    ]


@pytest.mark.parametrize(
    ("path", "status", "body", "words"),
    [
        ("/readyz", 503, {}, "/readyz is not 200 after 0 s: 503"),
        ("/health", 200, HEALTH | {"model_loaded": False, "reasons": ["It is lost."]}, "/health says ok: It is lost."),
        (
            "/health",
            200,
            {"status": "ok", "model_loaded": True},
            "does not answer as a Guichet does (KeyError('model'))",
        ),
        ("/version", 200, {"version": "0.0.1"}, f"version 0.0.1 runs, and {VERSION} was deployed"),
        ("/models/attrition/predict", 200, RESULT | {"probability": None}, "does not answer as a Guichet does"),
        ("/jobs/7", 200, {"id": "7", "status": "failed"}, "the job of that prediction is failed"),
        ("/jobs", 200, {"jobs": []}, "GET /jobs: 200 instead of 401 or 403"),
    ],
)
def test_service_that_does_not_is_told_in_one_line(
    answers: Answers, capsys: pytest.CaptureFixture[str], path: str, status: int, body: object, words: str
):
    answers.say(path, body, status)
    assert main([answers.url, "--version", VERSION, "--wait", "0"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("FAIL  ")
    assert words in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize("page", [b"<html>It is being built", b"cut off"])
def test_page_that_stands_in_for_a_service_is_not_taken_for_it(
    answers: Answers, capsys: pytest.CaptureFixture[str], page: bytes
):
    answers["/readyz"] = (200, page)
    assert main([answers.url, "--wait", "0"]) == 1
    assert "no answer in JSON" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://", "http://a b", "http://127.0.0.1:99999"])
def test_address_that_is_none_gets_no_answer(url: str, capsys: pytest.CaptureFixture[str]):
    assert main([url, "--wait", "0"]) == 1
    assert "no answer" in capsys.readouterr().err
