"""Jobs and results as callers see them: plain dicts for orjson."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from api.http.prefix import link
from api.models.catalog import Version
from api.runtimes.runtime import FARTHEST
from shared.cards.card import Card
from shared.cards.classes import classes_of
from shared.cards.response import Response, fill
from shared.errors import Conflict
from shared.explanations.storage import find_explanation
from shared.jobs.queries.events import count_rows, progress_of
from shared.jobs.queries.files import StoredCsv
from shared.jobs.queries.jobs import RowResult, StoredJob, StoredOutput, list_rows
from shared.jobs.reproductions import find_reproduction
from shared.jobs.trainings import find_report
from shared.tables import JobKind, JobState


def job_body(
    job: StoredJob,
    version: Version,
    words: Response | None,
    *,
    position: int | None = None,
    eta_seconds: float | None = None,
) -> dict[str, Any]:
    """Return a job; `position` and `eta_seconds` are given while it is queued, `words` name its result's fields."""
    body = _job_body(job, _queue_place(position, eta_seconds))
    body |= {
        "model": version.card.name,
        "model_version": version.card.version,
        "model_sha256": version.sha256,
    }
    if job.csv is not None:
        if job.kind == JobKind.EXPLAIN_BATCH:
            body["explains"] = job.csv.source_job_id
        elif job.kind == JobKind.CSV:
            body["csv"] = _csv_body(job.csv, version.card)
        body["progress"] = progress_of(job)
    if job.output is not None:
        body["result"] = result_body(job, version, job.output, words)
    return body


def registration_job_body(
    job: StoredJob, *, position: int | None = None, eta_seconds: float | None = None
) -> dict[str, Any]:
    """Return a job that registers a model, with the version that it became, if there is one."""
    assert job.registration is not None
    about: dict[str, Any] = {
        "model": job.registration.name,
        "model_version": job.registration.version,
        "model_sha256": job.registration.sha256,
    }
    if job.kind == JobKind.TRAIN:
        about["training"] = job.registration.progress
    return _job_body(job, _queue_place(position, eta_seconds)) | about


def _job_body(job: StoredJob, place: dict[str, Any]) -> dict[str, Any]:
    """Return what jobs of all kinds have; the fields of the model are in their places, and empty."""
    counts = count_rows(job)
    body: dict[str, Any] = {
        "id": job.id,
        "kind": job.kind,
        "status": job.state,
        "model": None,
        "model_version": None,
        "model_sha256": None,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": job.expires_at,
        "attempts": job.attempt,
        "counts": counts,
        "queue": place if job.state == JobState.QUEUED else None,
        "has_failures": counts["failed"] > 0,
        "request_id": job.request_id,
        "links": job_links(job),
    }
    if job.cancel_requested_at is not None and not job.is_terminal:
        body["cancel_requested_at"] = job.cancel_requested_at
    if job.attempt > 1:
        body["claims"] = {"crashes": job.crash_count, "last_claimed_at": job.claimed_at}
    if job.error is not None:
        body["error"] = job.error
    return body


def _queue_place(position: int | None, eta_seconds: float | None) -> dict[str, Any]:
    return {
        "position": position,
        "eta_seconds": eta_seconds,
        "is_lower_bound": position is not None and position >= FARTHEST,
    }


def job_links(job: StoredJob) -> dict[str, str]:
    """Return the links of a job."""
    links = {"self": link(f"/jobs/{job.id}"), "result": link(f"/jobs/{job.id}/result")}
    if job.csv is not None:
        links |= _file_links(job) | {"events": link(f"/jobs/{job.id}/events")}
    if not job.is_terminal:
        links["cancel"] = link(f"/jobs/{job.id}/cancel")
    elif job.csv is not None and job.csv.chunks_done < job.csv.chunk_count:
        links["retry"] = link(f"/jobs/{job.id}/retry")
    return links


def _file_links(job: StoredJob) -> dict[str, str]:
    return {"output": link(f"/jobs/{job.id}/output.csv"), "errors": link(f"/jobs/{job.id}/errors.csv")}


def _csv_body(file: StoredCsv, card: Card) -> dict[str, Any]:
    names = {feature.name for feature in card.row_features} | {file.format.id_column}
    return {
        "filename": file.filename,
        "delimiter": file.format.delimiter,
        "encoding": file.format.encoding,
        "decimal": file.format.decimal,
        "thousands": file.format.thousands,
        "currency": file.format.currency,
        "id_column": file.format.id_column,
        "extra_columns": [name for name in file.format.columns if name not in names],
        "bytes": file.byte_count,
        "max_error_rate": file.max_error_rate,
        "notices": file.notices,
    }


