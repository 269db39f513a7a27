"""`python -m compose.secrets`: put the stack's secrets into the volume from which its containers read them.

It runs before everything else. A secret that stands in .env is taken, one that does not is made once and kept:
a clone starts with `docker compose up` alone, and never with a password that is known. Files, not environment
variables, because everyone who may ask the engine sees those.
"""

import argparse
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path("/run/guichet")
_NAMES = {
    "POSTGRES_PASSWORD": "postgres_password",
    "REDIS_PASSWORD": "redis_password",
    "FLOWER_PASSWORD": "flower_password",
}
_LEAST = 12  # characters
_PLACEHOLDER = re.compile(
    r"change.?(me|this|it)|placeholder|example|replace|todo|x{4,}|\*{3,}|<.*>|your.|pass.?word|secret", re.I
)


class Refused(Exception):
    """A secret cannot be used; the message says why, and what to do."""


def check_secret(name: str, value: str) -> None:
    """Raise Refused for a placeholder, what is too short, and what a URL or a configuration file would change."""
    advice = f"set another one (`openssl rand -hex 24` makes one), or leave {name} empty to have one made"
    if _PLACEHOLDER.search(value):
        raise Refused(f"{name} in .env is a placeholder: {advice}.")
    if len(value) < _LEAST:
        raise Refused(f"{name} in .env has fewer than {_LEAST} characters: {advice}.")
    if not re.fullmatch(r"[A-Za-z0-9._~-]+", value):
        raise Refused(f"{name} in .env has characters other than letters, digits and . _ ~ -: {advice}.")


def choose(env: Mapping[str, str], folder: Path, *, accept: bool) -> dict[str, str]:
    """Return every secret by the name of its file: from .env, from the volume, or new. Raises Refused."""
    chosen = {}
    for name, file in _NAMES.items():
        given = env.get(name, "")
        kept = (folder / file).read_text(encoding="ascii") if (folder / file).exists() else ""
        if given:
            check_secret(name, given)
        if given and kept and given != kept and name == "POSTGRES_PASSWORD" and not accept:
            raise Refused(
                "POSTGRES_PASSWORD in .env is not the one that the database was made with: take it back, or, once "
                "PostgreSQL has the new one (ALTER ROLE guichet PASSWORD '...'), run "
                "`docker compose run --rm secrets compose.secrets --accept`."
            )
        chosen[file] = given or kept or secrets.token_urlsafe(24)
    return chosen


def write(chosen: Mapping[str, str], folder: Path) -> None:
    """Write the secrets, and what the programs read that take no password from a file."""
    postgres, redis, flower = (chosen[file] for file in _NAMES.values())
    ours, servers = 0o400, 0o444  # the servers run as users of their own, and see no more of this volume than we do
    files = {
        "postgres_password": (postgres, servers),
        "redis_password": (redis, servers),
        "redis.conf": (f"requirepass {redis}\n", servers),
        "flower_password": (flower, ours),
        "flower.py": (f"basic_auth = [{f'guichet:{flower}'!r}]\n", ours),
        "database_url": (f"postgresql+psycopg2://guichet:{postgres}@postgres:5432/guichet", ours),
        "redis_url": (f"redis://:{redis}@redis:6379/0", ours),
    }
    for name, (text, mode) in files.items():
        draft = folder / f".{name}"
        draft.unlink(missing_ok=True)
        draft.write_text(text, encoding="ascii")
        draft.chmod(mode)
        draft.replace(folder / name)


def main(arguments: list[str] | None = None, env: Mapping[str, str] = os.environ, folder: Path = FOLDER) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m compose.secrets", description="Make and keep the stack's secrets.")
    parser.add_argument("--accept", action="store_true", help="PostgreSQL has the new password of .env already")
    parser.add_argument("--show", action="store_true", help="print Flower's login instead")
    options = parser.parse_args(arguments)
    try:
        if options.show:
            print(f"guichet:{(folder / 'flower_password').read_text(encoding='ascii')}")
            return 0
        write(choose(env, folder, accept=options.accept), folder)
    except Refused as reason:
        print(f"guichet: {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"guichet: the secrets cannot be kept in {folder} ({error.strerror}).", file=sys.stderr)
        return 1
    made = [name for name in _NAMES if not env.get(name)]
    if made:
        print(f"guichet: made here, because .env does not set them: {', '.join(made)}.")
    print("guichet: `docker compose run --rm secrets compose.secrets --show` prints Flower's login.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
