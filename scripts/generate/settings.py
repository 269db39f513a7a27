"""`make settings`: write docs/settings.md from shared/config/settings.py; a test holds it current."""

import sys
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from scripts.checkout import ROOT, write_page
from shared.config.settings import Settings

FILE = ROOT / "docs" / "settings.md"
_BEFORE = """# Settings

Every setting is an environment variable, read once at the start of the API, of a worker and of each command.
`make settings` writes this page from `shared/config/settings.py`. An empty variable counts as one that is not set.
There is no settings file: a shell (`set -a; . ./.env`), Compose (`env_file`) or systemd (`EnvironmentFile`) makes
variables of one. Secrets may stand in files: what no variable sets is read from the file of its name (`database_url`)
in the folder `SECRETS_DIR`.

| variable | default | values | meaning |
|---|---|---|---|
"""
_AFTER = """
## Development, test, production

| | `ENVIRONMENT=dev` | `test` | `prod` |
|---|---|---|---|
| `AUTH=open` | on loopback addresses | on loopback addresses | refused |
| a placeholder as the password in `DATABASE_URL` or `REDIS_URL` | passes | refused | refused |

A placeholder is what templates hold (`change-me`, `<password>`, `your-password`) and what everyone would try first
(`postgres`, `guichet`, `secret`). Nothing else differs: what runs in production is what was tested.

## What stops a start

Settings that do not hold stop every process with one sentence each, and exit code 1:

- a value of the wrong type or out of its range;
- a variable that is one letter away from a setting which is not set (`MODEL_DIR`), or one with `GUICHET_` in front;
- `RUNTIME=queue` without a PostgreSQL, `RUNTIME=sync` with a `REDIS_URL`, a SQLite in memory;
- `HEARTBEAT_SECONDS` above half of `LEASE_SECONDS`; a default above its cap or a part above its whole (`WAIT_SECONDS`
  and `WAIT_CAP_SECONDS`, `JOB_TIMEOUT_SECONDS` and `JOB_TIMEOUT_CAP_SECONDS`, `MAX_CSV_RECORD_BYTES` and
  `MAX_CSV_BYTES`, `MAX_GROUP` and `MAX_WAITING`);
- what the table above refuses.

Then the surroundings: a port in use, a SQLite file or folder that cannot be written, a database that refuses the
password, has not the tables of this release, or does not let our role write them. A database that is only away is
waited for, `START_SECONDS` long; so is Redis by a worker. The API starts without Redis: jobs are stored, and run when
it is back. `python -m api.check` looks at everything at once ([operations.md](operations.md)).

## Other variables

| variable | who reads it |
|---|---|
| `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS` | numeric libraries: one thread each unless they say otherwise |
| `FLOWER_PORT`, `FLOWER_BASIC_AUTH` | `make run`; Flower |
| `GUICHET_URL`, `GUICHET_API_KEY` | the `guichet` command: where the service is, and the key for it |
| `ADMIN_URL`, `OWNER_PASSWORD`, `APP_PASSWORD`, `READER_PASSWORD` | `python -m scripts.create_db` |
"""


def render() -> str:
    """Return the page."""
    rows = [
        f"| `{name.upper()}` | {_default(field)} | {_values(field)} | {_cell(field.description or '')} |"
        for name, field in Settings.model_fields.items()
    ]
    return _BEFORE + "\n".join(rows) + "\n" + _AFTER


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    return f"`{_number(value)}`" if isinstance(value, int) else f"`{value}`"


def _values(field: FieldInfo) -> str:
    kinds = _kinds(field.annotation)
    choices = [f"`{value}`" for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if choices:
        return ", ".join(choices)
    if Path in kinds:
        return "folder"
    if str in kinds:
        return "text"
    number = "whole number" if int in kinds else "number"
    limits = {type(limit).__name__: limit for limit in field.metadata}
    words = {"Ge": ("ge", "from"), "Gt": ("gt", "above"), "Le": ("le", "to"), "Lt": ("lt", "below")}
    bounds = [f"{word} {_number(getattr(limits[kind], key))}" for kind, (key, word) in words.items() if kind in limits]
    return " ".join([number, *bounds])


def _number(value: float) -> str:
    return f"{value:_}" if value >= 10_000 and value % 1_000 == 0 else f"{value}"


def _kinds(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    return get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page; with `--print`, only show it."""
    return write_page(FILE, render())


if __name__ == "__main__":
    sys.exit(main())
