"""`make run`: what it refuses, how it restarts and stops its parts, and the whole service once."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from scripts.checkout import Failure
from scripts.generate.migration import next_number
from scripts.local import supervisor as supervising
from scripts.local.console import Console, Follower
from scripts.local.guard import Guard, watched_at_end
from scripts.local.options import Options, check_ports, locked, read_options
from scripts.local.probes import ask, ask_json
from scripts.local.run import send_example
from scripts.local.supervisor import Program, Stopped, Supervisor
from scripts.servers.processes import Child, runs, wait_until

ROOT = Path(__file__).resolve().parents[3]


class Listener(Console):
    """A console that keeps the lines, and closes once it has read the last one."""

    def __init__(self, last: str = "\0") -> None:
        super().__init__()
        self.lines: list[str] = []
        self.last = last

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        self.closed = self.closed or self.last in line


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def supervisor(listener: Listener) -> Iterator[Supervisor]:
    supervisor = Supervisor(listener)
    yield supervisor
    supervisor.stop([])


def shell(name: str, script: str, folder: Path, *, patience: float = 5.0) -> Program:
    return Program(
        name,
        ["/bin/sh", "-c", script],
        data_dir=folder,
        env=dict(os.environ),
        answers=lambda: True,
        patience=patience,
    )


def two_free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def test_defaults_are_those_of_the_documentation():
    assert read_options({}) == Options("queue", 8000, 5555, ROOT / ".guichet")
    assert read_options({"RUNTIME": "sync", "PORT": ""}) == Options("sync", 7860, 5555, ROOT / ".guichet")
    assert read_options({"DATA_DIR": "/elsewhere"}).data_dir == Path("/elsewhere")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"RUNTIME": "turbo"}, "RUNTIME is 'turbo': it must be queue or sync"),
        ({"PORT": "http"}, "PORT is 'http': it must be a number between 1 and 65535"),
        ({"PORT": "٨٠"}, "it must be a number"),
        ({"FLOWER_PORT": "65536"}, "FLOWER_PORT is '65536'"),
        ({"PORT": "9000", "FLOWER_PORT": "9000"}, "both 9000: choose two different ports"),
    ],
)
def test_wrong_setting_is_refused_in_a_sentence(env: dict[str, str], words: str):
    with pytest.raises(Failure, match=words):
        read_options(env)


def test_port_in_use_ends_the_start_before_anything_runs(tmp_path: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        env = os.environ | {"PORT": str(port), "DATA_DIR": str(tmp_path / "data")}
        command = [sys.executable, "-m", "scripts.local.run"]
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert f"PORT {port} of 127.0.0.1 is in use by another program: choose another" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["lock"]


def test_flower_port_matters_to_the_queue_runtime_only(tmp_path: Path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        flower_port = listener.getsockname()[1]
        check_ports(Options("sync", two_free_ports()[0], flower_port, tmp_path))
        with pytest.raises(Failure, match=f"FLOWER_PORT {flower_port} "):
            check_ports(Options("queue", two_free_ports()[0], flower_port, tmp_path))


def test_second_copy_on_the_same_folder_is_refused(tmp_path: Path):
    options = Options("queue", 8000, 5555, tmp_path)
    refused = pytest.raises(Failure, match=f"another copy \\(process {os.getpid()} at http.* uses")
    with locked(options), refused, locked(options):
        pass
    with locked(options):
        pass  # free again


def test_folder_stays_locked_while_a_child_of_a_killed_copy_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scripts.local.options._LOCK_SECONDS", 0.2)
    monkeypatch.setattr("scripts.local.options.psutil.pid_exists", lambda pid: False)
    options = Options("queue", 8000, 5555, tmp_path)
    with locked(options) as lock:
        child = subprocess.Popen(["/bin/sleep", "60"], pass_fds=(lock,))
    try:
        with pytest.raises(Failure, match="another copy"), locked(options):
            pass
    finally:
        child.kill()
        child.wait()
    with locked(options):
        pass


def test_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    options = Options("sync", 8000, 5555, tmp_path / "file")
    with pytest.raises(Failure, match=r"cannot write to .*file .*: set DATA_DIR"), locked(options):
        pass


def test_part_that_dies_is_shown_and_started_again(supervisor: Supervisor, listener: Listener, tmp_path: Path):
    listener.last = "| second life"
    script = f"if mkdir {tmp_path}/once; then echo the reason; exit 3; else sleep 0.2; echo second life; sleep 60; fi"
    supervisor.launch(shell("fragile", script, tmp_path))
    with pytest.raises(Stopped):
        supervisor.follow()
    words = "\n".join(listener.lines)
    assert "fragile ended with exit code 3; its last lines" in words
    assert "  the reason" in words
    assert "fragile starts again in 0.5 s" in words


def test_part_that_dies_again_and_again_stops_everything(
    supervisor: Supervisor, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervising, "_FIRST_DELAY", 0.01)
    healthy = shell("healthy", "sleep 60", tmp_path)
    supervisor.launch(healthy, shell("doomed", "kill -KILL $$", tmp_path))
    with pytest.raises(Failure, match="doomed died 5 times within 60 s"):
        supervisor.follow()
    assert sum("doomed was ended by SIGKILL" in line for line in listener.lines) == 5
    supervisor.stop([])
    assert not healthy.alive


def test_part_that_cannot_be_started_again_counts_as_dead(
    supervisor: Supervisor, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervising, "_FIRST_DELAY", 0.01)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nrm $0\n")
    program.chmod(0o755)
    part = Program("gone", [str(program)], data_dir=tmp_path, env={}, answers=lambda: True)
    supervisor.launch(part)
    with pytest.raises(Failure, match="gone died 5 times"):
        supervisor.follow()
    assert any("gone did not start: [Errno 2]" in line for line in listener.lines)


def test_part_that_ends_while_it_starts_is_a_failure_with_its_words(supervisor: Supervisor, tmp_path: Path):
    part = shell("wrong", "echo no such module; exit 1", tmp_path)
    supervisor.launch(part)
    part.child.wait(5)
    with pytest.raises(Exception, match=r"wrong ended while it was starting(?s:.)*no such module"):
        supervisor.wait_ready(part)


def test_part_that_is_never_ready_is_a_failure_with_its_words(supervisor: Supervisor, tmp_path: Path):
    part = Program(
        "slow", ["/bin/sh", "-c", "echo loading; sleep 60"], data_dir=tmp_path, env={}, answers=lambda: False
    )
    supervisor.launch(part)
    assert wait_until(lambda: bool(part.child.last_lines()), timeout=5)
    with pytest.raises(Failure, match=r"not ready after 0 s: slow\n  loading"):
        supervisor.wait_ready(part, timeout=0)


def test_failed_command_is_a_failure_with_its_words(supervisor: Supervisor, tmp_path: Path):
    supervisor.run(shell("fine", "true", tmp_path), timeout=5)
    with pytest.raises(Failure, match=r"migrate ended with exit code 1 .*\n  no table"):
        supervisor.run(shell("migrate", "echo no table; exit 1", tmp_path), timeout=5)
    with pytest.raises(Failure, match="endless was ended by SIGKILL"):
        supervisor.run(shell("endless", "sleep 60", tmp_path), timeout=0.1)
    assert supervisor.parts == []


def test_parts_stop_in_order_and_a_stubborn_one_is_killed(supervisor: Supervisor, listener: Listener, tmp_path: Path):
    note = "trap 'echo {0} >> {1}/order; exit' TERM; echo up; while :; do sleep 0.05; done"
    parts = [shell(name, note.format(name, tmp_path), tmp_path) for name in ("postgres", "api", "worker")]
    parts.append(shell("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done", tmp_path, patience=0.2))
    supervisor.launch(*parts)
    assert wait_until(lambda: all(part.child.last_lines() for part in parts), timeout=5)
    supervisor.stop([("api",), ("worker", "stubborn"), ("postgres",)])
    assert (tmp_path / "order").read_text().split() == ["api", "worker", "postgres"]
    assert listener.lines == ["guichet: stubborn did not end in time and is killed"]
    assert not any(part.alive for part in parts)


def test_second_ctrl_c_shortens_the_wait(supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervising, "_HURRY", 0.1)
    part = shell("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done", tmp_path, patience=60)
    supervisor.launch(part)
    assert wait_until(lambda: bool(part.child.last_lines()), timeout=5)
    with supervisor.obeying_signals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            supervisor.pause()
        monkeypatch.setattr(supervising, "_SECOND_REQUEST", 0.0)
        signal.raise_signal(signal.SIGINT)
        supervisor.stop([("stubborn",)])
    assert not part.alive


def test_follower_shows_whole_lines_with_the_name_of_their_part(listener: Listener, tmp_path: Path):
    log = tmp_path / "api.log"
    log.write_text("before\n")
    follower = Follower(listener, {"api": log, "absent": tmp_path / "absent.log"})
    with log.open("a") as out:
        out.write("one\ntw")
        out.flush()
        follower.show()
        out.write("o\n")
        out.flush()
        follower.show()
    log.write_text("new\n")  # shorter than before: it was rotated
    follower.show()
    assert listener.lines == ["api         | one", "api         | two", "api         | new"]


def test_json_lines_of_the_service_are_shown_as_text_and_those_of_others_as_they_are(
    listener: Listener, tmp_path: Path
):
    log = tmp_path / "api.log"
    follower = Follower(listener, {"api": log})
    entry = {"time": "2026-11-29T05:11:04.299+00:00", "level": "ERROR", "logger": "api.main", "message": "it failed"}
    failed = entry | {"job_id": "j1", "exception": "ValueError\n  /srv/a.py:7 in f"}
    others = [
        "plain",
        "{",
        "7",
        '{"time":"now"}',
        json.dumps(entry | {"time": "noon"}),
        json.dumps(entry | {"time": 7}),
    ]
    log.write_text("\n".join([json.dumps(failed), *others]) + "\n")
    follower.show()
    first, *rest = listener.lines
    assert re.fullmatch(r"api         \| \d\d:\d\d:04 \[ERROR *\] it failed \(api.main\) job_id=j1", first)
    assert rest[:2] == ["api         | ValueError", "api         |   /srv/a.py:7 in f"]
    assert rest[2:] == [f"api         | {line}" for line in others]


def test_guard_ends_what_it_was_told_of_when_its_owner_falls_silent(tmp_path: Path):
    guard = Guard()
    script = "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"
    stubborn, finished = (Child(name, ["/bin/sh", "-c", script], log=tmp_path / name) for name in ("one", "two"))
    for child in (stubborn, finished):
        child.start()
        assert wait_until(lambda child=child: bool(child.last_lines()), timeout=5)
        assert child.pid is not None
        guard.watch(child.pid, signal.SIGTERM, 0.2)
    guard.forget(finished.pid)
    grandchild = psutil.Process(int(stubborn.last_lines()[0]))
    guard.dismiss()
    assert wait_until(lambda: not runs(grandchild), timeout=5)
    assert stubborn.wait(5)
    assert finished.alive
    finished.kill()


def test_guard_understands_an_owner_that_dies_in_the_middle_of_a_word():
    assert watched_at_end(["+ 7 15 2.0", "+ 8 2 10", "- 7", "+ 9"]) == {8: (2, 10.0)}


class Copy:
    """A copy of the service, started as `make run` starts it, without a terminal."""

    def __init__(self, folder: Path, **env: str) -> None:
        port, flower_port = two_free_ports()
        self.url, self.flower_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{flower_port}/"
        self.env = os.environ | {"PORT": str(port), "FLOWER_PORT": str(flower_port), "DATA_DIR": str(folder)} | env
        self.output = folder.with_name(f"{folder.name}-{port}.txt")
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.local.run"],
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> list[psutil.Process]:
        """Wait for the last line of the start; return every process that belongs to the copy."""
        started = wait_until(
            lambda: "\n  logs  " in self.read() or self.process.poll() is not None, timeout=240, every=0.1
        )
        assert started, self.read()
        assert self.process.poll() is None, self.read()
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def read(self) -> str:
        return self.output.read_text()

    def match_of(self, pattern: str) -> str:
        match = re.search(pattern, self.read())
        assert match is not None, self.read()
        return match[1]

    def end(self, number: signal.Signals, processes: list[psutil.Process]) -> int:
        """Send a signal; return the exit code once every process has gone."""
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert wait_until(lambda: not any(map(runs, processes)), timeout=30, every=0.1), [
            process.cmdline() for process in processes if runs(process)
        ]
        return code


@pytest.fixture
def copies() -> Iterator[Callable[..., Copy]]:
    started: list[Copy] = []

    def start(folder: Path, **env: str) -> Copy:
        started.append(Copy(folder, **env))
        return started[-1]

    yield start
    for copy in started:
        if copy.process.poll() is None:  # a test failed
            copy.process.terminate()
            copy.process.wait(60)


@pytest.mark.long
def test_whole_service_starts_serves_stops_and_finds_its_data_again(
    copies: Callable[..., Copy], tmp_path: Path, models_dir: Path
):
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(models_dir)  # what another test has built need not be built again
    first = copies(data)
    processes = first.wait_ready()
    job = first.match_of(r"example row: job (\S+) succeeded: \{.*\"prediction\"")
    login = "guichet:" + first.match_of(r"user guichet, password (\S+)\)")
    assert ask(f"{first.url}/docs")[0] == 200
    assert ask(first.flower_url)[0] == 401
    assert ask(first.flower_url, login=login)[0] == 200
    assert stat.S_IMODE((data / "flower-password").stat().st_mode) == 0o600
    assert login.split(":")[1] not in " ".join(word for process in processes for word in process.cmdline())
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    kept = [path for path in data.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in kept if path.stat().st_mode & 0o077] == []
    assert first.end(signal.SIGTERM, processes) == 0
    assert "guichet: stopped" in first.read()

    second = copies(data)
    processes = second.wait_ready()
    assert ask_json(f"{second.url}/jobs/{job}")[1]["status"] == "succeeded"
    assert "building the example models" not in second.read()
    third = copies(data)
    assert third.process.wait(30) == 1
    assert f"another copy (process {second.process.pid} at {second.url}) uses {data}" in third.read()
    second.end(signal.SIGKILL, processes)  # nothing survives, although nobody was left to stop it
    with locked(Options("queue", 8000, 5555, data)):
        pass


@pytest.mark.long
def test_sync_runtime_is_one_process_on_sqlite(copies: Callable[..., Copy], tmp_path: Path, models_dir: Path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(models_dir)
    copy = copies(data, RUNTIME="sync")
    processes = copy.wait_ready()
    assert len(processes) > 4  # the supervisor, the API, and a process for each model
    assert copy.match_of(r"example row: job (\S+) succeeded")
    assert ask(f"{copy.url}/docs")[0] == 200
    assert not (data / "postgres").exists()
    assert not (data / "redis").exists()
    assert copy.end(signal.SIGINT, processes) == 0


def test_example_row_that_fails_stops_the_start_with_the_answer(monkeypatch: pytest.MonkeyPatch):
    answers = iter([(202, {"id": "7"}), (200, {"status": "running"}), (200, {"status": "failed", "error": "why"})])
    monkeypatch.setattr("scripts.local.run.ask_json", lambda *_, **__: next(answers))
    with pytest.raises(Failure, match=r"example row failed: .*why"):
        send_example("http://unused", lambda: None)
    monkeypatch.setattr("scripts.local.run.ask_json", lambda *_, **__: (422, {"detail": "no"}))
    with pytest.raises(Failure, match="not accepted: status 422"):
        send_example("http://unused", lambda: None)
    answers = iter([(202, {"id": "7"}), (200, {"status": "queued"})])
    monkeypatch.setattr("scripts.local.run.ask_json", lambda *_, **__: next(answers))
    with pytest.raises(Failure, match="no result after 0 s"):
        send_example("http://unused", lambda: None, timeout=0)


def test_reader_that_goes_away_stops_the_service(tmp_path: Path):
    script = "from scripts.local.console import Console\nc = Console()\nwhile not c.closed: c.say('x' * 1000)\n"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as talker:
        assert talker.stdout is not None
        talker.stdout.close()
        assert talker.wait(10) == 0


def test_next_migration_gets_the_next_number(tmp_path: Path):
    assert next_number(tmp_path) == "0001"
    (tmp_path / "0007_add_outcomes.py").touch()
    assert next_number(tmp_path) == "0008"


@pytest.mark.long
def test_first_start_speaks_to_the_clients_for_which_the_examples_were_made(
    copies: Callable[..., Copy], tmp_path: Path
):
    copy = copies(tmp_path / "data")
    processes = copy.wait_ready()
    row = json.loads((ROOT / "examples" / "attrition" / "request.json").read_text(encoding="utf-8"))
    answer = httpx2.post(f"{copy.url}/predict", json=row, timeout=30)
    assert (answer.status_code, list(answer.json())) == (200, ["prediction", "probability"])
    answer = httpx2.post(f"{copy.url}/predict", json={"features": {}}, timeout=30)
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])
    [credit, *_] = json.loads((ROOT / "examples" / "credit" / "rows.json").read_text(encoding="utf-8"))
    answer = httpx2.post(f"{copy.url}/models/credit/predict", json={"features": credit}, timeout=30)
    assert answer.status_code == 200
    assert list(answer.json()) == [
        "request_id",
        "proba_default",
        "threshold",
        "decision",
        "model_version",
        "latency_ms",
    ]
    assert copy.end(signal.SIGTERM, processes) == 0
