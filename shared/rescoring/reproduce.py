"""A past decision made again: the same artefact, by its SHA-256, scores the stored input once more.

Every difference is named: in the artefact, the card, the input, the output, or the libraries that score.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection, Row, select

from shared.cards.card import Card
from shared.cards.seal import is_intact
from shared.errors import ArtefactError, CardError, Conflict, ModelError, NotFound
from shared.faults import Fault
from shared.jobs.queries.lineage import find_promotion
from shared.packages.fetching import ensure_local
from shared.packages.package import CARD_FILE, MODEL_FILE, warn_version_mismatch
from shared.registry.loading import LoadedModel, as_in_a_worker, load
from shared.rescoring.bits import Again, distance, score_again
from shared.rescoring.stored import StoredRow, list_stored_rows
from shared.scoring.outputs import Output
from shared.tables import Job, ModelVersion

PIECE = 1_000  # rows that are read and scored at once
ROUNDING = 1e-9  # a smaller difference may also be that of another release, or another processor


@dataclass(frozen=True, slots=True)
class RowFinding:
    """What became of a row that was scored again."""

    index: int
    changed: str  # empty: nothing; else input, output, `input or output`, or libraries
    message: str  # a sentence
    stored: Output | None
    now: Output | Fault | None
    company: str = ""  # in which it has the same score


@dataclass(slots=True)
class Reproduction:
    """What decided, and whether it decides the same again."""

    job: Row[Any]
    version: ModelVersion
    promotion: Row[Any] | None
    folder: Path
    changed: dict[str, str] = field(default_factory=dict)  # artefact or card -> what is wrong with it
    libraries: list[str] = field(default_factory=list)  # those that differ: `name at training -> here`
    scorer: str = ""  # the kind that scores here
    findings: list[RowFinding] = field(default_factory=list)

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.version.name}@{self.version.version}"

    @property
    def is_equal(self) -> bool:
        """Whether everything is as it was, and every score came out again."""
        return not self.changed and not any(finding.changed for finding in self.findings)

    def counts(self) -> Counter[str]:
        """Return how many rows there are by what was changed; equal ones under ``."""
        return Counter(finding.changed for finding in self.findings)

    def report(self) -> dict[str, Any]:
        """Return all of it; JSON, but for times and the folder."""
        moved = self.promotion
        counts = self.counts()
        return {
            "job_id": self.job.id,
            "model": self.version.name,
            "version": self.version.version,
            "sha256": self.version.sha256,
            "folder": self.folder,
            "is_equal": self.is_equal,
            "changed": self.changed,
            "promotion": None
            if moved is None
            else {"at": moved.created_at, "by": moved.actor, "from": moved.from_version, "reason": moved.reason},
            "scorer": self.scorer,
            "registered_scorer": self.version.scorer["kind"],
            "threshold": self.version.card.get("threshold"),
            "libraries": self.version.card.get("libraries", {}),
            "libraries_that_differ": self.libraries,
            "counts": {"rows": len(self.findings), "equal": counts.pop("", 0), **counts},
            "rows": [asdict(finding) for finding in self.findings],
        }


def reproduce(
    connection: Connection, job_id: str, row: int | None, *, models_dir: Path, store: str | None = None
) -> Reproduction:
    """Score a stored row again, or with None every row of a job; nothing is written.

    Raises NotFound for an unknown job or row, Conflict for a job without scores.
    """
    job = None
    with suppress(ValueError):
        job = connection.execute(select(Job.__table__).where(Job.id == str(UUID(job_id)))).one_or_none()
    if job is None:
        raise NotFound(f"There is no job {job_id[:70]!r}: `guichet jobs` lists them.")
    version = ModelVersion(
        **connection.execute(select(ModelVersion.__table__).where(ModelVersion.id == job.model_version_id))
        .one()
        ._asdict()
    )
    promotion = find_promotion(connection, version.name, version.version, job)
    reproduction = Reproduction(job, version, promotion, ensure_local(version, models_dir, store))
    _check_card(reproduction)
    try:
        with as_in_a_worker():
            model = load(version, models_dir)
    except ModelError as error:  # what is not the registered artefact is not unpickled
        reproduction.changed["card" if isinstance(error, CardError) else "artefact"] = error.detail
        return reproduction
    reproduction.scorer = model.scorer.kind
    reproduction.libraries = warn_version_mismatch(reproduction.folder / MODEL_FILE, model.card.libraries)
    first, last = (0, job.row_count) if row is None else (row, row + 1)
    for start in range(first, last, PIECE):
        rows = list_stored_rows(connection, job_id, version.id, first=start, count=min(PIECE, last - start))
        with as_in_a_worker():
            reproduction.findings += _again(reproduction, model, rows)
    if not reproduction.findings:
        if row is not None:
            raise NotFound(f"Job {job_id} has no row {row} that is stored: its rows are 0 to {job.row_count - 1}.")
        raise Conflict(f"No row of job {job_id} is stored: there is nothing to score again.")
    return reproduction


def _check_card(reproduction: Reproduction) -> None:
    """Note where the card in the database, by which rows are scored, is not the one beside the artefact."""
    try:
        registered = Card.model_validate(reproduction.version.card)
        beside = Card.load(reproduction.folder / CARD_FILE)
    except (ArtefactError, CardError, ValidationError) as error:
        reproduction.changed["card"] = (
            error.detail if isinstance(error, ModelError) else "The registered card is not valid."
        )
        return
    fields = [name for name in Card.model_fields if getattr(beside, name) != getattr(registered, name)]
    if fields:
        reproduction.changed["card"] = (
            f"The card in the database and {reproduction.folder / CARD_FILE} differ in {', '.join(fields)}: "
            "one of them was changed since the version was registered."
        )


def _again(reproduction: Reproduction, model: LoadedModel, rows: list[StoredRow]) -> list[RowFinding]:
    scored = [row for row in rows if row.output is not None]
    outputs = [row.output for row in scored if row.output is not None]
    again = dict(
        zip((row.index for row in scored), score_again(model, [row.features for row in scored], outputs), strict=True)
    )
    return [_finding(reproduction, model, row, again.get(row.index)) for row in rows]


def _finding(reproduction: Reproduction, model: LoadedModel, row: StoredRow, again: Again | None) -> RowFinding:
    intact = is_intact(model.card, row.features, row.sha256)
    if again is None or row.output is None:
        if intact is False:
            return RowFinding(row.index, "input", "the stored input is not what was accepted", None, None)
        message = "it has no score: it was refused" if row.is_faulty else "it has no score: its job did not come to it"
        if not row.is_faulty and reproduction.job.state == "succeeded":
            return RowFinding(row.index, "output", "its output is no longer stored", None, None)
        return RowFinding(row.index, "", message, None, None)
    off = _difference(row.output, again)
    if intact is False:
        same = "its score is the same all the same" if again.is_equal else off
        return RowFinding(
            row.index, "input", f"the stored input is not what was accepted; {same}", row.output, again.score
        )
    if again.is_equal:
        return RowFinding(row.index, "", "", row.output, again.score, again.company)
    if reproduction.libraries or model.scorer.kind != reproduction.version.scorer["kind"]:
        why = "other libraries score here than at training"
        if model.scorer.kind != reproduction.version.scorer["kind"]:
            why = f"it is scored by {model.scorer.kind} here, and was by {reproduction.version.scorer['kind']}"
        return RowFinding(row.index, "libraries", f"{why}; {off}", row.output, again.score)
    where = "output" if intact else "input or output"
    message = f"the stored {where} was changed; {off}"
    if isinstance(again.score, Output) and distance(again.score, row.output) < ROUNDING:
        message += ": so small a difference is also what another release, or another processor, makes"
    return RowFinding(row.index, where, message, row.output, again.score)


def _difference(stored: Output, again: Again) -> str:
    """Return the difference of a score from the stored one, as a sentence."""
    now = again.score
    if isinstance(now, Fault):
        return f"the model gives it no score now: it {now.message}"
    parts = [
        f"{name} {before!r}, now {after!r}"
        for name in ("prediction", "label", "probability", "probabilities", "threshold")
        if (before := getattr(stored, name)) != (after := getattr(now, name))
    ]
    return f"{', '.join(parts)} (by {distance(now, stored):.3g})"
