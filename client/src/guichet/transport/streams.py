"""Long answers over several connections: the common part of event streams and downloads. No I/O."""

from guichet.errors import ConnectionFailed, GuichetError
from guichet.transport.exchange import LONGEST_PAUSE, backoff, is_passing
from guichet.transport.wire import Answer, Broken, Request, check, refusal, stranger


class Stream:
    """A long answer. For every connection: send `request()`; if its answer `accepts()`, read its pieces, then
    `finish()`; otherwise `refused()`; `broke()` when the connection breaks. Until it `has_ended()`, `pause()`
    says how long to wait before the next connection, or raises when there were too many in vain.
    """

    def __init__(self, retries: int, *, cut_off: str) -> None:
        self._is_ended = False
        self._retries = retries
        self._attempt = 0
        self._retry_after: float | None = None
        self._cut_off = cut_off
        self._error: GuichetError | None = None

    def has_ended(self) -> bool:
        """Return whether all of it has come."""
        return self._is_ended

    def request(self) -> Request:
        """Return the request for the missing rest."""
        raise NotImplementedError

    def accepts(self, answer: Answer) -> bool:
        """Take an answer (without its body); return whether its body is the requested one."""
        raise NotImplementedError

    def finish(self) -> None:
        """Note that an accepted answer has ended; the stream itself may not have."""

    def refused(self, answer: Answer) -> None:
        """Take an answer that was not accepted; raise its error if another attempt would not mend it."""
        if self._is_ended:
            return
        if not is_passing(answer):
            check(answer)
            raise stranger(answer)
        self._error = refusal(answer)
        self._retry_after = answer.retry_after

    def broke(self, broken: Broken) -> None:
        """Take note of a connection that broke; raise its error if another attempt would not mend it."""
        if not broken.is_passing:
            raise broken.error
        self._error = broken.error

    def pause(self) -> float:
        """Return the seconds before the next connection; raise the last error when there were too many in a row."""
        seconds = backoff(self._attempt, self._retry_after)
        if self._attempt >= self._retries or seconds > LONGEST_PAUSE:
            raise self._error or ConnectionFailed(self._cut_off)
        self._attempt += 1
        self._retry_after = self._error = None
        return seconds

    def _moved(self) -> None:
        # Something new came: the patience begins anew.
        self._attempt = 0
