"""Callers: an API key becomes a Caller with scopes; keys are 32 random bytes, stored only as their SHA-256."""

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.auth.key_format import KEY_PREFIX
from api.models.catalog import Catalog
from shared.errors import Forbidden, Unauthorized, Unavailable


class Scope(StrEnum):
    """What a key may do."""

    PREDICT = "predict"  # submit, wait for, cancel and read its own jobs
    READ = "read"  # read its own jobs, and the models
    ADMIN = "admin"  # everything, on everyone's jobs


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request."""

    id: str | None  # the key's id; None where none was asked for
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether the caller may see everyone's jobs."""
        return Scope.ADMIN in self.scopes

    @property
    def is_visitor(self) -> bool:
        """Whether the caller came without a key to a service where predicting is open to everyone."""
        return self.id is None and not self.is_admin

    @property
    def actor(self) -> str:
        """How the audit log names the caller: `key:ID`; `anyone` where AUTH=open, `visitor` where AUTH=predict-open."""
        if self.id is not None:
            return f"key:{self.id}"
        return "visitor" if self.is_visitor else "anyone"

    def may_see(self, owner: str | None) -> bool:
        """Return whether the caller may read a job of this owner; a visitor's job has none, and its id is enough."""
        return self.is_admin or owner == self.id

    @property
    def sees(self) -> str | None:
        """The owner whose jobs the caller may list; None means everyone's. A visitor may list none."""
        assert not self.is_visitor
        return None if self.is_admin else self.id


ANYONE = Caller(None, frozenset(Scope))  # where AUTH=open
VISITOR = Caller(None, frozenset({Scope.PREDICT, Scope.READ}))  # without a key, where AUTH=predict-open


def make_key() -> tuple[str, str]:
    """Return a new key and its SHA-256; the key itself is kept nowhere."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """Return the SHA-256 by which a key is known. No salt or stretching: 256 random bits cannot be guessed."""
    return hashlib.sha256(key.encode()).hexdigest()


def sent_key(request: Request) -> str:
    """Return the key that a request brings, known or not; empty if it brings none."""
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


async def identify(request: Request, catalog: Catalog, *scopes: Scope) -> Caller:
    """Return the caller; raise Unauthorized without a known key, Forbidden without one of the scopes."""
    text = sent_key(request)
    if not text:
        raise Unauthorized("Send an API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`.")
    digest = hash_key(text)
    key = catalog.snapshot.keys.get(digest)
    if key is None:
        answered = await run_in_threadpool(catalog.refresh_if_stale)  # it may have been made a moment ago
        key = catalog.snapshot.keys.get(digest)
        if key is None and not answered:
            raise Unavailable("The database does not answer, so no key can be checked: try again.", retry_after=2)
    if key is None:
        raise Unauthorized("This API key is not known, or was revoked: ask the operator for a new one.")
    request.scope["owner"] = key.id  # for error_logs, which a refusal below reaches too
    if key.scopes.isdisjoint((*scopes, Scope.ADMIN)):
        names = " or ".join(f"`{scope.value}`" for scope in scopes)
        raise Forbidden(f"This API key lacks the scope {names}: ask the operator for one that has it.")
    return Caller(key.id, key.scopes)
