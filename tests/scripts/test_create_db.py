"""The database is made with its roles, and made again without harm."""

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import psycopg2
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy.engine import URL, make_url

from scripts import create_db
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from shared.database.revision import newest_revision
from tests.contracts.helpers import wait_until
from tests.support.stack import Stack, environment, free_port
from tests.support.trainings import csv_of, make_rows

pytestmark = pytest.mark.long  # real processes, again and again: `make faults` runs them

TABLES = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
OWNERS = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"


@pytest.fixture(scope="module")
def admin(session_postgres: Postgres) -> str:
    """An administrator as hosts give one: no superuser, but allowed to make roles and databases."""
    with connected(make_url(session_postgres.url_of("postgres"))) as cursor:
        cursor.execute("CREATE ROLE hosted LOGIN CREATEDB CREATEROLE")
    return session_postgres.url_of("postgres").replace("postgres@", "hosted@")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of one service, whose messages no other's workers take."""
    with Redis(tmp_path / "redis") as server:
        yield server


class connected:
    """A cursor whose statements commit by themselves."""

    def __init__(self, url: URL, role: str | None = None) -> None:
        plain = url.set(drivername="postgresql", username=role or url.username, password=None)
        self.connection = psycopg2.connect(plain.render_as_string(hide_password=False))
        self.connection.autocommit = True

    def __enter__(self):
        return self.connection.cursor()

    def __exit__(self, *_):
        self.connection.close()


def query(url: URL, role: str, question: str) -> list[tuple]:
    with connected(url, role) as cursor:
        cursor.execute(question)
        return cursor.fetchall()


def ended_job(client: httpx2.Client, path: str) -> dict[str, Any] | None:
    job: dict[str, Any] = client.get(path).json()
    return job if job["finished_at"] else None


def create(admin: str, **passwords: str) -> list[create_db.Role]:
    """Make the database of the sales; return what was told."""
    roles: list[create_db.Role] = []
    create_db.create(
        admin, database="sales", prefix="sales", passwords=passwords, tell=lambda role, _url: roles.append(role)
    )
    return roles


@pytest.fixture(scope="module")
def made(admin: str) -> URL:
    """The database as the first run made it."""
    roles = create(admin, app="of the app")
    assert [(role.name, role.made) for role in roles] == [
        ("sales_owner", True),
        ("sales_app", True),
        ("sales_reader", True),
    ]
    passwords = [role.password for role in roles]
    assert passwords[1] == "of the app"
    assert all(len(password) >= 32 for password in (passwords[0], passwords[2]))
    return make_url(admin).set(database="sales")


def test_tables_stand_at_the_last_migration_and_belong_to_the_owner(made):
    assert query(made, "sales_app", "SELECT version_num FROM alembic_version") == [(newest_revision(),)]
    assert query(made, "sales_app", OWNERS) == [("sales_owner",)]


def test_app_reads_and_writes_and_changes_no_table(made):
    with connected(made, "sales_app") as cursor:
        cursor.execute("SELECT count(*) FROM api_keys, model_versions, model_aliases")
        cursor.execute("SELECT nextval('claim_tokens')")
        cursor.execute("INSERT INTO error_logs (request_id, method, path, status, code, detail) "
                       "VALUES ('r', 'GET', '/', 404, 'c', 'd')")  # fmt: skip
        cursor.execute("INSERT INTO audit_logs (actor, action, target) VALUES ('key:1', 'model.promoted', 'credit@2')")
        for statement in (
            "INSERT INTO api_keys (id, name, sha256, scopes) VALUES ('1', 'n', 's', 'admin')",
            "UPDATE api_keys SET scopes = 'admin'",
            "DELETE FROM api_keys",
            "UPDATE model_versions SET uri = 's3://elsewhere/model'",
            "UPDATE audit_logs SET actor = 'somebody else'",
            "DELETE FROM audit_logs",
            "UPDATE alias_events SET reason = 'another'",
            "DELETE FROM alias_events",
            "UPDATE service_secrets SET value = '00'",
            "DROP TABLE error_logs",
            "CREATE TABLE mine (id int)",
            "UPDATE alembic_version SET version_num = '0'",
            "ALTER TABLE jobs DISABLE TRIGGER jobs_guard",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)


