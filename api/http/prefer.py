"""The Prefer header (RFC 7240): `respond-async` and `wait=N`."""

from dataclasses import dataclass

from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Preference:
    """How long the caller wants to wait for the result, in seconds, and what of its wish was applied."""

    wait: float
    applied: str | None


def read_preference(request: Request, *, default: float, cap: float) -> Preference:
    """Return the preferences of the Prefer headers; unknown ones are ignored, as the RFC says."""
    if "prefer" not in request.headers:
        return Preference(default, None)
    wait: float | None = None
    respond_async = False
    for header in request.headers.getlist("prefer"):
        for part in header.split(","):
            name, _, value = part.partition(";")[0].partition("=")  # after the semicolon: parameters (RFC 7240, 2)
            name, value = name.strip().lower(), value.strip().strip('"')
            if name == "respond-async":
                respond_async = True
            elif name == "wait" and value.isascii() and value.isdigit() and wait is None:
                wait = min(float(value), cap)
    if wait is not None:
        # With both, RFC 7240 (4.3) lets the server answer asynchronously when the wait is over.
        return Preference(wait, f"respond-async, wait={wait:g}" if respond_async else f"wait={wait:g}")
    if respond_async:
        return Preference(0, "respond-async")
    return Preference(default, None)
