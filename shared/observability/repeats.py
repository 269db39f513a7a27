"""A log filter for repeated problems: each is logged once, and again after a quiet minute, or after ten minutes.

The line then says how often it happened meanwhile. While a server is away, a connection is tried hundreds of times a
minute.
"""

import logging
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from shared.observability.redaction import is_away, message_of, safe_text

QUIET_SECONDS = 60.0  # what was not said for so long is news
AGAIN_SECONDS = 600.0  # what goes on for so long is said again
_KEPT = 1_000  # different sentences that are remembered
_SPEC = re.compile(r"%(?:\(\w+\))?[-+ #0-9.*]*([a-zA-Z%])")
_VARYING = re.compile(r"\d+\.\d+|\(\d+/\d+\)|0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}")


@dataclass(slots=True)
class _Entry:
    """A sentence that was logged."""

    logged_at: float
    heard_at: float
    count: int = 0  # how often it was held back since


class Once(logging.Filter):
    """Passes a warning or an error once, and again when it is news, with the number of suppressed ones.

    Different numbers do not make a different sentence (`%d rows`), different names do (`%s`); of a traceback, only its
    end counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[object, ...], _Entry] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record; shorten it if its traceback adds nothing."""
        if record.levelno < logging.WARNING:
            return True
        key = _sentence_of(record)
        now = time.monotonic()
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                is_news = now - entry.heard_at > QUIET_SECONDS or now - entry.logged_at > AGAIN_SECONDS
                entry.heard_at = now
                if not is_news:
                    entry.count += 1
                    return False
            count = 0 if entry is None else entry.count
            self._entries[key] = _Entry(now, now)
            self._entries.move_to_end(key)
            while len(self._entries) > _KEPT:
                self._entries.popitem(last=False)
        _shorten(record, count)
        return True


def _sentence_of(record: logging.LogRecord) -> tuple[object, ...]:
    text = str(record.msg)
    kinds = [kind for kind in _SPEC.findall(text) if kind != "%"]
    arguments = record.args if isinstance(record.args, tuple) else ()
    if arguments and len(kinds) == len(arguments):
        texts = (safe_text(value) if isinstance(value, BaseException) else str(value) for value in arguments)
        names = tuple(name for kind, name in zip(kinds, texts, strict=True) if kind not in "dfgi")
    else:
        names = (message_of(record),)
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
    """Add to the message the number of suppressed repeats, and the unreachable server."""
    error = record.exc_info[1] if record.exc_info else None
    is_servers = error is not None and is_away(error)
    if not count and not is_servers:
        return
    message = message_of(record)
    if error is not None and is_servers:
        message = f"{message} ({safe_text(error)})"
        record.exc_info = record.exc_text = None
    if count:
        message = f"{message} (and {count} times more before)"
    record.msg, record.args = message, ()
