"""The span of each request: named by its route, with the fields of request_logs."""

from collections.abc import Callable

from starlette.types import Scope

from api.logs.request_log import RouteNames
from shared.observability.tracing import RequestSpan, Tracing


class NamedSpan:
    """The span of a request, which gets its name when it ends."""

    def __init__(self, span: RequestSpan, names: RouteNames) -> None:
        self._span = span
        self._names = names

    @property
    def traceparent(self) -> str:
        """What names this span in W3C Trace Context."""
        return self._span.traceparent

    def end(self, scope: Scope, method: str, path: str, status: int) -> None:
        """End the span of a request that was answered with a status."""
        route = scope.get("route")
        name = self._names.of(method, path) if route is None else route.path
        self._span.end(
            f"{method} {name}",
            {
                "http.request.method": method,
                "http.route": name,
                "http.response.status_code": status,
                "guichet.request_id": scope["request_id"],
                "guichet.model": scope.get("served"),
            },
            is_error=status >= 500,
        )


def tracer(tracing: Tracing, names: RouteNames) -> Callable[[str | None], NamedSpan]:
    """Return a function that begins the span of a request, below the caller's traceparent."""

    def begin(traceparent: str | None) -> NamedSpan:
        return NamedSpan(tracing.begin_request(traceparent), names)

    return begin
