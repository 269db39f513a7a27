"""Options of a CSV upload: the query of `/predict_csv`."""

from dataclasses import dataclass

from pydantic import BaseModel, Field
from starlette.requests import Request

from api.jobs.requests import MAX_EXPIRES_IN, SubmitOptions, find_version, join_references, summarise
from api.parameters import find_strangers
from api.services import Services
from shared.csv.format import CsvOptions, normalise_options
from shared.errors import InvalidRequest
from shared.faults import Fault


class CsvQuery(BaseModel):
    """The query of `/predict_csv`; options left out are detected, or have the service's default."""

    model: str | None = Field(
        None, description="Model: `name`, `name@3` or `name@alias`; the default model when left out."
    )
    version: int | None = Field(None, description="Model version; the champion when left out.")
    delimiter: str | None = Field(
        None, description="Delimiter of cells: `comma`, `semicolon`, `tab`, `pipe`, or the character."
    )
    encoding: str | None = Field(
        None, description="`utf-8`, `utf-16`, `utf-16-le`, `utf-16-be`, `cp1252` or `latin-1`."
    )
    decimal: str | None = Field(None, description="Decimal mark: `point` or `comma`, or the character.")
    thousands: str | None = Field(
        None,
        description="Thousands separator: `comma`, `point`, `space`, `apostrophe`, the character, or `none`.",
    )
    sheet: str | None = Field(
        None, max_length=100, description="Sheet of an Excel workbook; its first visible one when left out."
    )
    id_column: str | None = Field(None, description="Column that identifies the rows; the output repeats it.")
    strict: bool = Field(False, description="Refuse columns that the model does not know.")
    max_error_rate: float | None = Field(
        None, ge=0, le=1, description="Share of the rows (0 to 1) that may fail before the whole job fails."
    )
    validate_only: bool = Field(False, description="Check every row, answer with a report, store nothing.")
    expires_in: float | None = Field(
        None,
        ge=1,
        le=MAX_EXPIRES_IN,
        description=("Longest time in the queue, in seconds; after that, the job expires."),
    )
    timeout: float | None = Field(None, ge=1, description="Time limit of one chunk of the file, in seconds.")


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """A checked query."""

    common: SubmitOptions
    csv_options: CsvOptions
    max_error_rate: float | None
    validate_only: bool


async def read_query(services: Services, request: Request, query: CsvQuery, model: str | None) -> UploadOptions:
    """Return the options of an upload, with its version; `model` is the name in the path."""
    faults = find_strangers(request)
    reference = model
    try:
        reference = join_references(model, query.model)
    except ValueError:
        faults.append(Fault("/query/model", "conflict", "must be left out, or be the model in the path"))
    cap = services.settings.job_timeout_cap_seconds
    if query.timeout is not None and query.timeout > cap:
        faults.append(Fault("/query/timeout", "range", f"must be a number of seconds between 1 and {cap:.0f}"))
    if faults:
        raise InvalidRequest(summarise(faults), faults=faults)
    csv_options = normalise_options(
        CsvOptions(
            *(query.delimiter, query.encoding, query.decimal, query.id_column, query.strict, query.thousands),
            sheet=query.sheet,
        ),
    )
    version = await find_version(services, reference, query.version)
    return UploadOptions(
        SubmitOptions(version, query.timeout or services.settings.job_timeout_seconds, query.expires_in),
        csv_options,
        query.max_error_rate,
        query.validate_only,
    )
