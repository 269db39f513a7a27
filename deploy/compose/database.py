"""`python -m deploy.compose.database`: make the stack's database, its roles and its tables, or bring them up to date.

It is PostgreSQL's administrator, which nothing else of the stack is: migrations belong to the role of the owner, and
the API and the workers are a role that may only read and write rows, and models where MODELS_ACCESS is `rw`.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.compose.secrets import ROLES, SERVERS
from scripts.create_db import Refused, create


def main(servers: Path = SERVERS, env: Mapping[str, str] = os.environ) -> int:
    """Run the command; return its exit code."""
    try:
        may_register = registers(env)
        url = (servers / "admin_url").read_text(encoding="ascii")
        passwords = {role: (servers / f"{role}_password").read_text(encoding="ascii") for role in ROLES}
        create(
            url,
            database="guichet",
            prefix="guichet",
            passwords=passwords,
            tell=lambda role, url: None,
            app_registers=may_register,
            app_keys=bool(env.get("APP_KEYS")),  # where administrators change keys over HTTP
        )
    except OSError as error:
        print(f"guichet: {error.filename} cannot be read ({error.strerror}): start `secrets` first.", file=sys.stderr)
        return 1
    except Refused as problem:
        print(f"guichet: {_advise(str(problem))}.", file=sys.stderr)
        return 1
    return 0


def registers(env: Mapping[str, str]) -> bool:
    """Tell whether the API and the workers may register models: uploads, trainings, or what comes in a store.

    Raises Refused for settings that contradict each other.
    """
    access, uploads = env.get("MODELS_ACCESS") or "ro", env.get("MODEL_UPLOADS") or "off"
    if access not in ("ro", "rw"):
        raise Refused("MODELS_ACCESS in .env is neither rw nor ro")
    if access == "ro" and uploads == "on":
        raise Refused("MODEL_UPLOADS=on in .env needs MODELS_ACCESS=rw: else no upload could be stored")
    return access == "rw" or bool(env.get("APP_REGISTERS"))  # the latter where workers take models from a store


def _advise(problem: str) -> str:
    if "password authentication failed" in problem:
        return (
            "PostgreSQL refuses the password of its administrator: the volume server-secrets was made anew, and its "
            'data was not; docs/operations.md, "The passwords of the stack", says how to give it the new one'
        )
    return problem.removesuffix(": check ADMIN_URL")  # nothing here is called so


if __name__ == "__main__":
    sys.exit(main())
