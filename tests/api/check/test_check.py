"""The doctor finds each thing that keeps a service from working, and says what to do."""

import hashlib
import json
import os
import socket
import time
from types import SimpleNamespace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api.check import broker, database, machine
from api.check.__main__ import main
from api.check.finding import Finding
from shared.config.settings import Settings
from shared.database.engine import make_engine
from shared.packages.package import CARD_FILE, MODEL_FILE
from tests.conftest import create_database
from tests.support.databases import migrate, postgres_engine, settings_for, settings_of, sqlite_engine
from tests.support.stack import free_port

pytestmark = pytest.mark.usefixtures("no_settings_of_the_caller")

NOBODY = "postgresql+psycopg2://guichet:hunter2@127.0.0.1:1/guichet"


def examined(capsys, *arguments: str, **env: str) -> tuple[int, dict[str, list[Finding]]]:
    """Run the command in this process; return its exit code and what it found, by name."""
    with settings_of(PORT=str(free_port()), **env):
        code = main(["--json", *arguments])
    output = capsys.readouterr().out
    assert "hunter2" not in output
    report = json.loads(output)
    findings: dict[str, list[Finding]] = {}
    for entry in report["checks"]:
        findings.setdefault(entry["name"], []).append(Finding(**entry))
    assert report["ok"] == (code == 0)
    return code, findings


