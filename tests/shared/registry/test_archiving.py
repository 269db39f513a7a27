"""The files of deleted versions that whoever deleted them could not remove."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import select

from shared.database.engine import make_engine, session_scope
from shared.registry.archiving import remove_left_files
from shared.tables import ModelArchive, ModelVersion, Table
from tests.support.brief import prove_briefly
from tests.support.registered import added


def test_files_of_deleted_versions_are_removed_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove_briefly(monkeypatch)
    engine = make_engine(f"sqlite:///{tmp_path / 'guichet.db'}")
    Table.metadata.create_all(engine)
    rows = pd.DataFrame({"age": np.arange(60) % 40 + 20.0})
    for limit in (30, 40, 50):
        added(engine, tmp_path, LogisticRegression().fit(rows, rows["age"] > limit), rows)
    with session_scope(engine) as session:
        now = datetime.now(UTC)
        for row in session.scalars(select(ModelVersion).where(ModelVersion.version > 1)).all():
            gone = now if row.version == 3 else None  # the second is archived only
            session.add(
                ModelArchive(model_version_id=row.id, archived_at=now, deleted_at=gone, reason=None, actor="me")
            )
    with session_scope(engine) as session:
        assert remove_left_files(session, tmp_path / "models") == 1
        assert sorted(path.name for path in (tmp_path / "models" / "m").iterdir()) == ["1", "2"]
        assert remove_left_files(session, tmp_path / "models") == 0
    engine.dispose()
