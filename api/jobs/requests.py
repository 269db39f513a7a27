"""Reading a request: its body, its model, its options, and its rows, checked against the model's card."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.http.wording import remember_error_format
from api.jobs.json_body import LARGE, in_turn, most_of, read_json
from api.models.catalog import Version, silence
from api.services import Services
from shared.cards.card import OPTIONS
from shared.cards.validator import Tally
from shared.errors import MAX_FAULTS, RowFaults, TooLarge
from shared.faults import Fault, pointer_to_unknown, sentence
from shared.tables import JobKind
from shared.validation_errors import list_faults

Fields = TypeVar("Fields", bound=BaseModel)

MAX_EXPIRES_IN = 366 * 86_400  # seconds
FEW_ROWS = 20  # more take milliseconds: a thread checks them, so that other requests need not wait

# Taken by every model, whatever its card calls the wrapper, except flat ones with a feature of this name.
WRAPPER = "features"
ROWS = "rows"  # the same for batches


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """The options of a request, besides its rows."""

    version: Version
    timeout: float
    expires_in: float | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The content of a request for one job: its checked rows, and its options."""

    options: SubmitOptions
    kind: JobKind
    rows: list[Any]  # canonical; one with faults as it was sent
    faults: list[list[Fault] | None]  # of each row, in order
    raw: bytes  # the body: the same one again, under the same key, is the same job
    client_id: str | None = None  # the caller's own id for the job


def submitted_rows(services: Services, version: Version, rows: list[Any], raw: bytes) -> Submitted:
    """Return good rows as one job with the service's own options, for protocols that have no others."""
    options = SubmitOptions(version, services.settings.job_timeout_seconds, None)
    kind = JobKind.PREDICT if len(rows) == 1 else JobKind.BATCH
    return Submitted(options, kind, rows, [None] * len(rows), raw)


async def read_single(
    services: Services,
    request: Request,
    model: str | None,
    *,
    kind: JobKind = JobKind.PREDICT,
    client_id: str | None = None,
) -> Submitted:
    """Read `{features, model?, version?, expires_in?, timeout?}`; `model` is the name in the path.

    The card may name the wrapper differently, or use none. Without a wrapper the body is the row, and a key that is no
    feature may be an option. The row is submitted as a job of this `kind`.
    """
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    return await read_row(services, request, body, raw, model, kind=kind, client_id=client_id)


async def read_row(
    services: Services,
    request: Request,
    body: Any,  # noqa: ANN401 - any JSON value
    raw: bytes,
    model: str | None,
    *,
    kind: JobKind,
    client_id: str | None = None,
) -> Submitted:
    """Return the one row of a body that was parsed, as a job of this kind; see `read_single`."""
    default = _default_version(services, request, model)
    _check_object(body, _shape_of(default))
    version = await requested_version(services, body, model, own=_flat_features(default, body))
    remember_error_format(request, version.card)
    options, canonical = await in_turn(len(raw), lambda: _read_row(services, body, version))
    return Submitted(options, kind, [canonical], [None], raw, client_id)


def _read_row(services: Services, body: dict[str, Any], version: Version) -> tuple[SubmitOptions, dict[str, Any]]:
    """Return the options and the canonical row that a body holds; raise RowFaults with all that is wrong."""
    card = version.card
    row: Any
    faults: list[Fault] = []
    own = _flat_features(version, body)
    if own:
        row = {key: value for key, value in body.items() if key in own or key not in OPTIONS}
        fields = {key: value for key, value in body.items() if key not in row}
        place, more = "", 0
    else:
        wrapper = WRAPPER if WRAPPER in body and card.wrapper not in body else card.wrapper
        fields, row = body, body.get(wrapper)
        place = pointer_to_unknown(wrapper)
        faults, more = field_faults(body, {wrapper, *OPTIONS}, required=wrapper, others=card.extra)
        if wrapper not in body:
            if body and not body.keys() & {wrapper, *OPTIONS}:
                # The commonest mistake: a row without its wrapper.
                message = f'is missing: put the row inside it, {{"{wrapper}": {{...}}}}'
                raise RowFaults(f"`{wrapper}` {message}.", faults=[Fault(place, "missing", message)])
            raise faults_error(faults, more)
    options = read_options(services, fields, version, faults)
    try:
        canonical = version.validator.validate(row)
    except RowFaults as refusal:
        more += refusal.fault_count - len(refusal.faults)
        own_detail = None if faults else refusal.detail
        raise faults_error(faults + [fault.under(place) for fault in refusal.faults], more, own_detail) from None
    if faults:
        raise faults_error(faults, more)
    return options, canonical


