"""Exceptions for logs and answers: their type and the places in the code, without values.

A pipeline may raise with a person's salary in its message, and a database repeats the row that it refuses. Only our own
errors speak, and servers that are away.
"""

import logging
import re
import traceback
from collections.abc import Iterator

from shared.errors import GuichetError

# A server that is away needs no stack of calls: where it was missed says nothing of why it is away.
_AWAY = frozenset({"OperationalError", "InterfaceError", "ConnectionError", "TimeoutError", "RedisError"})
_CLIENTS = ("sqlalchemy", "psycopg2", "sqlite3", "redis", "kombu", "amqp")  # of servers: the packages whose words count
_WORDS = 300  # of a server's words, so many characters
_FRAMES = 40  # of each exception, so many places are told: the first and the last


def is_away(error: BaseException) -> bool:
    """Return whether an error means that a server did not answer; a pipeline's own ConnectionError does not."""
    is_clients = type(error).__module__.partition(".")[0] in _CLIENTS
    is_systems = isinstance(error, OSError) and error.errno is not None
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return (is_clients or is_systems) and not _AWAY.isdisjoint(kinds)


class _SafeText(str):
    """The text of an exception in a message, for both %s and %r."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def safe_text(error: BaseException) -> str:
    """Return an exception as it may be logged or shown: its type, with its words where they hold nobody's values."""
    name = type(error).__name__
    if isinstance(error, GuichetError):
        return error.detail
    original = getattr(error, "orig", None)  # the driver's, below SQLAlchemy's
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        if not is_away(error):
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
    """Return a record's message, with the safe text of each exception."""
    if isinstance(record.args, tuple) and any(isinstance(value, BaseException) for value in record.args):
        arguments = (
            _SafeText(safe_text(value)) if isinstance(value, BaseException) else value for value in record.args
        )
        message = str(record.msg) % tuple(arguments)
    else:
        message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    return message if error is None else without_words(message, error)  # Celery's, say, repeats it


def places_of(error: BaseException, *, most: int = _FRAMES) -> str:
    """Return an exception and those that led to it: what each may tell, and where it was raised, a line for a place.

    Of each exception at most so many places: the first and the last.
    """
    lines = []
    for each in reversed(list(_chain(error))):
        lines.append(f"{type(each).__name__}: {safe_text(each)}" if isinstance(each, GuichetError) else safe_text(each))
        frames = [
            f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(each.__traceback__)
        ]
        if len(frames) > most:
            half = most // 2
            frames = [*frames[:half], f"  ({len(frames) - 2 * half} more)", *frames[-half:]]
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
