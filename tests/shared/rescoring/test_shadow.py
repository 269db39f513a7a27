"""Challengers in the shadow: which rows they score, that each is scored once, and what failures lead to."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, delete, insert, select, update

from shared.comparison.shadow_report import Side, collect_shadow, count_by_version
from shared.comparison.shadow_state import list_shadows
from shared.config.settings import Settings
from shared.database.engine import session_scope
from shared.jobs.recording import insert_finished
from shared.registry.aliases import promote, remove_alias
from shared.rescoring import shadow
from shared.rescoring.shadow import Shadowing
from shared.rescoring.shadow_process import NOT_LOADED, Result, ShadowFailed
from shared.rescoring.shadow_rows import STRIDE
from shared.scoring.outputs import Output
from shared.tables import Alert, Job, ModelOutput, Shadow, ShadowScore
from tests.support.cards import people, use
from tests.support.databases import empty, sqlite_engine, submission

ROW = {"age": 40, "début": 20, "salaire": 1.0, "poste": "x", "ville": None, "télétravail": True}


class Model:
    """A challenger without a process: it answers the row's age, unless its ages are to fail."""

    def __init__(self) -> None:
        self.failing: set[int] = set()
        self.loads = 0
        self.calls: list[tuple[list[int], list[int], bool]] = []  # ages, places of rows of other cards, by its pipeline
        self.code = "worker_lost"
        self.on_call = lambda: None

    def make(self, *_: Any, **__: Any) -> "Model":
        self.loads += 1
        return self

    def is_ready(self) -> bool:
        if self.code == NOT_LOADED:
            raise ShadowFailed(NOT_LOADED, "It cannot be loaded: no.")
        return True

    def score(self, rows: Sequence[str], foreign: Sequence[int], seconds: float, *, is_exact: bool) -> list[Result]:
        ages = [int(orjson.loads(row)["age"]) for row in rows]
        self.calls.append((ages, list(foreign), is_exact))
        self.on_call()
        if self.failing & set(ages):
            raise ShadowFailed(self.code, "Its process ended.")
        return ["refused_by_model" if age == 1 else (float(age % 2), str(age % 2), age / 100) for age in ages]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with sqlite_engine(Path(tmp_path_factory.mktemp("shadow"))) as engine:
        yield engine


