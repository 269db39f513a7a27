"""Trainings: a file of rows, received and looked at, or the rows of a window; committed as a job that trains a version.

What needs no types is refused at once; columns are typed, and looked at for leaks, in the process of the training.
"""

import csv
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.files.models import ReceivedFile, check_uploads, unversioned_submission
from api.files.submit import find_stored, holder_of, spend_file
from api.files.uploads.body import UploadBody, UploadSlots, answer_upload
from api.files.uploads.spool import disk
from api.files.uploads.unwrapping import UploadDecoder, read_envelope
from api.jobs.json_body import read_json
from api.jobs.requests import find_version, read_fields, summarise
from api.jobs.submissions import set_idempotency_key, ticket_response
from api.parameters import find_strangers
from api.schemas.models.trainings import TrainBody, TrainQuery
from api.services import Services
from shared.cards.card import Card
from shared.csv.format import Chunk, CsvOptions, Limits, normalise_options, read_records
from shared.csv.uploads.columns import ExpectedColumns
from shared.database.engine import reader, run_again
from shared.errors import InvalidRequest, RowFaults, TooLarge
from shared.faults import Fault
from shared.jobs import registrations, trainings
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.registrations import DATA, Upload, UploadedFile
from shared.jobs.submission import Submission
from shared.registry.versions import NAME, NAME_RULE
from shared.tables import JobKind
from shared.training.checks import check_answers, check_columns, check_row_count
from shared.training.options import TrainingOptions, check_options, refusal

if TYPE_CHECKING:
    from shared.csv.uploads.reader import UploadReader

FORMAT = ("delimiter", "encoding", "decimal", "thousands")
JSON = "application/json"

_PLACES = UploadSlots(2, of_one=1)
_RECEIVING = CapacityLimiter(1)


