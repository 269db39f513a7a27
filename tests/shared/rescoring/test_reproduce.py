"""Past decisions made again: in whatever company they were scored, and what is named when something was changed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sqlalchemy import Engine, select, update

from shared.cards.features import Feature
from shared.cards.seal import is_intact, text_sha256
from shared.database.engine import dumps, session_scope
from shared.jobs.recording import insert_finished
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.aliases import Change, promote
from shared.registry.loading import LoadedModel, load
from shared.rescoring.reproduce import Reproduction, reproduce
from shared.scoring.batch import score_rows
from shared.tables import ModelInput, ModelOutput, ModelVersion
from tests.support.brief import prove_briefly
from tests.support.cards import people
from tests.support.databases import sqlite_engine, submission

NAMES = [f"x{place}" for place in range(8)]
MODELS: dict[str, Any] = {
    "product": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "trees": HistGradientBoostingClassifier(max_iter=40, random_state=0),
    "network": make_pipeline(
        StandardScaler(), MLPClassifier((16,), max_iter=2000, tol=0.1, random_state=0)
    ),  # rounds by company
}


@dataclass
class History:
    """A database with three versions, and the folder of their artefacts."""

    engine: Engine
    models: Path
    loaded: dict[int, LoadedModel]
    random: np.random.Generator

    def decide(self, version: int, count: int) -> str:
        """Score rows as a busy worker does, in claims of any size; return the job that they are stored as."""
        rows = [dict(zip(NAMES, row, strict=True)) for row in self.random.normal(size=(count, len(NAMES))).tolist()]
        results: list[Any] = []
        while len(results) < count:
            size = int(self.random.choice([1, 1, 2, 3, 7, 32, 200]))
            results += score_rows(self.loaded[version], rows[len(results) : len(results) + size])
        job = submission(rows=rows, model_version_id=version, kind="batch")
        with self.engine.begin() as connection:
            insert_finished(connection, [job], [results], attempts=[1], started_at=datetime.now(UTC))
        return job.id

    def reproduce(self, job_id: str, row: int | None = None) -> Reproduction:
        with self.engine.connect() as connection:
            return reproduce(connection, job_id, row, models_dir=self.models)

    def change(self, table: Any, job_id: str, row: int, **values: Any) -> None:
        """Write into the database what nobody should."""
        key = ModelInput.id if table is ModelInput else ModelOutput.input_id
        with self.engine.begin() as connection:
            place = select(ModelInput.id).where(ModelInput.job_id == job_id, ModelInput.row_index == row)
            connection.execute(update(table).where(key == connection.scalar(place)).values(values))

    def features(self, job_id: str, row: int) -> dict[str, Any]:
        with self.engine.connect() as connection:
            place = select(ModelInput.features).where(ModelInput.job_id == job_id, ModelInput.row_index == row)
            return dict(connection.scalar(place) or {})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("reproduce")
    random = np.random.default_rng(7)
    sample = random.normal(size=(300, len(NAMES)))
    answers = (sample[:, 0] + sample[:, 1] * sample[:, 2] > 0).astype(int)
    pd.DataFrame(sample[:50], columns=NAMES).to_csv(folder / "rows.csv", index=False)
    with pytest.MonkeyPatch.context() as patch, sqlite_engine(folder) as engine:
        prove_briefly(patch)
        loaded = {}
        for name, model in MODELS.items():
            joblib.dump(model.fit(pd.DataFrame(sample, columns=NAMES), answers), folder / "model.joblib")
            with session_scope(engine) as session:
                options = AddOptions(reference=folder / "rows.csv", name="m" + name)
                version = add(session, folder / "model.joblib", options, models_dir=folder / "models")
                loaded[version.id] = load(version, folder / "models")
        yield History(engine, folder / "models", loaded, random)


def decide_and_reproduce(history: History, count: int) -> None:
    companies = set()
    for version in history.loaded:
        report = history.reproduce(history.decide(version, count))
        assert len(report.findings) == count
        assert [finding for finding in report.findings if finding.changed] == []
        assert all(finding.company for finding in report.findings)
        companies |= {finding.company for finding in report.findings}
    assert len(companies) > 1  # of the network at least: it would not do to score all rows at once only


def test_thousands_of_past_rows_of_three_versions_come_out_again_in_every_bit(history):
    decide_and_reproduce(history, 1_200)


@pytest.mark.long
def test_ten_thousand_past_rows_of_three_versions_come_out_again_in_every_bit(history):
    decide_and_reproduce(history, 3_400)


def test_product_gives_a_row_the_same_bits_in_every_company(history):
    version = next(key for key, model in history.loaded.items() if model.card.name == "mproduct")
    report = history.reproduce(history.decide(version, 500))
    assert history.loaded[version].scorer.kind == "numpy"
    assert {finding.company for finding in report.findings} == {"beside the rows of its job"}


def test_changed_input_is_named_also_where_the_score_is_the_same(history):
    for version, model in history.loaded.items():
        job = history.decide(version, 20)
        row = history.features(job, 3)
        changed = row | {"x0": float(np.nextafter(row["x0"], 9.0))}  # one bit: trees do not even see it
        history.change(ModelInput, job, 3, features=changed)
        report = history.reproduce(job)
        assert {finding.index: finding.changed for finding in report.findings if finding.changed} == {3: "input"}
        assert "not what was accepted" in report.findings[3].message
        assert not report.is_equal
        if "trees" in model.card.name:
            assert "the same all the same" in report.findings[3].message
        history.change(ModelInput, job, 3, features=row)
        assert history.reproduce(job, 3).is_equal


def test_changed_output_is_named_with_its_difference(history):
    for version in history.loaded:
        job = history.decide(version, 20)
        output = score_of(history, job, 5)
        history.change(ModelOutput, job, 5, probability=float(np.nextafter(output.probability, 0.5)))
        report = history.reproduce(job, 5)
        assert [finding.changed for finding in report.findings] == ["output"]
        assert "another processor" in report.findings[0].message  # a last bit proves no forgery
        history.change(ModelOutput, job, 5, probability=output.probability, threshold=0.4)
        assert "threshold 0.4, now 0.5" in history.reproduce(job, 5).findings[0].message
        history.change(ModelOutput, job, 5, threshold=0.5)
        assert history.reproduce(job, 5).is_equal


def score_of(history: History, job: str, row: int) -> Any:
    stored = history.reproduce(job, row).findings[0].stored
    assert stored is not None
    return stored


def test_rows_without_a_seal_are_scored_and_their_fault_has_two_names(history):
    version = min(history.loaded)
    job = history.decide(version, 4)
    with history.engine.begin() as connection:
        connection.execute(update(ModelInput).where(ModelInput.job_id == job).values(sha256=None))
    assert history.reproduce(job).is_equal
    history.change(ModelOutput, job, 1, probability=0.123)
    assert history.reproduce(job, 1).findings[0].changed == "input or output"


def test_changed_artefact_or_card_is_named_and_a_foreign_artefact_is_never_loaded(history):
    version = max(history.loaded)
    job = history.decide(version, 3)
    folder = history.reproduce(job).folder
    content = (folder / "model.joblib").read_bytes()
    (folder / "model.joblib").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    report = history.reproduce(job)
    assert list(report.changed) == ["artefact"]
    assert "SHA-256" in report.changed["artefact"]
    assert report.findings == []
    (folder / "model.joblib").write_bytes(content)
    card = (folder / "model.json").read_text()
    (folder / "model.json").write_text(json.dumps(json.loads(card) | {"threshold": 0.25}))
    assert "differ in threshold" in history.reproduce(job).changed["card"]
    (folder / "model.json").write_text(card)
    assert history.reproduce(job).is_equal


def test_other_libraries_are_told_with_the_difference_that_they_make(history, monkeypatch):
    version = min(history.loaded)
    job = history.decide(version, 3)
    history.change(ModelOutput, job, 0, probability=0.123)
    installed = "shared.packages.package.importlib.metadata.version"
    monkeypatch.setattr(installed, lambda name: "0.0.1" if name == "scikit-learn" else "1.2.3")
    report = history.reproduce(job)
    assert any(difference.endswith("-> 0.0.1") for difference in report.libraries)
    assert [finding.changed for finding in report.findings] == ["libraries", "", ""]
    assert "probability 0.123, now" in report.findings[0].message


def test_promotion_that_was_in_force_is_found_and_not_a_later_one(history):
    version = min(history.loaded)
    job = history.decide(version, 1)
    with session_scope(history.engine) as session:
        row = session.get_one(ModelVersion, version)
        promote(session, row.name, row.version, "challenger", Change("to try it", "key:me"))
    promotion = history.reproduce(job).promotion
    assert promotion is not None
    assert (promotion.alias, promotion.from_version, promotion.to_version) == ("champion", None, row.version)


@pytest.mark.parametrize("value", [1e16, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 100000.0])
def test_numbers_that_postgresql_writes_otherwise_keep_their_seal(value):
    card = people(features=[Feature(name="zebra", type="number"), Feature(name="a", type="string")], rules=[])
    row = {"zebra": value, "a": 'é\\ " \u2028'}
    seal = text_sha256(dumps(row))
    back = {"a": row["a"], "zebra": orjson.loads(format(Decimal(repr(value)), "f"))}  # as a jsonb writes it
    assert is_intact(card, back, seal)
    assert is_intact(card, back | {"a": "e"}, seal) is False
    assert is_intact(card, {"a": row["a"]}, seal) is False
    assert is_intact(card, back, None) is None