def test_app_registers_models_where_it_is_told_so_and_nowhere_else(made, admin):
    statement = "UPDATE model_versions SET uri = uri"
    more = {"database": "sales", "prefix": "sales", "passwords": {}, "tell": lambda *_: None}
    create_db.create(admin, **more, app_registers=True)
    with connected(made, "sales_app") as cursor:
        cursor.execute(statement)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("UPDATE api_keys SET scopes = 'admin'")
    create_db.create(admin, **more)
    with connected(made, "sales_app") as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_service_of_the_apps_role_trains_and_takes_uploads_where_it_may_register(
    made: URL, admin: str, own_redis: Redis, tmp_path: Path
) -> None:
    """As in Compose: the API and the workers are the app's role, and the API writes no models."""
    more = {"database": "sales", "prefix": "sales", "passwords": {}, "tell": lambda *_: None}
    rows, as_csv = csv_of(make_rows()), {"Content-Type": "text/csv"}
    target = "/train?name=churn&target=left&estimators=linear&draws=1"
    ages, artefact = pd.DataFrame({"age": np.arange(60) % 40 + 20.0}), io.BytesIO()
    joblib.dump(LogisticRegression().fit(ages, ages["age"] > 40), artefact)
    files = {
        "artefact": ("m.joblib", artefact.getvalue()),
        "reference": ("rows.csv", ages.to_csv(index=False).encode()),
    }
    form: dict[str, Any] = {"data": {"name": "ages"}, "files": files}
    url = made.set(drivername="postgresql+psycopg2", username="sales_app", password=None)
    env = environment(
        tmp_path,
        runtime="queue",
        port=free_port(),
        database_url=url.render_as_string(hide_password=False),
        models=tmp_path / "models",
        redis_url=own_redis.url,
    )
    stack = Stack("queue", env | {"MODEL_UPLOADS": "on"}, tmp_path, int(env["PORT"]))
    (tmp_path / "models").mkdir()
    create_db.create(admin, **more)
    try:
        stack.start_worker("bulk", lanes="bulk,maintenance")
        stack.start("api", "api")
        stack.wait_until_answers("/livez")
        with stack.client() as client:
            for refusal in (client.post(target, content=rows, headers=as_csv), client.post("/models", **form)):
                assert refusal.status_code == 403, refusal.text
                assert "--app-registers" in refusal.json()["detail"]
            assert client.get("/jobs").json()["items"] == []
            create_db.create(admin, **more, app_registers=True)
            for accepted in (client.post(target, content=rows, headers=as_csv), client.post("/models", **form)):
                assert accepted.status_code == 202, accepted.text
                job = f"/jobs/{accepted.json()['id']}"
                ended = wait_until(lambda job=job: ended_job(client, job), seconds=240)
                assert ended["status"] == "succeeded", ended
        versions = query(made, "sales_app", "SELECT name, version FROM model_versions ORDER BY name")
        assert versions == [("ages", 1), ("churn", 1)]
        assert query(made, "sales_app", "SELECT name, alias FROM model_aliases") == [("ages", "champion")]
    finally:
        stack.stop_all()
        create_db.create(admin, **more)


