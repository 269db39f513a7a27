"""Locks: an install takes exactly what they pin, whatever has been released since, by uv and by pip."""

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted([*ROOT.glob("requirements*.txt"), *(ROOT / "requirements").glob("*.txt")])
OF_THIS_ENVIRONMENT = [path for path in LOCKS if path.stem not in {"ci", "docs", "e2e", "interop"}]
SYSTEM_PATH = "/usr/bin:/bin"


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), extra: str = "") -> str:
    """Write a wheel of an empty package into an index; return the hash that a lock gives for it."""
    path = folder / name / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Provides-Extra: {extra}"] if extra else []
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{about}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an index where a newer release of every package in `lock.txt` beside it has appeared."""
    folder: Path = tmp_path_factory.mktemp("index")
    lock = []
    for version in ("1.0", "2.0"):
        hashes = {
            "plugin": make_wheel(folder, "plugin", version, ("measure[config]>=1.0", "newcomer>=1.0; extra == 'none'")),
            "measure": make_wheel(folder, "measure", version, ('reader>=1.0; extra == "config"',), extra="config"),
            "reader": make_wheel(folder, "reader", version),
        }
        if version == "1.0":
            lock = [f"{name}==1.0 --hash=sha256:{digest}" for name, digest in hashes.items()]
    for package in list(folder.iterdir()):
        links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>\n' for wheel in sorted(package.glob("*.whl")))
        (package / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
    (folder / "lock.txt").write_text("\n".join(lock) + "\n")
    return folder


@pytest.mark.parametrize(
    "installer",
    [
        pytest.param("uv on PATH", marks=pytest.mark.long),
        "uv in the environment",
        pytest.param("pip", marks=pytest.mark.long),
    ],
)
def test_install_takes_the_lock_though_newer_releases_of_everything_exist(tmp_path: Path, index: Path, installer: str):
    environment = tmp_path / "env"
    venv.create(environment, with_pip=True)
    python, tools = environment / "bin" / "python", tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text("#!/bin/sh\nexit 1\n")
    (tools / "uv").chmod(0o755)
    uv = Path(sys.executable).parent / "uv"
    if installer == "uv on PATH":
        (tools / "uv").unlink()
        (tools / "uv").symlink_to(uv)
    elif installer == "uv in the environment":
        package = environment / "bin" / "uv"
        package.symlink_to(uv)
        module = next((environment / "lib").glob("python*")) / "site-packages" / "uv"
        module.symlink_to(Path(importlib.metadata.distribution("uv").locate_file("uv")))  # type: ignore[arg-type]
    env = {
        "PATH": f"{tools}:{SYSTEM_PATH}",
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.as_uri(),
        "UV_DEFAULT_INDEX": index.as_uri(),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = ["sh", str(ROOT / "scripts" / "install.sh"), str(python), str(index / "lock.txt")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("pip does it now" in done.stderr) == (installer == "pip")
    code = "import importlib.metadata as m; print(*sorted((d.name, d.version) for d in m.distributions()))"
    installed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("plugin", "measure", "reader"):
        assert f"('{name}', '1.0')" in installed
    assert "newcomer" not in installed


def test_installed_lock_lacks_nothing_and_contradicts_nothing():
    command = [sys.executable, "-m", "uv", "pip", "check", "--python", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def pins(lock: Path) -> dict[str, str]:
    """Return what a lock pins for this machine: version by name."""
    pinned = {}
    for line in re.findall(r"^[A-Za-z0-9][^\\\n]*", lock.read_text(), flags=re.M):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            pinned[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return pinned


def applies(marker: Marker | None, extras: set[str]) -> bool:
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""}))


@pytest.mark.parametrize("lock", OF_THIS_ENVIRONMENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_lock_lists_whatever_its_packages_need(lock: Path):
    """Without dependencies being resolved, what a lock does not list is not installed."""
    pinned = pins(lock)
    missing = []
    for name in pinned:
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if applies(requirement.marker, set()):
                dependency = canonicalize_name(requirement.name)
                if dependency not in pinned or not requirement.specifier.contains(pinned[dependency], prereleases=True):
                    missing.append(f"{name} needs {text}")
    assert missing == []


@pytest.mark.parametrize("lock", OF_THIS_ENVIRONMENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_of_one_service_pin_the_same_versions(lock: Path):
    everything = pins(ROOT / "requirements" / "dev.txt")
    assert {name: everything.get(name) for name in pins(lock)} == pins(lock)


def test_nothing_installs_a_lock_that_is_resolved_again():
    files = [ROOT / "Makefile", *ROOT.glob("Dockerfile*"), *ROOT.glob(".github/**/*.yml"), *ROOT.glob("scripts/*.sh")]
    installs = 0
    for path in files:
        for command in path.read_text().replace("\\\n", " ").splitlines():
            if re.search(r"\binstall\b.*(-r |--requirement)", command):
                installs += 1
                assert "--no-deps" in command, f"{path.name}: {command.strip()}"
                assert "--require-hashes" in command, f"{path.name}: {command.strip()}"
    assert installs >= 5