def csv_result_body(job: StoredJob, version: Version, _rows: object, _words: object) -> dict[str, Any]:
    """Return the result of a CSV job: how many rows were scored or explained, and where its files are."""
    counts = count_rows(job)
    return {
        **_about(job, version),
        "n_rows": job.row_count,
        "counts": counts,
        "has_failures": counts["failed"] > 0,
        "links": _file_links(job),
        "latency_ms": _latency(job),
    }


def result_body(job: StoredJob, version: Version, output: StoredOutput, words: Response | None) -> dict[str, Any]:
    """Return the result of a single-row job."""
    if words is not None and words.fields:
        body = fill(words.fields, _score_sources(version.card, output) | _job_sources(job, version))
    else:
        body = {**_about(job, version), **score_body(version.card, output), "latency_ms": _latency(job)}
    return _with_quality(body, output)


def _with_quality(body: dict[str, Any], output: StoredOutput) -> dict[str, Any]:
    """Return the answer for a row, with its quality if the caller requested it (null: unknown)."""
    if output.quality is not None:
        body["quality"] = output.quality or None
    return body


def _about(job: StoredJob, version: Version) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "request_id": job.request_id,
        "model": version.card.name,
        "model_version": version.card.version,
    }


def _job_sources(job: StoredJob, version: Version) -> dict[str, Any]:
    return _about(job, version) | {"latency_ms": _latency(job)}


def _score_sources(card: Card, output: StoredOutput) -> dict[str, Any]:
    """Return all that a card may name of a row's score, `probabilities` by label also for two classes.

    `confidence` is the probability of the class that is predicted.
    """
    probabilities = probabilities_of(output)
    by_label = None if probabilities is None else dict(zip(card.labels.values(), probabilities, strict=True))
    confidence = None if by_label is None else by_label.get(str(output.label))
    return score_body(card, output) | {"probabilities": by_label, "confidence": confidence}


def probabilities_of(output: StoredOutput) -> list[float] | None:
    """Return the probabilities of all classes, in the card's order; None where the model gives none."""
    if output.probabilities is not None or output.probability is None:
        return output.probabilities
    return [1.0 - output.probability, output.probability]


def score_body(card: Card, output: StoredOutput) -> dict[str, Any]:
    """Return the score of one row: prediction, label, probability, threshold, and all probabilities of many classes."""
    prediction: float | int | str = output.prediction
    if card.task == "binary":
        prediction = int(output.prediction)
    elif card.task == "multiclass":
        prediction = list(classes_of(card).values())[int(output.prediction)]
    body: dict[str, Any] = {
        "prediction": prediction,
        "label": output.label,
        "probability": output.probability,
        "threshold": output.threshold,
    }
    if output.probabilities is not None:
        body["probabilities"] = dict(zip(card.labels.values(), output.probabilities, strict=True))
    return body


def batch_body(job: StoredJob, version: Version, rows: list[RowResult], words: Response | None) -> dict[str, Any]:
    """Return the results of a batch in input order, each row with its own status."""
    about = {"n_rows": job.row_count, "has_failures": job.failed_count > 0}
    items = [_item(job, version, row, words) for row in rows]
    if words is not None and words.batch:
        return fill(words.batch, about | _job_sources(job, version) | {"items": items})
    return {**_about(job, version), **about, "items": items, "latency_ms": _latency(job)}


def _item(job: StoredJob, version: Version, row: RowResult, words: Response | None) -> dict[str, Any]:
    if row.output is None:
        return {"index": row.index, "status": "failed", "errors": row.faults or []}
    if words is not None and words.fields:
        body = fill(words.fields, _score_sources(version.card, row.output) | _job_sources(job, version))
    else:
        body = {"index": row.index, "status": "succeeded", **score_body(version.card, row.output)}
    return _with_quality(body, row.output)


def _latency(job: StoredJob) -> float | None:
    return latency_ms(job.created_at, job.finished_at)


def latency_ms(start: datetime, end: datetime | None) -> float | None:
    """Return the milliseconds from acceptance to the stored result."""
    return None if end is None else round((end - start).total_seconds() * 1000, 3)


# ── the result of each kind of job ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ResultForm:
    """How the result of a succeeded job is shown: `body` of the job, its version, what `read` found, and the words.

    Without `read`, the job itself has everything.
    """

    body: Callable[[StoredJob, Version, Any, Response | None], dict[str, Any]]
    read: Callable[[Connection, StoredJob], Any] | None = None


def _single_result(job: StoredJob, version: Version, _rows: object, words: Response | None) -> dict[str, Any]:
    assert job.output is not None  # it has succeeded
    return result_body(job, version, job.output, words)


def explanation_body(job: StoredJob, version: Version, explanation: Any, _words: object) -> dict[str, Any]:  # noqa: ANN401
    """Return the stored explanation of a row."""
    return {**_about(job, version), **stored_explanation_body(version, explanation), "latency_ms": _latency(job)}


