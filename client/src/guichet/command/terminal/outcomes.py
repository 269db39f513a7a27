"""Exit codes for scripts, and sentences for people."""

import argparse
import shlex

from guichet.command.terminal.console import Console
from guichet.connection import JobFacts
from guichet.errors import ConnectionFailed, GuichetError, JobFailed, Refused, TimedOut

DONE = 0
JOB_FAILED = 1
REFUSED = 2  # argparse's own for wrong usage, too
ROWS_FAILED = 3
NOT_ALLOWED = 4
NO_ANSWER = 5
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

HELP = """exit codes:
  0    done; every row has its score
  1    the job failed, was canceled, or expired
  2    wrong usage, a file that cannot be read or written, or a request that the service refused
  3    done, but some rows have errors instead of a score
  4    not allowed: the API key is missing, not known, or lacks a scope
  5    the service could not be reached, is overloaded, or took longer than allowed
  130  interrupted (Ctrl-C); a job that was accepted goes on
"""


def command_line(options: argparse.Namespace, *words: str) -> str:
    """Return a command as it may be typed next, for the same service. It never shows a key."""
    url = getattr(options, "url", None)
    return shlex.join(["guichet", *words, *(["--url", url] if url else [])])


def reason(job: JobFacts, place: str | None = None) -> str:
    """Return the reason for a job's end; `place` is the file with its errors.

    The service speaks of errors.csv, the name under which it has them: here that is a file of yours, or none.
    """
    if job.error is None:
        return ""
    why, hint, _ = job.error.message.partition(": errors.csv says why")
    return why.rstrip(".") + (f": {place} says why" if hint and place else "")


def complain_of(job: JobFacts, console: Console) -> int:
    """Say how a job ended that did not succeed, and why; return the exit code."""
    why = reason(job, None)
    console.complain(f"The job {job.id} {how_ended(job)}{f': {why}' if why else ''}.")
    return JOB_FAILED


def how_ended(job: JobFacts) -> str:
    """Return the verb of a job's end: failed, expired, was canceled."""
    return job.status if job.status in ("failed", "expired") else f"was {job.status}"


def has_errors_to_read(job: JobFacts) -> bool:
    """Return whether the errors of a job add anything to the printed ones."""
    return job.counts.failed > 0 or (job.error is not None and "errors.csv" in job.error.message)


def explain(error: GuichetError | OSError, console: Console) -> int:
    """Print the error, its faults one per line; return the exit code."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        console.complain(f"{place}{error.strerror or error}.")
        return REFUSED
    console.complain(str(error))
    if isinstance(error, Refused):
        for note in error.notes:
            console.tell(f"  {note}")
        if error.status >= 500 and error.request_id:
            console.tell(f"  (request {error.request_id})")
    return code_of(error)


def code_of(error: GuichetError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, JobFailed):
        return JOB_FAILED
    if isinstance(error, ConnectionFailed | TimedOut):
        return NO_ANSWER
    if isinstance(error, Refused):
        if error.status in (401, 403):
            return NOT_ALLOWED
        return NO_ANSWER if error.status == 429 or error.status >= 500 else REFUSED
    return REFUSED
