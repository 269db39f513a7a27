"""Forms of the console: their fields as they were sent, and the row of a model that they hold."""

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.jobs.json_body import in_turn, read_body
from api.services import services_of
from shared.errors import MalformedBody, UnsupportedMediaType
from shared.faults import unpointer

ENCODING = "application/x-www-form-urlencoded"
PREFIX = "f:"  # of the fields that are features: no name of one means something else to the form
MAX_FIELDS = 10_000
MAX_BYTES = 1_000_000  # of a form, which is a row
MAX_NUMBER = 400  # characters: a float64 written out in full has at most 309 digits before the point
Faults = dict[str, list[dict[str, str]]]  # by feature, as a problem document has them
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; raise MalformedBody or UnsupportedMediaType for a body that is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != ENCODING:
        raise UnsupportedMediaType("This page takes its own form only: open it in a browser and send it from there.")
    body = await read_body(request, max_bytes=min(MAX_BYTES, services_of(request).settings.max_body_bytes))
    return await in_turn(len(body), lambda: parse_fields(body))


def parse_fields(body: bytes) -> dict[str, str]:
    """Return the fields of a form by their names; raise MalformedBody for bytes that are none."""
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise MalformedBody("The form is damaged: open its page again and send it from there.") from None


def row_of(features: list[dict[str, Any]], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the row that a form holds: numbers and booleans from their texts, empty fields left out.

    What is not a value of its feature's type stays text, which the service refuses with its own reason.
    """
    row: dict[str, Any] = {}
    for feature in features:
        text = fields.get(PREFIX + feature["name"], "").strip()
        if text:
            row[feature["name"]] = value_of(feature, text)
        elif feature.get("nullable") and feature.get("default") is None:
            row[feature["name"]] = None
    return row


def value_of(feature: Mapping[str, Any], text: str) -> Any:  # noqa: ANN401 - any JSON scalar
    """Return the value that a text means for a feature; the text itself where it means none."""
    for category in feature.get("categories") or ():
        if text == (str(category).lower() if isinstance(category, bool) else str(category)):
            return category
    if feature["type"] == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if feature["type"] in ("integer", "number") and len(text) <= MAX_NUMBER:
        plain = re.sub(r"[\s\u00a0\u202f]", "", text)
        plain = plain.replace(",", ".") if plain.count(",") == 1 and "." not in plain else plain  # as in French
        if _NUMBER.fullmatch(plain):
            number = float(plain)
            if math.isfinite(number):
                return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return text


def number_of(text: str) -> Any:  # noqa: ANN401 - a number, or the text that is none
    """Return the number that a text means; the text itself where it means none, and None where it is empty."""
    return value_of({"type": "number"}, text.strip()) if text.strip() else None


def moment_of(text: str) -> str | None:
    """Return the midnight in UTC of a date in a field; another text as it is, and None for an empty one."""
    text = text.strip()
    return f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text or None


def fault_places(faults: list[dict[str, str]], *, wrapper: str | None) -> tuple[Faults, list[dict[str, str]]]:
    """Return faults by the feature that they are about, and those that are about none."""
    by_feature: Faults = {}
    others = []
    for fault in faults:
        steps = unpointer(fault["pointer"])
        if wrapper is not None and steps[:1] == [wrapper]:
            steps = steps[1:]
        elif wrapper is not None:
            steps = []
        if len(steps) == 1 and steps[0]:
            by_feature.setdefault(steps[0], []).append(fault)
        else:
            others.append(fault)
    return by_feature, others
