"""`python -m deploy.space.start`: bring tables and models into the place that is kept, admit the operator's key, serve.

It becomes the API itself in the end (exec), so that the container's SIGTERM reaches it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

KEPT = Path("/data")  # where a Space mounts its persistent storage
SEED = Path("seed")  # made when the image was built: the database at its newest, with the example models
DATABASE = "guichet.db"
MARK = "prepared-by"  # which image has brought tables and models up to date there


class Refused(Exception):
    """The Space cannot start; the message says why, and what to do."""


def choose_folder(kept: Path, home: Path) -> tuple[Path, str | None]:
    """Return the folder for everything that is kept, and a warning where that is not for long."""
    if is_writable(kept):
        return kept, None
    why = "is not writable for this user" if kept.exists() else "is not there"
    folder = home / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            f"{kept} {why}, and {folder} cannot be made ({error.strerror}): give it a folder at {kept}."
        ) from None
    if not is_writable(folder):
        raise Refused(f"neither {kept} nor {folder} is writable: give this user (id {os.getuid()}) a folder at {kept}.")
    return folder, (
        f"{kept} {why}: jobs and models go to {folder}, and are lost with this container; "
        f"add storage to the Space, mounted at {kept}, to keep them."
    )


def is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder; rights alone do not say it of a read-only mount."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def plant(seed: Path, folder: Path) -> bool:
    """Copy the image's database and models into a folder that has neither; return whether that was so.

    The database comes last, and each under its own name only when it is whole: what was cut off is begun again.
    """
    names = ("models", DATABASE)
    if (folder / DATABASE).exists() or not (seed / DATABASE).exists():
        return False
    for name in names:
        part = folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        if (seed / name).is_dir():
            if (folder / name).exists():
                continue
            shutil.copytree(seed / name, part)
        else:
            shutil.copyfile(seed / name, part)
        part.rename(folder / name)
    return True


def image_of(seed: Path) -> str | None:
    """Return what tells one build of the image from every other: the hash of its seed; None without one."""
    file = seed / DATABASE
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None


def environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of the service's processes: what the Space's variables say, and where things are."""
    kept = {name: value for name, value in variables.items() if name != "ADMIN_KEY"}
    return kept | {"DATA_DIR": str(folder), "MODELS_DIR": str(folder / "models")}


def main() -> None:
    """Prepare, then become the API."""
    try:
        folder, warning = choose_folder(KEPT, Path.home())
        _say(f"data in {folder}" if warning is None else f"warning: {warning}")
        env = environment(os.environ, folder)
        # A database elsewhere is not ours to know: its tables are looked at every time.
        image = None if env.get("DATABASE_URL") else image_of(SEED)
        mark = folder / MARK
        is_new = image is not None and plant(SEED, folder)
        if not is_new and (image is None or not mark.exists() or mark.read_text() != image):
            _run("alembic", "upgrade", "head", env=env)
            _run("examples.build", env=env)
        if image is not None:
            mark.write_text(image)
        key = os.environ.get("ADMIN_KEY", "")
        if key or not is_new:
            name = "the Space's ADMIN_KEY"
            _run("api.keys", "admit", "--name", name, "--scopes", "admin", env=env | {"ADMIN_KEY": key})
        if not key:
            _say("ADMIN_KEY is not set, so nobody can list, cancel or retry jobs: set it as a secret of the Space")
    except (Refused, OSError) as problem:
        sys.exit(f"guichet: {problem}")
    os.execve(sys.executable, [sys.executable, "-m", "api"], env)  # noqa: S606 - no shell is meant


def _run(*arguments: str, env: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], env=env, check=False)
    if done.returncode:
        raise Refused(f"`python -m {arguments[0]}` ended with {done.returncode}: what it says above has to be mended.")


def _say(line: str) -> None:
    print(f"guichet: {line}", flush=True)


if __name__ == "__main__":
    main()
