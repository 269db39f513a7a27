"""Changing models: aliases and versions, for keys with the scope `admin`. Flows, as in calls.py."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from guichet.errors import Unusable
from guichet.transport.exchange import exchange
from guichet.transport.wire import Answer, Flow, Request, check, encode, read, refusal

CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias and its version; `etag` changes with every move."""

    model: str
    alias: str
    version: int
    updated_at: datetime
    etag: str = field(compare=False)

    @classmethod
    def read(cls, answer: Answer) -> Self:
        """Read it from an answer."""
        return read(
            check(answer),
            lambda body: cls(
                str(body["model"]),
                str(body["alias"]),
                int(body["version"]),
                datetime.fromisoformat(body["updated_at"]),
                answer.headers.get("etag", ""),
            ),
        )


@dataclass(frozen=True, slots=True)
class AliasEvent:
    """A move of an alias; None as a version: there was none, or it was taken away."""

    id: int
    created_at: datetime
    alias: str
    from_version: int | None
    to_version: int | None
    reason: str | None
    actor: str

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """Read it from JSON."""
        return cls(
            int(body["id"]),
            datetime.fromisoformat(body["created_at"]),
            str(body["alias"]),
            body["from"],
            body["to"],
            body["reason"],
            str(body["actor"]),
        )


def find_version(reference: str, *, retries: int) -> Flow[tuple[str, int]]:
    """Return name and version of `name@3` or `name@alias`; raise Unusable for what names no version."""
    name, _, version = reference.partition("@")
    if not name or not version:
        raise Unusable(f"{reference!r} names no version: write it as name@version or name@alias, e.g. attrition@2.")
    if version.isascii() and version.isdigit():
        return name, int(version)
    alias = yield from find_alias(name, version, retries=retries)
    return name, alias.version


def find_alias(name: str, alias: str, *, retries: int) -> Flow[Alias]:
    """Read the version of an alias."""
    answer = yield from exchange(Request("GET", _alias_path(name, alias)), retries)
    return Alias.read(answer)


def promote(reference: str, reason: str, alias: str, etag: str | None, *, force: bool, retries: int) -> Flow[Alias]:
    """Point an alias to `name@3`, or to the version of another alias. Repeating it changes nothing."""
    name, version = yield from find_version(reference, retries=retries)
    body = {"version": version, "reason": reason} | ({"force": True} if force else {})
    request = _request("PUT", _alias_path(name, alias), body, etag)
    answer = yield from exchange(request, retries)
    if answer.status == 412 and etag is not None:
        # The first attempt may have done it, and only its answer was lost.
        current = yield from find_alias(name, alias, retries=retries)
        if current.version == version:
            return current
    return Alias.read(answer)


def roll_back(name: str, reason: str, alias: str, *, retries: int) -> Flow[Alias]:
    """Point an alias back to its version before the last move: once, however often the request is repeated."""
    seen = yield from find_alias(name, alias, retries=retries)
    request = _request("POST", f"{_alias_path(name, alias)}/rollback", {"reason": reason}, seen.etag)
    answer = yield from exchange(request, retries)
    if answer.status == 412:
        newest = next((event for event in (yield from history(name, retries=retries)) if event.alias == alias), None)
        if newest is not None and (newest.from_version, newest.reason) == (seen.version, reason):
            return (yield from find_alias(name, alias, retries=retries))
    return Alias.read(answer)


def remove_alias(name: str, alias: str, reason: str, etag: str | None, *, retries: int) -> Flow[None]:
    """Delete an alias. A missing one is no error after a lost answer."""
    answer = yield from exchange(_request("DELETE", _alias_path(name, alias), {"reason": reason}, etag), retries)
    if answer.status != 204:
        raise refusal(answer)


def history(name: str, *, retries: int) -> Flow[list[AliasEvent]]:
    """List the moves of a model's aliases, newest first: the last thousand."""
    request = Request("GET", f"/models/{quote(name, safe='')}/history", {"limit": "1000"})
    answer = yield from exchange(request, retries)
    return read(check(answer), lambda body: [AliasEvent.read(item) for item in body["items"]])


def move(reference: str, reason: str, *, to: str, retries: int) -> Flow[str]:
    """Archive or restore `name@3` or `name@alias` (`to`: the last part of the path), or delete it; return its state."""
    name, version = yield from find_version(reference, retries=retries)
    path = f"/models/{quote(name, safe='')}/versions/{version}"
    request = (
        _request("DELETE", path, {"reason": reason}, None)
        if to == "delete"
        else _request("POST", f"{path}/{to}", {"reason": reason}, None)
    )
    answer = yield from exchange(request, retries)
    return read(check(answer), lambda body: str(body["state"]))


def _alias_path(name: str, alias: str) -> str:
    return f"/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"


def _request(method: str, path: str, body: dict[str, Any], etag: str | None) -> Request:
    headers = {"Content-Type": "application/json"} | ({} if etag is None else {"If-Match": etag})
    return Request(method, path, headers=headers, content=encode(body))
