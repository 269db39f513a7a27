"""From a request to `/invocations` to its predictions."""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import Caller
from api.http.responses import json_response
from api.jobs.json_body import LARGE, in_turn, read_body
from api.jobs.requests import FEW_ROWS, find_version, submitted_rows
from api.jobs.submissions import submit_for_scores
from api.models.catalog import Version
from api.protocols.mlflow.dataframes import DataFrame, read_csv_frame, read_form, read_json_frame, validate_frame
from api.protocols.open_inference.inference import elements_of, output_datatypes
from api.services import Services
from shared.errors import RowFaults, UnsupportedMediaType
from shared.faults import Fault
from shared.jobs.queries.jobs import StoredJob, StoredOutput


async def score_frame(request: Request, services: Services, caller: Caller, name: str | None) -> Response:
    """Score the DataFrame in a request's body as one job, and answer with the output that it asks for."""
    settings = services.settings
    is_csv, encoding = _media_type(request)
    body = await read_body(request, max_bytes=settings.max_body_bytes)
    version = await find_version(services, name, None)

    if is_csv:  # the first one brings Arrow in, which takes a while
        frame = await run_in_threadpool(read_csv_frame, version, body, settings, encoding=encoding)
    elif len(body) > LARGE:
        frame = await in_turn(len(body), lambda: read_json_frame(version, body, settings))
    else:
        raw = read_form(version, body, settings)
        is_short = len(raw.rows) <= FEW_ROWS
        frame = validate_frame(version, raw) if is_short else await run_in_threadpool(validate_frame, version, raw)
    output = _output(version, frame)

    async def render(job: StoredJob, outputs: list[StoredOutput]) -> Response:
        scored_by = services.catalog.version_of(job)
        return json_response({"predictions": _predictions(scored_by, outputs, output)})

    submitted = submitted_rows(services, version, frame.rows, body)
    return await submit_for_scores(services, request, caller, submitted, render=render)


def _media_type(request: Request) -> tuple[bool, str | None]:
    """Return whether the body is CSV, and its encoding if the header has one; raise UnsupportedMediaType."""
    media_type, *parameters = [part.strip() for part in request.headers.get("content-type", "").lower().split(";")]
    if media_type not in ("", "text/csv", "application/json"):
        raise UnsupportedMediaType("The body must be application/json or text/csv: say which in Content-Type.")
    named = dict(part.partition("=")[::2] for part in parameters if part)
    charset = named.pop("charset", None)
    if charset is not None and charset.strip('"') not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("The body must be in UTF-8: encode it so, and say charset=utf-8 or nothing.")
    if named:
        raise UnsupportedMediaType(
            "The Content-Type has a parameter other than charset: the forms of MLflow before 2.0, such as "
            "format=pandas-split, are not read. Put the DataFrame under dataframe_split or dataframe_records."
        )
    return media_type == "text/csv", None if charset is None else "utf-8"


def _output(version: Version, frame: DataFrame) -> str:
    """Return the requested output; raise RowFaults for one that the model does not give."""
    output = frame.params.get("output", version.card.invocations)
    if not isinstance(output, str) or output not in output_datatypes(version):
        raise _no_output(version, list(output_datatypes(version)))
    return output


def _no_output(version: Version, outputs: list[str]) -> RowFaults:
    message = f"`params.output` must be one of the outputs of {version.label}: {', '.join(outputs)}"
    return RowFaults(f"{message}.", faults=[Fault("/params/output", "unknown_output", message)])


def _predictions(version: Version, outputs: list[StoredOutput], output: str) -> list[Any]:
    if output == "predict_proba" and outputs[0].probability is None:  # what an earlier version scored may have none
        raise _no_output(version, ["predict", "label"])
    elements = elements_of(version.card, output, outputs)
    if output != "predict_proba":
        return elements
    width = len(elements) // len(outputs)
    return [elements[place : place + width] for place in range(0, len(elements), width)]
