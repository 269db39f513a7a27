"""The filter of the list of jobs: its box, its address, and what the JSON routes are asked."""

from datetime import UTC, datetime

import pytest

from api.console.filters import Unreadable, address_query, completions, parameters, read_box, write_box

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
JOB = "0195F5E8-7A3C-7DEF-8123-456789ABCDEF"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", {}),
        ("  ", {}),
        (
            "status:failed model:credit since:1h",
            {"status": "failed", "model": "credit", "since": "1h"},
        ),
        ("since:1h  Status:FAILED", {"since": "1h", "status": "failed"}),
        ("failed", {"status": "failed"}),
        ("model:credit@3", {"model": "credit@3"}),
        ("until:2026-11-29T10:00:00Z", {"until": "2026-11-29T10:00:00Z"}),
        ("status:nonsense", {"status": "nonsense"}),  # the route says what is wrong
        ("status:failed status:queued", {"status": "queued"}),
        (JOB, {"job": JOB.lower()}),
    ],
)
def test_box_is_read_as_it_is_written(text: str, chosen: dict[str, str]) -> None:
    assert read_box(text) == chosen
    if "job" not in chosen:
        assert read_box(write_box(chosen)) == chosen


@pytest.mark.parametrize(
    ("text", "part", "near"),
    [
        ("colour:red", "colour:red", None),
        ("failed statsu:queued", "statsu:queued", "status:"),
        ("faild", "faild", "failed"),
        ("model:", "model:", "model:"),
        (":", ":", None),
    ],
)
def test_part_that_says_nothing_is_named(text: str, part: str, near: str | None) -> None:
    with pytest.raises(Unreadable) as refusal:
        read_box(text)
    assert refusal.value.part == part
    assert refusal.value.near == near


@pytest.mark.parametrize(
    ("since", "begin"),
    [
        ("30s", "2026-11-29T11:59:30Z"),
        ("15m", "2026-11-29T11:45:00Z"),
        ("1h", "2026-11-29T11:00:00Z"),
        ("7d", "2026-11-22T12:00:00Z"),
        ("2w", "2026-11-15T12:00:00Z"),
        ("999999w", "0001-01-01T00:00:00Z"),
        ("2026-11-01", "2026-11-01"),
        ("yesterday", "yesterday"),  # the route says what is wrong
    ],
)
def test_length_of_time_becomes_the_moment_so_long_ago(since: str, begin: str) -> None:
    assert parameters({"status": "failed", "since": since}, now=NOW) == {"status": "failed", "from": begin}


def test_address_says_what_the_box_says() -> None:
    chosen = {"since": "1h", "status": "failed", "model": "credit@3"}
    assert address_query(chosen) == "?status=failed&model=credit@3&since=1h"
    assert address_query(chosen, before="1.x") == "?status=failed&model=credit@3&since=1h&before=1.x"
    assert address_query({"status": ""}) == ""
    assert {"status:failed", "model:credit", "since:1h"} < set(completions(["credit"]))
