"""A claimed training becomes a candidate version once, or leaves nothing behind but the reason."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select
from uuid_utils import uuid7

from shared.config.settings import Settings, get_settings
from shared.handlers.registrations import claim_next
from shared.handlers.table import APART_HANDLERS
from shared.jobs import registrations, trainings, transitions
from shared.jobs.queries.jobs import StoredJob, find_jobs
from shared.jobs.registrations import DATA, Upload, UploadedFile
from shared.jobs.submission import NO_VERSION, Submission
from shared.tables import JobKind, ModelAlias, ModelVersion, RegistrationPart
from shared.training.options import TrainingOptions
from tests.support.databases import settings_of, sqlite_engine
from tests.support.trainings import TARGET, csv_of, make_rows

pytestmark = pytest.mark.flow
OTHERS = 2  # versions that are registered already


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with sqlite_engine(tmp_path) as engine:
        yield engine


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with settings_of(
        MODELS_DIR=str(tmp_path / "models"), RUNTIME="sync", DATABASE_URL=f"sqlite:///{tmp_path / 'guichet.db'}"
    ):
        yield get_settings()


def submit(engine: Engine, content: bytes, **changes: Any) -> str:
    options = TrainingOptions(**{"name": "leavers", "target": TARGET, "draws": 1, "estimators": ("linear",)} | changes)
    job = Submission(str(uuid7()), JobKind.TRAIN, "bulk", NO_VERSION, "request", [], [], 120.0, 3)
    file = UploadedFile("data.csv", None, len(content), hashlib.sha256(content).hexdigest())
    upload = Upload(options.name, {"training": options.dump(), "csv": {}}, {DATA: file}, "anyone")
    with engine.begin() as connection:
        assert registrations.submit(connection, job, upload, [(DATA, 0, content)]) is not None
        trainings.add_training(connection, job.id)
    return job.id


def run(engine: Engine, settings: Settings) -> bool:
    held = claim_next(engine, settings, worker="here")
    assert held is not None
    return APART_HANDLERS[held.kind](engine, settings, held)


def stored(engine: Engine, job_id: str) -> StoredJob:
    with engine.connect() as connection:
        return find_jobs(connection, [job_id])[job_id]


def count(engine: Engine, table: type[Any]) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def test_same_file_and_seed_are_the_same_version_and_no_alias_is_moved(engine, settings):
    versions = set()
    for _ in range(2):
        job_id = submit(engine, csv_of(make_rows()))
        assert run(engine, settings)
        job = stored(engine, job_id)
        assert job.state == "succeeded"
        assert job.registration is not None
        versions.add(job.registration.model_version_id)
        with engine.connect() as connection:
            report = trainings.find_report(connection, job_id)
        assert report is not None
        assert report["rows"] == 200
    assert len(versions) == 1
    assert count(engine, ModelVersion) == OTHERS + 1
    assert count(engine, ModelAlias) == count(engine, RegistrationPart) == 0
    assert [path.name for path in settings.models.iterdir()] == ["leavers"]


def test_refused_rows_fail_the_job_with_the_column_and_register_nothing(engine, settings):
    rows = [row | {"ended": int(row[TARGET] == "yes")} for row in make_rows()]
    job_id = submit(engine, csv_of(rows))
    assert run(engine, settings)
    job = stored(engine, job_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["code"] == "leaked_target"
    assert "'ended'" in job.error["message"]
    assert count(engine, ModelVersion) == OTHERS
    assert count(engine, RegistrationPart) == 0
    assert list(settings.models.iterdir()) == []


def test_canceled_training_registers_nothing(engine, settings):
    job_id = submit(engine, csv_of(make_rows(1_500)), draws=100, estimators=("random_forest",))

    def cancel() -> None:
        while (stored(engine, job_id).registration.progress or {}).get("stage") != "searching":  # type: ignore[union-attr]
            threading.Event().wait(0.1)
        with engine.begin() as connection:
            transitions.cancel(connection, job_id)

    thread = threading.Thread(target=cancel)
    thread.start()
    assert run(engine, settings)
    thread.join()
    assert stored(engine, job_id).state == "canceled"
    assert count(engine, ModelVersion) == OTHERS
    assert count(engine, RegistrationPart) == 0
    assert list(settings.models.iterdir()) == []
