"""Addresses in settings: checked, with errors that do not repeat the password."""

import re
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

Runtime = Literal["queue", "sync"]

STORE_SCHEMES = ("file", "s3", "hf")

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
    if parsed is None or "@" in (parsed.host or ""):
        raise ValueError(
            f"DATABASE_URL cannot be read: write it as {_FORM}, with %40 %3A %2F for @ : / inside a password"
        )
    if "password" in parsed.query:
        raise ValueError(f"DATABASE_URL has its password among the options: write it before the host, as {_FORM}")
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
    """Raise ValueError for an invalid Redis URL, or for one that the sync runtime would ignore."""
    if url is None:
        return
    if runtime == "sync":
        raise ValueError("RUNTIME=sync and REDIS_URL contradict each other: leave one of them out")
    if not re.match(r"rediss?://[^/]", url):
        raise ValueError("REDIS_URL must begin with redis:// or rediss:// and a host, e.g. redis://127.0.0.1:6379/0")
    if not _is_redis(url):
        raise ValueError(
            "REDIS_URL cannot be read: write it as redis://:password@host:6379/0, with %2F %23 %3F for / # ? inside a "
            "password; other options than ssl_... are not taken"
        )


def _is_redis(url: str) -> bool:
    """Return whether redis-py and Celery both accept the URL, and read the same from it."""
    from redis import ConnectionPool, RedisError  # half a second, in processes that have no Redis

    try:
        parts = urlsplit(url)
        ConnectionPool.from_url(url).make_connection()  # nothing is asked yet
    except (RedisError, TypeError, ValueError):  # TypeError: an option that it does not know
        return False
    options = parse_qs(parts.query, keep_blank_values=True)
    return bool(re.fullmatch(r"(/\d*)?", parts.path)) and all(name.startswith("ssl_") for name in options)


def has_placeholder(url: str) -> bool:
    """Return whether the password in a URL is that of a template, or one that everyone would try first."""
    parsed = _parse(url)
    password = "" if parsed is None or parsed.password is None else str(parsed.password)
    return password.lower() in _GUESSED or bool(_TEMPLATE.search(password))


def without_password(url: str) -> str:
    """Return the URL as it may be shown."""
    parsed = _parse(url)
    if parsed is None:
        return "an address that cannot be read"
    return parsed.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


def is_address(text: str) -> bool:
    """Return whether a text is the address of a store, not a path of this machine."""
    return "://" in text


def address_fault(address: str) -> str | None:
    """Return the fault of an address, None for a valid one.

    Text before an @ or behind a question mark is refused and never shown: addresses are visible to everyone.
    """
    scheme, separator, rest = address.partition("://")
    shown, has_user = without_credentials(address), "@" in rest.partition("/")[0]
    if not separator or scheme not in STORE_SCHEMES:
        return f"{shown!r} is no address of a model store: write file:///folder, s3://bucket/folder or hf://user/repo"
    if scheme == "file" and not rest.startswith("/"):
        return f"{shown!r} has no absolute path: write three slashes, file:///folder"
    if scheme == "s3" and (has_user or not rest.strip("/")):
        return f"{shown!r} has no bucket: write s3://bucket/folder, and credentials in AWS_ACCESS_KEY_ID"
    if scheme == "hf" and (has_user or len(PurePosixPath(rest).parts) < 2):
        return f"{shown!r} has no repository: write hf://user/repo (@revision/folder), and a token in HF_TOKEN"
    if scheme != "file" and "?" in rest:
        return f"{shown!r} had a question mark behind it: write the address alone, and credentials in the environment"
    return None


def without_credentials(address: str) -> str:
    """Return the address of a store as it may be shown: no user, no password, no query."""
    scheme, separator, rest = address.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _parse(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None
