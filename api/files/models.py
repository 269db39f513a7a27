"""Uploads of models: a form with files, received to disk, checked, and committed as a job that registers it.

Nothing of a model is read here: a joblib file is a program, which only the proof's process runs.
"""

import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from anyio import CapacityLimiter, to_thread
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from uuid_utils import uuid7

from api.auth.callers import Caller
from api.files.submit import find_stored, holder_of
from api.files.uploads.body import UploadBody, UploadSlots, answer_upload
from api.files.uploads.forms import FormParser, clean_filename, form_error
from api.files.uploads.spool import disk
from api.files.uploads.unwrapping import FORM_BYTES, read_form_boundary
from api.http.responses import request_id_of
from api.jobs.submissions import set_idempotency_key, ticket_response
from api.services import Services
from shared.broker.names import Lane
from shared.csv.format import CsvOptions, normalise_options
from shared.database.engine import run_again
from shared.errors import ArtefactError, CardError, Forbidden, InvalidRequest, TooLarge, Unavailable
from shared.faults import Fault, did_you_mean, pointer_to_unknown, storable
from shared.jobs import registrations
from shared.jobs.queries.jobs import StoredJob
from shared.jobs.registrations import PIECE_BYTES, Upload, UploadedFile
from shared.jobs.submission import NO_VERSION, Submission
from shared.observability.logs import bind
from shared.packages.artefacts.joblib_file import check_start
from shared.packages.sources.project_files import labels_of, metrics_of, threshold_of
from shared.registry.versions import NAME, NAME_RULE
from shared.tables import JobKind

MAX_UNFINISHED = 20  # uploads whose files wait in the database
START_BYTES = 200
FILES = ("artefact", "reference", "contract", "card", "preprocessor", "code")
DOCUMENTS = ("labels", "threshold", "metrics")  # small JSON, as a file or as a field
FIELDS = ("name", "version", "target", "task", "probability", "scores", "skip_bad", "trust")
FORMAT = ("delimiter", "encoding", "decimal", "thousands")
_ALL_FIELDS = (*FILES, *DOCUMENTS, *FIELDS, *FORMAT)
_SUFFIXES = {  # by which the registry tells how a file is written; others are read as CSV
    "reference": (".csv", ".xlsx", ".parquet", ".pq", ".json", ".jsonl", ".ndjson"),
}
_CODE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}\.py")
_ZIP = b"PK\x03\x04"

_PLACES = UploadSlots(2, of_one=1)
_MAY_REGISTER = text("SELECT has_table_privilege('model_versions', 'INSERT')")
_RECEIVING = CapacityLimiter(1)


@dataclass(slots=True)
class ReceivedFile:
    """A file of the form, in a file without a name: it disappears with the process, even after a crash."""

    file: IO[bytes]
    filename: str | None
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    start: bytes = b""

    def add(self, data: bytes) -> None:
        """Write the next bytes."""
        with disk():
            self.file.write(data)
        self.size += len(data)
        self.digest.update(data)
        if len(self.start) < START_BYTES:
            self.start += data[: START_BYTES - len(self.start)]

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes in pieces; it can be done again."""
        with disk():
            self.file.flush()
            self.file.seek(0)
        while piece := self.file.read(PIECE_BYTES):
            yield piece


class ModelForm(FormParser):
    """The form of an upload; closes its files as a context manager."""

    def __init__(self, boundary: bytes, *, max_bytes: int) -> None:
        super().__init__(boundary)
        self.files: dict[str, ReceivedFile] = {}
        self.fields: dict[str, bytearray] = {}
        self._max_bytes = max_bytes
        self._left = FORM_BYTES  # for all fields together
        self._part: ReceivedFile | bytearray = bytearray()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Use it in a `with` statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the disk back."""
        self._stack.close()

    @property
    def size(self) -> int:
        """How large the files are together, in bytes."""
        return sum(file.size for file in self.files.values())

    def open_part(self, name: str, filename: bytes | None) -> None:
        """Begin a file or a field; raise InvalidRequest for one that is not known, or comes twice."""
        pointer = pointer_to_unknown(name)
        if name not in _ALL_FIELDS:
            raise form_error(pointer, "unknown_field", f"is no field of this form: {did_you_mean(name, _ALL_FIELDS)}")
        if name in self.files or name in self.fields:
            raise form_error(pointer, "several_values", "comes twice: send it once")
        if name in FILES or (filename is not None and name in DOCUMENTS):
            with disk():
                file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            self._stack.enter_context(file)
            self._part = self.files[name] = ReceivedFile(file, clean_filename(filename))
        elif filename is None:
            self._part = self.fields[name] = bytearray()
        else:
            raise form_error(pointer, "file", "is a file: send it as a plain field of the form")

    def add_data(self, data: bytes) -> None:
        """Take bytes of the part; raise TooLarge beyond the limits."""
        if isinstance(self._part, ReceivedFile):
            self._part.add(data)
            if self.size > self._max_bytes:
                raise too_large(self._max_bytes)
        else:
            self._part += data
            self._left -= len(data)
            if self._left < 0:
                raise TooLarge(f"The fields of the form hold more than {FORM_BYTES} bytes: send files as files.")


