"""Tracing without its library is told in a sentence, and spans go on from the caller's context."""

import importlib.util

import pytest

from shared.observability.tracing import Tracing, missing_package
from tests.support.collector import collecting


def test_library_that_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_package() is None
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("opentelemetry.exporter") else find(name)
    )
    message = missing_package()
    assert message is not None
    assert "opentelemetry.exporter.otlp.proto.http" in message
    assert "requirements/tracing.txt" in message


def test_request_without_a_trace_begins_one_and_an_error_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "scores")
        tracing = Tracing("guichet-api")
        span = tracing.begin_request(None)
        version, trace, own, flags = span.traceparent.split("-")
        span.end("GET /jobs", {"http.response.status_code": 503, "guichet.model": None}, is_error=True)
        tracing.stop()
        (request_span,) = collector.of_trace(trace, 1).values()
    assert (version, int(flags, 16) & 1) == ("00", 1)  # sampled; the other bit says that the id is random
    assert (request_span["id"], request_span["parent"], request_span["service"]) == (own, "", "scores")
    assert request_span["attributes"] == {"http.response.status_code": 503}
