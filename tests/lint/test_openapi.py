"""The OpenAPI document passes a linter: of each runtime, for each AUTH, as strangers and administrators read it."""

import os
import subprocess
from pathlib import Path

import pytest

from examples.build import NAMES
from tests.contracts.helpers import apart
from tests.fuzz.test_access import make_key
from tests.support.stack import Stack

pytestmark = pytest.mark.lint

HERE = Path(__file__).parent
REDOCLY = HERE / "node_modules" / ".bin" / "redocly"
SETTINGS = ({"AUTH": "open"}, {"AUTH": "predict-open", "RATE_PER_MINUTE": "60"}, {"AUTH": "keys"})


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Let Redocly read every document of a folder; it asks nobody, and tells nobody."""
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
    documents = sorted(str(path) for path in folder.glob("*.json"))
    command = [str(REDOCLY), "lint", "--config", str(HERE / "redocly.yaml"), *documents]
    return subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, timeout=240, check=False)


def test_linter_finds_nothing(stack: Stack, tmp_path: Path) -> None:
    for settings in SETTINGS:
        folder = tmp_path / settings["AUTH"]
        folder.mkdir()
        with apart(stack, folder, models=NAMES, **settings) as service, service.client() as client:
            key = {} if settings["AUTH"] == "open" else make_key(service, "lint", "admin")
            for reader, headers in (("stranger", {}), ("administrator", key)):
                document = client.get("/openapi.json", headers=headers)
                assert ("attrition_row" in document.text) is (settings["AUTH"] != "keys" or reader != "stranger")
                (tmp_path / f"{settings['AUTH']}-{reader}.json").write_bytes(document.content)
    done = lint(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nmake openapi-lint: {stack.runtime}, {done.stderr.count('validated in')} documents, nothing found")


def test_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    """The proof above is one: this is refused."""
    (tmp_path / "wrong.json").write_text(
        '{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/a": {"get": {"responses": {}}}}}'
    )
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "security-defined" in done.stdout + done.stderr