async def receive_training(services: Services, request: Request, caller: Caller, query: TrainQuery) -> Response:
    """Receive a file of rows, or the description of a window, and answer 202 with the job that trains a version.

    A refusal may be sent before the whole body has arrived.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
        return await _submit_window(services, request, caller)
    body = UploadBody(request, max_bytes=services.settings.max_training_bytes)
    return await answer_upload(request, body, _submit_file(services, request, body, caller, query))


# ── a file ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def _submit_file(
    services: Services, request: Request, body: UploadBody, caller: Caller, query: TrainQuery
) -> Response:
    options, csv_options = _read_query(request, query)
    await run_in_threadpool(check_uploads, services)
    await spend_file(services, request, caller)
    submission = _submission(services, request, caller)
    envelope = read_envelope(request.headers)
    decoder = UploadDecoder(envelope, max_bytes=services.settings.max_training_bytes)
    place = _PLACES.one(holder_of(services, request, caller))
    with place, services.keys_in_flight.hold(submission), tempfile.TemporaryFile() as spooled:
        rows = TrainingRows(services, options, csv_options, ReceivedFile(spooled, None))
        while data := await body.read():
            await to_thread.run_sync(rows.take, decoder.unwrap(data), limiter=_RECEIVING)
        await to_thread.run_sync(rows.take, decoder.finish(), limiter=_RECEIVING)
        await to_thread.run_sync(rows.finish, limiter=_RECEIVING)
        rows.file.filename = decoder.filename
        return await _submit(services, request, caller, submission, options, csv_options, rows.file)


def _read_query(request: Request, query: TrainQuery) -> tuple[TrainingOptions, CsvOptions]:
    faults = find_strangers(request)
    if query.name is None or not NAME.fullmatch(query.name):
        reason = "is missing: name the model, e.g. churn" if query.name is None else f"cannot be a name: {NAME_RULE}"
        faults.append(Fault("/query/name", "name", reason))
    faults += [
        Fault(f"/query/{name}", "encoding", "holds a null byte")
        for name, value in query.model_dump(exclude_none=True).items()
        if isinstance(value, str) and "\0" in value
    ]
    if query.target is None:
        faults.append(Fault("/query/target", "missing", "is missing: name the column with the answer"))
    if faults:
        raise InvalidRequest(summarise(faults), faults=faults)
    csv_options = normalise_options(CsvOptions(**{word: getattr(query, word) for word in FORMAT}))
    options = TrainingOptions(
        name=str(query.name),
        target=str(query.target),
        task=query.task,
        positive=query.positive,
        leave_out=tuple(_names(query.leave_out)),
        estimators=None if query.estimators is None else tuple(_names(query.estimators)),
        draws=query.draws,
        seed=query.seed,
        cost_fp=query.cost_fp,
        cost_fn=query.cost_fn,
        target_recall=query.target_recall,
    )
    check_options(options)
    return options, csv_options


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


class TrainingRows:
    """A file of rows on its way in: kept as it came, and read for what can be refused at once."""

    def __init__(
        self, services: Services, options: TrainingOptions, csv_options: CsvOptions, file: ReceivedFile
    ) -> None:
        settings = services.settings
        self.file = file
        self._options = options
        self._limits = Limits(settings.max_training_bytes, settings.max_training_rows, settings.max_csv_record_bytes)
        self._csv_options = csv_options
        self._reader: UploadReader | None = None
        self._answers: list[str] = []  # cells of the target

    def take(self, pieces: Iterable[bytes]) -> None:
        """Keep and read the next bytes; raise InvalidRequest as soon as the header lacks a column."""
        for piece in pieces:
            self.file.add(piece)
            self._read(self._opened().feed(piece))

    def finish(self) -> None:
        """Read the rest; raise InvalidRequest for too few rows, missing answers, or one class."""
        self._read(self._opened().finish())
        check_row_count(len(self._answers))
        check_answers(self._answers, self._options.target)

    def _opened(self) -> "UploadReader":
        if self._reader is None:
            # Imported here: a process that never receives a file does without the libraries that split it.
            from shared.csv.uploads.reader import UploadReader

            self._reader = UploadReader(None, self._csv_options, self._limits, expected=ExpectedColumns(others=None))
        return self._reader

    def _read(self, chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            if b"\0" in chunk.data:
                raise refusal("unreadable", "The file holds a NUL character, which no database stores: remove it.")
            form = self._opened().format
            assert form is not None
            if not self._answers:
                check_columns(form.columns, self._options)
            place = list(form.columns).index(self._options.target)
            for record in read_records(chunk.data.decode(), form.delimiter):
                if len(record) != len(form.columns):
                    raise refusal(
                        "unreadable",
                        f"Row {len(self._answers) + 1} has {len(record)} cells, and the header {len(form.columns)}: "
                        "correct it.",
                    )
                self._answers.append(record[place])


# ── a window ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _submit_window(services: Services, request: Request, caller: Caller) -> Response:
    _, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    if request.query_params:
        names = sorted(request.query_params)
        faults = [Fault(f"/query/{name[:70]}", "unknown_parameter", "is a field of the body here") for name in names]
        raise InvalidRequest(summarise(faults), faults=faults)
    body = read_fields(TrainBody, raw)
    version = await find_version(services, body.model, None)
    options = _window_options(body, version.card)
    await run_in_threadpool(check_uploads, services)
    await spend_file(services, request, caller)
    submission = _submission(services, request, caller)
    start = body.from_ or datetime(1970, 1, 1, tzinfo=UTC)
    end = body.to or datetime.now(UTC)
    if start >= end:
        raise RowFaults("The window ends before it begins.", faults=[Fault("/from", "range", "must be before `to`")])
    place = _PLACES.one(holder_of(services, request, caller))
    with place, services.keys_in_flight.hold(submission), tempfile.TemporaryFile() as spooled:
        file = ReceivedFile(spooled, None)
        await run_in_threadpool(_write_window, services, version.card, options, (start, end), file)
        return await _submit(services, request, caller, submission, options, CsvOptions(), file)


def _window_options(body: TrainBody, card: Card) -> TrainingOptions:
    name = card.name if body.name is None else body.name
    if not NAME.fullmatch(name):
        raise RowFaults(
            "The training cannot be made.", faults=[Fault("/name", "name", f"cannot be a model's name: {NAME_RULE}")]
        )
    names = {feature.name for feature in card.sent_features}
    options = TrainingOptions(
        name=name,
        target=next(each for each in (card.target, "outcome", "outcome_") if each and each not in names),
        task=card.task,
        positive=body.positive or (list(card.labels.values())[1] if card.task == "binary" and card.labels else None),
        leave_out=tuple(body.leave_out),
        types={feature.name: feature.type for feature in card.sent_features},
        estimators=None if body.estimators is None else tuple(body.estimators),
        draws=body.draws,
        seed=body.seed,
        cost_fp=body.cost_fp,
        cost_fn=body.cost_fn,
        target_recall=body.target_recall,
    )
    check_options(options)
    return options


def _write_window(
    services: Services, card: Card, options: TrainingOptions, window: tuple[datetime, datetime], file: ReceivedFile
) -> None:
    """Write the reference rows of a model, and its rows of a window with their outcomes, as CSV."""
    names = [feature.name for feature in card.sent_features]
    check_columns([*names, options.target], options)
    answers: list[str] = []
    most, most_bytes = services.settings.max_training_rows, services.settings.max_training_bytes

    def write(rows: Iterable[list[Any]]) -> None:
        lines = io.StringIO()
        csv.writer(lines).writerows(rows)
        line = lines.getvalue().encode()
        if file.size + len(line) > most_bytes:
            raise TooLarge(
                f"The window's rows take more than {most_bytes:,} bytes (MAX_TRAINING_BYTES): choose a shorter one."
            )
        file.add(line)

    write([[*names, options.target]])
    with reader(services.bulk_engine).connect() as connection:
        for features, answer in trainings.answered_rows(connection, card, *window):
            if len(answers) >= most:
                raise TooLarge(f"The window has more than {most:,} rows (MAX_TRAINING_ROWS): choose a shorter one.")
            write([[*(features.get(name) for name in names), answer]])
            answers.append(str(answer))
    check_row_count(len(answers), of_window=True)
    check_answers(answers, options.target)


# ── the job ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _submission(services: Services, request: Request, caller: Caller) -> Submission:
    seconds = services.settings.training_seconds
    submission = unversioned_submission(request, caller, services, kind=JobKind.TRAIN, seconds=seconds)
    set_idempotency_key(submission, request, caller)
    return submission


async def _submit(
    services: Services,
    request: Request,
    caller: Caller,
    submission: Submission,
    options: TrainingOptions,
    csv_options: CsvOptions,
    file: ReceivedFile,
) -> Response:
    """Commit the job with its file; answer 202 with it, or with the job which the same request made before."""
    sha256 = file.digest.hexdigest()
    chosen = {"training": options.dump(), "csv": {word: getattr(csv_options, word) for word in FORMAT}}
    upload = Upload(
        options.name, chosen, {DATA: UploadedFile("data.csv", file.filename, file.size, sha256)}, caller.actor
    )
    if submission.idempotency_key is not None:
        content = json.dumps([chosen, sha256], sort_keys=True)
        submission.body_hash = hashlib.sha256(content.encode()).hexdigest()
    job = await to_thread.run_sync(_store, services, submission, upload, file, limiter=_RECEIVING)
    services.runtime.notify_uploads()
    return ticket_response(services, request, job)


def _store(services: Services, submission: Submission, upload: Upload, file: ReceivedFile) -> StoredJob:
    def keep(connection: Connection) -> bool:
        pieces = ((DATA, place, piece) for place, piece in enumerate(file.pieces()))
        if registrations.submit(connection, submission, upload, pieces) is None:
            return False
        trainings.add_training(connection, submission.id)
        return True

    def commit() -> bool:
        with disk(), services.bulk_engine.begin() as connection:
            return keep(connection)

    return find_stored(services, submission, is_new=run_again(commit))
