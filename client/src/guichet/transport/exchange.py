"""One request with its retries: the answers that deserve another try, and the delays between tries."""

import random
import time

from guichet.errors import TimedOut
from guichet.transport.wire import Answer, Broken, Flow, Pause, Request

BASE_SECONDS = 0.5
CAP_SECONDS = 20.0
LONGEST_PAUSE = 300.0  # whom the service asks to wait longer is told so at once


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Return the seconds before the next attempt: the service's Retry-After, and full jitter on top.

    Full jitter spreads callers that failed together (https://aws.amazon.com/builders-library/timeouts-retries-and-
    backoff-with-jitter/): a random part of 0.5, 1, 2, 4 ... 20 seconds.
    """
    jitter = random.random() * min(CAP_SECONDS, BASE_SECONDS * 2.0**attempt)  # noqa: S311 - spread, not secrecy
    return (retry_after or 0) + jitter


def is_passing(answer: Answer) -> bool:
    """Return whether the same request may succeed a moment later."""
    if answer.status in (429, 502, 503):
        return True
    if answer.status == 504:
        return "job_id" not in answer.problem  # with one, the job itself ran out of time
    # The first request with this Idempotency-Key is still being stored; other conflicts are those of a job.
    return answer.status == 409 and answer.retry_after is not None and "job_id" not in answer.problem


def exchange(request: Request, retries: int, *, deadline: float | None = None) -> Flow[Answer]:
    """Send a request until it is answered; return the answer, also an error that no retry mends.

    Without any answer after the last attempt, raise ConnectionFailed or TimedOut. `deadline` is a time.monotonic().
    """
    attempt = 0
    while True:
        reply = yield request
        if isinstance(reply, Answer):
            if not is_passing(reply):
                return reply
            pause = backoff(attempt, reply.retry_after)
            if attempt >= retries or not request.is_repeatable or pause > LONGEST_PAUSE:
                return reply
        else:
            assert isinstance(reply, Broken)
            pause = backoff(attempt)
            if attempt >= retries or not request.is_repeatable or not reply.is_passing:
                raise reply.error
        if deadline is not None and time.monotonic() + pause > deadline:
            if isinstance(reply, Answer):
                return reply
            raise TimedOut(str(reply.error)) from reply.error
        attempt += 1
        yield Pause(pause)
