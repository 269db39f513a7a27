"""Logs: one JSON object a line, whatever is logged."""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from shared.logs import JsonFormatter, configure_logging


def record(message: str, *args: object, exc_info=None) -> logging.LogRecord:
    return logging.LogRecord("api.intake", logging.WARNING, "intake.py", 7, message, args, exc_info)


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_record_is_one_line_with_time_level_logger_and_message():
    line = JsonFormatter().format(record("%d jobs of %s", 3, "attrition@1"))
    entry = json.loads(line)
    assert "\n" not in line
    assert entry.keys() == {"time", "level", "logger", "message"}
    assert (entry["level"], entry["logger"], entry["message"]) == ("WARNING", "api.intake", "3 jobs of attrition@1")
    moment = datetime.fromisoformat(entry["time"])
    assert moment.utcoffset() is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5


def test_exception_is_part_of_its_line():
    try:
        raise ValueError("é\n\x00")
    except ValueError:
        line = JsonFormatter().format(record("it failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]


@pytest.mark.parametrize("text", ["two\nlines", 'a "quote"', "\x00\x1b[31m", "日本", "a lone surrogate: \ud800", ""])
def test_no_text_breaks_the_line_or_is_lost(text):
    """File names and library messages may hold anything; a log that fails hides why something else did."""
    line = JsonFormatter().format(record("%s", text))
    assert "\n" not in line
    assert isinstance(json.loads(line)["message"], str)


@pytest.mark.usefixtures("_root")
def test_every_logger_goes_to_standard_error_as_json(capsys):
    configure_logging("INFO")
    logging.getLogger("shared.models").info("loaded %s", "credit@2")
    logging.getLogger("some.library").debug("not this")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["loaded credit@2"]


@pytest.mark.usefixtures("_root")
def test_logging_that_is_set_up_twice_says_things_once(capsys):
    configure_logging("INFO")
    configure_logging("WARNING")
    logging.getLogger("x").warning("once")
    logging.getLogger("x").info("never")
    assert len(capsys.readouterr().err.splitlines()) == 1
