"""Logs: one JSON object a line on standard error, one sentence with its fields; never inputs, never keys."""

import json
import logging
from datetime import UTC, datetime

import orjson

# Celery says three lines for each task; Flower shows the same, and what a task did is logged by the task itself.
_CHATTY = ("celery.app.trace", "celery.beat", "celery.worker.strategy")


class JsonFormatter(logging.Formatter):
    """Render a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return {time, level, logger, message, exception?}."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(entry).decode()
        except TypeError:  # a lone surrogate, say: escaped, it can be written
            return json.dumps(entry, default=str)


def configure_logging(level: str) -> None:
    """Send every logger of this process to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
