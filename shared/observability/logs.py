"""Logs: one line on standard error for each sentence, with the fields that are bound; never inputs, never keys.

Modules log with the standard library (`log = logging.getLogger(__name__)`), and so do the libraries. Here the lines get
their form: JSON for machines, text for a person at a terminal. An exception is told by its type and its places
(shared/observability/redaction.py), and what is wrong is said once (shared/observability/repeats.py).

    bind(job_id=job.id, model="credit@2")              on every line of this request or task from here on
    with bound(lane="bulk"): ...                       on every line of this block
    log.info("loaded", extra={"duration_ms": 12})      on this line
"""

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, merge_contextvars
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter
from structlog.processors import JSONRenderer
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.observability.redaction import message_of, places_of
from shared.observability.repeats import Once

Format = Literal["auto", "json", "text"]

# Celery says three lines for each task; Flower shows the same, and what a task did is logged by the task itself.
_CHATTY = ("celery.app.trace", "celery.beat", "celery.worker.strategy")
# These speak of code; other warnings may quote a value ("Found unknown categories ['Nice']").
_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
# What `extra` may bring into a line: libraries have theirs, and Celery's hold what a task was given.
_EXTRA = ("duration_ms",)

_of_process: dict[str, str] = {}
_form: Format = "auto"


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────


def begin(**fields: str) -> None:
    """Start a request or task: its lines have these fields, and none that was bound before."""
    clear_contextvars()
    bind_contextvars(**fields)


def bind(**fields: str) -> None:
    """Add fields to the lines of this request or task: names of things, such as ids; never values of a caller."""
    bind_contextvars(**fields)


def bound(**fields: str) -> AbstractContextManager[None]:
    """Add fields to the lines of a block."""
    return bound_contextvars(**fields)


def identify(**fields: str) -> None:
    """Add fields to every line of this process, whichever thread writes it."""
    _of_process.update(fields)


# ── from a record to a line ──────────────────────────────────────────────────────────────────────────────────────


def _describe(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Return {time, level, logger, message} of a record, whose arguments have not been put into its message yet."""
    record: logging.LogRecord = entry["_record"]
    record.args = entry.pop("positional_args")
    del entry["event"]
    entry["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    entry["level"] = record.levelname
    entry["logger"] = record.name
    entry["message"] = message_of(record)
    record.args = ()  # or they would be put into the finished line
    entry.update(_of_process)
    return entry


def _add_exception(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    exc_info = entry.pop("exc_info", None)
    if exc_info and exc_info[1] is not None:
        entry["exception"] = places_of(exc_info[1])
    return entry


def _dumps(entry: EventDict, **_: object) -> str:
    try:
        return orjson.dumps(entry).decode()
    except TypeError:  # a lone surrogate, say: escaped, it can be written
        return json.dumps(entry, default=str)


def make_formatter(form: Literal["json", "text"], *, colors: bool = False) -> logging.Formatter:
    """Return a formatter of records as lines: {time, level, logger, message, ...fields, exception?}."""
    return ProcessorFormatter(
        foreign_pre_chain=[_describe, merge_contextvars, ExtraAdder(_EXTRA), _add_exception],
        processors=[
            ProcessorFormatter.remove_processors_meta,
            JSONRenderer(_dumps) if form == "json" else make_text_renderer(colors=colors),
        ],
        use_get_message=False,
        pass_foreign_args=True,
    )


def make_text_renderer(*, colors: bool) -> Processor:
    """Return a renderer of {time, level, logger, message, ...fields, exception?} for people.

    The time is the machine's own, to the second; an exception follows on lines of its own.
    """
    styles = ConsoleRenderer.get_default_column_styles(colors)
    of_level = ConsoleRenderer.get_default_level_styles(colors)
    levels = {name: of_level[name.lower()] for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}

    def value(style: str, show: Callable[[Any], str], *, name: str | None = None) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(name, style, styles.reset, show)

    return ConsoleRenderer(
        columns=[
            Column("time", value(styles.timestamp, _clock)),
            Column("level", LogLevelColumnFormatter(levels, styles.reset)),
            Column("message", value(styles.bright, _on_one_line)),
            Column("logger", value(styles.timestamp, "({})".format)),
            Column("", value(styles.kv_value, _on_one_line, name=styles.kv_key)),
        ],
    )


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")


def _on_one_line(value: object) -> str:
    """Return a text without what moves a terminal's cursor: names of files may hold it."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


# ── setting it up ────────────────────────────────────────────────────────────────────────────────────────────────


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


def current_format() -> Format:
    """Return the log format of this process: its children use the same."""
    return _form


def configure_logging(level: str, *, form: Format = "auto") -> None:
    """Send every logger of this process to standard error; `auto` is text on a terminal, and JSON elsewhere."""
    global _form
    _form = form
    is_terminal = sys.stderr.isatty()
    if form == "auto":
        form = "text" if is_terminal else "json"
    handler = logging.StreamHandler()
    handler.setFormatter(make_formatter(form, colors=is_terminal and "NO_COLOR" not in os.environ))
    handler.addFilter(Once())
    logging.captureWarnings(True)  # so that those of libraries are said once, too
    warnings.showwarning = _log_warning
    threading.excepthook = _log_end_of_thread  # Python's own writes the words to standard error
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