def test_app_changes_keys_where_it_is_told_so_and_nowhere_else(made, admin):
    statement = "UPDATE api_keys SET scopes = scopes"
    more = {"database": "sales", "prefix": "sales", "passwords": {}, "tell": lambda *_: None}
    create_db.create(admin, **more, app_keys=True)
    with connected(made, "sales_app") as cursor:
        cursor.execute(statement)
        for forbidden in ("DELETE FROM api_keys", "UPDATE model_versions SET uri = uri"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(forbidden)
    create_db.create(admin, **more)
    with connected(made, "sales_app") as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_reader_reads_everything_but_the_keys_and_writes_nothing(made):
    with connected(made, "sales_reader") as cursor:
        cursor.execute("SELECT count(*) FROM jobs, model_inputs, model_outputs, error_logs")
        for statement in (
            "SELECT * FROM api_keys",
            "SELECT * FROM service_secrets",
            "DELETE FROM jobs",
            "INSERT INTO workers (id) VALUES ('w')",
        ):
            with pytest.raises((psycopg2.errors.InsufficientPrivilege, psycopg2.errors.ReadOnlySqlTransaction)):
                cursor.execute(statement)
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("1min",)


def test_other_roles_may_not_even_connect(made):
    with connected(made.set(database="postgres")) as cursor:
        cursor.execute("CREATE ROLE stranger LOGIN")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"), connected(made, "stranger"):
        pass


def test_tables_of_later_migrations_are_granted_by_themselves(made):
    with connected(made, "sales_owner") as cursor:
        cursor.execute("CREATE TABLE later (id serial PRIMARY KEY)")
    assert query(made, "sales_app", "INSERT INTO later DEFAULT VALUES RETURNING id") == [(1,)]
    assert query(made, "sales_reader", "SELECT count(*) FROM later") == [(1,)]
    with connected(made, "sales_owner") as cursor:
        cursor.execute("DROP TABLE later")


def test_second_run_changes_nothing_and_keeps_the_passwords(made, admin, session_postgres):
    def state() -> tuple:
        superuser = make_url(session_postgres.url_of("sales"))
        with connected(superuser) as cursor:
            cursor.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'sales%' ORDER BY 1")
            roles = cursor.fetchall()
            cursor.execute("SELECT relname, relacl::text FROM pg_class WHERE relkind IN ('r', 'S') ORDER BY 1")
            return roles, cursor.fetchall()

    before = state()
    assert all(verifier.startswith("SCRAM-SHA-256$") for _, verifier in before[0])
    assert [(role.made, role.password) for role in create(admin)] == [(False, None)] * 3
    assert state() == before


def test_password_that_is_given_replaces_the_old_one_and_is_not_shown(made, admin, capsys, monkeypatch):
    monkeypatch.setenv("READER_PASSWORD", "hunter2")
    monkeypatch.setenv("ADMIN_URL", admin)
    assert create_db.main(["--database", "sales", "--prefix", "sales"]) == 0
    output = capsys.readouterr().out
    assert "hunter2" not in output
    assert "sales_reader" in output


@pytest.mark.long
def test_new_roles_passwords_are_shown_once(admin, capsys):
    assert create_db.main(["--url", admin, "--database", "once", "--prefix", "once"]) == 0
    assert capsys.readouterr().out.count("(shown this once)") == 3
    assert create_db.main(["--url", admin, "--database", "once", "--prefix", "once"]) == 0
    assert "shown" not in capsys.readouterr().out


def test_database_of_somebody_else_is_let_alone(session_postgres, capsys):
    with closing(psycopg2.connect(session_postgres.url_of("postgres").replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE theirs")
    assert create_db.main(["--url", session_postgres.url_of("postgres"), "--database", "theirs"]) == 1
    assert "the database theirs is there, and postgres owns it" in capsys.readouterr().err
    roles = query(make_url(session_postgres.url_of("postgres")), "postgres", "SELECT rolname FROM pg_roles")
    assert not [name for (name,) in roles if name.startswith("guichet")]  # nothing half-made


def test_new_passwords_are_said_even_where_the_migrations_fail(admin, capsys, monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise create_db.subprocess.CalledProcessError(1, "alembic")

    monkeypatch.setattr(create_db, "alembic", fail)
    assert create_db.main(["--url", admin, "--database", "halfway", "--prefix", "halfway"]) == 1
    output = capsys.readouterr()
    assert output.out.count("(shown this once)") == 3
    assert "mend it and run this again" in output.err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "set ADMIN_URL"),
        ("nonsense", "cannot be read"),
        ("mysql://root:hunter2@h/x", "no PostgreSQL"),
        ("postgresql://root:hunter2@127.0.0.1:1/postgres", "cannot be reached"),
    ],
)
def test_address_that_leads_nowhere_is_refused_with_one_sentence(url, message, capsys, monkeypatch):
    monkeypatch.delenv("ADMIN_URL", raising=False)
    assert create_db.main(["--url", url]) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "hunter2" not in err


def test_role_without_the_right_to_make_roles_is_told_what_it_needs(made, capsys):
    weak = made.set(username="sales_reader", password=None, database="sales")
    code = create_db.main(["--url", weak.render_as_string(), "--database", "new", "--prefix", "new"])
    assert code == 1
    assert "CREATEDB and CREATEROLE" in capsys.readouterr().err


def test_sqlite_gets_its_tables(tmp_path, capsys):
    for _ in range(2):
        assert create_db.main(["--url", f"sqlite:///{tmp_path / 'guichet.db'}"]) == 0
    assert "every table is there" in capsys.readouterr().out


@pytest.mark.parametrize(("right", "lacks"), [("CREATEROLE", "databases"), ("CREATEDB", "roles")])
def test_administrator_without_a_right_is_refused_before_anything_is_made(right, lacks, admin, session_postgres):
    role, name = f"has_{right.lower()}", f"no_{lacks}"
    with connected(make_url(session_postgres.url_of("postgres"))) as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN {right}")
    with pytest.raises(create_db.Refused, match=f"may not make {lacks}: ADMIN_URL needs one with CREATEDB"):
        create_db.create(
            admin.replace("hosted@", f"{role}@"), database=name, prefix=name, passwords={}, tell=lambda *_: None
        )
    with connected(make_url(session_postgres.url_of("postgres"))) as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", (f"{name}%",))
        assert cursor.fetchall() == []


def test_roles_of_another_administrator_are_left_to_it(made, admin, session_postgres):
    with connected(make_url(session_postgres.url_of("postgres"))) as cursor:
        cursor.execute("CREATE ROLE second LOGIN CREATEDB CREATEROLE")
    with pytest.raises(create_db.Refused, match="the role that made these roles, or a superuser"):
        create(admin.replace("hosted@", "second@"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/postgres?password=hunter2",
        "postgresql://u:p@hunter2@h/postgres",
        "postgresql://u:hunter2@127.0.0.1:1/postgres",
        "postgresql://u:hunter2@127.0.0.1:99999/postgres",
        "postgresql://u:hunter2@/postgres?nonsense=1",
        "postgresql://u:hunter2\udcff@/postgres",
        "mysql://u:hunter2@h/d",
        "nonsense",
    ],
)
def test_address_of_no_administrator_is_refused_in_one_sentence_without_its_password(url, capsys):
    assert create_db.main(["--url", url]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("create_db: ")
    assert output.err.count("\n") == 1
    assert "hunter2" not in output.err
