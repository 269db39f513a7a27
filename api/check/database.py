"""Checks of the database: it answers, has this release's tables, grants access, and stores data durably."""

from sqlalchemy import Connection, func, inspect, select, text

from api.check.finding import Finding, milliseconds
from shared.config.addresses import without_password
from shared.config.settings import Settings
from shared.database.revision import newest_revision, revision_problem, stored_revision
from shared.startup.grants import missing_grants
from shared.tables import ApiKey, Table

_SLOW = 20.0  # milliseconds: each group of submissions waits for several answers


def examine_server(connection: Connection, settings: Settings) -> Finding:
    """Check the server: version, latency, free connections, and durable commits."""
    took = milliseconds(lambda: connection.execute(text("SELECT 1")).scalar())
    where = without_password(settings.database)
    if connection.dialect.name == "sqlite":
        version = connection.execute(text("SELECT sqlite_version()")).scalar()
        return Finding("database", "ok", f"SQLite {version} answers in {took:.1f} ms: {where}")
    shown = {
        name: str(connection.execute(text(f"SHOW {name}")).scalar())
        for name in ("server_version", "max_connections", "fsync", "synchronous_commit")
    }
    used = connection.execute(text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
    busy = f"{used.scalar()} of {shown['max_connections']} connections"
    summary = f"PostgreSQL {shown['server_version']} answers in {took:.1f} ms, {busy}: {where}"
    if shown["fsync"] != "on" or shown["synchronous_commit"] == "off":
        return Finding(
            "database", "failed", f"{summary}; set fsync and synchronous_commit on, or accepted jobs get lost"
        )
    if took > _SLOW:
        return Finding("database", "warning", f"{summary}; that is slow: run the API and the workers nearer to it")
    return Finding("database", "ok", summary)


def examine_tables(connection: Connection) -> Finding:
    """Look whether the tables are those of this release."""
    stored, newest = stored_revision(connection), newest_revision()
    if (missing := revision_problem(stored)) is not None:
        return Finding("migrations", "failed", missing)
    there = set(inspect(connection).get_table_names())
    lost = sorted({table.name for table in Table.metadata.sorted_tables} - there)
    if lost:
        return Finding(
            "migrations", "failed", f"migration {stored} ran, and {', '.join(lost)} is not there: restore it"
        )
    if newest is None:
        return Finding("migrations", "ok", f"at {stored}; this installation has no migrations to compare with")
    if stored != newest:
        return Finding(
            "migrations", "warning", f"at {stored}, newer than this release ({newest}): upgrade this process"
        )
    return Finding("migrations", "ok", f"at {stored}, the last one of this release")


def examine_rights(connection: Connection) -> Finding:
    """Look whether our role may use the tables."""
    if connection.dialect.name == "sqlite":
        return Finding("rights", "ok", "a SQLite file has no roles")
    if (lacking := missing_grants(connection)) is not None:
        return Finding("rights", "failed", lacking)
    role = connection.execute(text("SELECT current_user")).scalar()
    return Finding("rights", "ok", f"{role} may read every table and write those of jobs")


def examine_keys(connection: Connection, settings: Settings) -> Finding:
    """Look whether anyone could call the service."""
    if settings.auth == "open":
        return Finding("keys", "ok", f"none is asked for (AUTH=open on {settings.host})")
    valid = connection.execute(select(func.count()).where(ApiKey.revoked_at.is_(None))).scalar()
    if not valid:
        how = "make one with `python -m api.keys create --name NAME`"
        return Finding("keys", "warning", f"AUTH={settings.auth}, and no key is valid: {how}")
    return Finding("keys", "ok", f"{valid} valid")
