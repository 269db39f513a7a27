"""Logs: one JSON object a line on standard error, one sentence with its fields; never inputs, never keys.

An exception is told by its type and the places in the code, without its words: a pipeline may raise with a person's
salary in its message, and a database repeats the row that it refuses. Only our own errors speak, and servers that are
away.

What is wrong is said once, and again when it has been well for a minute, or is still wrong after ten; the line then
says how often it happened meanwhile. While a server is away, a connection is tried hundreds of times a minute.
"""

import json
import logging
import re
import threading
import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

import orjson

from shared.errors import GuichetError

# Celery says three lines for each task; Flower shows the same, and what a task did is logged by the task itself.
_CHATTY = ("celery.app.trace", "celery.beat", "celery.worker.strategy")


QUIET_SECONDS = 60.0  # what was not said for so long is news
AGAIN_SECONDS = 600.0  # what goes on for so long is said again
_KEPT = 1_000  # different sentences that are remembered

# A server that is away needs no stack of calls: where it was missed says nothing of why it is away.
_AWAY = frozenset({"OperationalError", "InterfaceError", "ConnectionError", "TimeoutError", "RedisError"})
_CLIENTS = ("sqlalchemy", "psycopg2", "sqlite3", "redis", "kombu", "amqp")  # of servers: the packages whose words count
_WORDS = 300  # of a server's words, so many characters
_FRAMES = 40  # of each exception, so many places are told: the first and the last
# These speak of code; other warnings may quote a value ("Found unknown categories ['Nice']").
_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
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
        told_of = (told(value) if isinstance(value, BaseException) else str(value) for value in arguments)
        names = tuple(name for kind, name in zip(kinds, told_of, strict=True) if kind not in "dfgi")
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
    """Say in the message what there is to say: how often it was held back, and which server is away."""
    error = record.exc_info[1] if record.exc_info else None
    is_away = error is not None and _is_away(error)
    if not count and not is_away:
        return
    message = message_of(record)
    if error is not None and is_away:
        message = f"{message} ({told(error)})"
        record.exc_info = record.exc_text = None
    if count:
        message = f"{message} (and {count} times more before)"
    record.msg, record.args = message, ()


def _is_away(error: BaseException) -> bool:
    """Tell whether it says that a server did not answer; a pipeline's own ConnectionError does not."""
    is_clients = type(error).__module__.partition(".")[0] in _CLIENTS
    is_systems = isinstance(error, OSError) and error.errno is not None
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return (is_clients or is_systems) and not _AWAY.isdisjoint(kinds)


class _Told(str):
    """What stands in a message for an exception, whether it is asked for by %s or by %r."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def told(error: BaseException) -> str:
    """Return an exception as it may be logged or shown: its type, with its words where they hold nobody's values."""
    name = type(error).__name__
    if isinstance(error, GuichetError):
        return error.detail
    original = getattr(error, "orig", None)  # the driver's, below SQLAlchemy's
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        if not _is_away(error):
            return name if original is None else f"{name}, {type(original).__name__}"
        lines = str(original or error).strip().splitlines() or [""]
        return f"{name}: {lines[0][:_WORDS]}"
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.strerror:
        return f"{name}: {error.strerror}"
    return name


def without_words(text: str, error: BaseException) -> str:
    """Return a text without the words of this exception, and of those that led to it, where they are not ours."""
    for each in _chain(error):
        if isinstance(each, GuichetError):
            continue
        kind, words = type(each).__name__, str(each)
        for written in (f"{kind}: {words}", repr(each), words):
            if words and written in text:
                text = re.sub(rf"(?<!\w){re.escape(written)}(?!\w)", kind, text)
    return text


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message, in which exceptions are told without their words."""
    if isinstance(record.args, tuple) and any(isinstance(value, BaseException) for value in record.args):
        arguments = (_Told(told(value)) if isinstance(value, BaseException) else value for value in record.args)
        message = str(record.msg) % tuple(arguments)
    else:
        message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return message if error is None else without_words(message, error)  # Celery's, say, repeats it


def places_of(error: BaseException) -> str:
    """Return an exception and those that led to it: what each may tell, and where it was raised, a line for a place."""
    lines = []
    for each in reversed(list(_chain(error))):
        lines.append(f"{type(each).__name__}: {told(each)}" if isinstance(each, GuichetError) else told(each))
        frames = [
            f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(each.__traceback__)
        ]
        if len(frames) > _FRAMES:
            half = _FRAMES // 2
            frames = [*frames[:half], f"  ({len(frames) - _FRAMES} more)", *frames[-half:]]
        lines += frames
    return "\n".join(lines)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, those that it groups, and those that it was raised from or while handling."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


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
