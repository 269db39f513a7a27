"""One error tree: each error has an HTTP status, a stable code, and a sentence with advice for the caller.

GuichetError
├── MalformedBody          400  the bytes are not valid, unambiguous JSON
├── Unauthorized           401  no key, or an unknown one
├── Forbidden              403  the key lacks the scope
├── NotFound               404  no such job, model or version (or it is someone else's)
├── NotAcceptable          406  no available representation matches Accept
├── SlowRequest            408  the body arrives too slowly
├── Conflict               409  the job's state does not allow it, or the first request with this key still runs
├── Gone                   410  the job was erased
├── PreconditionFailed     412  the object has changed since the caller read it (If-Match)
├── TooLarge               413  more bytes or rows than the limit
├── UnsupportedMediaType   415  not application/json
├── RangeNotSatisfiable    416  the file has no such bytes
├── RowFaults              422  the rows do not fit the card: every fault listed with its JSON pointer
├── RowRefused             422  the row fits the card, but the model refuses its values
├── NotExplainable         422  the model's scores cannot be explained
├── InvalidRequest         422  a parameter of the path or the query is not valid
├── IdempotencyMismatch    422  the same Idempotency-Key, or own id, with another body
├── TooManyRequests        429  the caller is over its quota (with Retry-After)
├── ModelFailed            500  the model raised on this row
├── Unavailable            503  database down, service full, or no model loaded (with Retry-After)
├── JobTimeout             504  the job's own timeout ran out
└── ModelError             500  a model package cannot be used
    ├── CardError               model.json is wrong, or disagrees with the artefact
    └── ArtefactError           model.joblib is missing, altered, or cannot be loaded
"""

from typing import ClassVar

from shared.faults import Fault

MAX_FAULTS = 1_000  # listed faults of one request; further ones are counted, not built


class GuichetError(Exception):
    """A refusal or a failure of the service, with a sentence for the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        faults: list[Fault] | None = None,
        fault_count: int = 0,
        job_id: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults or []
        self.fault_count = max(fault_count, len(self.faults))  # with those that were only counted
        self.job_id = job_id
        self.retry_after = retry_after


class MalformedBody(GuichetError):
    """The body is not valid, unambiguous JSON."""

    status, code, title = 400, "malformed_body", "Malformed body"


class Unauthorized(GuichetError):
    """No API key, or an unknown one."""

    status, code, title = 401, "unauthorized", "Unauthorized"


class Forbidden(GuichetError):
    """The API key lacks a scope."""

    status, code, title = 403, "forbidden", "Forbidden"


class NotFound(GuichetError):
    """No such thing, or it belongs to someone else."""

    status, code, title = 404, "not_found", "Not found"


class NotAcceptable(GuichetError):
    """No available representation matches the Accept header."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class SlowRequest(GuichetError):
    """The body arrives so slowly that it would hold its place for hours."""

    status, code, title = 408, "request_timeout", "Request timeout"


class Conflict(GuichetError):
    """The present state does not allow the request."""

    status, code, title = 409, "conflict", "Conflict"


class Gone(GuichetError):
    """The job was erased."""

    status, code, title = 410, "gone", "Erased"


class PreconditionFailed(GuichetError):
    """The object has changed since the caller read it."""

    status, code, title = 412, "precondition_failed", "Somebody was first"


class TooLarge(GuichetError):
    """More bytes or rows than the limit."""

    status, code, title = 413, "too_large", "Too large"


class UnsupportedMediaType(GuichetError):
    """The content type is not one that this route reads."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class RangeNotSatisfiable(GuichetError):
    """The file has no bytes in the requested range."""

    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


class RowFaults(GuichetError):
    """The request does not fit the model's card or the route's body; `errors` lists every fault."""

    status, code, title = 422, "invalid_row", "The request does not fit the model"


class RowRefused(GuichetError):
    """The row fits the card, but the model refuses its values."""

    status, code, title = 422, "refused_by_model", "The model refuses the row"


class NotExplainable(GuichetError):
    """The scores of this model cannot be explained."""

    status, code, title = 422, "not_explainable", "The score cannot be explained"


class InvalidRequest(GuichetError):
    """A parameter of the path or the query is not valid."""

    status, code, title = 422, "invalid_request", "The request is not valid"


class IdempotencyMismatch(GuichetError):
    """The same Idempotency-Key, or own id, came with another body."""

    status, code, title = 422, "idempotency_mismatch", "The key or id was used with another body"


class TooManyRequests(GuichetError):
    """The caller is over its quota for the seconds in Retry-After."""

    status, code, title = 429, "too_many_requests", "Too many requests"


class ModelFailed(GuichetError):
    """The model raised while it scored this row."""

    status, code, title = 500, "model_failed", "The model failed on this row"


class Unavailable(GuichetError):
    """The service cannot do this now."""

    status, code, title = 503, "unavailable", "Service unavailable"


class JobTimeout(GuichetError):
    """The job ran longer than its own timeout."""

    status, code, title = 504, "job_timeout", "The job ran out of time"


class ModelError(GuichetError):
    """A model package cannot be used."""

    code, title = "model_error", "The model cannot be used"


class CardError(ModelError):
    """model.json is wrong, or disagrees with the artefact."""

    code = "card_error"


class ArtefactError(ModelError):
    """model.joblib is missing, altered, or cannot be loaded."""

    code = "artefact_error"