def stored_explanation_body(version: Version, explanation: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    """Return an explanation as it was stored."""
    output = StoredOutput(explanation.prediction, None, explanation.probability, None, None)
    return {
        "method": explanation.method,
        "scale": explanation.scale,
        "label": explanation.label,
        "base_value": explanation.base_value,
        "value": explanation.value,
        "prediction": score_body(version.card, output)["prediction"],
        "probability": explanation.probability,
        "reference": explanation.reference,
        "contributions": explanation.contributions,
        "top": explanation.top,
    }


def outcome_body(outcome: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    """Return a stored outcome: the actual value, its revision, and when it was observed and recorded."""
    return {
        "actual": outcome.actual if outcome.label is None else outcome.label,
        "revision": outcome.revision,
        "observed_at": outcome.observed_at,
        "recorded_at": outcome.recorded_at,
    }


def _read_replay(connection: Connection, job: StoredJob) -> Any:  # noqa: ANN401 - needs numpy
    from shared.comparison.storage import collect_replay

    return collect_replay(connection, job.id)


def replay_body(job: StoredJob, version: Version, pairs: Any, _words: object) -> dict[str, Any]:  # noqa: ANN401
    """Return the report of a replay, with the outcomes that are known now."""
    return {
        **_about(job, version),
        **pairs.report(version.card),
        "links": _file_links(job),
        "latency_ms": _latency(job),
    }


def registration_body(job: StoredJob, version: Version, _rows: object, _words: object) -> dict[str, Any]:
    """Return the version that an upload became."""
    assert job.registration is not None
    card, scorer = version.card, version.scorer
    place = link(f"/models/{card.name}/versions/{card.version}")
    return {
        **_about(job, version),
        "version": card.version,
        "model_sha256": version.sha256,
        "alias": job.registration.alias,
        "files": {
            field: {name: file[name] for name in ("filename", "bytes", "sha256")}
            for field, file in job.registration.files.items()
        },
        "features": [feature.name for feature in card.features],
        "left_out": scorer.get("left_out", []),
        "card": card.model_dump(mode="json"),
        "scorer": scorer,
        "links": {"version": place, "predict": link(f"/models/{card.name}@{card.version}/predict")},
        "latency_ms": _latency(job),
    }


def training_body(job: StoredJob, version: Version, report: Any, _words: object) -> dict[str, Any]:  # noqa: ANN401
    """Return the candidate version of a training, with its metrics, its threshold and its cards."""
    card = version.card
    place = link(f"/models/{card.name}/versions/{card.version}")
    return {
        **_about(job, version),
        "version": card.version,
        "model_sha256": version.sha256,
        "alias": None,
        "best": report["search"]["best"],
        "tried": report["search"]["tried"],
        "threshold": card.threshold,
        "decision": report.get("threshold"),
        **{name: report.get(name) for name in ("curve", "calibration")},
        **{name: report[name] for name in ("data_sha256", "rows", "task", "labels", "metrics", "importance", "notes")},
        "card": card.model_dump(mode="json"),
        "links": {
            "version": place,
            "card": f"{place}/card",
            "predict": link(f"/models/{card.name}@{card.version}/predict"),
        },
        "latency_ms": _latency(job),
    }


def reproduction_body(job: StoredJob, version: Version, report: Any, _words: object) -> dict[str, Any]:  # noqa: ANN401
    """Return what decided a past job, and whether it decides the same again."""
    names = ("sha256", "is_equal", "changed", "promotion", "scorer", "registered_scorer", "threshold", "libraries")
    return {
        **_about(job, version),
        "reproduces": report["job_id"],
        **{name: report[name] for name in (*names, "libraries_that_differ", "counts", "rows")},
        "latency_ms": _latency(job),
    }


RESULTS: dict[str, ResultForm] = {
    JobKind.PREDICT: ResultForm(_single_result),
    JobKind.BATCH: ResultForm(batch_body, read=list_rows),
    JobKind.CSV: ResultForm(csv_result_body),
    JobKind.EXPLAIN_BATCH: ResultForm(csv_result_body),
    JobKind.REPLAY: ResultForm(replay_body, read=_read_replay),
    JobKind.REGISTER: ResultForm(registration_body),
    JobKind.TRAIN: ResultForm(training_body, read=lambda connection, job: find_report(connection, job.id)),
    JobKind.REPRODUCE: ResultForm(
        reproduction_body, read=lambda connection, job: find_reproduction(connection, job.id)
    ),
    JobKind.EXPLAIN: ResultForm(explanation_body, read=lambda connection, job: find_explanation(connection, job.id)),
}


def result_form(job: StoredJob) -> ResultForm:
    """Return the form of a job's result; raise Conflict for a kind that only a newer release knows."""
    form = RESULTS.get(job.kind)
    if form is None:
        raise Conflict(
            f"This release does not know jobs of the kind {job.kind}: ask the release that took it.", job_id=job.id
        )
    return form