def test_running_service_is_sound_on_either_runtime(stack):
    done = stack.run("api.check", "--no-load", check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert sum("the file is the one that was registered" in line for line in lines) >= 3
    assert any(line.startswith("ok       port") and "listens on" in line for line in lines)
    if stack.runtime == "queue":
        assert any(line.startswith("ok       broker") for line in lines)
        assert any(line.startswith("ok       workers") for line in lines)


@pytest.mark.long
def test_every_champion_is_loaded(sync):
    done = sync.run("api.check", check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("SHA-256 holds, loaded in") >= 3


def test_settings_that_do_not_hold_are_the_only_finding(capsys):
    code, findings = examined(capsys, RUNTIME="sync", MODEL_DIR="/models")
    assert code == 1
    assert list(findings) == ["settings"]
    assert findings["settings"][0].detail == "MODEL_DIR: is no setting; write MODELS_DIR, or remove it"


def test_servers_that_are_away_are_both_told(capsys, tmp_path):
    env = {"RUNTIME": "queue", "DATABASE_URL": NOBODY, "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    code, findings = examined(capsys, **env, MODELS_DIR=str(tmp_path))
    assert code == 1
    assert findings["database"][0].status == findings["broker"][0].status == "failed"
    assert "Connection refused" in findings["database"][0].detail


def test_database_without_tables_is_told_and_its_models_are_not_looked_for(capsys, session_postgres, session_redis):
    env = settings_for(create_database(session_postgres, "check_bare"))
    code, findings = examined(capsys, **env, REDIS_URL=session_redis.url)
    assert code == 1
    assert "alembic upgrade head" in findings["migrations"][0].detail
    assert findings["models"][0].status == "skipped"
    assert findings["clocks"][0].status == "ok"


def test_database_that_is_not_there_is_told_and_not_made(capsys, tmp_path):
    code, findings = examined(capsys, RUNTIME="sync", DATA_DIR=str(tmp_path / "data"))
    assert code == 1
    assert f"there is no {tmp_path}/data/guichet.db: make it with `python -m alembic" in findings["database"][0].detail
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_told_with_what_would_help(capsys, tmp_path):
    (tmp_path / "guichet.db").write_text("a text, and no database at all")
    code, findings = examined(capsys, RUNTIME="sync", DATA_DIR=str(tmp_path))
    assert code == 1
    assert findings["database"][0].detail.endswith(
        "file is not a database: set DATA_DIR or DATABASE_URL to another place"
    )


def test_broker_that_refuses_the_password_is_not_said_to_be_away(capsys, tmp_path, session_redis):
    wrong = f"redis://:hunter2@127.0.0.1:{session_redis.port}/0"
    env = {"RUNTIME": "queue", "DATABASE_URL": NOBODY, "REDIS_URL": wrong, "MODELS_DIR": str(tmp_path)}
    _, findings = examined(capsys, **env)
    assert "refuses the password" in findings["broker"][0].detail
    assert findings["broker"][0].detail.endswith("correct REDIS_URL")


def test_models_without_their_files_and_no_champion_are_told(capsys, tmp_path):
    with sqlite_engine(tmp_path) as engine:
        code, findings = examined(capsys, **settings_for(str(engine.url)), MODELS_DIR=str(tmp_path))
        assert "no version is a champion" in findings["models"][0].detail
        assert findings["other models"][0].status == "warning"
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO model_aliases (name, alias, model_version_id) VALUES ('m', 'champion', 1)"
            )
        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(b"altered")
        for arguments in ([], ["--no-load"]):
            code, findings = examined(capsys, *arguments, **settings_for(str(engine.url)), MODELS_DIR=str(tmp_path))
            assert code == 1
            assert findings["model"][0].status == "failed"
            assert findings["model"][0].detail.startswith("m@1: ")
        code, findings = examined(
            capsys, **settings_for(str(engine.url)), MODELS_DIR=str(tmp_path), DEFAULT_MODEL="other"
        )
        assert findings["models"][0].detail == "DEFAULT_MODEL is other, and there is: m"


def test_installation_without_the_models_libraries_compares_their_files(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("api.check.models.find_spec", lambda name: None)
    with sqlite_engine(tmp_path) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO model_aliases (name, alias, model_version_id) VALUES ('m', 'champion', 1)"
            )
            content = b"a file that nothing could load"
            digest = hashlib.sha256(content).hexdigest()
            connection.exec_driver_sql(f"UPDATE model_versions SET sha256 = '{digest}' WHERE id = 1")
        folder = tmp_path / "m" / "1"
        folder.mkdir(parents=True)
        (folder / MODEL_FILE).write_bytes(content)
        _, findings = examined(capsys, **settings_for(str(engine.url)), MODELS_DIR=str(tmp_path))
    assert findings["model"][0].detail == "m@1: the file is the one that was registered"
    assert findings["models"][0].detail.startswith("not loaded: ")


def test_store_of_models_is_looked_at_and_what_it_holds_need_not_be_here(capsys, tmp_path):
    store, here = tmp_path / "store", tmp_path / "here"
    here.mkdir()
    with sqlite_engine(tmp_path) as engine:
        env = settings_for(str(engine.url)) | {"MODELS_DIR": str(here), "MODELS_URI": f"file://{store}"}
        code, findings = examined(capsys, **env)
        assert findings["store"][0].status == "warning"
        assert f"file://{store}" in findings["store"][0].detail
        (store / "m" / "1").mkdir(parents=True)
        (store / "m" / "1" / MODEL_FILE).touch()
        assert "There is no model package at" in examined(capsys, **env)[1]["store"][0].detail
        (store / "m" / "1" / CARD_FILE).touch()
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO model_aliases (name, alias, model_version_id) VALUES ('m', 'champion', 1)"
            )
        code, findings = examined(capsys, **env)
        assert code == 0, findings
        assert findings["folder DATABASE_URL"][0].detail.startswith(f"{tmp_path}, ")
        assert findings["store"][0].detail == f"file://{store}, packages: 1"
        assert findings["model"][0].status == "warning"
        assert f"is fetched from file://{store}/" in findings["model"][0].detail
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM model_aliases")
            connection.exec_driver_sql("DELETE FROM model_versions")
        assert "registers what MODELS_URI holds" in examined(capsys, **env)[1]["models"][0].detail


def test_role_without_rights_is_told_which_it_lacks(session_postgres):
    with postgres_engine(session_postgres, "check_rights") as engine, engine.connect() as connection:
        assert database.examine_rights(connection).status == "ok"
        connection.exec_driver_sql("CREATE ROLE check_weak")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO check_weak")
        connection.exec_driver_sql("SET ROLE check_weak")
        finding = database.examine_rights(connection)
        connection.exec_driver_sql("RESET ROLE")
    assert finding.status == "failed"
    assert finding.detail.startswith(
        "check_weak lacks INSERT on alias_events, INSERT on audit_logs, INSERT on erased_jobs and "
    )
    assert "set DATABASE_URL to the address of guichet_app" in finding.detail


def test_role_of_readers_is_told_that_it_may_not_write(session_postgres):
    with postgres_engine(session_postgres, "check_reader") as engine, engine.connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        finding = database.examine_rights(connection)
    assert finding.status == "failed"
    assert "gets read-only transactions: set DATABASE_URL to the address of guichet_app" in finding.detail


def test_service_for_which_nobody_has_a_key_is_told(tmp_path):
    with sqlite_engine(tmp_path) as engine, engine.connect() as connection:
        finding = database.examine_keys(connection, Settings(runtime="sync", auth="predict-open", rate_per_minute=60))
    assert finding.status == "warning"
    assert finding.detail.startswith("AUTH=predict-open, and no key is valid: make one with `python -m api.keys create")


def test_lost_table_is_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'lost.db'}"
    migrate(url)
    engine = make_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE job_events")
        assert "job_events is not there" in database.examine_tables(connection).detail
    engine.dispose()


