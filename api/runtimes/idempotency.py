"""Idempotency-Key, or the caller's own id: a repeated request is the same job, a different one is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from api.runtimes.group_commit import Accepted
from shared.errors import Conflict, GuichetError, IdempotencyMismatch
from shared.jobs.queries.jobs import find_by_idempotency_key
from shared.jobs.submission import CLIENT_ID_SCOPE, Submission


class KeysInFlight:
    """The keys whose first request is being committed now."""

    def __init__(self) -> None:
        self._keys: set[tuple[str | None, str]] = set()

    @contextmanager
    def hold(self, submission: Submission) -> Iterator[None]:
        """Hold a submission's key while it is committed; raise Conflict when another one holds it."""
        if submission.idempotency_key is None:
            yield
            return
        key = (submission.idempotency_scope, submission.idempotency_key)
        if key in self._keys:
            name = _name_of_key(submission)
            raise Conflict(f"The first request with this {name} is still being stored: send it again.", retry_after=1)
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)


def find_earlier(reader: Engine, submission: Submission) -> Accepted | GuichetError | None:
    """Return the outcome of an earlier request with the same key for this one, None without one."""
    if submission.idempotency_scope is None or submission.idempotency_key is None:
        return None
    with reader.connect() as connection:
        earlier = find_by_idempotency_key(connection, submission.idempotency_scope, submission.idempotency_key)
    if earlier is None:
        return None
    job_id, body_hash = earlier
    if body_hash == submission.body_hash:
        return Accepted(None, job_id)
    name = _name_of_key(submission)
    return IdempotencyMismatch(
        f"This {name} was used with another body: take a new one for a new request.", job_id=job_id
    )


def client_scope(owner: str | None) -> str:
    """Return the scope of the ids that a caller gives its jobs itself."""
    return f"{owner or '-'}:{CLIENT_ID_SCOPE}"


def _name_of_key(submission: Submission) -> str:
    return "id" if (submission.idempotency_scope or "").endswith(CLIENT_ID_SCOPE) else "Idempotency-Key"
