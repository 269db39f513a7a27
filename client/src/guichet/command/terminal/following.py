"""Watching a job until it ends: by its events, or by polling where events are blocked."""

import time
from typing import Any

from guichet.client import Job
from guichet.command.terminal.bar import Bar
from guichet.command.terminal.console import Console, count, duration, rows, with_errors
from guichet.command.terminal.outcomes import DONE
from guichet.errors import GuichetError
from guichet.records import ENDED, Counts, Progress

POLL_SECONDS = 1.0


def leave(job: Job[Any], console: Console, advice: str, *, is_json: bool) -> int:
    """Print the id of a job that the command does not wait for, and how to go on; return the exit code."""
    console.say_json(job.info.body) if is_json else console.say(job.id)
    console.tell(advice)
    return DONE


def follow(job: Job[Any], bar: Bar) -> None:
    """Show the progress of a job of several rows; return at its end, with its result in `job.info`."""
    if not job.is_ended:
        _show(bar, job.status, job.counts, job.progress)
        try:
            for event in job.events():
                counts = event.counts or job.counts
                # The story begins with the job: what is older than what was shown already is passed over, and so is
                # the end that it had before it was taken up again.
                is_old = counts.pending > job.counts.pending or (event.status in ENDED and counts.pending > 0)
                if not is_old:
                    _show(bar, event.status or job.status, counts, event.progress)
        except GuichetError:
            pass  # a proxy that holds events back, a service that restarts: asking still works, or says what is wrong
        while not job.refresh().is_ended:
            _show(bar, job.status, job.counts, job.progress)
            time.sleep(POLL_SECONDS)
    bar.clear()


def _show(bar: Bar, status: str, counts: Counts, progress: Progress | None) -> None:
    done = counts.total - counts.pending if progress is None else progress.rows_done
    text = f"{count(done)}/{rows(counts.total)}"
    if progress is not None and progress.rows_per_second:
        text += f", {count(progress.rows_per_second)} rows/s"
    if progress is not None and progress.eta_seconds is not None and done < counts.total:
        text += f", ETA {duration(progress.eta_seconds)}"
    if counts.failed:
        text += f", {with_errors(counts.failed)}"
    bar.show(status, done, counts.total, text)
