"""The real `mlflow models serve`, where MLflow is installed: on the loopback address, for as long as it is needed."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 90


@contextmanager
def scoring_server(folder: Path, *, python: Path | None = None) -> Iterator[str]:
    """Serve a folder that MLflow saved, with the MLflow of this Python or another; yield the server's address."""
    python = python or Path(sys.executable)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = ["-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "-p", str(port)]
    # MLflow starts uvicorn by its name, so the environment's own programs come first.
    env = os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(python), *command], env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _is_up(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise AssertionError(
                        f"MLflow's server did not start: {log.read()[-2000:].decode(errors='replace')}"
                    )
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def ask(address: str, content_type: str, body: str, path: str = "/invocations") -> tuple[int, str]:
    """Post a body as it stands; return the status and the answer."""
    request = urllib.request.Request(address + path, body.encode(), {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
