"""The OpenAPI document tells the truth: what Schemathesis sends by it, and against it, is answered as it says."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.build import NAMES
from tests.contracts.helpers import apart
from tests.support.stack import PYTHON, ROOT, Stack

pytestmark = pytest.mark.fuzz

CONFIG = ROOT / "tests" / "fuzz" / "schemathesis.toml"
MAX_SECONDS = 420  # of one run, which ends by itself: in 240 s with three others on two cores
RATE = "1000000"  # what is tried is not the quota, without which AUTH=predict-open does not start


@contextmanager
def asked_by(stack: Stack, folder: Path, caller: str) -> Iterator[tuple[Stack, dict[str, str]]]:
    """Yield the service as this caller finds it, and the headers by which it is asked."""
    if caller == "nobody in particular":
        yield stack, {}
        return
    if caller == "a visitor":
        with apart(stack, folder, models=NAMES, AUTH="predict-open", RATE_PER_MINUTE=RATE, RATE_BURST=RATE) as space:
            yield space, {}
        return
    with apart(stack, folder, models=NAMES, AUTH="keys") as guarded:
        if caller == "a stranger":
            yield guarded, {}
            return
        output = guarded.run("api.keys", "create", "--name", "fuzz").stdout
        key = re.search(r"key: +(\S+)", output)
        assert key is not None, output
        yield guarded, {"Authorization": f"Bearer {key[1]}"}


@pytest.mark.parametrize("caller", ["nobody in particular", "a caller with a key", "a stranger", "a visitor"])
def test_service_answers_what_its_document_says(stack: Stack, caller: str, tmp_path: Path) -> None:
    with asked_by(stack, tmp_path, caller) as (service, headers):
        done = run_schemathesis(service, headers, tmp_path)
        with service.client() as client:
            assert client.get("/livez").status_code == 200
    assert done.returncode == 0, done.stdout + done.stderr + service.logs()
    assert "were not stored" not in service.logs()
    print(f"\nmake fuzz: {stack.runtime}, {caller}: {summary(done.stdout)}")


def run_schemathesis(service: Stack, headers: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Let Schemathesis read the service's document and try it out."""
    options = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    return subprocess.run(
        [
            *(PYTHON, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG)),
            *("run", f"{service.url}/openapi.json", *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
    )


def summary(output: str) -> str:
    """Return how much was tried, as Schemathesis says it at its end."""
    match = re.search(r"Test cases:\s*(.*)", output)
    assert match is not None, output
    return match[1]
