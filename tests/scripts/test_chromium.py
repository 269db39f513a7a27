"""Where `make test` and `make e2e` find a browser."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def find(path: Path, **env: str) -> tuple[int, str]:
    """Run the script with the programs of one folder and those of the system's own shell."""
    env = {"PATH": str(path), "HOME": str(path)} | env
    command = ["/bin/sh", str(ROOT / "scripts" / "chromium.sh")]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    return run.returncode, run.stdout.strip()


def program(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\nexit 0\n")
    file.chmod(0o755)
    return file


def test_named_browser_comes_first_and_one_that_is_none_is_not_replaced(tmp_path: Path) -> None:
    program(tmp_path / "google-chrome")
    own = program(tmp_path / "elsewhere" / "browser")
    assert find(tmp_path, CHROMIUM=str(own)) == (0, str(own))
    assert find(tmp_path, CHROMIUM="/nowhere/chromium") == (1, "")


def test_browser_on_the_path_is_used_before_the_one_of_playwright(tmp_path: Path) -> None:
    assert find(tmp_path) == (1, "")
    downloaded = program(tmp_path / ".cache/ms-playwright/chromium_headless_shell-1/chrome-linux/headless_shell")
    assert find(tmp_path) == (0, str(downloaded))
    installed = program(tmp_path / "google-chrome")
    assert find(tmp_path) == (0, str(installed))
    assert os.access(installed, os.X_OK)
