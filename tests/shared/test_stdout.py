"""Commands whose output nobody reads to its end, as in `list | head -1`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.stdout import UNREAD, run
from tests.support.stack import ROOT

COMMANDS = {
    "registry list": ["shared.registry", "list"],
    "registry list --json": ["shared.registry", "list", "--json"],
    "registry verify --plan": ["shared.registry", "verify", "energy@1", "--plan"],
    "registry history": ["shared.registry", "history", "energy"],
    "registry --help": ["shared.registry", "--help"],
    "keys generate": ["api.keys", "generate"],
    "check": ["api.check", "--no-load"],
    "check --json": ["api.check", "--no-load", "--json"],
    "query_predictions": ["scripts.query_predictions", "--last", "3"],
}


def start(arguments: list[str], trained: Path, *, buffered: bool) -> "subprocess.Popen[str]":
    env = os.environ | {"RUNTIME": "sync", "DATA_DIR": str(trained), "PYTHONUNBUFFERED": "" if buffered else "1"}
    for name in ("DATABASE_URL", "MODELS_DIR", "REDIS_URL"):
        env.pop(name, None)
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("command", "buffered"),
    [*((command, True) for command in COMMANDS), ("registry verify --plan", False), ("check", False)],
)
def test_command_ends_quietly_when_nobody_reads_it(command: str, buffered: bool, trained: Path):
    process = start(COMMANDS[command], trained, buffered=buffered)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    printed = process.stderr.read()
    assert (process.wait(60), printed) == (UNREAD, "")
    process.stderr.close()


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["no-command"], 2), (["list", "nobody@1"], 1)])
def test_code_of_a_command_that_is_read_to_its_end_is_its_own(arguments: list[str], code: int, trained: Path):
    process = start(["shared.registry", *arguments], trained, buffered=True)
    process.communicate(timeout=60)
    assert process.returncode == code


def test_connection_that_breaks_elsewhere_is_no_reader_that_left(monkeypatch, tmp_path):
    def main() -> int:
        raise BrokenPipeError("of a socket")

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(BrokenPipeError, match="of a socket"):
            run(main)