async def read_batch(services: Services, request: Request, model: str | None) -> Submitted:
    """Read `{rows, on_error?, ...}`; `model` is the name in the path.

    The card may call the field of the rows otherwise, or want none: the body is then the list of the rows.
    With `on_error: continue` (the card may have another default) a bad row keeps its faults and spoils nothing; with
    `abort`, or when no row is good, the request is refused with every fault.
    """
    settings = services.settings
    # A row that holds an object or a list is wrong; of some, it is said which.
    # Which model is meant stands in the body: none takes more features than the widest.
    most = most_of(settings.max_batch_rows, containers=10, features=services.catalog.snapshot.widest)
    body, raw = await read_json(request, max_bytes=settings.max_body_bytes, most=most)
    default = _default_version(services, request, model)
    place = ""
    if isinstance(body, list) and default is not None and default.card.batch_input == "flat":
        body = {ROWS: body}
    else:
        word = ROWS if default is None else default.card.batch_wrapper
        _check_object(body, (f"`{word}`", word))
        place = f"/{ROWS}"
    version = await requested_version(services, body, model)
    card = version.card
    remember_error_format(request, card)
    if card.batch_wrapper != ROWS and (card.batch_wrapper in body or ROWS not in body):
        place = pointer_to_unknown(card.batch_wrapper)
    word = ROWS if place in ("", f"/{ROWS}") else card.batch_wrapper
    rows = body.get(word)
    if isinstance(rows, list) and len(rows) > settings.max_batch_rows:
        raise TooLarge(f"A batch holds at most {settings.max_batch_rows} rows: send several.")
    faults, more = field_faults(body, {word, "on_error", *OPTIONS}, required=word, others=card.extra)
    options = read_options(services, body, version, faults)
    on_error = body.get("on_error", card.on_error)
    if on_error not in ("continue", "abort"):
        faults.append(Fault("/on_error", "category", 'must be "continue" or "abort"'))
    if not isinstance(rows, list):
        if word in body:
            faults.append(Fault(place, "type", "must be a list of objects, each with the features of one row"))
        raise faults_error(faults, more)
    if not rows:
        faults.append(Fault(place, "length", "must hold at least one row"))
    tally = Tally()

    def validate() -> tuple[list[dict[str, Any] | None], list[list[Fault]], list[Fault]]:
        canonical, by_row = version.validator.validate_many(rows, tally)
        return canonical, by_row, [fault.under(f"{place}/{index}") for index, row in enumerate(by_row) for fault in row]

    if len(raw) > LARGE or len(rows) <= FEW_ROWS:
        canonical, row_faults, bad = await in_turn(len(raw), validate)
    else:
        canonical, row_faults, bad = await run_in_threadpool(validate)
    if faults or (bad and (on_error == "abort" or all(row_faults))):
        raise faults_error(faults + bad, more + tally.count - len(bad))
    kept = [row if row is not None else rows[index] for index, row in enumerate(canonical)]
    return Submitted(options, JobKind.BATCH, kept, [one_row or None for one_row in row_faults], raw)


def _default_version(services: Services, request: Request, model: str | None) -> Version | None:
    """Return the version named by the path, or the default; its card formats errors until the body names another."""
    version = services.catalog.find(model, None)
    if version is not None:
        remember_error_format(request, version.card)
    return version


def _shape_of(version: Version | None) -> tuple[str, str]:
    """Return the required content of a body for one row, in words, and its first key."""
    if version is None:
        return f"`{WRAPPER}`", WRAPPER
    card = version.card
    if card.input == "flat":
        return f"the features of {version.label}", card.sent_features[0].name
    return f"`{card.wrapper}`", card.wrapper


def _check_object(body: object, shape: tuple[str, str]) -> None:
    if not isinstance(body, dict):
        content, key = shape
        raise RowFaults(
            f"The body must be an object with {content}.",
            faults=[Fault("", "not_an_object", f'must be an object such as {{"{key}": ...}}')],
        )


def _flat_features(version: Version | None, body: dict[str, Any]) -> AbstractSet[str]:
    """Return the features of a model that takes this body as the row itself; none where it is wrapped."""
    if version is None or version.card.input == "wrapped":
        return frozenset()
    names = version.validator.names
    return frozenset() if WRAPPER in body and WRAPPER not in names else names


