"""The addresses among the settings: what is wrong with one, said without the password in it."""

import re
from typing import Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

Runtime = Literal["queue", "sync"]

_FORM = "postgresql+psycopg2://user:password@host/guichet"
# Words of templates, wherever they stand in a password, and words that everyone would try first.
_TEMPLATE = re.compile(r"(change|replace)[-_ ]?(me|this|it)|placeholder|^your[-_ ]|^<.*>$|^\$\{?\w+\}?$", re.IGNORECASE)
_GUESSED = frozenset({"password", "secret", "postgres", "redis", "guichet", "admin", "test", "todo", "xxx", "..."})


def check_database_url(url: str | None, *, runtime: Runtime) -> None:
    """Raise ValueError unless this runtime can work with the database that the URL names."""
    if runtime == "queue" and not (url or "").startswith("postgresql"):
        raise ValueError(
            f"RUNTIME=queue needs a DATABASE_URL of PostgreSQL, e.g. {_FORM}; SQLite serves RUNTIME=sync only"
        )
    if url is None:
        return
    parsed = _parse(url)
    if parsed is None:
        raise ValueError(
            f"DATABASE_URL cannot be read: write it as {_FORM}, with %40 %3A %2F for @ : / inside a password"
        )
    if parsed.drivername == "sqlite":
        if parsed.host or not parsed.database or parsed.database == ":memory:":
            raise ValueError("DATABASE_URL of SQLite must name a file, e.g. sqlite:////data/guichet.db")
    elif parsed.drivername != "postgresql+psycopg2":
        raise ValueError(
            f"DATABASE_URL begins with {parsed.drivername}://, and this service speaks postgresql+psycopg2:// "
            "and, with RUNTIME=sync, sqlite:///"
        )
    elif not parsed.database:
        raise ValueError(f"DATABASE_URL names no database: write it as {_FORM}")


def check_redis_url(url: str | None, *, runtime: Runtime) -> None:
    """Raise ValueError if the URL is none of Redis, or if there is one where nothing would use it."""
    if url is None:
        return
    if runtime == "sync":
        raise ValueError("RUNTIME=sync and REDIS_URL contradict each other: leave one of them out")
    if not re.match(r"rediss?://[^/]", url):
        raise ValueError("REDIS_URL must begin with redis:// or rediss:// and a host, e.g. redis://127.0.0.1:6379/0")


def has_placeholder(url: str) -> bool:
    """Tell whether the password in a URL is the one of a template, or one that everyone would try first."""
    parsed = _parse(url)
    password = "" if parsed is None or parsed.password is None else str(parsed.password)
    return password.lower() in _GUESSED or bool(_TEMPLATE.search(password))


def without_password(url: str) -> str:
    """Return the URL as it may be shown."""
    parsed = _parse(url)
    return "an address that cannot be read" if parsed is None else parsed.render_as_string(hide_password=True)


def _parse(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None
