"""Checks of the machine: folders, free space, the port, and the clocks of the servers."""

import http.client
import json
import os
import shutil
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, func, make_url, select

from api.check.finding import Finding, Status, gigabytes
from shared.config.settings import Settings
from shared.startup.checks import CannotStart
from shared.startup.checks import check_port as check_port_is_free

_LITTLE, _NONE = 2e9, 2e8  # bytes of free disk: a warning, a failure
_APART, _FAR_APART = 2.0, 60.0  # seconds between two clocks: a warning, a failure


def fetches_models(settings: Settings) -> bool:
    """Return whether this process fetches models from a store; an API of the queue runtime may lack the libraries."""
    return settings.models_uri is not None and find_spec("fsspec") is not None


def examine_folders(settings: Settings) -> list[Finding]:
    """Check that the service's folders are usable, and their free space."""
    findings = []
    if settings.database.startswith("sqlite"):
        setting = "DATA_DIR" if settings.database_url is None else "DATABASE_URL"
        file = Path(make_url(settings.database).database or "").resolve()
        findings.append(_examine_folder(setting, file.parent, "write"))
    use = "write" if fetches_models(settings) else "read"
    return [
        *findings,
        _examine_folder("MODELS_DIR", settings.models.resolve(), use),
        _examine_folder("TMPDIR", Path(tempfile.gettempdir()), "write"),
    ]


def _examine_folder(name: str, folder: Path, use: str) -> Finding:
    title = f"folder {name}"
    if not folder.is_dir():
        return Finding(title, "failed", f"{folder} is not there: make it, or set {name}")
    if use == "read":
        if not os.access(folder, os.R_OK | os.X_OK):
            return Finding(title, "failed", f"{folder} cannot be read by this user: change its rights, or set {name}")
    else:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"guichet")
        except OSError as error:
            return Finding(
                title, "failed", f"{folder} cannot be written ({error.strerror}): change its rights, or set {name}"
            )
    free = shutil.disk_usage(folder).free
    summary = f"{folder}, {gigabytes(free)} free"
    if use == "write" and free < _LITTLE:
        return Finding(title, "failed" if free < _NONE else "warning", f"{summary}: make room, or set {name} elsewhere")
    return Finding(title, "ok", summary)


def examine_port(settings: Settings) -> Finding:
    """Look whether the API could listen, or does already."""
    where = f"{settings.host}:{settings.port}"
    try:
        check_port_is_free(settings)
    except CannotStart as fault:
        if (version := _running_version(settings)) is not None:
            return Finding("port", "ok", f"Guichet {version} listens on {where}")
        return Finding("port", "failed", fault.reason)
    return Finding("port", "ok", f"{where} is free")


def _running_version(settings: Settings) -> str | None:
    """Return the version of the Guichet that listens there; None if it is something else."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - not listened on
    try:
        with closing(http.client.HTTPConnection(host, settings.port, timeout=2)) as connection:
            connection.request("GET", "/version")
            body = json.loads(connection.getresponse().read(10_000))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    is_ours = isinstance(body, dict) and body.get("name") == "guichet"
    return str(body.get("version")) if is_ours else None


def examine_clocks(connection: Connection, redis: Redis | None) -> Finding:
    """Compare the clocks of the database and of Redis with ours; times of jobs are the database's."""
    apart = {}
    if connection.dialect.name != "sqlite":  # it has our clock
        before = datetime.now(UTC)
        theirs = connection.execute(select(func.clock_timestamp())).scalar_one()
        apart["database"] = (theirs - (before + (datetime.now(UTC) - before) / 2)).total_seconds()
    if redis is not None:
        try:
            before = datetime.now(UTC)
            seconds, micros = redis.time()
            apart["redis"] = seconds + micros / 1e6 - (before + (datetime.now(UTC) - before) / 2).timestamp()
        except (RedisError, OSError):
            pass  # its own line says so
    if not apart:
        return Finding("clocks", "ok", "there is one clock, this machine's")
    summary = ", ".join(f"{name} {difference:+.3f} s" for name, difference in apart.items())
    worst = max(map(abs, apart.values()))
    if worst > _APART:
        status: Status = "failed" if worst > _FAR_APART else "warning"
        return Finding("clocks", status, f"{summary} from this machine's: let NTP set them, or times of jobs mislead")
    return Finding("clocks", "ok", f"{summary} from this machine's")
