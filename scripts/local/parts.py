"""The parts of the service as `make run` starts them: their commands, environments and signs of readiness."""

import os
import secrets
import shlex
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from scripts.checkout import ROOT
from scripts.local.options import HOST, Options
from scripts.local.probes import ask
from scripts.local.supervisor import Program
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis

WORKERS = {"interactive": "interactive", "bulk": "bulk,maintenance"}  # part -> lanes that it consumes
STAGES = (("api",), tuple(WORKERS), ("flower",), ("redis",), ("postgres",))  # the order in which they stop
_WORKER_PATIENCE = 15.0  # seconds to finish what a worker is at
_CELERY = ("celery", "-q", "-A", "worker.main:app")  # without its banner: what a worker does, its log says


@dataclass
class Parts:
    """Makes the parts of one copy of the service."""

    options: Options
    lock: int
    postgres: Postgres | None = None
    redis: Redis | None = None

    def api(self) -> Program:
        """Return the HTTP side."""
        return self.program("api", "api", answers=lambda: ask(f"{self.options.url}/readyz")[0] == 200)

    def workers(self, postgres: Postgres) -> list[Program]:
        """Return the worker of the lane where somebody waits, and that of the others."""
        now = str(_rows(postgres, "SELECT now()::text")[0][0])
        return [
            self.program(
                name,
                *(*_CELERY, "worker", "-Q", lanes, "-c", "1", "-n", f"{name}@%h", "-E", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle"),  # they need no talk among themselves, and start faster
                answers=lambda lanes=lanes: _was_seen(postgres, lanes, now),  # type: ignore[misc]
                patience=_WORKER_PATIENCE,
            )
            for name, lanes in WORKERS.items()
        ]

    def flower(self) -> Program:
        """Return the view of workers and tasks; everyone with the password may enter."""
        data_dir, url = self.options.data_dir, f"{self.options.flower_url}/"
        return self.program(
            "flower",
            *(*_CELERY, "flower", f"--address={HOST}", f"--port={self.options.flower_port}"),
            *("--persistent=True", f"--db={data_dir / 'flower.db'}", "--state-save-interval=15000"),
            answers=lambda: ask(url, login=self.flower_login)[0] == 200 and ask(url)[0] == 401,
            # not on the command line, which everyone on the machine can read
            more_env={"FLOWER_BASIC_AUTH": self.flower_login},
        )

    @property
    def flower_login(self) -> str:
        """Return user:password of Flower; the password is made once and kept in the data folder."""
        file = self.options.data_dir / "flower-password"
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_urlsafe(12) + "\n")
        return f"guichet:{file.read_text().strip()}"

    def missing_examples(self) -> list[str]:
        """Return the example models that are not registered, or whose package is gone."""
        question = "SELECT name, uri FROM model_versions"
        if self.postgres is None:
            with closing(sqlite3.connect(self._database_file)) as connection:
                rows = connection.execute(question).fetchall()
        else:
            rows = _rows(self.postgres, question)
        present = {name for name, uri in rows if (self._models / str(uri) / "model.joblib").exists()}
        return sorted({file.parent.name for file in ROOT.glob("examples/*/train.py")} - present)

    def program(
        self,
        name: str,
        *arguments: str,
        answers: Callable[[], bool] = lambda: True,
        patience: float = 10.0,
        more_env: dict[str, str] | None = None,
    ) -> Program:
        """Return a part that runs a Python module of ours."""
        return Program(
            name,
            [sys.executable, "-m", *arguments],
            data_dir=self.options.data_dir,
            env=self._environment() | (more_env or {}),
            answers=answers,
            patience=patience,
            keep_open=(self.lock,),
            # if we are killed: a worker leaves at once, with its pool; leases bring its work back
            orphan_signal=signal.SIGQUIT if "worker" in arguments else signal.SIGTERM,
        )

    def write_environment(self) -> Path:
        """Write the service's settings as a file for a shell, so that its commands can be used by hand; return it."""
        file = self.options.data_dir / "env"
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self._settings().items()]
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as new:
            new.write("\n".join(lines) + "\n")
        return file

    def _environment(self) -> dict[str, str]:
        return os.environ | self._settings()

    def _settings(self) -> dict[str, str]:
        return {
            "RUNTIME": self.options.runtime,
            "HOST": HOST,
            "PORT": str(self.options.port),
            "AUTH": "open",
            "DATA_DIR": str(self.options.data_dir),
            "MODELS_DIR": str(self._models),
            "DATABASE_URL": f"sqlite:///{self._database_file}" if self.postgres is None else self.postgres.url,
            "REDIS_URL": "" if self.redis is None else self.redis.url,
            "MODEL_UPLOADS": os.environ.get("MODEL_UPLOADS") or "on",  # on loopback, whoever asks is at this machine
            "PYTHONUNBUFFERED": "1",
            # rows are scored one claim at a time: threads of a numeric library would only wait for each other
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    @property
    def _models(self) -> Path:
        return self.options.data_dir / "models"

    @property
    def _database_file(self) -> Path:
        return self.options.data_dir / "guichet.db"


def _was_seen(postgres: Postgres, lanes: str, since: str) -> bool:
    """Return whether a worker of these lanes has loaded its models and given a sign of life since then."""
    return bool(_rows(postgres, "SELECT 1 FROM workers WHERE lanes = %s AND seen_at > %s::timestamptz", lanes, since))


def _rows(postgres: Postgres, question: str, *values: object) -> list[tuple[object, ...]]:
    """Ask the service's database."""
    with (
        closing(psycopg2.connect(user="postgres", dbname="guichet", host=str(postgres.socket_dir))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(question, values)
        return list(cursor.fetchall())
