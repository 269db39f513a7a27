"""Traces by OpenTelemetry, where TRACING=otlp: one from a caller's request through the queue to the stored output.

A request's span goes on from the caller's `traceparent`, and is what `jobs.traceparent` names; whoever scores the job,
in another process and later, adds its spans to the same trace. Spans are made when their work is over, from times that
were taken anyway, and are sent by a thread. Endpoint, headers, sampler and the like are OpenTelemetry's own variables.
"""

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from shared.version import VERSION

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0  # that the end of a process waits for what was not sent yet
_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")

_current: "Tracing | None" = None


def missing_package() -> str | None:
    """Return advice on the missing package for traces; None if none is missing."""
    for name in _NEEDED:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # not even the package that it is in
            spec = None
        if spec is None:
            return (
                f"TRACING=otlp needs the library {name}, which is not installed: "
                "`pip install --no-deps -r requirements/tracing.txt`, or set TRACING=off"
            )
    return None


def start(service: str) -> "Tracing":
    """Begin to trace in this process, after any fork; `service` is its name unless OTEL_SERVICE_NAME gives one."""
    global _current
    _current = Tracing(service)
    return _current


def current() -> "Tracing | None":
    """Return the tracing of this process, None with TRACING=off."""
    return _current


class RequestSpan:
    """The span of a request that is being answered."""

    def __init__(self, span: Any) -> None:  # noqa: ANN401 - a span of OpenTelemetry
        self._span = span

    @property
    def traceparent(self) -> str:
        """What names this span in W3C Trace Context, for those that are to be its children."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, name: str, attributes: Mapping[str, Any], *, is_error: bool) -> None:
        """End the span; attributes that are None are left out."""
        from opentelemetry.trace import Status, StatusCode

        self._span.update_name(name)
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})
        if is_error:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Tracing:
    """Makes spans and sends them."""

    def __init__(self, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        about = {"service.version": VERSION, "service.instance.id": f"{os.uname().nodename}:{os.getpid()}"}
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = service
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("guichet", VERSION)

    def begin_request(self, traceparent: str | None) -> RequestSpan:
        """Begin the span of a request, below the caller's if it sent a valid `traceparent`."""
        from opentelemetry.trace import SpanKind

        return RequestSpan(self._tracer.start_span("request", _context(traceparent), kind=SpanKind.SERVER))

    def add_job(
        self,
        traceparent: str | None,
        attributes: Mapping[str, Any],
        *,
        accepted_at: float | None,
        began: float,
        scored: float,
        stored: float,
    ) -> None:
        """Add what became of a job to the trace of its request: `queue`, `score` and `store`.

        Times are monotonic, in seconds, `accepted_at` is the time of day. Without `traceparent`, nothing is added: the
        request was not traced.
        """
        if traceparent is None:
            return
        from opentelemetry.trace import SpanKind

        context = _context(traceparent)
        offset = time.time() - time.monotonic()
        spans = [("score", SpanKind.CONSUMER, began, scored), ("store", SpanKind.INTERNAL, scored, stored)]
        if accepted_at is not None:
            waited = accepted_at - offset
            spans.insert(0, ("queue", SpanKind.INTERNAL, waited, max(waited, began)))
        set_attributes = {key: value for key, value in attributes.items() if value is not None}
        for name, kind, start_at, end_at in spans:
            span = self._tracer.start_span(
                name, context, kind=kind, attributes=set_attributes, start_time=_nanoseconds(start_at + offset)
            )
            span.end(_nanoseconds(end_at + offset))

    def stop(self) -> None:
        """Send the remaining spans, for two seconds at most: an unreachable collector delays no end of a process."""
        sender = threading.Thread(target=self._provider.force_flush, name="last-spans", daemon=True)
        sender.start()
        sender.join(FLUSH_SECONDS)
        if sender.is_alive():
            log.warning("the last spans were not sent within %g s; they are lost", FLUSH_SECONDS)


def _context(traceparent: str | None) -> Any:  # noqa: ANN401 - a context of OpenTelemetry
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if traceparent is None:
        return Context()
    _, trace, span, flags = traceparent.split("-")[:4]
    parent = SpanContext(int(trace, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16) & 1))
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
