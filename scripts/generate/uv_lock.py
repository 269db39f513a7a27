"""The last step of `make lock`: write pyproject's dependencies and uv.lock from requirements/, for `uv sync`.

uv would choose versions of its own. It is shown those of requirements/dev.txt as constraints in a copy first, and keeps
them when it locks the project itself, since it prefers what its lock has.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.checkout import ROOT

PROJECT, LOCK = ROOT / "pyproject.toml", ROOT / "uv.lock"
CLIENT = "guichet-client"
_DEPENDENCIES = re.compile(r"^dependencies = \[\n(?:    .*\n)*\]\n", re.M)
_DEV = re.compile(r"^dev = \[\n(?:    .*\n)*\]\n", re.M)


def listed(file: Path) -> list[str]:
    """Return the requirements of an .in file, and of those that it names, sorted."""
    return sorted(set(_listed(file)), key=lambda requirement: (requirement.lower(), requirement))


def pins() -> list[str]:
    """Return what requirements/dev.txt pins, as requirements with their markers."""
    text = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    return [line.rstrip("\\ ").strip() for line in re.findall(r"^[A-Za-z0-9][^\n]*", text, re.M)]


def render() -> str:
    """Return pyproject.toml with the dependencies that requirements/ lists."""
    service = listed(ROOT / "requirements.in")
    names = {requirement.lower() for requirement in service}
    dev = [each for each in listed(ROOT / "requirements" / "dev.in") if each.lower() not in names]
    text = PROJECT.read_text(encoding="utf-8")
    text = _DEPENDENCIES.sub(lambda _: f"dependencies = [\n{_lines([CLIENT, *service])}]\n", text)
    return _DEV.sub(lambda _: f"dev = [\n{_lines(dev)}]\n", text)


def _listed(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        requirement = re.sub(r"(^|\s)#.*$", "", line).strip()
        if requirement.startswith("-r "):
            yield from _listed(file.parent / requirement.removeprefix("-r "))
        elif requirement:
            yield requirement


def _lines(requirements: list[str]) -> str:
    return "".join(f"    {json.dumps(each)},\n" for each in requirements)


def _lock(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "lock", "--quiet", "--project", str(folder)], check=True)


def main() -> int:
    """Write both files."""
    PROJECT.write_text(render(), encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        shutil.copytree(ROOT / "client", copy / "client", ignore=shutil.ignore_patterns("__pycache__"))
        constraints = f"[tool.uv]\nconstraint-dependencies = [\n{_lines(pins())}]\n"
        text = PROJECT.read_text(encoding="utf-8")
        (copy / "pyproject.toml").write_text(text.replace("[tool.uv]\n", constraints, 1), encoding="utf-8")
        _lock(copy)
        shutil.copy(copy / "uv.lock", LOCK)
    _lock(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
