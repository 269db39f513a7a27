"""Versions and aliases in the tables, and the version that an alias points to."""

import re

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from shared.errors import NotFound
from shared.tables import ModelAlias, ModelArchive, ModelVersion

CHAMPION = "champion"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
NAME_RULE = "use a to z, 0 to 9, _ and -, starting with a letter, 63 characters at most"


def list_versions(session: Session, name: str | None = None) -> list[ModelVersion]:
    """Return the versions of one model, or of all, by name and number; archived ones are among them."""
    query = _kept().order_by(ModelVersion.name, ModelVersion.version)
    return list(session.scalars(query.where(ModelVersion.name == name) if name else query))


def aliases_of(session: Session) -> dict[int, list[str]]:
    """Return the aliases of every version that has any: version id -> aliases in alphabetical order."""
    aliases: dict[int, list[str]] = {}
    for alias in session.scalars(select(ModelAlias).order_by(ModelAlias.alias)):
        aliases.setdefault(alias.model_version_id, []).append(alias.alias)
    return aliases


def resolve(session: Session, name: str, version: int | None = None, alias: str = CHAMPION) -> ModelVersion:
    """Return a version by its number or its alias; raise NotFound with the existing names."""
    query = _kept().where(ModelVersion.name == name)
    if version is not None:
        query = query.where(ModelVersion.version == version)
    else:
        query = query.join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id)
        query = query.where(ModelAlias.alias == alias)
    version_row = session.scalar(query)
    if version_row is None:
        raise NotFound(_not_found(session, name, version, alias))
    return version_row


def find_reference(session: Session, reference: str) -> ModelVersion:
    """Return the version of `name`, `name@3` or `name@alias`; raise NotFound with the existing names.

    As in requests, a bare name without a champion means the newest version that serves.
    """
    name, at, what = reference.partition("@")
    if not at:
        return _newest_without_champion(session, name) or resolve(session, name)
    if what.isascii() and what.isdigit() and len(what) < 10:
        return resolve(session, name, int(what))
    return resolve(session, name, alias=what)


def _newest_without_champion(session: Session, name: str) -> ModelVersion | None:
    """Return the newest version of a model that has no champion; None where there is one, or nothing that serves."""
    champion = select(ModelAlias.id).where(ModelAlias.name == name, ModelAlias.alias == CHAMPION)
    if session.scalar(champion) is not None:
        return None
    archived = archived_ids(session)
    serving = [row for row in list_versions(session, name) if row.id not in archived]
    return serving[-1] if serving else None


def archived_ids(session: Session) -> set[int]:
    """Return the ids of the versions that are archived."""
    return set(session.scalars(select(ModelArchive.model_version_id).where(ModelArchive.deleted_at.is_(None))))


def _kept() -> Select[ModelVersion]:
    """Return the query of the versions that were not deleted."""
    gone = select(ModelArchive.model_version_id).where(ModelArchive.deleted_at.is_not(None))
    return select(ModelVersion).where(ModelVersion.id.not_in(gone))


def _not_found(session: Session, name: str, version: int | None, alias: str) -> str:
    versions = list_versions(session)
    if not versions:
        return (
            "No model is registered yet: add one with `python -m shared.registry add`, or build the examples with "
            "`python -m examples.build`."
        )
    numbers = [str(row.version) for row in versions if row.name == name]
    if not numbers:
        return f"There is no model {name[:63]!r}; there are {', '.join(sorted({row.name for row in versions}))}."
    if version is not None:
        return f"There is no version {version} of {name}; there are {', '.join(numbers)}."
    return f"No version of {name} has the alias {alias[:63]!r}: promote one of {', '.join(numbers)}."
