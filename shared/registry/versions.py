"""Versions and aliases as the tables hold them: which there are, what an alias means, and moving one."""

import re
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.errors import Conflict, NotFound
from shared.observability.audit import MODEL_PROMOTED, audit
from shared.tables import ModelAlias, ModelVersion

CHAMPION = "champion"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
NAME_RULE = "use a to z, 0 to 9, _ and -, starting with a letter, 63 characters at most"


def list_versions(session: Session, name: str | None = None) -> list[ModelVersion]:
    """Return the versions of one model, or of all, by name and number."""
    query = select(ModelVersion).order_by(ModelVersion.name, ModelVersion.version)
    return list(session.scalars(query.where(ModelVersion.name == name) if name else query))


def aliases_of(session: Session) -> dict[int, list[str]]:
    """Return the aliases of every version that has any: version id -> aliases in alphabetical order."""
    found: dict[int, list[str]] = {}
    for alias in session.scalars(select(ModelAlias).order_by(ModelAlias.alias)):
        found.setdefault(alias.model_version_id, []).append(alias.alias)
    return found


def resolve(session: Session, name: str, version: int | None = None, alias: str = CHAMPION) -> ModelVersion:
    """Return a version by its number, or the one that the alias means; raise NotFound with the names that exist."""
    query = select(ModelVersion).where(ModelVersion.name == name)
    if version is not None:
        query = query.where(ModelVersion.version == version)
    else:
        query = query.join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id)
        query = query.where(ModelAlias.alias == alias)
    found = session.scalar(query)
    if found is None:
        raise NotFound(_not_found(session, name, version, alias))
    return found


def promote(session: Session, name: str, version: int, alias: str = CHAMPION) -> ModelVersion:
    """Let the alias mean this version from now on; jobs that are already accepted keep the version they have."""
    if not NAME.fullmatch(alias):
        raise Conflict(f"{alias[:70]!r} cannot be an alias: {NAME_RULE}.")
    chosen = resolve(session, name, version)
    details: dict[str, Any] = {"alias": alias, "before": None}
    current = session.scalar(select(ModelAlias).where(ModelAlias.name == name, ModelAlias.alias == alias))
    if current is None:
        session.add(ModelAlias(name=name, alias=alias, model_version_id=chosen.id))
    else:
        former = session.get_one(ModelVersion, current.model_version_id)
        details["before"] = former.version
        current.model_version_id = chosen.id
        current.updated_at = func.now()
    session.flush()
    audit(session.connection(), MODEL_PROMOTED, f"{name}@{version}", details=details)
    return chosen


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
    return f"No version of {name} is its {alias[:63]}: promote one of {', '.join(numbers)}."
