"""`make migration m="add outcomes"`: write the next migration from the difference between migrations and tables."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.checkout import ROOT
from scripts.generate.migrated import migrated_postgres
from scripts.migrations import alembic
from scripts.servers.server import ServerError

_VERSIONS = ROOT / "migrations" / "versions"


def main() -> int:
    """Compare the tables with a fresh PostgreSQL that has run every migration; return the exit code."""
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        print('say what it does: make migration m="add outcomes"', file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="guichet-migration-") as folder:
        try:
            with migrated_postgres(Path(folder)) as url:
                alembic("revision", "--autogenerate", "--rev-id", next_number(_VERSIONS), "-m", message, url=url)
        except ServerError as problem:
            print(f"make migration: {problem}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as problem:
            return problem.returncode
    print("now read it: it must work with the previous release's code, too")
    return 0


def next_number(versions: Path) -> str:
    """Return the number of the next migration, four digits."""
    numbers = [int(match[0]) for file in versions.glob("*.py") if (match := re.match(r"\d{4}(?=_)", file.name))]
    return f"{max(numbers, default=0) + 1:04d}"


if __name__ == "__main__":
    sys.exit(main())
