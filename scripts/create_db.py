"""Make the database of the service: the database itself, its roles, and its tables through the migrations.

    ADMIN_URL=postgresql://postgres@host/postgres python -m scripts.create_db

Three roles: `guichet_owner` owns the tables and migrates them, `guichet_app` is what the API and the workers are, who
read keys and models and do not make them, `guichet_reader` may look at everything but the keys. `--app-registers` lets
`guichet_app` register models too, for workers that take them from a store (MODELS_URI); `--app-keys` lets it make and
revoke keys, for `POST /keys` and the console.

Run it again at any time: it makes what is missing, and leaves passwords alone unless OWNER_PASSWORD, APP_PASSWORD or
READER_PASSWORD gives one. A new role without one gets a random password, which is printed this once.
`--url sqlite:///file` only runs the migrations: SQLite has no roles.
"""

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from scripts.migrations import alembic

_LOCK = 7_236_002  # any number: whoever makes roles here holds it
_WRITE_IT = "write it as postgresql://user:password@host/postgres"
_READ_ONLY_SECONDS = 60  # a reader's query that takes longer is ended: it would hold back VACUUM

# Statements of PostgreSQL. {owner}, {app}, {reader} and {database} are quoted identifiers.
_DATABASE = (
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO {app}, {reader}",
    "ALTER ROLE {reader} SET default_transaction_read_only = on",
    f"ALTER ROLE {{reader}} SET statement_timeout = '{_READ_ONLY_SECONDS}s'",
)
_SCHEMA = (
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO {app}, {reader}",
    # What later migrations make, too.
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {app}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
)
_TABLES = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {app}",
    "REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {app}",
    "REVOKE DELETE ON api_keys FROM {app}",
    "REVOKE UPDATE, DELETE ON audit_logs, alias_events, service_secrets FROM {app}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {app}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    "REVOKE SELECT ON api_keys, service_secrets FROM {reader}",
)
_MODELS = "REVOKE INSERT, UPDATE, DELETE ON model_versions FROM {app}"
_KEYS = "REVOKE INSERT, UPDATE ON api_keys FROM {app}"


class Refused(Exception):
    """The database cannot be made; the message has the reason and the remedy."""


@dataclass(frozen=True)
class Role:
    """A role, and whether this run made it or gave it a password."""

    name: str
    password: str | None  # None: it has one that we do not know
    made: bool


def create(
    admin_url: str,
    *,
    database: str,
    prefix: str,
    passwords: dict[str, str],
    tell: Callable[[Role, URL], None],
    app_registers: bool = False,
    app_keys: bool = False,
) -> None:
    """Make the missing parts; print each role and its URL once the roles exist. Raises Refused.

    `app_registers` lets the role of the API and the workers register models, `app_keys` lets it change keys.
    """
    admin = read_url(admin_url)
    names = {part: f"{prefix}_{part}" for part in ("owner", "app", "reader")}
    words = {part: sql.Identifier(name) for part, name in names.items()} | {"database": sql.Identifier(database)}
    with _Connection(admin) as server:
        exists = server.has_database(database, owner=names["owner"])  # before anything is made
        server.check_rights(makes_database=not exists, roles=list(names.values()))
        roles = [server.make_role(name, passwords.get(part)) for part, name in names.items()]
        for role in roles:  # whatever fails from here on, a new password has been said
            tell(role, admin.set(database=database, username=role.name, password=role.password))
        server.join(names["owner"])
        if not exists:
            server.make_database(database, owner=names["owner"])
        server.run(_DATABASE, words)
    with _Connection(admin.set(database=database)) as inside:
        inside.run(["SET ROLE {owner}", *_SCHEMA, "RESET ROLE"], words)
    # As the administrator in the owner's place: the owner's password need not be known.
    _upgrade(admin.set(database=database), "-x", f"role={names['owner']}")
    with _Connection(admin.set(database=database)) as inside:
        revoked = [] if app_registers else [_MODELS]
        revoked += [] if app_keys else [_KEYS]
        inside.run(["SET ROLE {owner}", *_TABLES, *revoked, "RESET ROLE"], words)


def read_url(text: str) -> URL:
    """Return a URL of PostgreSQL. Raises Refused."""
    try:
        text.encode()  # bytes that are not UTF-8 would fail later
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise Refused(f"the address cannot be read: {_WRITE_IT}") from None
    if "@" in (url.host or ""):  # the end of a password, which would be shown
        raise Refused(f"the address cannot be read: {_WRITE_IT}, with %40 for @ inside the password")
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise Refused(f"{url.drivername}:// is no PostgreSQL: {_WRITE_IT}")
    if "password" in url.query:  # it would stand in the addresses of the roles, too
        raise Refused(f"the password is among the options: {_WRITE_IT}")
    return url.set(drivername="postgresql+psycopg2", database=url.database or "postgres")