def too_large(max_bytes: int) -> TooLarge:
    """Return the error of an upload that is larger than a model may be."""
    return TooLarge(
        f"The files are larger than {max_bytes} bytes together: save the model compressed (joblib.dump(..., "
        "compress=3)), send fewer reference rows, or have MAX_MODEL_BYTES raised."
    )


async def receive_model(services: Services, request: Request, caller: Caller) -> Response:
    """Receive a model and answer 202 with the job that registers it.

    A refusal may be sent before the whole body has arrived.
    """
    body = UploadBody(request, max_bytes=services.settings.max_model_bytes, refuse=too_large)
    return await answer_upload(request, body, _submit(services, request, body, caller), noun="model")


async def _submit(services: Services, request: Request, body: UploadBody, caller: Caller) -> Response:
    settings = services.settings
    if settings.model_uploads == "off":
        raise Forbidden(
            "Models are not added over HTTP here, since a model's file is a program: an operator may set "
            "MODEL_UPLOADS=on, or add it with `python -m shared.registry add`."
        )
    boundary = read_form_boundary(request.headers)
    await run_in_threadpool(check_uploads, services)
    seconds = settings.model_proof_seconds
    submission = unversioned_submission(request, caller, services, kind=JobKind.REGISTER, seconds=seconds)
    set_idempotency_key(submission, request, caller)
    with (
        _PLACES.one(holder_of(services, request, caller)),
        services.keys_in_flight.hold(submission),
        ModelForm(boundary, max_bytes=settings.max_model_bytes) as form,
    ):
        while data := await body.read():
            await to_thread.run_sync(form.parse, data, limiter=_RECEIVING)
        form.check_end()
        upload = await to_thread.run_sync(read_upload, form, caller.actor, limiter=_RECEIVING)
        if submission.idempotency_key is not None:
            submission.body_hash = _digest(upload)
        job = await to_thread.run_sync(_store, services, submission, upload, form, limiter=_RECEIVING)
    services.runtime.notify_uploads()
    return ticket_response(services, request, job)


def check_uploads(services: Services) -> None:
    """Raise Forbidden where no version can be registered, Unavailable where many files wait already."""
    with services.reader.connect() as connection:
        if connection.dialect.name == "postgresql" and not connection.scalar(_MAY_REGISTER):
            raise Forbidden(
                "This service may not register models: an operator allows it with "
                "`python -m scripts.create_db --app-registers` (with Compose, MODELS_ACCESS=rw in .env)."
            )
        count = registrations.count_unfinished(connection)
    if count >= MAX_UNFINISHED:
        raise Unavailable(f"{count} uploaded models wait to be registered: try again later.", retry_after=30)


