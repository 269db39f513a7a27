"""Archiving versions: an archived version serves nothing until it is restored; an unused one can be deleted.

The rows of `model_versions` stay, whatever happens: a version's number never means another model.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from shared.errors import Conflict
from shared.observability.audit import MODEL_ARCHIVED, MODEL_DELETED, MODEL_RESTORED, audit
from shared.packages.fetching import local_folder
from shared.registry.aliases import Change
from shared.registry.versions import aliases_of, resolve
from shared.tables import Job, ModelArchive, ModelOutput, ModelVersion, ReferenceSet, ShadowScore

# Processes go on accepting what they read of the registry a moment ago: what was accepted must find its model.
SETTLED = timedelta(seconds=30)
_USES = (
    (Job, "jobs"),
    (ModelOutput, "scored rows"),
    (ShadowScore, "scores as a challenger"),
    (ReferenceSet, "reference sets"),
)


def archive(session: Session, name: str, version: int, change: Change) -> ModelVersion:
    """Put a version away; raise NotFound, or Conflict while an alias means it. Jobs that were accepted are scored."""
    row = resolve(session, name, version)
    if session.get(ModelArchive, row.id) is not None:
        return row  # it is already
    if names := aliases_of(session).get(row.id):
        roles = " and the ".join(names)
        raise Conflict(f"{name}@{version} is the {roles} of {name}: point that to another version first.")
    session.add(
        ModelArchive(
            model_version_id=row.id,
            archived_at=datetime.now(UTC),
            reason=change.reason,
            actor=change.by,
            deleted_at=None,
        )
    )
    _audit(session, MODEL_ARCHIVED, row, change)
    return row


def restore(session: Session, name: str, version: int, change: Change) -> ModelVersion:
    """Let an archived version serve again; raise NotFound."""
    row = resolve(session, name, version)
    archived = session.get(ModelArchive, row.id)
    if archived is None:
        return row  # it serves
    session.delete(archived)
    _audit(session, MODEL_RESTORED, row, change)
    return row


def delete(session: Session, name: str, version: int, change: Change) -> ModelVersion:
    """Delete an archived version that nothing refers to; raise NotFound, or Conflict with what keeps it.

    Its row stays as a tombstone. Call `remove_files` after the COMMIT.
    """
    row = resolve(session, name, version)
    archived = session.get(ModelArchive, row.id)
    if archived is None:
        raise Conflict(f"{name}@{version} still serves: archive it first.")
    left = archived.archived_at + SETTLED - datetime.now(UTC)
    if left > timedelta(0):
        raise Conflict(
            f"{name}@{version} was archived a moment ago, and rows may still be on their way to it: try again.",
            retry_after=int(left.total_seconds()) + 1,
        )
    for table, uses in _USES:
        if session.scalar(select(exists().where(table.model_version_id == row.id))):
            raise Conflict(f"{name}@{version} has {uses}, which must be explainable for ever: it stays archived.")
    archived.deleted_at = datetime.now(UTC)
    _audit(session, MODEL_DELETED, row, change)
    return row


def remove_files(row: ModelVersion, models_dir: Path) -> Path | None:
    """Remove the package of a deleted version from MODELS_DIR; return its folder if that failed.

    A copy in a store, or on another host, is left alone.
    """
    folder = local_folder(row, models_dir)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return None
    except OSError:
        return folder
    return None


def remove_left_files(session: Session, models_dir: Path) -> int:
    """Remove the packages of deleted versions that still lie in MODELS_DIR; return how many were removed.

    An API that only reads MODELS_DIR leaves them there, and so does whoever deleted a version on another host.
    """
    deleted = session.scalars(
        select(ModelVersion)
        .join(ModelArchive, ModelArchive.model_version_id == ModelVersion.id)
        .where(ModelArchive.deleted_at.is_not(None))
    )
    left = [row for row in deleted if local_folder(row, models_dir).is_dir()]
    return sum(remove_files(row, models_dir) is None for row in left)


def _audit(session: Session, action: str, row: ModelVersion, change: Change) -> None:
    session.flush()
    audit(
        session.connection(),
        action,
        f"{row.name}@{row.version}",
        actor=change.by,
        details={"reason": change.reason, "sha256": row.sha256},
        request_id=change.request_id,
    )
