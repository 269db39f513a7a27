"""Checking a request: its body, the model that it means, its options, and its rows against the model's card."""

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from api.bodies import read_json
from api.catalog import Version
from api.services import Services
from shared.errors import Fault, RowFaults, TooLarge

MAX_EXPIRES_IN = 366 * 86_400  # seconds

_SINGLE_FIELDS = frozenset({"features", "model", "version", "expires_in", "timeout"})
_BATCH_FIELDS = frozenset({"rows", "on_error", "model", "version", "expires_in", "timeout"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a request says besides its rows."""

    version: Version
    timeout: float
    expires_in: float | None


async def check_single(
    services: Services, request: Request, model: str | None
) -> tuple[Options, dict[str, Any], bytes]:
    """Read `{features, model?, version?, expires_in?, timeout?}`; return the options, the canonical row, the bytes."""
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    options, faults = await _check_options(services, body, model, _SINGLE_FIELDS, required="features")
    if "features" not in body:
        raise RowFaults(sum_up(faults), faults=faults)
    try:
        row = options.version.validator.validate(body["features"])
    except RowFaults as refusal:
        faults += [fault.under("/features") for fault in refusal.faults]
        raise RowFaults(
            refusal.detail if len(faults) == len(refusal.faults) else sum_up(faults), faults=faults
        ) from None
    if faults:
        raise RowFaults(sum_up(faults), faults=faults)
    return options, row, raw


async def check_batch(
    services: Services, request: Request, model: str | None
) -> tuple[Options, list[Any], list[list[Fault] | None], bytes]:
    """Read `{rows, on_error?, ...}`; return the options, the rows, the faults by row, the bytes.

    With `on_error: continue` a bad row keeps its faults and spoils nothing; with `abort`, or when no row is good,
    the request is refused with every fault.
    """
    body, raw = await read_json(request, max_bytes=services.settings.max_body_bytes)
    options, faults = await _check_options(services, body, model, _BATCH_FIELDS, required="rows")
    on_error = body.get("on_error", "continue")
    if on_error not in ("continue", "abort"):
        faults.append(Fault("/on_error", "category", 'must be "continue" or "abort"'))
    rows = body.get("rows")
    if not isinstance(rows, list):
        if "rows" in body:
            faults.append(Fault("/rows", "type", "must be a list of objects, each with the features of one row"))
        raise RowFaults(sum_up(faults), faults=faults)
    if not rows:
        faults.append(Fault("/rows", "length", "must hold at least one row"))
    if len(rows) > services.settings.max_batch_rows:
        raise TooLarge(f"A batch holds at most {services.settings.max_batch_rows} rows: send several.")
    # A thousand rows take milliseconds: other requests should not wait for them.
    validate = options.version.validator.validate_many
    canonical, row_faults = validate(rows) if len(rows) <= 20 else await run_in_threadpool(validate, rows)
    bad = [fault.under(f"/rows/{index}") for index, found in enumerate(row_faults) for fault in found]
    if faults or (bad and (on_error == "abort" or all(row_faults))):
        raise RowFaults(sum_up(faults + bad), faults=faults + bad)
    kept = [row if row is not None else rows[index] for index, row in enumerate(canonical)]
    return options, kept, [found or None for found in row_faults], raw


async def _check_options(
    services: Services, body: object, model: str | None, fields: frozenset[str], *, required: str
) -> tuple[Options, list[Fault]]:
    if not isinstance(body, dict):
        raise RowFaults(
            f"The body must be an object with `{required}`.",
            faults=[Fault("", "not_an_object", f'must be an object such as {{"{required}": ...}}')],
        )
    if required not in body:
        if required == "features" and body and not body.keys() & fields:
            # The commonest mistake: a row without its wrapper.
            message = 'is missing: put the row inside it, {"features": {...}}'
            raise RowFaults(f"`features` {message}.", faults=[Fault("/features", "missing", message)])
        faults = [Fault(f"/{required}", "missing", "is missing")]
    else:
        faults = []
    faults += [
        Fault(
            f"/{_escape(key)}", "unknown_field", f"is not a field of this request: it takes {', '.join(sorted(fields))}"
        )
        for key in body
        if key not in fields
    ]
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise RowFaults(
            "`model` must be text.", faults=[Fault("/model", "type", "must be the name of a model, as text")]
        )
    if model is not None:
        if name is not None and name != model:
            raise RowFaults(
                "The path and the body name different models.",
                faults=[Fault("/model", "conflict", "must be left out, or be the model in the path")],
            )
        name = model
    number = body.get("version")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise RowFaults(
            "`version` must be a whole number.", faults=[Fault("/version", "type", "must be a whole number")]
        )
    version = await find_version(services, name, number)
    settings = services.settings
    timeout = _seconds(body, "timeout", settings.job_timeout_cap_seconds, faults)
    expires_in = _seconds(body, "expires_in", MAX_EXPIRES_IN, faults)
    return Options(version, timeout or settings.job_timeout_seconds, expires_in), faults


async def find_version(services: Services, name: str | None, number: int | None) -> Version:
    """Return the version that a request means; raise NotFound, or Unavailable where no model is registered."""
    version = services.catalog.find(name, number)
    if version is None:
        await run_in_threadpool(services.catalog.refresh_after_miss)  # it may have been registered a moment ago
        version = services.catalog.find(name, number)
    if version is None:
        raise services.catalog.explain_missing(name, number)
    return version


def _seconds(body: dict[str, Any], field: str, cap: float, faults: list[Fault]) -> float | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= cap:
        faults.append(Fault(f"/{field}", "range", f"must be a number of seconds between 1 and {cap:.0f}"))
        return None
    return float(value)


def _escape(key: str) -> str:
    return key[:100].replace("~", "~0").replace("/", "~1")


def sum_up(faults: list[Fault]) -> str:
    """Return the sentence that a refusal begins with: its first three faults, and how many more there are."""
    first = "; ".join(f"{fault.pointer} {fault.message}" for fault in faults[:3])
    return f"The request is not valid: {first}{'' if len(faults) <= 3 else f'; and {len(faults) - 3} more'}."