def field_faults(
    body: dict[str, Any], fields: AbstractSet[str], *, required: str, others: Literal["refuse", "ignore"]
) -> tuple[list[Fault], int]:
    """Return the faults of the fields around the rows, and the number of further unknown fields."""
    faults = [] if required in body else [Fault(pointer_to_unknown(required), "missing", "is missing")]
    unknown = [key for key in body if key not in fields] if others == "refuse" else []
    if unknown:
        message = f"is not a field of this request: it takes {', '.join(sorted(fields))}"
        faults += [Fault(pointer_to_unknown(key), "unknown_field", message) for key in unknown[:MAX_FAULTS]]
    return faults, len(unknown[MAX_FAULTS:])


async def requested_version(
    services: Services, body: dict[str, Any], model: str | None, own: AbstractSet[str] = frozenset()
) -> Version:
    """Return the version that the path and the body mean; a key in `own` is a feature of the row, and no option."""
    name = None if "model" in own else body.get("model")
    if name is not None and not isinstance(name, str):
        raise RowFaults(
            "`model` must be text.",
            faults=[Fault("/model", "type", "must be the name of a model, as text: `name`, `name@3` or `name@alias`")],
        )
    try:
        name = join_references(model, name)
    except ValueError:
        raise RowFaults(
            "The path and the body name different models.",
            faults=[Fault("/model", "conflict", "must be left out, or be the model in the path")],
        ) from None
    number = None if "version" in own else body.get("version")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise RowFaults(
            "`version` must be a whole number.", faults=[Fault("/version", "type", "must be a whole number")]
        )
    if number is None or name is None or "@" not in name:
        return await find_version(services, name, number)
    version = await find_version(services, name, None)
    if version.card.version != number:
        raise RowFaults(
            "The request names two versions.",
            faults=[Fault("/version", "conflict", f"must be left out, or be that of {version.label}")],
        )
    return version


def join_references(path: str | None, other: str | None) -> str | None:
    """Return the model that a path and the rest of a request mean: the more exact one of `name` and `name@version`.

    Raises ValueError where they mean different ones.
    """
    if path is None or other is None or path == other:
        return other if path is None else path
    names = {reference.partition("@")[0] for reference in (path, other)}
    if len(names) > 1 or ("@" in path and "@" in other):
        raise ValueError("two models are named")
    return path if "@" in path else other


def read_options(services: Services, body: dict[str, Any], version: Version, faults: list[Fault]) -> SubmitOptions:
    """Return the options of a body besides its rows; add their faults to `faults`."""
    settings = services.settings
    timeout = _seconds(body, "timeout", settings.job_timeout_cap_seconds, faults)
    expires_in = _seconds(body, "expires_in", MAX_EXPIRES_IN, faults)
    return SubmitOptions(version, timeout or settings.job_timeout_seconds, expires_in)


async def find_version(services: Services, name: str | None, number: int | None, *, archived: bool = False) -> Version:
    """Return the version that a request names; raise NotFound, or Unavailable without any model.

    With `archived`, a version number may name an archived version: to read about it.
    """
    version = services.catalog.find(name, number, archived=archived)
    if version is None:
        answered = await run_in_threadpool(services.catalog.refresh_if_stale)  # it may have been registered just now
        version = services.catalog.find(name, number, archived=archived)
        if version is None and not answered:
            raise silence()
    if version is None:
        raise services.catalog.missing_version_error(name, number)
    return version


def _seconds(body: dict[str, Any], field: str, cap: float, faults: list[Fault]) -> float | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= cap:
        faults.append(Fault(f"/{field}", "range", f"must be a number of seconds between 1 and {cap:.0f}"))
        return None
    return float(value)


def faults_error(faults: list[Fault], more: int, detail: str | None = None) -> RowFaults:
    """Return the error for these faults and `more` uncounted ones, with its own sentence or that of `summarise`."""
    count = len(faults) + more
    return RowFaults(detail or summarise(faults, count), faults=faults[:MAX_FAULTS], fault_count=count)


def read_fields(schema: type[Fields], raw: bytes) -> Fields:
    """Return a body of a few fields as its schema has them; raise RowFaults with every field that does not fit."""
    try:
        return schema.model_validate_json(raw)
    except ValidationError as error:
        faults = {place.partition(".")[0]: reason for place, reason in list_faults(error)}
        listed = [Fault(f"/{place}" if place else "", "type", reason) for place, reason in faults.items()]
        raise RowFaults(summarise(listed), faults=listed) from None


def summarise(faults: list[Fault], count: int = 0) -> str:
    """Return the sentence that a refusal begins with: its first three faults, and how many of `count` are left."""
    return sentence(faults, subject="The request is not valid", count=count, tell=Fault.located)
