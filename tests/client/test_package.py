"""The package by itself: what it is made of, and that it installs without a network."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

SOURCES = ROOT / "client" / "src" / "guichet"
SERVICE = ("api", "worker", "shared", "scripts", "examples")


def imported(path: Path) -> set[str]:
    """Return the top of every module that a file imports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            modules.add((node.module or "").partition(".")[0])
    return modules


def test_client_needs_httpx_and_nothing_else():
    foreign = {path: imported(path) - set(sys.stdlib_module_names) for path in SOURCES.rglob("*.py")}
    optional = {path.name: foreign[path] for path in foreign if "pandas" in foreign[path]}
    assert optional == {"tables.py": {"guichet", "pandas"}}  # when a DataFrame is asked for, and only then
    assert set().union(*foreign.values()) == {"httpx2", "guichet", "pandas"}


def test_service_does_not_know_its_client():
    wrong = [
        str(path.relative_to(ROOT))
        for folder in SERVICE
        for path in (ROOT / folder).rglob("*.py")
        if "guichet" in imported(path)
    ]
    assert wrong == []


def test_package_installs_offline_with_its_types_and_its_command(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(tmp_path), str(ROOT / "client")],
        capture_output=True,
        text=True,
        env=os.environ | {"GITHUB_SERVER_URL": "https://git.example", "GITHUB_REPOSITORY": "owner/guichet"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "guichet" / "py.typed").exists()
    assert (tmp_path / "bin" / "guichet").exists()
    (metadata,) = tmp_path.glob("guichet_client-*.dist-info/METADATA")
    metadata_text = metadata.read_text()
    for line in (
        "Requires-Dist: httpx2",
        "License-Expression: Apache-2.0",
        "Author: ",
        "Keywords: ",
        "# guichet-client",
    ):
        assert f"\n{line}" in metadata_text, line
    for version in range(11, 15):
        assert f"\nClassifier: Programming Language :: Python :: 3.{version}\n" in metadata_text
    assert "\nProject-URL: Homepage, https://git.example/owner/guichet\n" in metadata_text
    assert "](../" not in metadata_text  # which leads nowhere on a package index
    (license_file,) = metadata.parent.glob("licenses/LICENSE")
    assert license_file.read_text() == (ROOT / "LICENSE").read_text()
    listed = subprocess.run(
        [sys.executable, "-c", "import guichet; print(guichet.__file__, guichet.__version__)"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.startswith(str(tmp_path))
