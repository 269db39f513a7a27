"""Moments as callers write them: RFC 3339 texts.

A number is refused, which pydantic would take: it may count seconds or milliseconds, or spell a date (20261101).
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

_DATE_FIRST = re.compile(r"\s*\d{4}-\d{2}-\d{2}")
_LOST_PLUS = re.compile(r"\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)? \d{2}:?\d{2}$")  # + in a query is a space


def _refuse_numbers(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and not _DATE_FIRST.match(value)):
        raise PydanticCustomError("moment", "must be an RFC 3339 time, e.g. 2026-11-01T00:00:00Z")
    if isinstance(value, str) and _LOST_PLUS.search(value):
        raise PydanticCustomError("moment", "must not have a space before its offset: in a query, write the + as %2B")
    return value


def _refuse_local_times(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise PydanticCustomError("moment", "must have an offset, e.g. 2026-11-01T00:00:00Z")
    return value


# UTC where it has no offset. Not strict, which would take a `datetime` alone behind another validator.
Moment = Annotated[datetime, Field(strict=False), BeforeValidator(_refuse_numbers)]
AwareMoment = Annotated[
    datetime, Field(strict=False), BeforeValidator(_refuse_numbers), AfterValidator(_refuse_local_times)
]
