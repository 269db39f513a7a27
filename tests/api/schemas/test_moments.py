"""Moments in bodies and queries: RFC 3339 texts alone, and advice for those that lost their plus."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from api.schemas.moments import AwareMoment, Moment

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def read(kind, value):
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize("kind", [Moment, AwareMoment])
@pytest.mark.parametrize(
    "text", ["2026-11-01T12:00:00Z", "2026-11-01T13:00:00+01:00", "2026-11-01 12:00:00Z", "2026-11-01T12:00:00.000Z"]
)
def test_text_with_an_offset_is_its_moment(kind, text):
    assert read(kind, text) == NOON


def test_moment_keeps_its_offset():
    assert read(AwareMoment, "2026-11-01T13:00:00+01:00").tzinfo.utcoffset(None) == timedelta(hours=1)
    assert read(AwareMoment, NOON.astimezone(timezone(timedelta(hours=-5)))) == NOON


def test_text_without_an_offset_is_a_moment_only_where_one_may_lack():
    assert read(Moment, "2026-11-01T12:00:00") == NOON.replace(tzinfo=None)
    with pytest.raises(ValidationError, match="must have an offset"):
        read(AwareMoment, "2026-11-01T12:00:00")


@pytest.mark.parametrize("kind", [Moment, AwareMoment])
@pytest.mark.parametrize("value", [0, 20261101, 1.7e9, True, "20261101", "1793534400", "now", "", "12:00:00Z"])
def test_number_and_what_may_be_one_is_refused_with_an_example(kind, value):
    with pytest.raises(ValidationError) as refused:
        read(kind, value)
    (fault,) = refused.value.errors()
    assert (fault["type"], fault["msg"]) == ("moment", "must be an RFC 3339 time, e.g. 2026-11-01T00:00:00Z")


@pytest.mark.parametrize("text", ["2026-11-01T13:00:00 01:00", "2026-11-01T13:00 0100", "2026-11-01T13:00:00.5 01:00"])
def test_offset_whose_plus_became_a_space_is_refused_with_how_to_write_it(text):
    with pytest.raises(ValidationError) as refused:
        read(AwareMoment, text)
    (fault,) = refused.value.errors()
    assert fault["msg"] == "must not have a space before its offset: in a query, write the + as %2B"
