"""Counting of scored rows: equal to a scan, exactly once, also with rows that commit late and with several counters."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from scripts.servers.postgres import Postgres
from shared.database.engine import reader
from shared.errors import Conflict, NotFound
from shared.jobs.erasure import erase
from shared.jobs.recording import insert_finished
from shared.monitoring import settled
from shared.monitoring.counting import Counting, Rows
from shared.monitoring.drift.alerts import acknowledge, list_alerts, update_drift_alerts
from shared.monitoring.drift.windows import Window, find_drift, find_profile, is_counted, sum_counts
from shared.monitoring.scores import StoredScores
from shared.monitoring.settled import settled_id
from shared.scoring.outputs import Output
from tests.support.databases import either_engine, submission

NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)
CARD = {
    "name": "m",
    "version": 1,
    "task": "binary",
    "sha256": "0" * 64,
    "labels": {"0": "stays", "1": "leaves"},
    "features": [{"name": "x", "type": "number", "nullable": True}, {"name": "kind", "type": "string"}],
}
CHAMPION = "INSERT INTO model_aliases (id, name, alias, model_version_id) VALUES (1, 'm', 'champion', 1)"
rng = np.random.default_rng(5)


def rows(count: int, *, shift: float = 0.0) -> Rows:
    return [
        {"x": None if rng.random() < 0.05 else float(rng.normal(shift)), "kind": str(rng.choice(["a", "b", "c"]))}
        for _ in range(count)
    ]


def score(each: dict[str, Any]) -> Output:
    probability = 1 / (1 + np.exp(-(each["x"] or 0.0)))
    return Output("binary", float(probability >= 0.5), "leaves" if probability >= 0.5 else "stays", float(probability))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, session_postgres: Postgres, tmp_path: Path) -> Iterator[Engine]:
    with either_engine(request.param, f"counting-{tmp_path.name}"[:60], session_postgres, tmp_path) as engine:
        (tmp_path / "m" / "1").mkdir(parents=True)
        with (tmp_path / "m" / "1" / "reference.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(400))
        with engine.begin() as connection:
            connection.execute(text("UPDATE model_versions SET card = :card WHERE id = 1"), {"card": json.dumps(CARD)})
            connection.execute(text(CHAMPION))
        yield engine


def counting(engine: Engine, folder: Path) -> Counting:
    return Counting(engine, folder, None, lambda _, reference: [score(row) for row in reference])


def store(engine: Engine, batch: Rows, *, at: datetime = NOON) -> str:
    """Store rows as the sync runtime does, scored at a moment; return the id of their job."""
    with engine.begin() as connection:
        job = submission(rows=batch)
        insert_finished(connection, [job], [[score(row) for row in batch]], attempts=[1], started_at=at)
        connection.execute(
            text(
                "UPDATE model_outputs SET created_at = :at WHERE input_id IN "
                "(SELECT id FROM model_inputs WHERE job_id = :job)"
            ),
            {"at": at if engine.dialect.name == "postgresql" else at.strftime("%Y-%m-%d %H:%M:%S.%f"), "job": job.id},
        )
    return job.id


def total(engine: Engine) -> int:
    with reader(engine).connect() as connection:
        query = text("SELECT span, sum(row_count) FROM feature_counts GROUP BY span")
        by_span = {row[0]: row[1] for row in connection.execute(query)}
    assert by_span["hour"] == by_span["day"]
    return int(by_span["hour"])


def test_sums_of_counters_are_those_of_a_scan_of_the_rows(engine: Engine, tmp_path: Path) -> None:
    stored: list[tuple[datetime, Rows]] = []
    for hours in (-50, -49, -30, -24, -13, -12, -1, 0, 3):
        batch = rows(40)
        stored.append((NOON + timedelta(hours=hours, minutes=17), batch))
        store(engine, batch, at=stored[-1][0])
    counter = counting(engine, tmp_path)
    assert counter.run(seconds=30) == 360
    assert counter.run(seconds=30) == 0
    with reader(engine).connect() as connection:
        baseline = find_profile(connection, 1)
        assert baseline is not None
        profile = baseline.profile
        assert (baseline.source, profile.rows) == ("sample", 400)
        for first, last in ((-60, 60), (-50, 0), (-49, -12), (-13, -12), (-30, -12), (0, 4), (10, 20)):
            window = Window(NOON + timedelta(hours=first), NOON + timedelta(hours=last))
            inside = [row for at, batch in stored if window.start <= at < window.end for row in batch]
            count, counts = sum_counts(connection, 1, [window])
            scores = [{"score": score(row).probability, "decision": score(row).label} for row in inside]
            assert count == len(inside)
            assert (counts or []) == (profile.count(inside, scores) if inside else [])
        whole = Window(NOON - timedelta(hours=60), NOON + timedelta(hours=60))
        drift = find_drift(connection, 1, profile, whole, "reference")
        assert (drift.rows, drift.reference_rows, drift.level) == (360, 400, "none")
        assert drift.score is not None
        assert sum(drift.decision_rate.values()) == pytest.approx(1.0)


def test_rows_are_counted_once_by_counters_at_the_same_time(engine: Engine, tmp_path: Path) -> None:
    for _ in range(6):
        store(engine, rows(700))
    counters = [counting(engine, tmp_path) for _ in range(3)]
    counters[0].run(seconds=0)
    threads = [threading.Thread(target=counter.run, kwargs={"seconds": 30}) for counter in counters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counting(engine, tmp_path).run(seconds=30)
    assert total(engine) == 4200


def test_row_that_is_committed_behind_a_higher_id_is_counted(engine: Engine, tmp_path: Path) -> None:
    if engine.dialect.name == "sqlite":  # it has one writer: ids appear in order
        store(engine, rows(3))
        assert settled_id(engine) == 3
        return
    late = engine.connect()
    batch = rows(5)
    insert_finished(late, [submission(rows=batch)], [[score(row) for row in batch]], attempts=[1], started_at=NOON)
    store(engine, rows(10))  # ids above those of `late`, committed before them
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settled, "PATIENCE_SECONDS", 0.1)
        assert settled_id(engine) is None
        assert counting(engine, tmp_path).run(seconds=1) == 0
    late.commit()
    late.close()
    assert counting(engine, tmp_path).run(seconds=30) == 15


def test_new_reference_data_begin_the_counters_anew(engine: Engine, tmp_path: Path) -> None:
    store(engine, rows(250))
    counter = counting(engine, tmp_path)
    assert counter.run(seconds=30) == 250
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO reference_sets (id, model_name, model_version_id, filename, sha256, byte_count, "
                "delimiter, encoding, decimal, row_count, skipped_count) "
                "VALUES (1, 'm', 1, 'f.csv', :sha, 1, ',', 'utf-8', '.', 300, 0)"
            ),
            {"sha": "a" * 64},
        )
        for number, row in enumerate(rows(300, shift=3.0), 1):
            connection.execute(
                text("INSERT INTO reference_rows (set_id, row_no, features) VALUES (1, :number, :row)"),
                {"number": number, "row": json.dumps(row)},
            )
    assert counter.run(seconds=30) == 250
    assert total(engine) == 250
    with reader(engine).connect() as connection:
        stored = find_profile(connection, 1)
        assert stored is not None
        assert (stored.source, stored.profile.rows) == ("a" * 64, 300)
        window = Window(NOON, NOON + timedelta(hours=1))
        drift = find_drift(connection, 1, stored.profile, window, "reference")
        assert drift.level == "high"
        assert is_counted(connection, 1, stored.counted_through, NOON + timedelta(days=1))
        assert not is_counted(connection, 1, 0, NOON + timedelta(days=1))


def test_version_without_a_readable_reference_waits_and_spoils_nothing(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store(engine, rows(10))
    assert counting(engine, tmp_path).run(seconds=30) == 10  # version 2 has no valid card
    assert "m@2 has no profile" in caplog.text
    assert total(engine) == 10


@pytest.mark.parametrize(("alias", "outputs"), [("champion", None), ("challenger", ["score", "decision"])])
def test_champion_that_is_being_loaded_is_waited_for_and_other_versions_are_not(
    engine: Engine, tmp_path: Path, alias: str, outputs: list[str] | None
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_aliases SET alias = :alias"), {"alias": alias})
    Counting(engine, tmp_path, None, lambda *_: None).run(seconds=30)
    with reader(engine).connect() as connection:
        stored = find_profile(connection, 1)
    assert (None if stored is None else [bins.name for bins in stored.profile.outputs]) == outputs


def test_alert_is_opened_once_and_closed_when_the_drift_has_gone(engine: Engine, tmp_path: Path) -> None:
    counter = counting(engine, tmp_path)
    store(engine, rows(300, shift=2.0), at=NOON - timedelta(hours=2))
    counter.run(seconds=30)
    update_drift_alerts(engine, now=NOON)
    update_drift_alerts(engine, now=NOON)
    with reader(engine).connect() as connection:
        alerts = list_alerts(connection, name="m", is_open=True, before=None, limit=50)
        assert {alert.subject for alert in alerts} == {"x", "score", "decision"}
        assert {alert.level for alert in alerts} <= {"moderate", "high"}
        assert alerts[0].details["rows"] == 300
    store(engine, rows(300), at=NOON + timedelta(hours=30))
    counter.run(seconds=30)
    update_drift_alerts(engine, now=NOON + timedelta(hours=32))
    with reader(engine).connect() as connection:
        assert list_alerts(connection, name="m", is_open=True, before=None, limit=50) == []
        closed = list_alerts(connection, name=None, is_open=False, before=None, limit=50)
        assert len(closed) == 3
        assert list_alerts(connection, name="other", is_open=None, before=None, limit=50) == []


def test_acknowledged_alert_is_pressing_again_when_it_gets_worse(engine: Engine, tmp_path: Path) -> None:
    counter = counting(engine, tmp_path)
    store(engine, rows(400, shift=0.45), at=NOON - timedelta(hours=2))
    counter.run(seconds=30)
    update_drift_alerts(engine, now=NOON)

    def alert_of_x() -> Any:
        with reader(engine).connect() as connection:
            return {
                each.subject: each for each in list_alerts(connection, name="m", is_open=True, before=None, limit=9)
            }["x"]

    first = alert_of_x()
    assert (first.level, first.acknowledged_at) in [("low", None), ("moderate", None)]
    with engine.begin() as connection:
        acknowledge(connection, first.id, by="key:one", reason="a new branch", request_id="r1")
        again = acknowledge(connection, first.id, by="key:one", reason="a new branch", request_id="r2")
    assert (again.acknowledged_by, again.reason, again.acknowledged_level) == ("key:one", "a new branch", first.level)
    with engine.begin() as connection:
        with pytest.raises(Conflict, match="key:one has acknowledged this alert already, with another reason"):
            acknowledge(connection, first.id, by="key:one", reason="other", request_id="r3")
        with pytest.raises(Conflict, match="key:one has acknowledged this alert already"):
            acknowledge(connection, first.id, by="key:two", reason="a new branch", request_id="r4")
        with pytest.raises(NotFound):
            acknowledge(connection, 999, by="key:one", reason="a new branch", request_id="r5")
        noted = connection.execute(text("SELECT actor, target, request_id FROM audit_logs")).all()
    assert [tuple(each) for each in noted] == [("key:one", f"alert:{first.id}", "r1")]
    update_drift_alerts(engine, now=NOON)
    assert alert_of_x().acknowledged_by == "key:one"
    store(engine, rows(4_000, shift=3.0), at=NOON - timedelta(hours=2))
    counter.run(seconds=30)
    update_drift_alerts(engine, now=NOON)
    worse = alert_of_x()
    assert (worse.id, worse.level, worse.acknowledged_at, worse.reason) == (first.id, "high", None, None)


def test_windows_are_whole_hours_and_those_before_do_not_overlap() -> None:
    window = Window.around(NOON + timedelta(minutes=5), NOON + timedelta(minutes=65))
    assert window == Window(NOON, NOON + timedelta(hours=2))
    assert window.before("previous") == [Window(NOON - timedelta(hours=2), NOON)]
    weeks = window.before("same_weekday")
    assert [each.start for each in weeks] == [NOON - timedelta(days=7 * place) for place in (1, 2, 3, 4)]
    long = Window(NOON, NOON + timedelta(days=10))
    assert long.before("same_weekday")[0].end <= long.start


def test_counters_and_packed_scores_of_what_is_left_are_those_of_a_scan_when_jobs_are_erased(
    engine: Engine, tmp_path: Path
) -> None:
    hours = (-30, -1, -1, 0, 0, 3)
    batches = [(NOON + timedelta(hours=hour, minutes=17), rows(300)) for hour in hours]
    ids = [store(engine, batch, at=at) for at, batch in batches]
    counter = counting(engine, tmp_path)
    assert counter.run(seconds=30) == 1_800
    uncounted = store(engine, rows(20))
    left = [batches[place] for place in (1, 4)]
    with engine.begin() as connection:
        erase(connection, [ids[place] for place in (0, 2, 3, 5)] + [uncounted])
    with reader(engine).connect() as connection:
        stored = find_profile(connection, 1)
        assert stored is not None
        for at, batch in left:
            count, counts = sum_counts(connection, 1, [Window.around(at, at + timedelta(minutes=1))])
            scores = [{"score": score(row).probability, "decision": score(row).label} for row in batch]
            assert (count, counts) == (300, stored.profile.count(batch, scores))
        assert sum_counts(connection, 1, [Window.around(NOON - timedelta(days=3), NOON - timedelta(hours=5))]) == (
            0,
            None,
        )
        whole = Window.around(NOON - timedelta(days=3), NOON + timedelta(days=3))
        packed = list(StoredScores(connection, 1, whole.start, whole.end, with_ids=True, with_decisions=True).days())
        stored = connection.execute(
            text("SELECT input_id, probability, prediction FROM model_outputs ORDER BY input_id")
        ).all()
    columns = [
        (int(input_id), float(probability), int(decision))
        for day in packed
        for input_id, probability, decision in zip(day.input_ids, day.scores, day.decisions, strict=True)
    ]
    assert sorted(columns) == [(row[0], row[1], int(row[2])) for row in stored]
    assert len(columns) == total(engine) == 600
    assert counter.run(seconds=30) == 0


def test_rows_that_are_erased_while_they_are_counted_are_not_counted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, erased = (store(engine, rows(50)) for _ in range(2))
    counter = counting(engine, tmp_path)
    count_all = counter._count

    def count_and_erase(*arguments: Any) -> Any:
        counted = count_all(*arguments)
        monkeypatch.undo()
        with engine.begin() as connection:
            erase(connection, [erased])
        return counted

    monkeypatch.setattr(counter, "_count", count_and_erase)
    last = 0
    for _ in range(3):
        last += counter.run(seconds=30)
    assert (last, total(engine)) == (50, 50)
    with engine.connect() as connection:
        assert {str(job) for job in connection.scalars(text("SELECT id FROM jobs"))} == {kept}


def test_alerts_of_a_version_that_has_scored_nothing_for_a_week_are_closed(engine: Engine, tmp_path: Path) -> None:
    today = datetime.now(UTC)
    store(engine, rows(500, shift=3.0), at=today - timedelta(hours=3))
    counting(engine, tmp_path).run(seconds=30)

    def open_alerts(now: datetime) -> int:
        update_drift_alerts(engine, now=now)
        with reader(engine).connect() as connection:
            return len(list_alerts(connection, name="m", is_open=True, before=None, limit=9))

    assert open_alerts(today) >= 2
    assert open_alerts(today + timedelta(days=6)) >= 2  # a quiet weekend
    assert open_alerts(today + timedelta(days=8)) == 0
