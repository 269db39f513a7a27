"""The self-audit: what it draws, what it takes for a difference, and what an incident does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sqlalchemy import Engine, select

from shared.database.engine import session_scope
from shared.faults import Fault
from shared.jobs.recording import insert_finished
from shared.monitoring.drift.alerts import acknowledge, list_alerts
from shared.monitoring.suspensions import list_suspended
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.registry.loading import LoadedModel, by_pipeline, load
from shared.rescoring.self_audit import (
    PIECE,
    AuditedRow,
    NotScored,
    Round,
    Row,
    Score,
    SelfAudit,
    compare,
    score_by_pipeline,
)
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.tables import Incident, ModelOutput
from tests.support.brief import prove_briefly
from tests.support.databases import empty, sqlite_engine, submission
from tests.support.planted import SHIFT, plant


@dataclass
class Service:
    """A database with a version of trees, which is loaded twice: as it is, and with a wrong threshold."""

    engine: Engine
    version: int
    right: LoadedModel
    wrong: LoadedModel

    def store(self, model: LoadedModel, values: Any) -> None:
        """Score rows by a model and store them, as the sync runtime does."""
        rows = [{"x": float(value)} for value in values]
        job = submission(rows=rows, model_version_id=self.version, kind="batch")
        with self.engine.begin() as connection:
            insert_finished(connection, [job], [score_rows(model, rows)], attempts=[1], started_at=datetime.now(UTC))

    def audit(self, share: float = 1.0, score: Score | None = None) -> SelfAudit:
        """Return an audit that has begun, with no bound that matters."""
        by_default = partial(score_by_pipeline, self.wrong)
        audit = SelfAudit(self.engine, score or (lambda _, rows: by_default(rows)), share=share, rows_per_second=10**9)
        run(audit)
        return audit

    def incidents(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(Incident)))

    def alerts(self, **which: Any) -> list[Any]:
        with self.engine.connect() as connection:
            filters = {"name": None, "is_open": None, "before": None, "limit": 50} | which
            return list(list_alerts(connection, **filters))


def run(audit: SelfAudit) -> Round | None:
    """Do a round as the service does."""
    done = audit.check()
    if done is not None:
        audit.store(done)
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("audit")
    random = np.random.default_rng(3)
    values = random.uniform(-1, 1, 400)
    answers = (values + random.normal(scale=0.1, size=400) > 0).astype(int)
    with pytest.MonkeyPatch.context() as patch, sqlite_engine(folder) as engine:
        prove_briefly(patch)
        # No faster way than trees, whatever the machine does at this moment.
        patch.setattr("shared.scoring.selection.CANDIDATES", ("treelite",))
        model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(pd.DataFrame({"x": values}), answers)
        joblib.dump(model, folder / "model.joblib")
        pd.DataFrame({"x": values[:40]}).to_csv(folder / "rows.csv", index=False)
        with session_scope(engine) as session:
            options = AddOptions(reference=folder / "rows.csv", name="planted")
            version = add(session, folder / "model.joblib", options, models_dir=folder / "models")
            right, wrong = (load(version, folder / "models") for _ in range(2))
        plant(wrong)
        yield Service(engine, version.id, right, wrong)


@pytest.fixture
def service(made: Service) -> Service:
    empty(made.engine)
    with made.engine.begin() as connection:
        for table in ("incidents", "alerts", "timed_tasks"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return made


def share_of_wrong_rows(service: Service) -> float:
    rows = [{"x": float(value)} for value in np.linspace(-1, 1, 2_000)]
    right, wrong = (score_rows(model, rows) for model in (service.right, service.wrong))
    return float(np.mean([abs(a.probability - b.probability) > 1e-6 for a, b in zip(right, wrong, strict=True)]))


def test_right_scores_of_a_whole_audit_raise_nothing(service):
    audit = service.audit()
    service.store(service.right, np.linspace(-2, 2, 600))
    done = run(audit)
    assert [(each.label, each.equal, each.failed, each.skipped) for each in done.audits] == [("planted@1", 600, 0, 0)]
    assert run(audit) is None  # nothing is new
    assert service.alerts() == []


def test_wrong_threshold_is_found_within_the_rows_that_the_sampling_predicts(service):
    """Each row is drawn by chance and wrong by chance: after so many, none was found once in a thousand million."""
    share, wrong = 0.2, share_of_wrong_rows(service)
    assert 0.05 < wrong < 0.5
    enough = math.ceil(math.log(1e-9) / math.log(1 - share * wrong))
    audit = service.audit(share=share)
    sent, random = 0, np.random.default_rng(5)
    while not service.alerts():
        assert sent < enough
        service.store(service.wrong, random.uniform(-1, 1, 20))
        sent += 20
        run(audit)
    (alert,) = service.alerts(is_open=True)
    assert (alert.kind, alert.subject, alert.level, alert.name) == ("self_audit", "score", "high", "planted")
    assert alert.details["scorer"] == "treelite"
    assert 1 <= alert.details["rows_differing"] <= alert.details["rows_checked"] <= sent
    assert alert.details["max_difference"] > 1e-6
    with service.engine.connect() as connection:
        incidents = connection.execute(select(Incident)).all()
        suspended = list_suspended(connection)
        for incident in incidents:
            stored = connection.execute(
                select(ModelOutput.probability).where(ModelOutput.input_id == incident.input_id)
            ).scalar_one()
            assert incident.probability == stored != incident.expected_probability
    assert len(incidents) == alert.details["rows_differing"]
    assert suspended.keys() == {service.version}
    assert "planted@1 is scored by its pipeline since" in suspended[service.version].sentence("planted@1")


def test_pipeline_of_a_planted_version_is_right_and_acknowledging_ends_the_suspension(service):
    values = np.linspace(-1, 1, 200)
    rows = [{"x": float(value)} for value in values]
    audit = service.audit()
    service.store(service.wrong, values)
    run(audit)
    (alert,) = service.alerts(is_open=True)
    service.store(by_pipeline(service.wrong), values)  # as every process does from now on
    run(audit)
    (same,) = service.alerts(is_open=True)
    assert same.details == alert.details
    pipeline = service.right.estimator.predict_proba(pd.DataFrame(rows))[:, 1]
    assert [output.probability for output in score_rows(by_pipeline(service.wrong), rows)] == pipeline.tolist()
    with service.engine.begin() as connection:
        closed = acknowledge(connection, alert.id, by="key:me", reason="the file was restored", request_id="r")
        assert closed.closed_at is not None
        assert list_suspended(connection) == {}
    service.store(service.wrong, values)  # and it was not: the next round says so again
    run(audit)
    assert [(one.id == alert.id) for one in service.alerts(is_open=True)] == [False]


def test_incidents_of_one_alert_are_bounded(service, monkeypatch):
    monkeypatch.setattr("shared.rescoring.self_audit.KEPT", 30)
    audit = service.audit()
    for _ in range(3):
        service.store(service.wrong, np.full(20, SHIFT / 2))
        run(audit)
    (alert,) = service.alerts()
    assert alert.details["rows_differing"] == 60
    assert len(alert.details["examples"]) == 5
    assert len(service.incidents()) == 30


def test_round_that_was_not_written_is_done_again_and_no_round_is_written_twice(service):
    service.audit()  # somebody else has begun
    one, other = service.audit(), service.audit()
    service.store(service.wrong, np.full(20, SHIFT / 2))
    lost = one.check()  # its process is killed now
    assert lost.wrong_versions == {service.version}
    assert service.incidents() == []
    late = one.check()
    run(other)
    one.store(late)  # it comes back after another one has taken its place
    assert len(service.incidents()) == 20
    (alert,) = service.alerts()
    assert alert.details["rows_differing"] == 20
    assert len({incident.input_id for incident in service.incidents()}) == 20


def test_pipeline_that_breaks_is_no_difference_and_suspends_nothing(service):
    def break_down(_: int, rows: list[Row]) -> list[Output | Fault]:
        return [Fault("", "model_failed", "the model raised RuntimeError on this row")] * len(rows)

    def die(_: int, rows: list[Row]) -> list[Output | Fault]:
        raise NotScored

    def run_out(_: int, rows: list[Row]) -> list[Output | Fault]:
        raise MemoryError

    for score in (break_down, die, run_out):
        audit = service.audit(score=score)
        service.store(service.wrong, np.full(30, SHIFT / 2))
        (each,) = run(audit).audits
        assert (each.failed, each.checked) == (30, 0)
        assert run(audit) is None  # it goes on
    assert service.alerts() == []


def test_rounds_wait_for_a_model_that_is_being_loaded_and_not_for_ever(service, monkeypatch):
    loaded: list[LoadedModel] = []
    audit = service.audit(score=lambda _, rows: score_by_pipeline(loaded[0], rows) if loaded else None)
    service.store(service.wrong, np.full(10, SHIFT / 2))
    assert run(audit) is None
    service.store(service.wrong, np.full(10, SHIFT / 2))
    loaded.append(service.wrong)
    assert run(audit).audits[0].checked == 20
    loaded.clear()
    service.store(service.wrong, np.full(10, SHIFT / 2))
    monkeypatch.setattr("shared.rescoring.self_audit.LOADING_SECONDS", 0.0)
    assert run(audit).audits[0].skipped == 10


def test_rows_beyond_the_time_of_a_round_are_skipped(service, monkeypatch):
    monkeypatch.setattr("shared.rescoring.self_audit.SECONDS", -1.0)
    audit = service.audit()
    service.store(service.wrong, np.full(30, SHIFT / 2))
    (each,) = run(audit).audits
    assert (each.checked, each.skipped) == (PIECE, 30 - PIECE)  # the first rows are scored whatever it takes


def test_draws_are_as_frequent_as_the_share_says_evenly_spread_and_never_too_many(service):
    audit = SelfAudit(service.engine, lambda _, rows: None, share=0.01, rows_per_second=50)
    draws = [audit._draw(1_000, 3_000, 1.0) for _ in range(500)]
    counts = np.array([len(draw) for draw in draws])
    assert abs(counts.mean() - 20) < 5 * math.sqrt(2_000 * 0.01 * 0.99 / 500)  # a binomial, five sigma
    every = np.concatenate(draws)
    assert every.min() >= 1_001
    assert every.max() <= 3_000
    parts = np.bincount((every - 1_001) // 200, minlength=10)
    assert abs(parts - len(every) / 10).max() < 5 * math.sqrt(len(every) / 10)
    assert all(len(set(draw)) == len(draw) for draw in draws)
    assert [len(audit._draw(0, 10**9, seconds)) for seconds in (0.5, 1.0, 2.0, 3600.0, -1.0)] == [25, 50, 100, 100, 0]
    assert [audit._draw(7, 8, 1.0) for _ in range(20)].count([8]) < 8


def row(output: Output) -> AuditedRow:
    return AuditedRow(1, "job", 0, {}, output)


def test_rounding_is_no_difference_and_a_decision_or_a_refusal_is():
    def binary(probability: float, threshold: float = 0.5) -> Output:
        return Output("binary", float(probability >= threshold), "x", probability, None, threshold)

    assert compare(row(binary(0.3)), binary(0.3 + 1e-9)) is None
    assert compare(row(binary(0.3)), binary(0.3001)) is not None
    assert compare(row(binary(0.5 - 1e-9)), binary(0.5)) is None  # rounding decides: either class is right
    turned = Output("binary", 1.0, "x", 0.3, None, 0.5)
    assert compare(row(turned), binary(0.3)) is not None
    assert compare(row(binary(0.3)), Fault("", "refused", "is refused")).distance == math.inf
    multiclass = Output("multiclass", 0.0, "a", 0.5, [0.5, 0.3, 0.2])
    assert compare(row(multiclass), Output("multiclass", 0.0, "a", 0.5, [0.5, 0.2, 0.3])).distance == pytest.approx(0.1)
    tied = Output("multiclass", 1.0, "b", 0.4, [0.4, 0.4, 0.2])
    assert compare(row(Output("multiclass", 0.0, "a", 0.4, [0.4, 0.4, 0.2])), tied) is None
    assert compare(row(Output("regression", 1e9)), Output("regression", 1e9 + 1)) is None  # relative beyond 1
    assert compare(row(Output("regression", 1e9)), Output("regression", 1e9 + 1e4)) is not None
