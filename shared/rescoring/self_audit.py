"""The fast scorers audit themselves: a share of what was scored is scored again by the pipeline, beside the service.

A round draws some of the ids that were stored since the last one, and compares. A difference above the tolerance of the
proof (shared/scoring/parity.py) is an incident: it opens an alert, and with that the version is suspended
(shared/monitoring/suspensions.py).
"""

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, Engine, insert, select, update

from shared.database.clock import clock
from shared.database.engine import reader
from shared.faults import Fault
from shared.monitoring.settled import settled_id
from shared.monitoring.suspensions import SELF_AUDIT
from shared.observability import timed_tasks
from shared.observability.metrics import AUDITED_ROWS, METRICS
from shared.observability.timed_tasks import find_mark, move_mark
from shared.registry.loading import LoadedModel, by_pipeline
from shared.rescoring.stored import OUTPUT
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.scoring.parity import TOLERANCE
from shared.scoring.scores import CLOSE
from shared.tables import Alert, Incident, ModelInput, ModelOutput, ModelVersion

ROUND_SECONDS = 1.0  # at least, between two rounds
MOST_SECONDS = 2.0  # what was not drawn in so long is not made up for
SECONDS = 1.0  # of scoring in a round: the rows that it does not come to are skipped
LOADING_SECONDS = 120.0  # for a model that is not loaded yet: the rounds wait for it, once
PIECE = 20  # rows that are scored at once
EXAMPLES = 5  # rows that the alert itself names
KEPT = 1_000  # incidents of one alert: a version that is all wrong says so at once

log = logging.getLogger(__name__)

Row = dict[str, Any]
# Scores rows of a version by its pipeline; None where the version is not loaded.
Score = Callable[[int, list[Row]], "list[Output | Fault] | None"]


class NotScored(Exception):
    """The pipeline was lost, ran out of memory or took too long: the scores are neither right nor wrong."""


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """A row that was drawn, with the score that its caller got."""

    input_id: int
    job_id: str
    index: int
    features: Row
    output: Output


@dataclass(frozen=True, slots=True)
class Difference:
    """A score that the pipeline does not give."""

    row: AuditedRow
    expected: Output | Fault
    distance: float  # of the numbers; infinite where the pipeline refuses the row


@dataclass(slots=True)
class VersionAudit:
    """The results of a round for one version."""

    version: int
    label: str  # name@version
    scorer: str  # the kind that was registered
    rows: list[AuditedRow]
    equal: int = 0
    failed: int = 0  # the pipeline raised, was lost, ran out of memory or took too long
    skipped: int = 0  # its model is not loaded, or the time was up
    is_loaded: bool = True
    differences: list[Difference] = field(default_factory=list)

    @property
    def checked(self) -> int:
        """Rows that were compared."""
        return self.equal + len(self.differences)


@dataclass(frozen=True, slots=True)
class Round:
    """What was drawn between two ids of outputs, and what came out."""

    start: int | None  # None: the first round, which draws nothing
    end: int
    audits: list[VersionAudit]

    @property
    def wrong_versions(self) -> set[int]:
        """Versions whose fast scorer gave a wrong score."""
        return {audit.version for audit in self.audits if audit.differences}

    @property
    def row_count(self) -> int:
        """Rows that were drawn."""
        return sum(len(audit.rows) for audit in self.audits)


