"""One error tree: `except GuichetError` catches every error, and its text says what to do.

GuichetError
├── Unusable            what you gave cannot be sent or written: a bad URL, infinity in a row, a file that is not there
├── Refused             the service answered with an error: status, code, detail, faults, job_id
├── JobFailed           the job ended without a result: it failed, was canceled, or expired
├── ConnectionFailed    nobody answered, or somebody who is not Guichet, even after the retries
└── TimedOut            no answer, or no end of the job, within the time that you gave; an accepted job goes on
"""

from dataclasses import dataclass

_MAX_NOTES = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request: where (RFC 6901 JSON pointer), which kind, and what to do."""

    pointer: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.message}" if self.pointer else self.message


class GuichetError(Exception):
    """Anything that this client cannot do for you."""


class Unusable(GuichetError, ValueError):
    """What you gave cannot be sent or written."""


class Refused(GuichetError):
    """The service answered with an error."""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str,
        faults: list[Fault] | None = None,
        job_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code
        self.faults = faults or []
        self.notes = _notes(detail, self.faults)
        self.job_id = job_id
        self.request_id = request_id
        for note in self.notes[:_MAX_NOTES]:
            self.add_note(note)  # a traceback shows them
        if len(self.notes) > _MAX_NOTES:
            self.add_note(f"and {len(self.notes) - _MAX_NOTES} more")


def _notes(detail: str, faults: list[Fault]) -> list[str]:
    """Return the faults as lines; none for a single fault that the detail already names."""
    if len(faults) == 1:
        (fault,) = faults
        sentence = detail.strip().rstrip(".")
        message = fault.message.strip().rstrip(".")
        if not fault.pointer or sentence == message or sentence.endswith(f"{fault.pointer} {message}"):
            return []
    return [str(fault) for fault in faults]


class JobFailed(GuichetError):
    """The job ended without a result; `status` is failed, canceled or expired."""

    def __init__(self, detail: str, *, job_id: str, status: str, code: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.job_id = job_id
        self.status = status
        self.code = code


class ConnectionFailed(GuichetError):
    """No answer came, or an answer from another server than Guichet."""


class TimedOut(GuichetError):
    """The wait was longer than allowed; `job_id` names the job that goes on, if any."""

    def __init__(self, detail: str, *, job_id: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.job_id = job_id