@pytest.fixture
def model(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose version 1 decides and whose version 2 is the challenger."""
    empty(engine)
    with engine.begin() as connection:
        for table in (ShadowScore, Shadow, Alert):
            connection.execute(delete(table))
    use(engine, people(), people(version=2))
    with session_scope(engine) as session:
        promote(session, "m", 1)
        promote(session, "m", 2, "challenger")
    model = Model()
    monkeypatch.setattr(shadow, "ShadowProcess", model.make)
    return model


def decide(engine: Engine, ages: Sequence[int], *, kind: str = "batch", version: int = 1) -> str:
    """Store a job that a version has decided; return its id."""
    job = submission(rows=[ROW | {"age": age} for age in ages], model_version_id=version, kind=kind)
    outputs = [Output("binary", 0.0, "Reste", 0.1, None, 0.5)] * len(ages)
    with engine.begin() as connection:
        insert_finished(connection, [job], [outputs], attempts=[1], started_at=datetime.now(UTC))
    return str(job.id)


def begun(engine: Engine, *, rate: int = 100_000, holder: str = "one", file_share: float = 0) -> Shadowing:
    """Return a shadowing that has begun."""
    settings = Settings(runtime="sync", shadow_rows_per_second=rate, shadow_file_share=file_share)
    shadowing = Shadowing(engine, settings, holder=holder)
    shadowing.run()
    return shadowing


def scores(engine: Engine) -> list[tuple[int, float | None, str | None]]:
    with engine.connect() as connection:
        query = select(ShadowScore.output_id, ShadowScore.probability, ShadowScore.fault).order_by(
            ShadowScore.output_id
        )
        return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def state(engine: Engine) -> Any:
    with engine.connect() as connection:
        return list_shadows(connection)[2]


def ready(shadowing: Shadowing) -> None:
    """Let the time pass after a failure."""
    shadowing._retry_at.clear()


def test_rows_of_callers_are_scored_once_and_rows_of_files_are_not(engine, model):
    shadowing = begun(engine)
    decide(engine, [40, 1, 41])
    decide(engine, [50], kind="predict")
    decide(engine, [60, 61], kind="csv")
    decide(engine, [70], version=2)  # its own decisions
    assert shadowing.run() == 4
    assert [(probability, fault) for _, probability, fault in scores(engine)] == [
        (0.4, None),
        (None, "refused_by_model"),
        (0.41, None),
        (0.5, None),
    ]
    assert shadowing.run() == 0
    assert begun(engine, holder="two").run() == 0
    assert len(scores(engine)) == 4
    assert (state(engine).scored, state(engine).refused, state(engine).state) == (3, 1, "scoring")
    assert model.calls == [([40, 1, 41, 50], [], False)]


def test_rows_since_the_alias_was_set_are_scored_however_late_the_first_look_is(engine, model):
    with session_scope(engine) as session:
        remove_alias(session, "m", "challenger")
    decide(engine, [30, 31])  # while there is no challenger
    with session_scope(engine) as session:
        promote(session, "m", 2, "challenger")
    decide(engine, [40, 41])  # before anybody looks
    shadowing = begun(engine)
    assert shadowing.run() == 2
    assert [probability for _, probability, _ in scores(engine)] == [0.4, 0.41]
    decide(engine, [50])
    with session_scope(engine) as session:
        remove_alias(session, "m", "challenger")
    decide(engine, [51])
    with session_scope(engine) as session:
        promote(session, "m", 2, "challenger")
    decide(engine, [52])
    shadowing.run()
    assert shadowing.run() == 1
    assert [probability for _, probability, _ in scores(engine)] == [0.4, 0.41, 0.52]
    assert (state(engine).scored, state(engine).skipped) == (1, 0)


def test_what_was_scored_is_not_scored_again_where_clocks_differ(engine, model):
    shadowing = begun(engine)
    decide(engine, [40])
    assert shadowing.run() == 1
    with engine.begin() as connection:  # by the clock of who stored it, after the alias is set again
        connection.execute(update(ModelOutput).values(created_at=datetime.now(UTC) + timedelta(minutes=1)))
    with session_scope(engine) as session:
        remove_alias(session, "m", "challenger")
        promote(session, "m", 2, "challenger")
    shadowing.run()
    decide(engine, [41])
    assert shadowing.run() == 1
    assert [probability for _, probability, _ in scores(engine)] == [0.4, 0.41]


def test_share_of_the_rows_of_files_is_scored_and_leaves_other_rows_their_room(engine, model):
    shadowing = begun(engine, file_share=0.1)
    decide(engine, [40] * 20)
    decide(engine, [60] * 2_000, kind="csv")
    shadowing.run()
    ages = [age for rows, _, _ in model.calls for age in rows]
    assert ages.count(40) == 20
    assert 170 < ages.count(60) < 230
    assert shadowing.run() == 0
    ids = [output for output, _, _ in scores(engine)]
    assert len(ids) == len(set(ids)) == len(ages)
    assert (state(engine).skipped, state(engine).lag_seconds) == (0, 0.0)

    model.calls.clear()
    shadowing = begun(engine, rate=10, file_share=1.0)
    decide(engine, [60] * 3_000, kind="csv")
    decide(engine, [40] * 6)
    shadowing.run()
    ages = [age for rows, _, _ in model.calls for age in rows]
    assert (ages.count(40), len(ages)) == (6, 10)  # those of files that there is no room for are left to replays
    assert shadowing.run() == 0


def test_row_of_a_file_that_crashes_it_is_singled_out(engine, model):
    model.failing = {13}
    shadowing = begun(engine, file_share=1.0)
    decide(engine, [40, 13, 41], kind="csv")
    assert shadowing.run() == 0
    for _ in range(5):
        ready(shadowing)
        shadowing.run()
    assert [(probability, fault) for _, probability, fault in scores(engine)] == [
        (0.4, None),
        (None, "worker_lost"),
        (0.41, None),
    ]


def test_deleted_job_takes_its_scores_along(engine, model):
    shadowing = begun(engine)
    kept, gone = decide(engine, [40, 41]), decide(engine, [50])
    shadowing.run()
    with engine.begin() as connection:
        connection.execute(delete(Job).where(Job.id == gone))
    assert [probability for _, probability, _ in scores(engine)] == [0.4, 0.41]
    assert kept != gone


def test_of_two_that_score_the_same_rows_one_stores(engine, model):
    one, two = begun(engine), begun(engine, holder="two")
    decide(engine, [40, 41])
    with engine.begin() as connection:  # as if the lease of the first had run out while it scored
        connection.execute(update(Shadow).values(leased_by=None))

    def meanwhile() -> None:
        model.on_call = lambda: None
        with engine.begin() as connection:
            connection.execute(update(Shadow).values(leased_by=None))
        assert two.run() == 2

    model.on_call = meanwhile
    assert one.run() == 0
    assert len(scores(engine)) == 2
    assert state(engine).scored == 2


def test_lease_keeps_other_processes_from_loading_the_model(engine, model):
    one, two = begun(engine), begun(engine, holder="two")
    decide(engine, [40])
    assert one.run() == 1
    decide(engine, [41])
    assert two.run() == 0
    assert one.run() == 1
    assert model.loads == 1


def test_challenger_that_is_promoted_or_taken_away_scores_nothing_more(engine, model):
    shadowing = begun(engine)
    with session_scope(engine) as session:
        promote(session, "m", 2)
    decide(engine, [40])
    assert shadowing.run() == 0
    with session_scope(engine) as session:
        promote(session, "m", 1)
        remove_alias(session, "m", "challenger")
    decide(engine, [41])
    assert shadowing.run() == 0
    with session_scope(engine) as session:
        promote(session, "m", 2, "challenger")
    shadowing.run()  # begins anew, with what is decided from now on
    decide(engine, [42])
    assert shadowing.run() == 1
    assert [probability for _, probability, _ in scores(engine)] == [0.42]


def test_row_that_crashes_it_is_singled_out_and_the_others_are_scored(engine, model):
    shadowing = begun(engine)
    model.failing = {50}
    decide(engine, [40, 41, 50, 42, 43])
    with engine.begin() as connection:  # that takes long: nothing is left out for it
        past = datetime.now(UTC) - timedelta(minutes=2)
        connection.execute(update(ModelOutput).values(created_at=past))
    for _ in range(4):
        shadowing.run()
        ready(shadowing)
    assert [fault or probability for _, probability, fault in scores(engine)] == [0.4, 0.41, "worker_lost", 0.42, 0.43]
    assert (state(engine).failures, state(engine).state, state(engine).skipped) == (0, "scoring", 0)
    decide(engine, [44, 45])
    assert shadowing.run() == 2
    assert model.calls[-1][0] == [44, 45]  # together again


@pytest.mark.parametrize("code", ["worker_lost", "timeout", "out_of_memory", NOT_LOADED])
def test_challenger_that_fails_again_and_again_is_left_alone_with_the_cause(engine, model, code):
    shadowing = begun(engine)
    model.failing, model.code = set(range(100)), code
    decide(engine, range(40, 60))
    for _ in range(10):
        shadowing.run()
        ready(shadowing)
    assert (state(engine).failures, state(engine).state) == (3, "stopped")
    assert model.loads == 3
    sentence = state(engine).sentence("m@2")
    assert sentence.startswith("The challenger m@2 has been stopped since 20")
    assert ("cannot be loaded" if code == NOT_LOADED else "Its process ended.") in sentence
    model.failing, model.code = set(), "worker_lost"
    assert shadowing.run() == 0
    with session_scope(engine) as session:  # set again, it is tried again
        remove_alias(session, "m", "challenger")
        promote(session, "m", 2, "challenger")
    shadowing.run()
    decide(engine, [70])
    assert shadowing.run() == 1
    assert (state(engine).failures, state(engine).reason) == (0, None)


def test_rows_a_second_are_bounded_and_a_sample_is_scored_when_it_lags(engine, model):
    shadowing = begun(engine, rate=5)
    decide(engine, [40] * 100)
    assert 5 <= shadowing.run() <= 10
    assert shadowing.run() <= 5
    assert state(engine).skipped == 0
    with engine.begin() as connection:
        past = datetime.now(UTC) - timedelta(minutes=2)
        connection.execute(update(ModelOutput).values(created_at=past))
    shadowing._room.clear()
    assert 5 <= shadowing.run() <= 10
    now = state(engine)
    assert now.state == "behind"
    assert now.scored + now.skipped == 100
    assert now.skipped >= 80
    assert shadowing.run() == 0  # the others are left out


def test_ids_of_other_models_are_passed(engine, model, monkeypatch):
    monkeypatch.setattr(shadow, "IDLE_STRIDE", 3)
    monkeypatch.setattr("shared.rescoring.shadow_rows.STRIDE", 4)
    assert STRIDE > 4
    shadowing = begun(engine)
    decide(engine, [60] * 9, kind="csv")
    decide(engine, [40])
    shadowing.run()
    shadowing.run()
    assert len(scores(engine)) == 1


def test_suspended_version_is_scored_by_its_pipeline(engine, model):
    shadowing = begun(engine)
    decide(engine, [40])

    def suspend() -> None:
        model.on_call = lambda: None
        about = {"model_version_id": 2, "kind": "self_audit", "subject": "score", "level": "high", "details": {}}
        now = datetime.now(UTC)
        with engine.begin() as connection:
            connection.execute(insert(Alert).values(**about, opened_at=now, seen_at=now))

    model.on_call = suspend
    assert shadowing.run() == 0  # what the fast way gave meanwhile is not stored
    assert scores(engine) == []
    assert shadowing.run() == 1
    assert [is_exact for _, _, is_exact in model.calls] == [False, True]


def test_rows_of_a_card_with_other_limits_are_read_anew_and_those_that_lack_a_feature_are_left_out(engine, model):
    other = people()
    use(engine, other.model_copy(update={"rules": []}), people(version=2))
    with session_scope(engine) as session:
        promote(session, "m", 1)
        promote(session, "m", 2, "challenger")
    shadowing = begun(engine)
    decide(engine, [40])
    assert shadowing.run() == 1
    assert model.calls == [([40], [0], False)]
    fewer = other.model_copy(update={"features": other.features[2:], "rules": []})
    use(engine, fewer, people(version=2))
    with session_scope(engine) as session:
        promote(session, "m", 1)
        promote(session, "m", 2, "challenger")
    again = begun(engine, holder="two")
    decide(engine, [41])
    assert again.run() == 0


def test_report_of_rows_that_are_all_refused_has_no_pairs(engine, model):
    shadowing = begun(engine)
    decide(engine, [1, 1])
    assert shadowing.run() == 2
    now = datetime.now(UTC)
    sides = Side(1, people()), Side(2, people(version=2))
    with engine.connect() as connection:
        counts = count_by_version(connection, 2, now - timedelta(hours=1), now + timedelta(hours=1))
        shadowed = collect_shadow(connection, *sides, now - timedelta(hours=1), now + timedelta(hours=1))
    report = shadowed.collected.report(people(version=2))
    assert counts == {1: 2}
    assert (report["pairs"], report["refused"], report["agreement"], report["score_shift"]) == (0, 2, None, None)
    assert (shadowed.left_out, report["segments"], report["largest"]) == (0, [], [])


def test_report_of_more_rows_than_it_may_read_is_of_the_newest(engine, model):
    shadowing = begun(engine)
    decide(engine, range(40, 50))
    assert shadowing.run() == 10
    now = datetime.now(UTC)
    sides = Side(1, people()), Side(2, people(version=2))
    with engine.connect() as connection:
        shadowed = collect_shadow(connection, *sides, now - timedelta(hours=1), now + timedelta(hours=1), most=4)
    report = shadowed.collected.report(people(version=2))
    assert (report["pairs"], shadowed.left_out) == (4, 6)
    assert report["score_shift"]["after"] == pytest.approx((0.46 + 0.47 + 0.48 + 0.49) / 4)