def unversioned_submission(
    request: Request, caller: Caller, services: Services, *, kind: JobKind, seconds: float
) -> Submission:
    """Return a job without a version for this request: it makes one, within its time limit."""
    job_id = str(uuid7())
    bind(job_id=job_id)
    return Submission(
        id=job_id,
        kind=kind.value,
        lane=Lane.BULK.value,
        model_version_id=NO_VERSION,
        request_id=request_id_of(request),
        rows=[],
        faults=[],
        timeout_seconds=seconds,
        max_attempts=services.settings.max_attempts,
        owner=caller.id,
        traceparent=request.scope.get("traceparent"),
    )


def _digest(upload: Upload) -> str:
    """Return the SHA-256 of what was uploaded: that of the body would change with the boundary of its form."""
    files = {name: [file.name, file.sha256] for name, file in upload.files.items()}
    content = json.dumps([upload.name, upload.options, files], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _store(services: Services, submission: Submission, upload: Upload, form: ModelForm) -> StoredJob:
    """Commit the job with its files; return it, or the job which the same request made before."""

    def commit() -> bool:
        pieces = (
            (name, place, piece) for name in upload.files for place, piece in enumerate(form.files[name].pieces())
        )
        with services.bulk_engine.begin() as connection:
            return registrations.submit(connection, submission, upload, pieces) is not None

    return find_stored(services, submission, is_new=run_again(commit))


# ── the fields ───────────────────────────────────────────────────────────────────────────────────────────────────


def read_upload(form: ModelForm, actor: str) -> Upload:
    """Return the content of a complete form; raise InvalidRequest with every invalid field."""
    faults: list[Fault] = []
    fields = _texts(form, faults)
    options: dict[str, Any] = {}
    name = fields.get("name", "")
    if "name" not in fields:
        faults.append(Fault("/name", "missing", "is missing: name the model, e.g. churn"))
    elif not NAME.fullmatch(name):
        faults.append(Fault("/name", "pattern", f"cannot be a model's name: {NAME_RULE}"))
    options["name"] = name
    _check_files(form, faults)
    for field_name, read in _READERS.items():
        if field_name in fields:
            with _faults_of(field_name, faults):
                options[field_name] = read(fields[field_name])
    for field_name, read_document in _DOCUMENTS.items():
        if field_name in fields:
            with _faults_of(field_name, faults):
                options[field_name] = _storable(read_document(fields[field_name], field_name))
    if (target := options.get("target")) is not None and target == options.get("scores"):
        faults.append(Fault("/scores", "conflict", "cannot be the target too: name another column"))
    file_format: dict[str, Any] = {word: fields[word] for word in FORMAT if word in fields}
    if file_format:
        with _faults_of("delimiter", faults):
            csv = normalise_options(CsvOptions(**file_format))
            options["csv"] = {word: getattr(csv, word) for word in FORMAT}
    if faults:
        raise InvalidRequest(
            f"The form is not valid: {'; '.join(f'{fault.pointer} {fault.message}' for fault in faults[:5])}.",
            faults=faults,
        )
    files = {
        field_name: UploadedFile(_stored_name(field_name, file), file.filename, file.size, file.digest.hexdigest())
        for field_name, file in form.files.items()
        if field_name in FILES
    }
    return Upload(name, options, files, actor)


@contextmanager
def _faults_of(name: str, faults: list[Fault]) -> Iterator[None]:
    """Add a fault at a field where its content cannot be read."""
    try:
        yield
    except InvalidRequest as error:
        faults += [Fault(f"/{name}", fault.code, fault.message) for fault in error.faults] or [
            Fault(f"/{name}", "value", error.detail.rstrip("."))
        ]
    except CardError as error:
        faults.append(Fault(f"/{name}", "value", error.detail.rstrip(".")))
    except ValueError as error:
        faults.append(Fault(f"/{name}", "value", str(error)))


def _texts(form: ModelForm, faults: list[Fault]) -> dict[str, str]:
    """Return the plain fields as texts, those that came as files too."""
    texts: dict[str, str] = {}
    contents = {name: bytes(value) for name, value in form.fields.items()}
    for name in DOCUMENTS:
        if name in form.files:
            contents[name] = b"".join(form.files[name].pieces()) if form.files[name].size <= FORM_BYTES else b"\xff"
    for name, content in contents.items():
        try:
            text = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            faults.append(Fault(f"/{name}", "encoding", "is no short text in UTF-8"))
            continue
        if "\0" in text:
            faults.append(Fault(f"/{name}", "encoding", "holds a null byte"))
        elif text or name == "name":
            texts[name] = text
    return texts


def _check_files(form: ModelForm, faults: list[Fault]) -> None:
    for name, file in form.files.items():
        if not file.size and name in FILES:
            faults.append(Fault(f"/{name}", "empty", "is an empty file"))
    artefact = form.files.get("artefact")
    if artefact is None:
        message = "is missing: put the joblib or skops file, or the zipped MLflow folder, into this field of the form"
        faults.append(Fault("/artefact", "missing", message))
    elif artefact.size and not artefact.start.startswith(_ZIP):  # zip archives are looked into by the proof
        shown = Path(artefact.filename or "the file")
        try:
            check_start(shown, artefact.start)
        except ArtefactError as error:
            faults.append(Fault("/artefact", "no_artefact", error.detail.removeprefix(f"{shown} ").rstrip(".")))
    code = form.files.get("code")
    if code is not None and code.size and not _CODE.fullmatch(code.filename or "") and not code.start.startswith(_ZIP):
        faults.append(Fault("/code", "filename", "must be a .py file under its own name, or a zip of such files"))


def _stored_name(name: str, file: ReceivedFile) -> str:
    """Return the file name for a field's file: the field's name, with the suffix of its format."""
    if name == "code":
        return file.filename if _CODE.fullmatch(file.filename or "") and file.filename else "code.zip"
    suffix = Path(file.filename or "").suffix.lower()
    suffixes = _SUFFIXES.get(name, ())
    default = {"artefact": ".joblib", "preprocessor": ".joblib", "reference": ".csv"}.get(name, ".json")
    return f"{name}{suffix if suffix in suffixes else default}"


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not 1 <= int(text) <= 2**31 - 1:
        raise ValueError("must be a number from 1 on")
    return int(text)


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return text

    return read


def _truth(text: str) -> bool:
    return _choice("true", "false")(text.lower()) == "true"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _labels(text: str, source: str) -> dict[str, str]:
    if "=" in text and not text.startswith(("{", "[")):
        pairs = [pair.partition("=") for pair in text.split(",")]
        if any(not key.strip() or not label.strip() for key, _, label in pairs):
            raise ValueError("must be class=label pairs, e.g. 0=No,1=Yes, or a JSON object")
        return {key.strip(): label.strip() for key, _, label in pairs}
    return labels_of(_json(text), source)


def _storable(document: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a document that was read; raise ValueError where no database stores its names or texts."""
    for word in itertools.chain.from_iterable(document.items()) if isinstance(document, Mapping) else ():
        if isinstance(word, str) and storable(word, len(word)) != word:
            raise ValueError("holds a null byte, or half of a character (a lone surrogate)")
    return document


def _json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


_READERS: Mapping[str, Callable[[str], Any]] = {
    "version": _number,
    "target": str,
    "task": _choice("binary", "multiclass", "regression"),
    "probability": _choice("sigmoid"),
    "scores": str,
    "skip_bad": _truth,
    "trust": _names,
}
_DOCUMENTS: Mapping[str, Callable[[str, str], Any]] = {
    "labels": _labels,
    "threshold": lambda text, source: threshold_of(_json(text), source),
    "metrics": lambda text, source: metrics_of(_json(text), source),
}
