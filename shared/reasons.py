"""Why a service is not well: English sentences of a closed set, each with the code of its cause and its values.

Whoever writes another language, such as the console, takes the sentence of that language for the code. A sentence that
comes from elsewhere, such as the refusal of a store, is plain text without a code.
"""

from typing import Self

# By the code of the cause. `{waiting}` is the number of waiting jobs, written as the end of a sentence, and `{detail}`
# a text from elsewhere, after a colon.
SENTENCES = {
    "database_silent": "The database does not answer.",
    "database_read_only": (
        "The database is read-only: it has failed over, its disk is full, or an operator has set it so."
    ),
    "database_locked": "The tables of jobs are locked by another transaction.",
    "database_untried": "It cannot be tried whether a job can be stored: {error}.",
    "storing_ended": "The thread that stores requests has ended: restart the service.",
    "storing_late": "Requests have waited more than {seconds} s to be stored: the database is slow or locked.",
    "thread_ended": "The thread {thread} has ended at {at} UTC: restart it.",
    "broker_silent": "Redis does not answer: jobs are stored{waiting}.",
    "starting": "The service is starting: no worker has been heard of yet{waiting}.",
    "no_worker": "No worker has been heard of for 20 seconds{waiting}.",
    "no_worker_of_lane": "No worker consumes the lane {lane}{waiting}.",
    "recovery_late": "Recovery is late: no worker has looked for {seconds} s for jobs that dead workers left.",
    "recovery_never": "Recovery is late: no worker has ever looked for jobs that dead workers left.",
    "lane_stalled": "Jobs wait in the lane {lane}, and none was finished for 30 seconds.",
    "no_model": "No model is registered: add one with `python -m shared.registry add`.",
    "default_model_unknown": "DEFAULT_MODEL names {model}, which is not registered.",
    "default_model_loading": "The default model {model} is not loaded yet.",
    "model_refused": "{model} cannot be loaded{detail}",
    "model_refused_jobs_wait": "{model} cannot be loaded, so its jobs wait{detail}",
    "model_loading": "{model} is being loaded.",
    "model_busy": "{model} has worked on one row or batch for {seconds} s: its others wait.",
    "model_lost": (
        "{model} took its process down or ran out of time {times} times in the last {minutes} minutes: those rows have "
        "failed."
    ),
    "models_or_worker": "A worker, or the store of models, is not as it should be.",
    "version_suspended": (
        "{model} is scored by its pipeline since {since}: {rows} of {checked} rows that were scored again had another "
        "score than by {scorer} (alert {alert}). Find out why, then acknowledge it: POST /alerts/{alert}/acknowledge."
    ),
    "challenger_stopped": (
        "The challenger {model} has been stopped since {since}{detail} No answer depends on it. Delete the alias "
        "`challenger`, or move it to a version that scores; deleted and set again, the version is tried again."
    ),
}

Value = str | int | None


class Reason(str):
    """An English sentence with the code of its cause, and its values by name."""

    __slots__ = ("code", "values")

    code: str
    values: dict[str, Value]

    def __new__(cls, code: str, **values: Value) -> Self:
        """Make the sentence of a code; raise KeyError for a code that is not there, or for a value that is missing."""
        texts = dict(values)
        if "waiting" in values:
            texts["waiting"] = _and_wait(int(values["waiting"] or 0))
        if "detail" in values:
            texts["detail"] = f": {values['detail']}" if values["detail"] else "."
        reason = super().__new__(cls, SENTENCES[code].format(**texts))
        reason.code = code
        reason.values = values
        return reason


def _and_wait(count: int) -> str:
    """Return the end of a sentence about the reasons of waiting jobs, if any wait."""
    return "" if count == 0 else f", and {count} {'job waits' if count == 1 else 'jobs wait'}"
