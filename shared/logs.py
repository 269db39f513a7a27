"""Logs: one JSON object a line on standard error, one sentence with its fields; never inputs, never keys.

What is wrong is said once, and again when it has been well for a minute, or is still wrong after ten; the line then
says how often it happened meanwhile. While a server is away, a connection is tried hundreds of times a minute.
"""

import json
import logging
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

# Celery says three lines for each task; Flower shows the same, and what a task did is logged by the task itself.
_CHATTY = ("celery.app.trace", "celery.beat", "celery.worker.strategy")


QUIET_SECONDS = 60.0  # what was not said for so long is news
AGAIN_SECONDS = 600.0  # what goes on for so long is said again
_KEPT = 1_000  # different sentences that are remembered

# A server that is away needs no stack of calls: where it was missed says nothing of why it is away.
_AWAY = frozenset({"OperationalError", "InterfaceError", "ConnectionError", "TimeoutError", "RedisError"})
_SPEC = re.compile(r"%(?:\(\w+\))?[-+ #0-9.*]*([a-zA-Z%])")
_VARYING = re.compile(r"\d+\.\d+|\(\d+/\d+\)|0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}")


@dataclass(slots=True)
class _Said:
    """A sentence that was logged."""

    logged_at: float
    heard_at: float
    count: int = 0  # how often it was held back since


class Once(logging.Filter):
    """Lets a warning or an error through once, and again when it is news; tells how often it was held back.

    Numbers do not make another sentence (`%d rows`), names do (`%s`); nor does a traceback, but where it ends does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._said: OrderedDict[tuple[object, ...], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log a record; shorten it where its traceback says nothing."""
        if record.levelno < logging.WARNING:
            return True
        key = _sentence_of(record)
        now = time.monotonic()
        with self._lock:
            said = self._said.get(key)
            if said is not None:
                is_news = now - said.heard_at > QUIET_SECONDS or now - said.logged_at > AGAIN_SECONDS
                said.heard_at = now
                if not is_news:
                    said.count += 1
                    return False
            count = 0 if said is None else said.count
            self._said[key] = _Said(now, now)
            self._said.move_to_end(key)
            while len(self._said) > _KEPT:
                self._said.popitem(last=False)
        _shorten(record, count)
        return True


def _sentence_of(record: logging.LogRecord) -> tuple[object, ...]:
    text = str(record.msg)
    kinds = [kind for kind in _SPEC.findall(text) if kind != "%"]
    arguments = record.args if isinstance(record.args, tuple) else ()
    if arguments and len(kinds) == len(arguments):
        names = tuple(str(value) for kind, value in zip(kinds, arguments, strict=True) if kind not in "dfgi")
    else:
        names = (record.getMessage(),)
    return (record.name, record.levelno, text, *(_VARYING.sub("#", name) for name in names), *_error_of(record))


def _error_of(record: logging.LogRecord) -> tuple[object, ...]:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ()
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (type(error).__name__, None if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno))


def _shorten(record: logging.LogRecord, count: int) -> None:
    """Say in the message what there is to say: how often it was held back, and which server is away."""
    error = record.exc_info[1] if record.exc_info else None
    is_away = error is not None and not _AWAY.isdisjoint(kind.__name__ for kind in type(error).__mro__)
    if not count and not is_away:
        return
    message = record.getMessage()
    if is_away:
        lines = str(error).strip().splitlines() or [""]
        message = f"{message} ({type(error).__name__}: {lines[0][:300]})"
        record.exc_info = record.exc_text = None
    if count:
        message = f"{message} (and {count} times more before)"
    record.msg, record.args = message, ()


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
    handler.addFilter(Once())
    logging.captureWarnings(True)  # so that those of libraries are said once, too
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
