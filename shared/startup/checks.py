"""Checks before a process serves: each failure ends it with one sentence and a non-zero exit code.

What is only away is waited for, START_SECONDS long; what is wrong (a password, a name) is told at once.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from shared.broker.app import make_redis
from shared.config.addresses import without_password
from shared.config.settings import Settings
from shared.database.engine import make_engine, reader
from shared.database.messages import first_line
from shared.database.pooler import pooler_problem
from shared.database.revision import revision_problem, stored_revision
from shared.startup.grants import missing_grants

log = logging.getLogger(__name__)

# What PostgreSQL answers when the address is right and what was asked for is not: waiting would not mend it.
_WRONG = (
    "authentication failed",
    "permission denied",
    "does not exist",
    "no password supplied",
    "no pg_hba.conf entry",
    "not permitted",
)
_MAKE = "correct DATABASE_URL, or make it with `python -m scripts.create_db`"
CHANGE_LOCATION = "set DATA_DIR or DATABASE_URL to another place"
_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OSError)


class CannotStart(SystemExit):
    """A process cannot do its work; the message has the reason and the remedy. The exit code is 1."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"guichet: {reason}.")
        self.reason = reason


def check_port(settings: Settings) -> None:
    """Raise CannotStart if the API could not listen on its port."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
    except (OSError, TypeError) as error:  # TypeError: a name that cannot be encoded
        reason = error.strerror if isinstance(error, OSError) else "no such host"
        raise CannotStart(f"cannot listen on {settings.host}:{settings.port} ({reason}): set PORT or HOST") from None


def check_start(settings: Settings, *, needs_broker: bool) -> None:
    """Wait until the database (with its tables) and, if it is needed, the broker can be used; raise CannotStart."""
    check_database(settings)
    if settings.runtime == "queue":
        check_broker(settings, needed=needs_broker)


def check_database(settings: Settings, *, migrated: bool = True) -> None:
    """Wait for the database; raise CannotStart if it cannot be used.

    Unless it is to be migrated, it has to have the tables of this release, and to let our role write them.
    """
    check_file(settings.database)
    engine = make_engine(settings.database, pool_size=1)
    try:
        missing = _retry_until_ready(lambda: _missing(engine), settings)
        lacking = _retry_until_ready(lambda: pooler_problem(engine), settings)
    finally:
        engine.dispose()
    if migrated and missing is not None:
        raise CannotStart(missing)
    if lacking is not None:
        raise CannotStart(lacking)


def check_broker(settings: Settings, *, needed: bool) -> None:
    """Wait for Redis if it is needed, else only report that it is away; raise CannotStart if it cannot be used."""
    redis = make_redis()
    deadline = time.monotonic() + (settings.start_seconds if needed else 0)
    try:
        while (away := _ping(redis, settings)) is not None:
            if not needed:
                log.warning("Redis does not answer (%s): jobs are stored, and wait until it is back", away)
                return
            if time.monotonic() >= deadline:
                raise CannotStart(
                    f"Redis at {without_password(settings.broker)} did not answer for {settings.start_seconds:g} s "
                    f"({away}): start it, or set REDIS_URL"
                )
            time.sleep(0.5)
    finally:
        redis.close()


def check_file(url: str) -> None:
    """Raise CannotStart if the URL is a SQLite file that cannot be written."""
    if not url.startswith("sqlite"):
        return
    file = Path(make_url(url).database or "")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"the folder {file.parent} cannot be made ({error.strerror}): {CHANGE_LOCATION}") from None
    # SQLite keeps its log beside the file, so that the folder counts, too.
    if not os.access(file.parent, os.W_OK | os.X_OK) or (file.exists() and not os.access(file, os.W_OK)):
        place = file if file.exists() and not os.access(file, os.W_OK) else file.parent
        raise CannotStart(f"{place} is read-only for this user: change its rights, or {CHANGE_LOCATION}")


def check_file_is_there(url: str) -> None:
    """Raise CannotStart if the URL is a SQLite file that is not there: opening it would make it."""
    if url.startswith("sqlite") and not (file := Path(make_url(url).database or "")).exists():
        raise CannotStart(f"there is no {file}: make it with `python -m alembic upgrade head`, or {CHANGE_LOCATION}")


def _missing(engine: Engine) -> str | None:
    with reader(engine).connect() as connection:
        return revision_problem(stored_revision(connection)) or missing_grants(connection)


def _retry_until_ready(ask: Callable[[], str | None], settings: Settings) -> str | None:
    deadline = time.monotonic() + settings.start_seconds
    is_logged = False
    while True:
        try:
            return ask()
        except SQLAlchemyError as error:
            reason = first_line(error)
            if not _is_away(error, reason):
                advice = CHANGE_LOCATION if settings.database.startswith("sqlite") else _MAKE
                raise CannotStart(
                    f"the database {without_password(settings.database)} cannot be used ({reason}): {advice}"
                ) from None
            if time.monotonic() >= deadline:
                raise CannotStart(
                    f"the database {without_password(settings.database)} did not answer for "
                    f"{settings.start_seconds:g} s ({reason}): start it, or correct DATABASE_URL"
                ) from None
            if not is_logged:
                log.warning("the database does not answer yet (%s): waiting for it", reason)
                is_logged = True
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def _is_away(error: SQLAlchemyError, reason: str) -> bool:
    if "locked" in reason:  # another process writes to this SQLite file
        return True
    is_file = "sqlite3." in str(error)
    return isinstance(error, OperationalError) and not is_file and not any(word in reason for word in _WRONG)


def _ping(redis: Redis, settings: Settings) -> str | None:
    """Return the reason why Redis does not answer, or None when it does."""
    try:
        redis.ping()
    except AuthenticationError as error:
        raise CannotStart(
            f"Redis at {without_password(settings.broker)} refuses the password ({error}): correct REDIS_URL"
        ) from None
    except _AWAY as error:
        return str(error) or type(error).__name__
    except RedisError as error:
        raise CannotStart(
            f"Redis at {without_password(settings.broker)} cannot be used ({error}): correct REDIS_URL"
        ) from None
    return None
