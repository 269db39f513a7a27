"""API keys as rows: making, listing, rotating and revoking them, each change with its note in the audit log."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, func, literal, select, text, tuple_, update
from sqlalchemy.orm import Session

from api.auth.callers import Scope, hash_key, make_key
from shared.errors import Conflict, Forbidden, NotFound
from shared.observability.audit import KEY_CREATED, KEY_REVOKED, KEY_ROTATED, audit
from shared.tables import ApiKey

_MAY_CHANGE = text("SELECT has_table_privilege('api_keys', 'INSERT') AND has_table_privilege('api_keys', 'UPDATE')")


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a key: None is the operator of this process."""

    actor: str | None = None
    request_id: str | None = None


OPERATOR = Author()


def check_grants(session: Session) -> None:
    """Raise Forbidden where the role of the service may not change keys."""
    connection = session.connection()
    if connection.dialect.name == "postgresql" and not connection.scalar(_MAY_CHANGE):
        raise Forbidden(
            "This service may not change keys: an operator lets it with `python -m scripts.create_db --app-keys`, or "
            "makes and revokes them with `python -m api.keys`."
        )


def add_key(session: Session, name: str, scopes: list[Scope], key: str, author: Author = OPERATOR) -> ApiKey:
    """Let a new key in, and return its row."""
    row = ApiKey(id=secrets.token_hex(8), name=name, sha256=hash_key(key), scopes=",".join(scopes))
    session.add(row)
    session.flush()
    _note(session, KEY_CREATED, row, author, scopes=list(scopes))
    return row


def rotate_key(session: Session, key_id: str, author: Author = OPERATOR) -> tuple[ApiKey, str]:
    """Give a valid key a new secret, and return its row with it; the old secret ends with this transaction.

    Its id, name, scopes and jobs stay. Raises NotFound, or Conflict for a key that is revoked.
    """
    row = find_key(session, key_id, lock=True)
    if row.revoked_at is not None:
        raise Conflict(f"The key {row.id} is revoked: make a new one.")
    secret, row.sha256 = make_key()
    _note(session, KEY_ROTATED, row, author)
    return row, secret


def revoke_key(session: Session, key_id: str, author: Author = OPERATOR, *, keeps_admin: bool = False) -> ApiKey:
    """End a key, and return its row; one that is revoked stays as it is.

    Raises NotFound; with `keeps_admin` Conflict for the last valid key with the scope `admin`.
    """
    valid = _lock_valid(session) if keeps_admin else []  # before the one: two who revoke each other wait in one order
    row = find_key(session, key_id, lock=True)
    if row.revoked_at is None:
        others = [other for other in valid if other.id != row.id and _is_admin(other)]
        if keeps_admin and _is_admin(row) and not others:
            raise Conflict(
                f"The key {row.id} is the last one with the scope `admin`: make another first, or revoke it with "
                f"`python -m api.keys revoke {row.id}`."
            )
        row.revoked_at = datetime.now(UTC)
        _note(session, KEY_REVOKED, row, author)
    return row


def end_keys(session: Session, keys: ColumnElement[bool], name: str) -> None:
    """Revoke keys of a name."""
    ended = session.scalars(update(ApiKey).where(keys).values(revoked_at=func.now()).returning(ApiKey.id))
    for key_id in ended.all():
        audit(session.connection(), KEY_REVOKED, f"key:{key_id}", details={"name": name})


def find_key(session: Session, key_id: str, *, lock: bool = False) -> ApiKey:
    """Return the row of a key; raise NotFound where there is none."""
    row = session.get(ApiKey, key_id, with_for_update=lock)
    if row is None:
        raise NotFound("There is no key with this id: GET /keys lists them.")
    return row


def list_keys(
    session: Session, *, is_valid: bool | None = None, cursor: str | None = None, limit: int | None = None
) -> list[ApiKey]:
    """Return keys, newest first, older than the one whose id is `cursor`; raise NotFound for a cursor that is none."""
    query = select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)
    if is_valid is not None:
        query = query.where(ApiKey.revoked_at.is_(None) if is_valid else ApiKey.revoked_at.is_not(None))
    if cursor is not None:
        find_key(session, cursor)
        # Compared inside the database: SQLite writes one moment in two ways.
        moment = select(ApiKey.created_at).where(ApiKey.id == cursor).scalar_subquery()
        query = query.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(moment, literal(cursor)))
    return list(session.scalars(query))


def _lock_valid(session: Session) -> list[ApiKey]:
    query = select(ApiKey).where(ApiKey.revoked_at.is_(None)).order_by(ApiKey.id).with_for_update()
    return list(session.scalars(query))


def _is_admin(row: ApiKey) -> bool:
    return Scope.ADMIN in row.scopes.split(",")


def _note(session: Session, action: str, row: ApiKey, author: Author, **details: object) -> None:
    audit(
        session.connection(),
        action,
        f"key:{row.id}",
        actor=author.actor,
        details={"name": row.name, **details},
        request_id=author.request_id,
    )
