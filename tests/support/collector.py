"""A collector of OpenTelemetry in this process: what is sent to it by OTLP over HTTP, as a real one reads it."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """The spans that were sent, each with its service and attributes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[dict[str, Any]] = []

    def take(self, body: bytes) -> None:
        """Keep the spans of one request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [
                    {
                        "service": about["service.name"],
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "start": span.start_time_unix_nano,
                        "end": span.end_time_unix_nano,
                        "attributes": {
                            each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
                        },
                    }
                    for span in scope.spans
                ]

    def of_trace(self, trace: str, count: int) -> dict[str, dict[str, Any]]:
        """Return the spans of a trace by name as soon as there are so many; fail after 30 s."""
        deadline = time.monotonic() + 30
        while len(spans := [span for span in self.spans if span["trace"] == trace]) < count:
            assert time.monotonic() < deadline, f"{len(spans)} of {count} spans: {spans}"
            time.sleep(0.02)
        return {span["name"]: span for span in spans}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Yield a collector that listens on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
