"""What the images' health checks ask."""

import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy import text

from api import probe as api_probe
from shared.database.engine import get_engine
from shared.startup import container
from tests.conftest import create_database
from tests.support.databases import migrate, settings_for, settings_of
from worker import probe as worker_probe


def answering(status: int) -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/readyz" else 500)
            self.end_headers()
            self.wfile.write(b'{"reasons": ["No model is registered."]}')

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    return server


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_api_is_healthy_when_requests_are_welcome(monkeypatch, capsys, status, code):
    with answering(status) as server:
        monkeypatch.setenv("PORT", str(server.server_port))
        assert api_probe.main() == code
    assert ("No model" in capsys.readouterr().out) == bool(code)


def test_api_that_does_not_answer_is_not_healthy(monkeypatch, capsys):
    with socket.socket() as listener:  # bound, and nobody listens
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(listener.getsockname()[1]))
        assert api_probe.main() == 1
    assert "does not answer" in capsys.readouterr().out


def test_worker_is_healthy_while_it_is_heard_of(session_postgres, capsys):
    url = create_database(session_postgres, "probes")
    migrate(url)
    row = "INSERT INTO workers (id, lanes, models, refused, seen_at) VALUES (:id, 'bulk', '[]', '{}', now() - :age)"
    with settings_of(**settings_for(url)):
        assert worker_probe.main() == 1
        for host, age in (("elsewhere", "0 s"), (socket.gethostname(), "1 hour")):
            with get_engine().begin() as connection:
                connection.execute(text(row.replace(":age", f"interval '{age}'")), {"id": f"{host}:7"})
            assert worker_probe.main() == 1
        assert "was heard of lately" in capsys.readouterr().out
        with get_engine().begin() as connection:
            connection.execute(text("UPDATE workers SET seen_at = now()"))
        assert worker_probe.main() == 0


def test_worker_whose_database_is_gone_is_not_healthy(capsys):
    with settings_of(**settings_for("postgresql+psycopg2://nobody@127.0.0.1:1/none")):
        assert worker_probe.main() == 1
    assert "the database does not answer" in capsys.readouterr().out


class Hanging:
    """A container whose process may be sent signals, as its health check sees it."""

    def __init__(self, folder, *, init):
        self.signals = []
        self.folder = folder
        for pid, parent, name in ((1, 0, "docker-init" if init else "python"), (7, 1, "api (x)"), (9, 7, "child")):
            (folder / "proc" / str(pid)).mkdir(parents=True)
            (folder / "proc" / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1")
            (folder / "proc" / str(pid) / "comm").write_text(f"{name}\n")

    def check(self, is_well, times=1):
        for _ in range(times):
            container.note(
                is_well,
                3,
                folder=self.folder,
                processes=self.folder / "proc",
                kill=lambda *what: self.signals.append(what),
            )
        return self.signals


@pytest.mark.parametrize(("init", "process"), [(True, 7), (False, 1)])
def test_process_that_hangs_is_asked_to_end_and_then_killed(tmp_path, init, process):
    hanging = Hanging(tmp_path, init=init)
    assert hanging.check(False, 20) == []  # it may be starting
    hanging.check(True)
    assert hanging.check(False, 2) == []
    hanging.check(True)
    assert hanging.check(False, 2) == []
    assert hanging.check(False, 1) == [(process, signal.SIGTERM)]
    assert hanging.check(False, container.KILL_AFTER)[-1] == (process, signal.SIGKILL)
    assert len(hanging.signals) == container.KILL_AFTER + 1
    assert len(hanging.check(False, 20)) == container.KILL_AFTER + 1  # the next one starts anew


def test_api_that_answers_that_it_is_not_ready_does_not_hang(monkeypatch):
    noted = []
    monkeypatch.setattr(api_probe, "note", lambda *what: noted.append(what))
    with answering(503) as server:
        monkeypatch.setenv("PORT", str(server.server_port))
        assert api_probe.main(["--end-after", "9"]) == 1
    assert noted == [(True, 9)]