SETTINGS = Settings(runtime="queue", database_url=NOBODY, redis_url="redis://:hunter2@redis/0")
SOUND = {"redis_version": "7", "maxmemory_policy": "noeviction", "aof_enabled": 1, "used_memory": 9e6}


def redis(**info: object) -> SimpleNamespace:
    return SimpleNamespace(ping=lambda: True, info=lambda: SOUND | info)


@pytest.mark.parametrize(
    ("info", "status", "message"),
    [
        ({}, "ok", "9 MB"),
        ({"maxmemory_policy": "allkeys-lru"}, "warning", "set noeviction"),
        ({"aof_enabled": 0}, "warning", "appendonly is off"),
        ({"maxmemory": 10e6}, "warning", "nearly full"),
    ],
)
def test_redis_that_would_forget_is_told(info, status, message):
    finding = broker.examine_broker(redis(**info), SETTINGS)
    assert finding.status == status
    assert message in finding.detail
    assert "hunter2" not in finding.detail


@pytest.mark.parametrize(("apart", "status"), [(0.0, "ok"), (5.0, "warning"), (-600.0, "failed")])
def test_clock_that_differs_is_told(apart, status, tmp_path):
    def clock() -> tuple[int, int]:
        now = time.time() + apart
        return int(now), int(now % 1 * 1e6)

    with sqlite_engine(tmp_path) as engine, engine.connect() as connection:
        assert machine.examine_clocks(connection, SimpleNamespace(time=clock)).status == status


def test_redis_that_is_away_has_no_clock(tmp_path):
    def clock() -> tuple[int, int]:
        raise RedisConnectionError("gone")

    with sqlite_engine(tmp_path) as engine, engine.connect() as connection:
        assert machine.examine_clocks(connection, SimpleNamespace(time=clock)).status == "ok"


def test_clock_of_postgresql_is_compared_with_ours(session_postgres):
    with postgres_engine(session_postgres, "check_clock") as engine, engine.connect() as connection:
        finding = machine.examine_clocks(connection, None)
    assert finding.status == "ok"
    assert finding.detail.startswith("database ")


def test_port_of_somebody_else_is_told(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        finding = machine.examine_port(Settings(runtime="sync", data_dir=tmp_path, port=port))
    assert finding.status == "failed"
    assert finding.detail == f"cannot listen on 127.0.0.1:{port} (Address already in use): set PORT or HOST"


@pytest.mark.parametrize("host", ["a b", "no.such.host.invalid", "é" * 64], ids=["space", "unknown", "long"])
def test_host_that_is_none_is_told(host, tmp_path):
    finding = machine.examine_port(Settings(runtime="sync", data_dir=tmp_path, host=host, port=free_port()))
    assert finding.status == "failed"
    assert finding.detail.startswith(f"cannot listen on {host}:")
    assert finding.detail.endswith("): set PORT or HOST")


def test_folders_that_cannot_be_used_are_told(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    settings = Settings(runtime="sync", data_dir=tmp_path)
    assert {finding.status for finding in machine.examine_folders(settings)} == {"ok"}
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read anywhere
    assert "cannot be read by this user" in machine.examine_folders(settings)[1].detail
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    assert machine.examine_folders(settings)[0].status == "warning"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e7))
    assert (
        machine.examine_folders(settings)[0].detail == f"{tmp_path}, 10 MB free: make room, or set DATA_DIR elsewhere"
    )
    proc = Settings(runtime="sync", data_dir="/proc", models_dir=tmp_path / "none")
    assert [finding.status for finding in machine.examine_folders(proc)[:2]] == ["failed", "failed"]
