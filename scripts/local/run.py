"""`make run`: the whole service on one machine, with nothing installed but Python.

    make run                  PostgreSQL, Redis, API, two workers and Flower
    make run RUNTIME=sync     one API process on SQLite, without a broker

PORT, FLOWER_PORT and DATA_DIR come from the environment; copies with other ports and folders run side by side.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from scripts.checkout import ROOT, Failure
from scripts.local.console import Console
from scripts.local.guard import Guard
from scripts.local.options import Options, check_ports, locked, read_options
from scripts.local.parts import STAGES, Parts
from scripts.local.probes import ask_json
from scripts.local.supervisor import Stopped, Supervisor
from scripts.servers.postgres import Postgres
from scripts.servers.redis import Redis
from scripts.servers.server import ServerError

_EXAMPLE_ROWS = ROOT / "examples" / "attrition" / "rows.json"
_RUNNING = ("queued", "running")


def main() -> int:
    """Run until somebody stops it; return 0 after a stop, 1 when something is wrong."""
    os.umask(0o077)  # data and logs are for whoever runs it, not for everyone on the machine
    console = Console()
    supervisor = Supervisor(console)
    try:
        options = read_options(os.environ)
        with locked(options) as lock, supervisor.obeying_signals():
            check_ports(options)
            if options.runtime == "queue":  # its workers have children of their own
                supervisor.guard = Guard(keep_open=(lock,))
            try:
                start(options, supervisor, lock)
                supervisor.follow()
            finally:
                if any(part.alive for part in supervisor.parts):
                    console.say("guichet: stopping; the data stays")
                supervisor.stop(STAGES)
                if supervisor.guard is not None:
                    supervisor.guard.dismiss()
    except Stopped:
        console.say("guichet: stopped")
    except (Failure, ServerError, OSError) as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    return 0


def start(options: Options, supervisor: Supervisor, lock: int) -> None:
    """Start every part, send one example row through the service, and print the addresses."""
    began = time.monotonic()
    say = supervisor.console.say
    say(f"guichet: starting, {options.runtime} runtime, data in {options.data_dir}")
    parts = Parts(options, lock)
    if options.runtime == "queue":
        parts.postgres = Postgres(options.data_dir, keep_open=(lock,))
        parts.redis = Redis(options.data_dir, keep_open=(lock,))
        supervisor.launch(parts.redis, parts.postgres)
        supervisor.wait_ready(parts.postgres, parts.redis)
    supervisor.run(parts.program("migrate", "alembic", "upgrade", "head"), timeout=300)
    if missing := parts.missing_examples():
        say(f"guichet: building the example models: {', '.join(missing)}")
        supervisor.run(parts.program("examples", "examples.build"), timeout=1800)
    programs = [parts.api()]
    if parts.postgres is not None:
        programs += [*parts.workers(parts.postgres), parts.flower()]
    supervisor.launch(*programs)
    supervisor.wait_ready(*programs, timeout=120)
    job = send_example(options.url, supervisor.pause)
    say(f"guichet: example row: job {job['id']} {job['status']}: {json.dumps(job.get('result'), ensure_ascii=False)}")
    say(f"guichet: ready after {time.monotonic() - began:.1f} s; Ctrl-C stops it")
    say(f"  API docs  {options.url}/docs")
    if parts.postgres is not None:
        user, password = parts.flower_login.split(":", 1)
        say(f"  Flower    {options.flower_url}  (user {user}, password {password})")
    say(f"  logs      {options.data_dir / 'logs'}")
    # In a subshell: these settings are the running copy's, and the next `make run` must not inherit them.
    say(f"  by hand   (. {parts.write_environment()}; .venv/bin/python -m shared.registry list)")


def send_example(url: str, pause: Callable[[], None], *, timeout: float = 30.0) -> dict[str, Any]:
    """Post the first example row and return its stored job. Raises Failure if it does not succeed in time."""
    row = json.loads(_EXAMPLE_ROWS.read_text(encoding="utf-8"))[0]
    # The first version of the model is the example's, whatever has been promoted or made the default since.
    body = {"model": "attrition", "version": 1, "features": row}
    status, answer = ask_json(f"{url}/jobs", body=body, timeout=timeout)
    job_id = answer.get("id")
    if status not in (200, 202) or not job_id:
        raise Failure(f"the example row was not accepted: status {status}, {json.dumps(answer, ensure_ascii=False)}")
    deadline = time.monotonic() + timeout
    while True:
        status, job = ask_json(f"{url}/jobs/{job_id}")
        if status == 200 and job.get("status") not in _RUNNING:
            break
        if time.monotonic() > deadline:
            raise Failure(f"the example row has no result after {timeout:.0f} s: status {status}, {json.dumps(job)}")
        pause()
    if job.get("status") != "succeeded":
        raise Failure(f"the example row failed: {json.dumps(job, ensure_ascii=False)}")
    return job


if __name__ == "__main__":
    sys.exit(main())
