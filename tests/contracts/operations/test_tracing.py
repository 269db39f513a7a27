"""Traces: one from the caller's request to the stored output, sent to a real collector by a running service."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.database.engine import make_engine
from tests.contracts.helpers import TRACEPARENT, apart, beside, new_id, paused, stored_job, wait_for_job
from tests.support.collector import collecting
from tests.support.stack import Stack

pytestmark = pytest.mark.flow  # each test starts a service that traces


def test_trace_leads_from_the_callers_request_to_the_stored_output(
    sync: Stack, tmp_path_factory: pytest.TempPathFactory, attrition_row: dict[str, Any]
) -> None:
    trace, caller = TRACEPARENT.split("-")[1:3]
    request_id = new_id()
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with apart(sync, tmp_path_factory.mktemp("traced"), TRACING="otlp", **env) as stack, stack.client() as client:
            headers = {"traceparent": TRACEPARENT, "X-Request-Id": request_id, "Prefer": "wait=30"}
            answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
            assert answer.status_code == 200
            assert answer.headers["traceparent"] == TRACEPARENT
            spans = collector.of_trace(trace, 4)
            assert spans.keys() == {"POST /predict", "queue", "score", "store"}
            request = spans["POST /predict"]
            assert request["parent"] == caller
            assert request["attributes"] == {
                "http.request.method": "POST",
                "http.route": "/predict",
                "http.response.status_code": 200,
                "guichet.request_id": request_id,
                "guichet.model": "attrition@1",
            }
            for name in ("queue", "score", "store"):
                assert spans[name]["parent"] == request["id"]
                assert spans[name]["attributes"]["guichet.job_id"] == answer.json()["job_id"]
                assert spans[name]["service"] == "guichet-api"
            assert spans["queue"]["end"] <= spans["score"]["start"] + 2_000_000
            assert spans["score"]["end"] == spans["store"]["start"]
            assert spans["store"]["end"] <= request["end"] + 50_000_000
            engine = make_engine(stack.database_url)
            job = stored_job(engine, answer.json()["job_id"])
            engine.dispose()
            assert job["traceparent"] == f"00-{trace}-{request['id']}-01"
            # Without a caller's trace, a request begins its own; a caller who is not traced stays so.
            client.get(f"/jobs/{answer.json()['job_id']}", headers={"X-Request-Id": new_id()})
            client.get("/models", headers={"traceparent": TRACEPARENT[:-2] + "00"})
            client.get("/nowhere", headers={"X-Request-Id": request_id})
        # The process has ended: what it had not sent yet, it has sent.
        last = [span for span in collector.spans if span["name"] == "GET (none)"]
        assert [(span["parent"], span["attributes"]["http.response.status_code"]) for span in last] == [("", 404)]
        named = {span["name"] for span in collector.spans}
        assert "GET /jobs/{id}" in named
        assert "GET /models" not in named


def test_trace_goes_through_the_queue_also_with_worker_children_that_are_recycled(
    queue: Stack, tmp_path: Path, attrition_row: dict[str, Any]
) -> None:
    """A child that ends after one task sends its spans and its counts; a collector hears of every job."""
    traces = [f"{number:032x}" for number in range(0xA1, 0xA5)]
    with collecting() as collector, paused(queue, "interactive", "bulk"):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "TRACING": "otlp"}  # spans are sent every five seconds
        with beside(queue, tmp_path, **env) as stack, stack.client() as client:
            start_recycled_worker(stack)
            jobs = {}
            for trace in traces:
                headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "Prefer": "wait=60"}
                answer = client.post("/predict", json={"features": attrition_row}, headers=headers)
                assert answer.status_code == 200, answer.text
                jobs[trace] = answer.json()["job_id"]
            names = list(attrition_row)
            file = ",".join(names) + "\n" + ",".join(str(attrition_row[name]) for name in names) + "\n"
            csv_trace = f"{0xAF:032x}"
            headers = {"traceparent": f"00-{csv_trace}-00f067aa0ba902b7-01", "Content-Type": "text/csv"}
            accepted = client.post("/predict_csv", content=file, headers=headers)
            wait_for_job(client, accepted.json()["id"], seconds=90)
            for trace in traces:
                spans = collector.of_trace(trace, 4)
                assert spans.keys() == {"POST /predict", "queue", "score", "store"}
                request = spans["POST /predict"]
                assert (request["parent"], request["service"]) == ("00f067aa0ba902b7", "guichet-api")
                for name in ("queue", "score", "store"):
                    assert (spans[name]["parent"], spans[name]["service"]) == (request["id"], "guichet-worker")
                    assert spans[name]["attributes"]["guichet.job_id"] == jobs[trace]
                    assert spans[name]["attributes"]["guichet.is_stored"] is True
                assert spans["queue"]["start"] <= spans["queue"]["end"] <= spans["score"]["end"]
            of_file = collector.of_trace(csv_trace, 3)
            assert of_file.keys() == {"POST /predict_csv", "score", "store"}
            assert of_file["score"]["parent"] == of_file["POST /predict_csv"]["id"]


def start_recycled_worker(stack: Stack) -> None:
    """Start a worker of every lane whose only child is replaced after each task, and wait for it."""
    lanes = ("-Q", "interactive,bulk", "-c", "1", "-n", "recycled@%h", "--max-tasks-per-child", "1")
    more = ("--without-gossip", "--without-mingle")
    stack.start("recycled", "celery", "-A", "worker.main:app", "worker", *lanes, *more)


def test_requests_are_answered_while_no_collector_listens(
    sync: Stack, tmp_path_factory: pytest.TempPathFactory, attrition_row: dict[str, Any]
) -> None:
    env = {"TRACING": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with apart(sync, tmp_path_factory.mktemp("untraced"), **env) as stack, stack.client() as client:
        answer: httpx2.Response = client.post(
            "/predict", json={"features": attrition_row}, headers={"Prefer": "wait=30"}
        )
        assert answer.status_code == 200
