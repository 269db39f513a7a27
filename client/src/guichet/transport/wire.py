"""Requests and answers without any I/O: their content and their meaning.

A *flow* is a generator that yields what is to be done (a Request, a Pause) and is sent what came of it. It holds the
whole logic of a call, once; the two clients only differ in how they send and sleep.
"""

import json
import ssl
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx2

from guichet.errors import ConnectionFailed, GuichetError, Refused, TimedOut, Unusable
from guichet.records import read_faults
from guichet.registering import ModelUpload
from guichet.transport.uploads import Upload

Value = TypeVar("Value")

PROBLEM = "urn:guichet:error:"  # how the types of Guichet's problem documents begin
OF_PROXIES = frozenset({401, 403, 413, 429, 502, 503, 504})  # what something on the way may say for the service


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request; `wait` is the requested time for which the service may hold its answer back."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    upload: Upload | ModelUpload | None = None
    wait: float = 0

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be sent once more."""
        return self.upload is None or self.upload.is_repeatable


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: httpx2.Headers
    body: bytes = b""

    @property
    def retry_after(self) -> float | None:
        """The seconds of `Retry-After`; a date is not read, and the usual pause taken instead."""
        value = self.headers.get("retry-after", "")
        return float(value) if value.isascii() and value.isdigit() else None

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document (RFC 9457), empty where the body is none."""
        if "json" not in self.headers.get("content-type", ""):
            return {}
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        is_ours = isinstance(content, dict) and "detail" in content and str(content.get("type")).startswith(PROBLEM)
        return content if is_ours else {}


@dataclass(frozen=True, slots=True)
class Broken:
    """No answer: why, and whether it makes sense to try again."""

    error: GuichetError
    is_passing: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be done for some seconds."""

    seconds: float


Reply: TypeAlias = Answer | Broken
Flow: TypeAlias = Generator[Request | Pause, Reply | None, Value]


# ── from the caller ──────────────────────────────────────────────────────────────────────────────────────────────


def check_url(url: str) -> str:
    """Return the address of a service without its last slash; raise Unusable when it cannot be one."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        httpx2.URL(url.strip())
    except (ValueError, httpx2.InvalidURL):
        usable = False
    if not usable:
        raise Unusable(f"{url!r} is not the address of a service: give one such as http://127.0.0.1:8000.")
    if parts.query or parts.fragment:
        raise Unusable("The address of the service must not have a query or a fragment.")
    return url.strip().rstrip("/")


def check_key(key: str) -> str:
    """Return an API key as a header can carry it; raise Unusable, which never shows it."""
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Unusable("The API key holds characters that no key has: was it copied in full?")
    return key


def without_secret(url: str) -> str:
    """Return an address as it may be shown: without a user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def encode(value: object) -> bytes:
    """Return JSON; numbers of NumPy become plain ones. Raise Unusable for values that JSON cannot hold."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:
        raise Unusable("A text of the row is not valid Unicode: read its file with the right encoding.") from None
    except (ValueError, TypeError) as error:
        hint = " (give None for a missing value)" if isinstance(error, ValueError) else ""
        raise Unusable(f"The row cannot be written as JSON: {error}{hint}.") from None


def _plain(value: object) -> object:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        return item()
    raise TypeError(f"a {type(value).__name__} is not a number, a text, a boolean or None")


# ── from the service ─────────────────────────────────────────────────────────────────────────────────────────────


def check(answer: Answer) -> Answer:
    """Return an answer that is good (2xx); raise Refused, or ConnectionFailed when it is not Guichet's."""
    if 200 <= answer.status < 300:
        return answer
    if 300 <= answer.status < 400:
        place = answer.headers.get("location", "another address")
        raise ConnectionFailed(f"The service has moved ({answer.status}): use {without_secret(place)} as its URL.")
    if not answer.problem and answer.status not in OF_PROXIES:
        raise stranger(answer)
    raise refusal(answer)


def stranger(answer: Answer) -> ConnectionFailed:
    """Return the error for an answer that is not Guichet's."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    return ConnectionFailed(
        f"The answer ({answer.status}, {kind}) does not look like that of a Guichet service: check the URL."
    )


def refusal(answer: Answer) -> Refused:
    """Return the error of a refusal."""
    problem = answer.problem
    job_id = problem.get("job_id")
    if problem:
        detail, code = str(problem["detail"]), str(problem["type"]).removeprefix(PROBLEM)
    else:
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "unknown status"
        detail, code = f"The answer was {answer.status} ({phrase}), without a reason.", f"http_{answer.status}"
    return Refused(
        detail,
        status=answer.status,
        code=code,
        faults=read_faults(problem.get("errors")),
        job_id=None if job_id is None else str(job_id),
        request_id=problem.get("request_id") or answer.headers.get("x-request-id"),
    )


def read(answer: Answer, reader: Callable[[dict[str, Any]], Value]) -> Value:
    """Return the content of a good answer; raise ConnectionFailed if it does not look like Guichet's."""
    try:
        body = json.loads(answer.body)
        if not isinstance(body, dict):
            raise TypeError("not an object")
        return reader(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise stranger(answer) from error


def broken(error: httpx2.RequestError, url: str) -> Broken:
    """Return the error for a request without an answer."""
    place = without_secret(url)
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return Broken(Unusable(f"The request cannot be sent: {error}."), False)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        if _has_cause(error, ssl.SSLCertVerificationError):
            return Broken(ConnectionFailed(f"The certificate of {place} is not trusted: {error}."), False)
        reason = str(error) or type(error).__name__
        return Broken(
            ConnectionFailed(f"Nobody answers at {place} ({reason}): is it running, and is that its address?"), True
        )
    if isinstance(error, httpx2.TimeoutException):
        return Broken(TimedOut(f"{place} did not answer in time: give it longer, or try again."), True)
    return Broken(ConnectionFailed(f"The connection to {place} broke ({error or type(error).__name__})."), True)


def _has_cause(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kind):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
