"""API keys from the command line: `python -m api.keys create --name NAME --scopes predict,read`."""

import argparse
import os
import secrets
import sys
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.auth import keys
from api.auth.callers import Scope, hash_key, make_key
from api.auth.key_format import is_key
from shared.database.engine import session_scope
from shared.database.messages import explain_database_error
from shared.errors import Conflict, NotFound
from shared.observability.audit import KEY_CREATED, audit
from shared.stdout import run
from shared.tables import ApiKey

_NO_ADMIN_KEY = "guichet: ADMIN_KEY is empty, so its earlier keys are revoked."


def create(name: str, scopes: list[Scope]) -> tuple[str, str]:
    """Make a key; return its id and the key, which is shown this once."""
    key = make_key()[0]
    return store(name, scopes, key), key


def store(name: str, scopes: list[Scope], key: str, *, replace: bool = False) -> str:
    """Let a new key in and return its id; with `replace`, the other keys of its name end."""
    with session_scope() as session:
        if replace:
            keys.end_keys(session, (ApiKey.name == name) & ApiKey.revoked_at.is_(None), name)
        return keys.add_key(session, name, scopes, key).id


def admit(name: str, scopes: list[Scope], key: str) -> None:
    """Let in a key from outside, as the only one of this name; an empty one ends the present ones.

    Raises ValueError for what `generate` does not make: a key that somebody thought up can be guessed.
    """
    if key and not is_key(key):
        raise ValueError("ADMIN_KEY is no key of this service: `python -m api.keys generate` makes one.")
    digest = hash_key(key) if key else None
    with session_scope() as session:
        others = (ApiKey.name == name) & (ApiKey.sha256 != (digest or "")) & ApiKey.revoked_at.is_(None)
        keys.end_keys(session, others, name)
        if digest is None:
            return
        row = session.scalar(select(ApiKey).where(ApiKey.sha256 == digest))
        if row is None:
            row = ApiKey(id=secrets.token_hex(8), name=name, sha256=digest)
            session.add(row)
        elif (row.scopes, row.revoked_at) == (",".join(scopes), None):
            return  # it is let in already, as at every start of a container
        row.scopes, row.revoked_at = ",".join(scopes), None
        audit(session.connection(), KEY_CREATED, f"key:{row.id}", details={"name": name, "scopes": list(scopes)})


def revoke(key_id: str) -> bool:
    """End a key; return whether it was valid until now."""
    with session_scope() as session:
        try:
            if keys.find_key(session, key_id, lock=True).revoked_at is not None:
                return False
        except NotFound:
            return False
        keys.revoke_key(session, key_id)
    return True


def rotate(key_id: str) -> str:
    """Give a key a new secret and return it; raise NotFound, or Conflict for a key that is revoked."""
    with session_scope() as session:
        return keys.rotate_key(session, key_id)[1]


def list_keys() -> list[ApiKey]:
    """Return every key, newest first."""
    with session_scope(read_only=True) as session:
        return keys.list_keys(session)


def _scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part.strip()) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(Scope)}, separated by commas") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m api.keys", description="Make, list and revoke API keys.")
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("create", help="make a key and print it, this once")
    maker.add_argument("--name", required=True, help="whose key it is")
    maker.add_argument(
        "--scopes",
        type=_scopes,
        default=[Scope.PREDICT, Scope.READ],
        help="predict, read, admin (default predict,read)",
    )
    maker.add_argument("--replace", action="store_true", help="end the other keys of this name")
    maker.add_argument("--to", type=Path, metavar="FILE", help="write the key into this file, and do not print it")
    commands.add_parser("generate", help="print a key that no database knows yet, for ADMIN_KEY")
    admitter = commands.add_parser("admit", help="let in the key in ADMIN_KEY, as the only one of its name")
    admitter.add_argument("--name", required=True, help="whose key it is")
    admitter.add_argument("--scopes", type=_scopes, default=[Scope.ADMIN], help="as for create (default admin)")
    commands.add_parser("list", help="list the keys, never their secrets")
    rotator = commands.add_parser("rotate", help="give a key a new secret and print it, this once; the old one ends")
    rotator.add_argument("id", help="id of the key, from `list`")
    revoker = commands.add_parser("revoke", help="end a key")
    revoker.add_argument("id", help="id of the key, from `list`")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except SQLAlchemyError as error:
        print(f"error: {explain_database_error(error)}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "create":
        return _create(options)
    if options.command == "generate":
        print(make_key()[0])
    elif options.command == "admit":
        return _admit(options)
    elif options.command == "list":
        for row in list_keys():
            state = "valid" if row.revoked_at is None else f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
            print(f"{row.id}  {row.scopes:20}  {row.created_at:%Y-%m-%d %H:%M}  {state:24}  {row.name}")
    elif options.command == "rotate":
        return _rotate(options.id)
    elif not revoke(options.id):
        print(f"There is no valid key with the id {options.id}; `list` shows them.", file=sys.stderr)
        return 1
    else:
        print(f"{options.id} is revoked; running API processes refuse it within a few seconds.")
    return 0


def _create(options: argparse.Namespace) -> int:
    """Make a key, as the only one of its name with `--replace`, and write it into the file of `--to`."""
    key = make_key()[0]
    draft: Path | None = None if options.to is None else options.to.with_name(f".{options.to.name}")
    try:
        if draft is not None:  # before it is valid: a key that is kept nowhere would be of no use
            draft.unlink(missing_ok=True)
            draft.write_text(key, encoding="ascii")
            draft.chmod(0o444)  # a server of another user reads it, who alone sees the folder
    except OSError as error:
        print(f"guichet: the key cannot be kept in {options.to} ({error.strerror}): nothing was made.", file=sys.stderr)
        return 1
    key_id = store(options.name, options.scopes, key, replace=options.replace)
    if draft is None:
        print(f"id:     {key_id}\nscopes: {','.join(options.scopes)}\nkey:    {key}\nIt is not shown again.")
    else:
        draft.replace(options.to)
        print(f"id:     {key_id}\nscopes: {','.join(options.scopes)}\nThe key is in {options.to}.")
    return 0


def _rotate(key_id: str) -> int:
    try:
        key = rotate(key_id)
    except (Conflict, NotFound) as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    print(f"id:     {key_id}\nkey:    {key}\nIt is not shown again; the old one is refused within a few seconds.")
    return 0


def _admit(options: argparse.Namespace) -> int:
    key = os.environ.get("ADMIN_KEY", "")
    try:
        admit(options.name, options.scopes, key)
    except ValueError as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    print(f"guichet: the key in ADMIN_KEY is valid, with {','.join(options.scopes)}." if key else _NO_ADMIN_KEY)
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
