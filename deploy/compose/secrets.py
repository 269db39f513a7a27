"""`python -m deploy.compose.secrets`: put the stack's secrets into the volume from which its containers read them.

It runs before everything else. A secret that stands in .env is taken, one that does not is made once and kept:
a clone starts with `docker compose up` alone, and never with a password that is known. Files, not environment
variables, because everyone who may ask the engine sees those. There are four volumes: one is for the API and the
workers, who are one role of the database; one has what the database's owner and administrator know, which they do not
see; one is for Redis, and one for Grafana, who see nobody else's.
"""

import argparse
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path("/run/guichet")
SERVERS = Path("/run/servers")
REDIS = Path("/run/redis-secrets")
GRAFANA = Path("/run/grafana-secrets")
ROLES = ("owner", "app", "reader")  # of the database; scripts/create_db.py says what each may do
_NAMES = {
    "POSTGRES_PASSWORD": "postgres_password",
    "REDIS_PASSWORD": "redis_password",
    "FLOWER_PASSWORD": "flower_password",
    "GRAFANA_PASSWORD": "grafana_password",
}
_USERS = {"flower": "guichet", "grafana": "admin"}
_FILES = (*_NAMES.values(), *(f"{role}_password" for role in ROLES))
_OF_SERVERS = (
    "postgres_password",
    "redis_password",
    "redis.conf",
    "grafana_password",
)  # read by servers that run as users of their own
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


def choose(env: Mapping[str, str], servers: Path, *, accept: bool) -> dict[str, str]:
    """Return every password by the name of its file: from .env, from the volume, or new. Raises Refused."""
    kept = {file: (servers / file).read_text(encoding="ascii") for file in _FILES if (servers / file).exists()}
    chosen = {file: env[name] for name, file in _NAMES.items() if env.get(name)}
    for name, file in _NAMES.items():
        if file in chosen:
            check_secret(name, chosen[file])
    database = "postgres_password"
    if not accept and database in chosen and chosen[database] != kept.get(database, chosen[database]):
        raise Refused(
            "POSTGRES_PASSWORD in .env is not the one that the database was made with: take it back, or, once "
            "PostgreSQL has the new one (ALTER ROLE postgres PASSWORD '...'), run "
            "`docker compose run --rm secrets deploy.compose.secrets --accept`."
        )
    return {file: chosen.get(file) or kept.get(file) or secrets.token_urlsafe(24) for file in _FILES}


def write(chosen: Mapping[str, str], folder: Path, servers: Path, of_redis: Path, of_grafana: Path) -> None:
    """Write the passwords, and what the programs read that take none from a file."""

    def database(role: str, password: str, name: str = "guichet") -> str:
        return f"postgresql+psycopg2://{role}:{password}@postgres:5432/{name}"

    redis, flower = chosen["redis_password"], chosen["flower_password"]
    redis_url = f"redis://:{redis}@redis:6379/0"
    _write(
        servers,
        {
            **chosen,
            "admin_url": database("postgres", chosen["postgres_password"], "postgres"),
            "database_url": database("guichet_owner", chosen["owner_password"]),
            "redis_url": redis_url,
        },
    )
    _write(of_redis, {"redis.conf": f"requirepass {redis}\n", "redis_password": redis})
    _write(of_grafana, {"grafana_password": chosen["grafana_password"]})
    _write(
        folder,
        {
            "flower.py": f"basic_auth = [{f'guichet:{flower}'!r}]\n",
            "database_url": database("guichet_app", chosen["app_password"]),
            "redis_url": redis_url,
        },
    )


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        draft = folder / f".{name}"
        draft.unlink(missing_ok=True)
        draft.write_text(text, encoding="ascii")
        draft.chmod(0o444 if name in _OF_SERVERS else 0o400)
        draft.replace(folder / name)


def main(
    arguments: list[str] | None = None,
    env: Mapping[str, str] = os.environ,
    folder: Path = FOLDER,
    servers: Path = SERVERS,
    of_redis: Path = REDIS,
    of_grafana: Path = GRAFANA,
) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.compose.secrets", description="Make and keep the stack's secrets."
    )
    parser.add_argument("--accept", action="store_true", help="PostgreSQL has the new password of .env already")
    parser.add_argument(
        "--show",
        nargs="?",
        const="flower",
        choices=list(_USERS),
        help="print a login instead (Flower's if none is named)",
    )
    options = parser.parse_args(arguments)
    try:
        if options.show:
            password = (servers / f"{options.show}_password").read_text(encoding="ascii")
            print(f"{_USERS[options.show]}:{password}")
            return 0
        chosen = choose(env, servers, accept=options.accept)
        changed = [name for name, file in _NAMES.items() if _is_new(servers / file, chosen[file])]
        made = [name for name, file in _NAMES.items() if not env.get(name) and not (servers / file).exists()]
        write(chosen, folder, servers, of_redis, of_grafana)
    except Refused as reason:
        print(f"guichet: {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"guichet: the secrets cannot be kept in {Path(error.filename).parent} ({error.strerror}).", file=sys.stderr
        )
        return 1
    if made:
        print(f"guichet: made here, because .env does not set them: {', '.join(made)}.")
    if changed:  # whoever runs has read the last one, and Compose does not see that a volume's files changed
        print(
            f"guichet: changed: {', '.join(changed)}. Run `docker compose up -d --force-recreate`, or it is not read."
        )
    print("guichet: `docker compose run --rm secrets deploy.compose.secrets --show` prints Flower's login.")
    return 0


def _is_new(file: Path, password: str) -> bool:
    return file.exists() and file.read_text(encoding="ascii") != password


if __name__ == "__main__":
    sys.exit(main())
