"""A real MLServer, and other people's clients, in the environment that `make interop` makes for them."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.conftest import ROOT
from tests.support.stack import Stack, free_port

BIN = ROOT / ".venv-interop" / "bin"  # `make interop` makes it
CLIENTS = Path(__file__).parent / "clients"
START_SECONDS = 120.0

Row = tuple[str, str, str, str]  # request, what Guichet answered, what the other server answered, how they compare
_TABLE: list[Row] = []

ClientRunner = Callable[..., Any]


@pytest.fixture(scope="session")
def run_client() -> ClientRunner:
    """A function that runs a script of clients/ where its client is installed, and returns the JSON that it prints."""

    def run(name: str, **task: Any) -> Any:
        command = [str(BIN / "python"), str(CLIENTS / f"{name}.py")]
        ended = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr[-4000:]
        return json.loads(ended.stdout)

    return run


@pytest.fixture(scope="session")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of three classes that was trained on an array, and its reference rows."""
    folder = tmp_path_factory.mktemp("flowers")
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(300, 4)).round(3)
    kinds = np.array(["iris", "lily", "rose"])[rows[:, :3].argmax(axis=1)]
    joblib.dump(LogisticRegression(max_iter=500).fit(rows, kinds), folder / "model.joblib")
    lines = [",".join(map(str, row)) for row in rows[:100]]
    (folder / "rows.csv").write_text("\n".join(["a,b,c,d", *lines]) + "\n")
    return folder / "model.joblib", folder / "rows.csv"


@pytest.fixture
def both(stack: Stack, flowers: tuple[Path, Path]) -> Stack:
    """The running service, with the model of three classes too."""
    with stack.client() as client:
        if client.get("/models/flowers").status_code == 404:
            stack.run("shared.registry", "add", str(flowers[0]), "--reference", str(flowers[1]), "--name", "flowers")
    return stack


@pytest.fixture(scope="session")
def mlserver(
    sync: Stack, models_dir: Path, flowers: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a real MLServer that serves the very same artefacts."""
    folder = tmp_path_factory.mktemp("mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", **ports, "metrics_endpoint": None, "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps(settings))
    artefacts = {name: models_dir / name / "1" / "model.joblib" for name in ("attrition", "credit", "energy")}
    for name, artefact in (artefacts | {"flowers": flowers[0]}).items():
        (folder / name).mkdir()
        (folder / name / "model.joblib").write_bytes(artefact.read_bytes())
        settings_of_model = {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib", "version": "1"},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(settings_of_model))
    url = f"http://127.0.0.1:{ports['http_port']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(BIN / "mlserver"), "start", "."], cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"MLServer did not start:\n{(folder / 'log').read_text()[-4000:]}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture(scope="session")
def table() -> list[Row]:
    """The table that is printed at the end: a line for each request that two servers answered."""
    return _TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the servers said to the same requests."""
    if not _TABLE:
        return
    lines = [("request", "guichet", "the other server", "largest difference"), *_TABLE]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    terminalreporter.write_sep("=", "the same requests")
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
        terminalreporter.write_line("  ".join([*cells, line[3]]))