class SelfAudit:
    """Draws rows and scores them again. A process that ends in between loses no row and reports none twice."""

    def __init__(self, engine: Engine, score: Score, *, share: float, rows_per_second: int) -> None:
        self._engine = engine
        self._score = score
        self._share = share
        self._rows_per_second = rows_per_second
        self._random = np.random.default_rng()
        self._missing: dict[int, float] = {}  # versions that were not loaded -> since when, by the monotonic clock

    def check(self) -> Round | None:
        """Audit what was stored since the last round; None where nothing was, or a model is being loaded.

        Nothing is written: after None, the next round begins where this one did.

        Raises SQLAlchemyError without a database.
        """
        end = settled_id(self._engine)
        if end is None:  # somebody takes long to store: the next round sees to it
            return None
        with reader(self._engine).connect() as connection:
            start, age = find_mark(connection, timed_tasks.SELF_AUDIT)
            if start is None:
                return Round(None, end, [])
            if start >= end:
                return None
            audits = _read(connection, self._draw(start, end, age))
        random.shuffle(audits)  # a slow one does not always come before the others
        for audit in audits:
            random.shuffle(audit.rows)  # those that are skipped are any of them
            until = math.inf
            for first in range(0, len(audit.rows), PIECE):
                self._score_again(audit, audit.rows[first : first + PIECE], is_late=time.monotonic() > until)
                if first == 0:  # for which a process may have had to start
                    until = time.monotonic() + SECONDS / len(audits)
        awaited = [audit for audit in audits if self._is_awaited(audit)]
        return None if awaited else Round(start, end, audits)

    def store(self, done: Round) -> None:
        """Write a round down: its incidents, and that it was done, in one transaction.

        A version with incidents is suspended with the COMMIT. Where another process has done the round meanwhile,
        nothing is written. Raises SQLAlchemyError without a database.
        """
        with self._engine.begin() as connection:
            if not move_mark(connection, timed_tasks.SELF_AUDIT, done.start, done.end):
                return
            for audit in done.audits:
                if audit.differences:
                    _record(connection, audit)
        for audit in done.audits:
            _tell(audit)

    def _is_awaited(self, audit: VersionAudit) -> bool:
        """Return whether a version may still be loaded: a process that has just started has no model yet."""
        if audit.is_loaded:
            self._missing.pop(audit.version, None)
            return False
        now = time.monotonic()
        return now - self._missing.setdefault(audit.version, now) < LOADING_SECONDS

    def _draw(self, start: int, end: int, age: float) -> list[int]:
        """Return ids above the start, each drawn with the probability `share`, and not too many for so many seconds."""
        most = int(self._rows_per_second * min(max(age, 0.0), MOST_SECONDS))
        count = min(int(self._random.binomial(end - start, self._share)), most)
        return random.sample(range(start + 1, end + 1), count)

    def _score_again(self, audit: VersionAudit, rows: list[AuditedRow], *, is_late: bool) -> None:
        if is_late:
            audit.skipped += len(rows)
            return
        try:
            results = self._score(audit.version, [row.features for row in rows])
        except (NotScored, MemoryError) as error:
            log.warning("%d rows of %s were not scored again (%s)", len(rows), audit.label, type(error).__name__)
            audit.failed += len(rows)
            return
        if results is None:
            audit.skipped += len(rows)
            audit.is_loaded = False
            return
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Fault) and result.code == "model_failed":
                audit.failed += 1  # it broke: that says nothing of the score, and it could not serve
            elif (difference := compare(row, result)) is not None:
                audit.differences.append(difference)
            else:
                audit.equal += 1


def score_by_pipeline(model: LoadedModel, rows: Sequence[Row]) -> list[Output | Fault]:
    """Score canonical rows (n dicts) by the estimator as it was trained, whatever way the model is scored else."""
    return score_rows(by_pipeline(model), rows)


def compare(row: AuditedRow, expected: Output | Fault) -> Difference | None:
    """Return how a row's score differs from the pipeline's; None where it does not, by more than rounding."""
    if isinstance(expected, Fault):
        return Difference(row, expected, math.inf)
    stored = row.output
    before, now = _values(stored), _values(expected)
    distances = [abs(one - other) / max(1.0, abs(other)) for one, other in zip(before, now, strict=False)]
    distance = max(distances, default=0.0)
    is_far = len(before) != len(now) or not distance <= TOLERANCE
    if is_far or (stored.task != "regression" and stored.prediction != expected.prediction and not _is_tie(expected)):
        return Difference(row, expected, distance)
    return None


def _values(output: Output) -> list[float]:
    if output.task == "regression":
        return [output.prediction]
    return output.probabilities or ([] if output.probability is None else [output.probability])


def _is_tie(output: Output) -> bool:
    """Return whether rounding may decide the class: then both classes are right."""
    if output.probabilities:
        first, second = sorted(output.probabilities)[-1:-3:-1]
        return first - second <= CLOSE
    if output.probability is None:
        return False
    return abs(output.probability - (0.5 if output.threshold is None else output.threshold)) <= CLOSE


