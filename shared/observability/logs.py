"""Logs: one JSON object a line on standard error, one sentence with its fields; never inputs, never keys.

An exception is told by its type and its places (shared/observability/redaction.py), and what is wrong is said once
(shared/observability/repeats.py).
"""

import json
import logging
import threading
import warnings
from datetime import UTC, datetime
from typing import TextIO

import orjson

from shared.observability.redaction import message_of, places_of
from shared.observability.repeats import Once

# Celery says three lines for each task; Flower shows the same, and what a task did is logged by the task itself.
_CHATTY = ("celery.app.trace", "celery.beat", "celery.worker.strategy")
# These speak of code; other warnings may quote a value ("Found unknown categories ['Nice']").
_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


class JsonFormatter(logging.Formatter):
    """Render a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return {time, level, logger, message, exception?}."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = places_of(record.exc_info[1])
        try:
            return orjson.dumps(entry).decode()
        except TypeError:  # a lone surrogate, say: escaped, it can be written
            return json.dumps(entry, default=str)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    words = f": {message}" if issubclass(category, _OF_CODE) else ""
    logging.getLogger("py.warnings").warning("%s at %s:%s%s", category.__name__, filename, str(lineno), words)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    name = "?" if ended.thread is None else ended.thread.name
    error = ended.exc_value
    logging.getLogger("threads").error("the thread %s ended by an exception", name, exc_info=error)


def configure_logging(level: str) -> None:
    """Send every logger of this process to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Once())
    logging.captureWarnings(True)  # so that those of libraries are said once, too
    warnings.showwarning = _log_warning
    threading.excepthook = _log_end_of_thread  # Python's own writes the words to standard error
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