class _Connection:
    """A connection of the administrator; every statement commits by itself."""

    def __init__(self, url: URL) -> None:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            self._connection = psycopg2.connect(plain, connect_timeout=5)
        except psycopg2.Error as error:
            raise Refused(f"{url} cannot be reached ({str(error).strip().splitlines()[0]}): check ADMIN_URL") from None
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()

    def __enter__(self) -> "_Connection":
        # CREATE ROLE and GRANT at the same time elsewhere would fail with "tuple concurrently updated".
        self._cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def run(self, statements: Sequence[str], words: dict[str, sql.Identifier]) -> None:
        for statement in statements:
            self._execute(sql.SQL(statement).format(**words))

    def check_rights(self, *, makes_database: bool, roles: list[str]) -> None:
        """Raise Refused if the administrator lacks a right, before anything is made."""
        self._cursor.execute(_MAY_MAKE, (roles, roles))
        may_databases, may_roles, missing = self._cursor.fetchone() or (False, False, 0)
        if makes_database and not may_databases:
            raise Refused("this role may not make databases: ADMIN_URL needs one with CREATEDB and CREATEROLE")
        if missing and not may_roles:
            raise Refused("this role may not make roles: ADMIN_URL needs one with CREATEDB and CREATEROLE")

    def make_role(self, name: str, password: str | None) -> Role:
        self._cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        exists = self._cursor.fetchone() is not None
        if not exists:
            password = password or secrets.token_urlsafe(24)
            self._execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(_name(name)))
        if password is not None:
            # The server is told the verifier only: a password in a statement would stand in its log.
            verifier = encrypt_password(password, name, self._connection, "scram-sha-256")
            self._execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(_name(name), sql.Literal(verifier)))
        return Role(name, password, made=not exists)

    def has_database(self, name: str, *, owner: str) -> bool:
        """Return whether the database exists; raise Refused if another role owns it."""
        self._cursor.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (name,))
        row = self._cursor.fetchone()
        if row is not None and row[0] != owner:
            raise Refused(
                f"the database {name} is there, and {row[0]} owns it: choose another --database, or give it away "
                f"with ALTER DATABASE {name} OWNER TO {owner} (and REASSIGN OWNED for its tables)"
            )
        return row is not None

    def join(self, owner: str) -> None:
        """Become a member of a role: an administrator who is no superuser could not act as it otherwise."""
        self._cursor.execute("SELECT pg_has_role(current_user, %s, 'SET')" if self._knows_set() else _MEMBER, (owner,))
        if not (self._cursor.fetchone() or (False,))[0]:
            self._execute(sql.SQL("GRANT {} TO CURRENT_USER").format(_name(owner)))

    def make_database(self, name: str, *, owner: str) -> None:
        statement = "CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0"
        self._execute(sql.SQL(statement).format(_name(name), _name(owner)))

    def _knows_set(self) -> bool:
        return bool(self._connection.server_version >= 160_000)

    def _execute(self, statement: sql.Composable) -> None:
        try:
            self._cursor.execute(statement)
        except psycopg2.Error as error:
            what = " ".join(statement.as_string(self._connection).split()[:3])  # not the verifier of a password
            reason = str(error).strip().splitlines()[0]
            raise Refused(f"{what}: {reason}; ADMIN_URL needs the role that made these roles, or a superuser") from None


_MAY_MAKE = """
SELECT rolsuper OR rolcreatedb, rolsuper OR rolcreaterole,
       cardinality(%s) - (SELECT count(*) FROM pg_roles r WHERE r.rolname = ANY (%s))
FROM pg_roles WHERE rolname = current_user
"""
_MEMBER = "SELECT pg_has_role(current_user, %s, 'MEMBER')"


def _name(text: str) -> sql.Identifier:
    return sql.Identifier(text)


def _upgrade(url: URL, *options: str) -> None:
    try:
        alembic(*options, "upgrade", "head", url=url.render_as_string(hide_password=False))
    except subprocess.CalledProcessError:
        raise Refused("the migrations did not run, and said why above: mend it and run this again") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the database and print its addresses; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.create_db",
        description="Make the database, its roles and its tables; run it again freely.",
    )
    parser.add_argument("--url", default=os.environ.get("ADMIN_URL"), help="the administrator's address (ADMIN_URL)")
    parser.add_argument("--database", default="guichet", help="its name (guichet)")
    parser.add_argument("--prefix", default="guichet", help="what the roles' names begin with (guichet)")
    parser.add_argument("--app-registers", action="store_true", help="let the service register models (MODELS_URI)")
    parser.add_argument("--app-keys", action="store_true", help="let the service make and revoke keys (POST /keys)")
    options = parser.parse_args(arguments)
    if not options.url:
        print("create_db: set ADMIN_URL, e.g. postgresql://postgres:password@host/postgres", file=sys.stderr)
        return 2
    passwords = {
        part: value for part in ("owner", "app", "reader") if (value := os.environ.get(f"{part.upper()}_PASSWORD"))
    }

    def tell(role: Role, url: URL) -> None:
        generated = role.made and role.password not in passwords.values()
        shown = url.render_as_string(hide_password=not generated)
        print(f"{role.name:<20} {shown}{'   (shown this once)' if generated else ''}", flush=True)

    try:
        if options.url.startswith("sqlite:"):
            _upgrade(make_url(options.url))
        else:
            create(
                options.url,
                database=options.database,
                prefix=options.prefix,
                passwords=passwords,
                tell=tell,
                app_registers=options.app_registers,
                app_keys=options.app_keys,
            )
    except Refused as problem:
        print(f"create_db: {problem}.", file=sys.stderr)
        return 1
    print("every table is there, at the last migration")
    return 0


if __name__ == "__main__":
    sys.exit(main())
