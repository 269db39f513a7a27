"""`python -m deploy.compose.database`: make the stack's database, its roles and its tables, or bring them up to date.

It is PostgreSQL's administrator, which nothing else of the stack is: migrations belong to the role of the owner, and
the API and the workers are a role that may only read and write rows.
"""

import os
import sys
from pathlib import Path

from deploy.compose.secrets import ROLES, SERVERS
from scripts.create_db import Refused, create


def main(servers: Path = SERVERS) -> int:
    """Run the command; return its exit code."""
    try:
        url = (servers / "admin_url").read_text(encoding="ascii")
        passwords = {role: (servers / f"{role}_password").read_text(encoding="ascii") for role in ROLES}
        create(
            url,
            database="guichet",
            prefix="guichet",
            passwords=passwords,
            tell=lambda role, url: None,
            app_registers=bool(os.environ.get("APP_REGISTERS")),  # where workers take models from a store
        )
    except OSError as error:
        print(f"guichet: {error.filename} cannot be read ({error.strerror}): start `secrets` first.", file=sys.stderr)
        return 1
    except Refused as problem:
        print(f"guichet: {_advise(str(problem))}.", file=sys.stderr)
        return 1
    return 0


def _advise(problem: str) -> str:
    if "password authentication failed" in problem:
        return (
            "PostgreSQL refuses the password of its administrator: the volume server-secrets was made anew, and its "
            'data was not; docs/operations.md, "The passwords of the stack", says how to give it the new one'
        )
    return problem.removesuffix(": check ADMIN_URL")  # nothing here is called so


if __name__ == "__main__":
    sys.exit(main())
