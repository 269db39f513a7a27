"""A version replaces the champion only after a fresh replay within the limits; force is kept with its reason."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from shared.comparison.gate import Gate
from shared.comparison.pairs import Pairs
from shared.comparison.tally import Tally
from shared.config.settings import Settings
from shared.errors import Conflict
from shared.registry.aliases import Change, find_alias, promote, roll_back
from shared.tables import AuditLog, Job, Replay, ScorePairs
from tests.support.cards import people, use
from tests.support.databases import empty, sqlite_engine, submission

OPEN = Gate(24, 50, None, None, 0.0, None)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with sqlite_engine(Path(tmp_path_factory.mktemp("gate"))) as engine:
        yield engine


@pytest.fixture
def session(engine: Any) -> Iterator[Session]:
    empty(engine)
    use(engine, people(), people(version=2))
    with Session(engine) as session, session.begin():
        session.execute(text("DELETE FROM score_pairs"))
        promote(session, "m", 1)
        yield session
        session.rollback()


def replayed(
    session: Session, *, pairs: int = 60, flips: int = 0, refused: int = 0, hours: float = 1, champion: int = 1
) -> str:
    """Store a replay of version 2 that ended so many hours ago."""
    ended = datetime.now(UTC) - timedelta(hours=hours)
    job = submission(rows=0, kind="replay", lane="bulk", model_version_id=2)
    times = dict.fromkeys(("created_at", "run_after", "finished_at"), ended)
    counts = {"row_count": pairs + refused, "failed_count": refused}
    session.execute(insert(Job).values({**job.columns(), **counts, "state": "succeeded", **times}))
    decided = np.zeros(pairs, np.int16)
    compared = Pairs(np.arange(pairs), np.full(pairs, 0.1), np.full(pairs, 0.3), decided, decided.copy())
    compared.decided_after[:flips] = 1
    about = {"starts_at": ended, "ends_at": ended, "filter": {}, "versions": [], "cost_fp": 1.0, "cost_fn": 1.0}
    session.execute(insert(Replay).values(job_id=job.id, **about))
    part = {"job_id": job.id, "model_version_id": 2, "decided_by_id": champion, "starts_at": ended, "first_row": 0}
    tally = Tally.of("binary", compared, refused=refused)
    session.execute(insert(ScorePairs).values(**part, row_count=pairs, tally=tally.dump(), pairs=compared.dump()))
    return job.id


def test_settings_without_a_gate_have_none():
    assert Gate.of(Settings(runtime="sync")) is None
    gate = Gate.of(Settings(runtime="sync", promotion_gate="replay", promotion_max_flips=0.1))
    assert (gate.max_flips, gate.max_shift, gate.max_refused) == (0.1, None, 0)


@pytest.mark.parametrize(
    "replay", [None, {"pairs": 49}, {"hours": 25}, {"champion": 2}], ids=["none", "too few", "too old", "of another"]
)
def test_promotion_without_a_fresh_replay_is_refused_with_what_to_do(session, replay):
    if replay is not None:
        replayed(session, **replay)
    with pytest.raises(Conflict) as refusal:
        promote(session, "m", 2, gate=OPEN)
    message = refusal.value.detail
    assert "m@2 is not promoted" in message
    assert "within the last 24 h with at least 50 decisions of m@1" in message
    assert "guichet replay m@2" in message
    assert "force" in message
    assert find_alias(session, "m", "champion").version == 1


def test_promotion_after_a_fresh_replay_within_the_limits_goes_through(session):
    replayed(session, flips=3)
    promote(session, "m", 2, gate=Gate(24, 50, 0.05, 0.2001, 0.0, None))
    assert find_alias(session, "m", "champion").version == 2
    assert roll_back(session, "m").version == 1  # without any replay


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (Gate(24, 50, 0.05, None, 1.0, None), "10.00% of the decisions flip, and PROMOTION_MAX_FLIPS is 5.00%"),
        (Gate(24, 50, None, 0.1, 1.0, None), "scores move by 0.2 in the mean, and PROMOTION_MAX_SHIFT is 0.1"),
        (OPEN, "25.00% of the rows are refused, and PROMOTION_MAX_REFUSED is 0.00%"),
    ],
)
def test_promotion_over_a_limit_is_refused_and_names_it(session, gate, message):
    job_id = replayed(session, flips=6, refused=20)
    with pytest.raises(Conflict) as refusal:
        promote(session, "m", 2, gate=gate)
    assert message in refusal.value.detail
    assert f"GET /jobs/{job_id}/result" in refusal.value.detail


def test_newest_replay_counts(session):
    replayed(session, flips=30)
    replayed(session)
    promote(session, "m", 2, gate=Gate(24, 50, 0.0, None, 0.0, None))


def test_loss_of_auc_is_a_limit_where_it_is_known():
    gate = Gate(24, 50, None, None, None, 0.01)
    report: dict[str, Any] = {"pairs": 100, "refused": 0, "flips": None, "score_shift": None, "outcomes": None}
    assert gate.faults(report) == []
    report["outcomes"] = {"rows": 9, "roc_auc": {"before": 0.8, "after": 0.75}}
    assert gate.faults(report) == ["ROC AUC falls by 0.0500, and PROMOTION_MAX_AUC_LOSS is 0.01"]
    report["outcomes"]["roc_auc"]["after"] = 0.9
    assert gate.faults(report) == []


def test_forced_promotion_needs_a_reason_and_is_audited_with_what_it_overruled(session):
    with pytest.raises(Conflict, match="needs a reason"):
        promote(session, "m", 2, change=Change(is_forced=True), gate=OPEN)
    promote(session, "m", 2, change=Change("the old one is broken", is_forced=True), gate=OPEN)
    entry = session.scalars(select(AuditLog).where(AuditLog.target == "m@2").order_by(AuditLog.id.desc())).first()
    assert entry.details["forced"] is True
    assert entry.details["reason"] == "the old one is broken"
    assert "there is none" in entry.details["overruled"]


def test_other_aliases_and_a_first_champion_need_no_replay(session):
    promote(session, "m", 2, "challenger", gate=OPEN)
    session.execute(text("DELETE FROM model_aliases"))
    promote(session, "m", 2, gate=OPEN)
    assert find_alias(session, "m", "champion").version == 2
