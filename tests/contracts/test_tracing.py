"""Traces: one from the caller's request to the stored output, sent to a real collector by a running service."""

from typing import Any

import httpx2
import pytest

from shared.database.engine import make_engine
from tests.contracts.helpers import TRACEPARENT, apart, new_id, stored_job
from tests.support.collector import collecting
from tests.support.stack import Stack


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


def test_requests_are_answered_while_no_collector_listens(
    sync: Stack, tmp_path_factory: pytest.TempPathFactory, attrition_row: dict[str, Any]
) -> None:
    env = {"TRACING": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with apart(sync, tmp_path_factory.mktemp("untraced"), **env) as stack, stack.client() as client:
        answer: httpx2.Response = client.post(
            "/predict", json={"features": attrition_row}, headers={"Prefer": "wait=30"}
        )
        assert answer.status_code == 200
