"""Answers of the service as frozen dataclasses; `body` holds fields that this version does not know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeVar

from guichet.errors import Fault
from guichet.tables import frame_of, score_columns

ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})

Value = TypeVar("Value")
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a job."""

    total: int
    succeeded: int
    failed: int
    pending: int

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(*(int(body[name]) for name in ("total", "succeeded", "failed", "pending")))


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a CSV job; rate and ETA are None until they are known."""

    rows_done: int
    rows_per_second: float | None
    eta_seconds: float | None
    chunks_done: int | None
    chunks_total: int | None

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            int(body["rows_done"]),
            body.get("rows_per_second"),
            body.get("eta_seconds"),
            body.get("chunks_done"),
            body.get("chunks_total"),
        )


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The position of a queued job, from 1, and the seconds until its result, if they are known."""

    position: int | None
    eta_seconds: float | None
    is_lower_bound: bool = False  # it stands farther back than `position`, and waits longer than `eta_seconds`

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(body.get("position"), body.get("eta_seconds"), bool(body.get("is_lower_bound")))


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job has no result."""

    code: str
    message: str

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(str(body["code"]), str(body["message"]))


@dataclass(frozen=True, slots=True)
class CsvFile:
    """How the file of a CSV job is written, as the service read it."""

    filename: str | None
    delimiter: str | None
    encoding: str | None
    decimal: str | None
    id_column: str | None
    extra_columns: list[str]
    bytes: int | None
    max_error_rate: float | None
    thousands: str | None = None  # what separates thousands; empty: nothing does
    currency: str | None = None  # the sign beside numbers that was left out
    notices: list[str] = field(default_factory=list)  # what was read otherwise than it is written, in sentences

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            body.get("filename"),
            body.get("delimiter"),
            body.get("encoding"),
            body.get("decimal"),
            body.get("id_column"),
            list(body.get("extra_columns") or ()),
            body.get("bytes"),
            body.get("max_error_rate"),
            body.get("thousands"),
            body.get("currency"),
            list(body.get("notices") or ()),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The score of one row."""

    job_id: str
    model: str
    model_version: int
    prediction: float | int | str
    label: str | None
    probability: float | None
    threshold: float | None
    probabilities: dict[str, float] | None
    latency_ms: float | None
    request_id: str
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            job_id=str(body["job_id"]),
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            prediction=body["prediction"],
            label=body.get("label"),
            probability=body.get("probability"),
            threshold=body.get("threshold"),
            probabilities=body.get("probabilities"),
            latency_ms=body.get("latency_ms"),
            request_id=str(body["request_id"]),
            body=body,
        )

    def to_frame(self) -> Any:  # noqa: ANN401 - pandas is not needed for anything else
        """Return the result as a pandas DataFrame of one row; raise Unusable without pandas."""
        return frame_of([score_columns(self)])


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature adds to a score."""

    feature: str
    value: Any
    contribution: float
    reference: Any  # the usual value: a median, or the most frequent one
    text: str
    standard_error: float | None  # None where the contribution is exact


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one row has its score: `base_value` and all contributions are `value`, measured in `scale`."""

    job_id: str
    model: str
    model_version: int
    method: str
    scale: str
    label: str | None
    base_value: float
    value: float
    prediction: float | int | str
    probability: float | None
    contributions: list[Contribution]  # the largest first
    top: list[str]  # the largest in words
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        names = ("feature", "value", "contribution", "reference", "text")
        return cls(
            job_id=str(body["job_id"]),
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            method=str(body["method"]),
            scale=str(body["scale"]),
            label=body.get("label"),
            base_value=float(body["base_value"]),
            value=float(body["value"]),
            prediction=body["prediction"],
            probability=body.get("probability"),
            contributions=[
                Contribution(**{name: one[name] for name in names}, standard_error=one.get("standard_error"))
                for one in body["contributions"]
            ],
            top=[str(text) for text in body["top"]],
            body=body,
        )


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it was when the service answered."""

    id: str
    kind: str
    status: str
    model: str
    model_version: int | None  # None while it registers one
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None  # only while that is pending
    attempts: int
    counts: Counts
    has_failures: bool
    queue: QueuePlace | None
    progress: Progress | None
    csv: CsvFile | None
    result: Result | None  # of a single row that was scored
    error: JobError | None
    request_id: str
    body: Body = field(repr=False, compare=False)

    @property
    def is_ended(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.status in ENDED

    @property
    def is_being_canceled(self) -> bool:
        """Whether it still runs, but to its cancellation: a cancellation is pending."""
        return not self.is_ended and self.cancel_requested_at is not None

    @property
    def is_retryable(self) -> bool:
        """Whether it is a CSV job that ended with rows left, which a retry takes up."""
        return "retry" in (self.body.get("links") or {})

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            id=str(body["id"]),
            kind=str(body["kind"]),
            status=str(body["status"]),
            model=str(body["model"]),
            model_version=_optional(int, body["model_version"]),
            created_at=datetime.fromisoformat(body["created_at"]),
            started_at=_optional(datetime.fromisoformat, body.get("started_at")),
            finished_at=_optional(datetime.fromisoformat, body.get("finished_at")),
            expires_at=_optional(datetime.fromisoformat, body.get("expires_at")),
            cancel_requested_at=_optional(datetime.fromisoformat, body.get("cancel_requested_at")),
            attempts=int(body["attempts"]),
            counts=Counts.read(body["counts"]),
            has_failures=bool(body["has_failures"]),
            queue=_optional(QueuePlace.read, body.get("queue")),
            progress=_optional(Progress.read, body.get("progress")),
            csv=_optional(CsvFile.read, body.get("csv")),
            result=_optional(Result.read, body.get("result")),
            error=_optional(JobError.read, body.get("error")),
            request_id=str(body["request_id"]),
            body=body,
        )


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One row of a batch: its score, or its faults."""

    index: int
    status: str
    prediction: float | int | str | None
    label: str | None
    probability: float | None
    threshold: float | None
    probabilities: dict[str, float] | None
    errors: list[Fault]

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            index=int(body["index"]),
            status=str(body["status"]),
            prediction=body.get("prediction"),
            label=body.get("label"),
            probability=body.get("probability"),
            threshold=body.get("threshold"),
            probabilities=body.get("probabilities"),
            errors=read_faults(body.get("errors")),
        )


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The results of a batch, in the order of its rows."""

    job_id: str
    model: str
    model_version: int
    has_failures: bool
    items: list[BatchItem]
    latency_ms: float | None
    request_id: str
    body: Body = field(repr=False, compare=False)
    row_index: Any = field(default=None, repr=False, compare=False)  # the index of the DataFrame that was sent

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            job_id=str(body["job_id"]),
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            has_failures=bool(body["has_failures"]),
            items=[BatchItem.read(item) for item in body["items"]],
            latency_ms=body.get("latency_ms"),
            request_id=str(body["request_id"]),
            body=body,
        )

    def to_frame(self, index: Any = None) -> Any:  # noqa: ANN401 - pandas is not needed for anything else
        """Return the rows as a pandas DataFrame: scores, and in `error` the faults of rows without a score.

        It bears the index of the DataFrame that was sent, so that `frame.join(result.to_frame())` puts them side by
        side, or `index`. Raise Unusable where pandas is not installed.
        """
        rows = [score_columns(item) | {"error": "; ".join(map(str, item.errors)) or None} for item in self.items]
        return frame_of(rows, self.row_index if index is None else index)


@dataclass(frozen=True, slots=True)
class CsvResult:
    """What became of a CSV file; the rows themselves are downloaded."""

    job_id: str
    model: str
    model_version: int
    counts: Counts
    has_failures: bool
    latency_ms: float | None
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            job_id=str(body["job_id"]),
            model=str(body["model"]),
            model_version=int(body["model_version"]),
            counts=Counts.read(body["counts"]),
            has_failures=bool(body["has_failures"]),
            latency_ms=body.get("latency_ms"),
            body=body,
        )


@dataclass(frozen=True, slots=True)
class CsvError:
    """One thing that is wrong in a CSV file; rows count from 1, the header is not one."""

    row_no: int
    column: str
    code: str
    message: str

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(int(body["row_no"]), str(body["column"]), str(body["code"]), str(body["message"]))


@dataclass(frozen=True, slots=True)
class CsvReport:
    """The report on a checked CSV file; `errors` holds the first faults."""

    rows: int
    valid: int
    invalid: int
    format: Body
    columns: Body
    errors: list[CsvError]
    error_count: int
    errors_by_code: dict[str, int]
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            rows=int(body["rows"]),
            valid=int(body["valid"]),
            invalid=int(body["invalid"]),
            format=body.get("format") or {},
            columns=body.get("columns") or {},
            errors=[CsvError.read(error) for error in body["errors"]],
            error_count=int(body["error_count"]),
            errors_by_code=dict(body.get("errors_by_code") or {}),
            body=body,
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the service serves; the alias `champion` is the version that serves by default."""

    model: str
    description: str
    task: str
    versions: list[int]
    aliases: dict[str, int]
    is_default: bool
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            model=str(body["model"]),
            description=str(body["description"]),
            task=str(body["task"]),
            versions=list(body["versions"]),
            aliases=dict(body["aliases"]),
            is_default=bool(body["is_default"]),
            body=body,
        )


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature in the model's card; `body` has its further fields."""

    name: str
    type: str
    nullable: bool
    example: Any
    description: str | None
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            name=str(body["name"]),
            type=str(body["type"]),
            nullable=bool(body.get("nullable")),
            example=body.get("example"),
            description=body.get("description"),
            body=body,
        )


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model: its card, and a row to try."""

    name: str
    version: int
    aliases: list[str]
    task: str
    description: str
    features: list[Feature]
    example: dict[str, Any]  # a row that it takes
    sha256: str
    created_at: datetime
    card: Body = field(repr=False, compare=False)
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        card = body["card"]
        return cls(
            name=str(body["model"]),
            version=int(body["model_version"]),
            aliases=list(body["aliases"]),
            task=str(card["task"]),
            description=str(card.get("description") or ""),
            features=[Feature.read(feature) for feature in card["features"]],
            example=dict(body["example"]),
            sha256=str(body["model_sha256"]),
            created_at=datetime.fromisoformat(body["created_at"]),
            card=card,
            body=body,
        )


def read_faults(items: object) -> list[Fault]:
    """Read a list of faults; what does not look like one is left out."""
    entries = items if isinstance(items, list) else []
    return [
        Fault(str(item.get("pointer", "")), str(item.get("code", "")), str(item.get("message", "")))
        for item in entries
        if isinstance(item, dict)
    ]


def _optional(read: Callable[[Any], Value], value: object) -> Value | None:
    return None if value is None else read(value)