def _record(connection: Connection, audit: VersionAudit) -> None:
    """Store the incidents of a version and open its alert, or add to it."""
    now = clock(connection)
    alert = connection.execute(
        select(Alert.id, Alert.details)
        .where(Alert.model_version_id == audit.version, Alert.kind == SELF_AUDIT, Alert.closed_at.is_(None))
        .with_for_update()
    ).one_or_none()
    before = {} if alert is None else alert.details
    finite = [each.distance for each in audit.differences if math.isfinite(each.distance)]
    details = {
        "scorer": audit.scorer,
        "rows_checked": before.get("rows_checked", 0) + audit.checked,
        "rows_differing": before.get("rows_differing", 0) + len(audit.differences),
        "max_difference": max([before.get("max_difference", 0.0), *finite]),
        "examples": [*before.get("examples", []), *map(_example, audit.differences)][:EXAMPLES],
    }
    if alert is None:
        about = {"model_version_id": audit.version, "kind": SELF_AUDIT, "subject": "score", "level": "high"}
        opened = insert(Alert).values(**about, details=details, opened_at=now, seen_at=now).returning(Alert.id)
        alert_id = connection.execute(opened).scalar_one()
    else:
        alert_id = alert.id
        connection.execute(update(Alert).where(Alert.id == alert_id).values(details=details, seen_at=now))
    left = max(0, KEPT - before.get("rows_differing", 0))
    rows = [_incident(difference) | {"alert_id": alert_id} for difference in audit.differences[:left]]
    if rows:
        connection.execute(insert(Incident).values(found_at=now), rows)


def _example(difference: Difference) -> dict[str, Any]:
    row, expected = difference.row, difference.expected
    return {
        "job_id": row.job_id,
        "row": row.index,
        "prediction": row.output.prediction,
        "probability": row.output.probability,
        "expected": None
        if isinstance(expected, Fault)
        else {"prediction": expected.prediction, "probability": expected.probability},
    }


def _incident(difference: Difference) -> dict[str, Any]:
    stored, expected = difference.row.output, difference.expected
    return {
        "input_id": difference.row.input_id,
        "prediction": stored.prediction,
        "probability": stored.probability,
        "expected_prediction": None if isinstance(expected, Fault) else expected.prediction,
        "expected_probability": None if isinstance(expected, Fault) else expected.probability,
        "difference": difference.distance if math.isfinite(difference.distance) else None,
    }


def _tell(audit: VersionAudit) -> None:
    """Count what came out in the metrics, and log where a score was wrong."""
    wrong = len(audit.differences)
    counts = {"equal": audit.equal, "different": wrong, "failed": audit.failed, "skipped": audit.skipped}
    for result, count in counts.items():
        if count:
            METRICS.count(AUDITED_ROWS, (audit.label, result), count)
    if wrong:
        log.error(
            "%s is scored by its pipeline from now on: %d of %d rows that were scored again differ from what %s gave",
            audit.label,
            wrong,
            audit.checked,
            audit.scorer,
        )


def _read(connection: Connection, output_ids: list[int]) -> list[VersionAudit]:
    """Return rows by version; those of versions that the pipeline itself scores are left out."""
    if not output_ids:
        return []
    rows = connection.execute(
        select(
            ModelVersion.id,
            ModelVersion.name,
            ModelVersion.version,
            ModelVersion.scorer,
            ModelInput.id,
            ModelInput.job_id,
            ModelInput.row_index,
            ModelInput.features,
            *OUTPUT,
        )
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .join(ModelVersion, ModelVersion.id == ModelOutput.model_version_id)
        .where(ModelOutput.id.in_(output_ids))
    )
    audits: dict[int, VersionAudit] = {}
    for version, name, number, scorer, input_id, job_id, index, features, *output in rows:
        if scorer["kind"] != "pipeline":
            audit = audits.setdefault(version, VersionAudit(version, f"{name}@{number}", scorer["kind"], []))
            audit.rows.append(AuditedRow(input_id, str(job_id), index, features, Output(*output)))
    return list(audits.values())
