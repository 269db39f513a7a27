"""Logs: one line, JSON or text, whatever is logged, with the fields that are bound."""

import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import psycopg2
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from shared.errors import ArtefactError
from shared.observability import logs
from shared.observability.logs import begin, bind, bound, configure_logging, identify, make_formatter
from shared.observability.redaction import safe_text, without_words
from shared.observability.repeats import Once
from worker import process

FIXED = {"time", "level", "logger", "message"}


def record(message: str, *args: object, exc_info=None) -> logging.LogRecord:
    name = "api.runtimes.group_commit"
    return logging.LogRecord(name, logging.WARNING, "group_commit.py", 7, message, args, exc_info)


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hook = threading.excepthook
    yield
    threading.excepthook = hook
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(autouse=True)
def _no_fields(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_of_process", {})
    begin()
    yield
    begin()


def test_record_is_one_line_with_time_level_logger_and_message():
    line = make_formatter("json").format(record("%d jobs of %s", 3, "attrition@1"))
    entry = json.loads(line)
    assert "\n" not in line
    assert entry.keys() == FIXED
    assert (entry["level"], entry["logger"], entry["message"]) == (
        "WARNING",
        "api.runtimes.group_commit",
        "3 jobs of attrition@1",
    )
    moment = datetime.fromisoformat(entry["time"])
    assert moment.utcoffset() is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 5


def test_exception_is_part_of_its_line():
    try:
        raise ValueError("é\n\x00")
    except ValueError:
        line = make_formatter("json").format(record("it failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    kind, place = json.loads(line)["exception"].splitlines()
    assert kind == "ValueError"
    assert place.startswith(f"  {__file__}:")
    assert place.endswith(" in test_exception_is_part_of_its_line")


SECRET = "Dupont earns 3141"


def raise_chain():
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ExceptionGroup(SECRET, [TypeError(SECRET), TimeoutError(SECRET)]) from error


def raise_constraint():
    with create_engine("sqlite://", hide_parameters=True).begin() as connection:
        connection.execute(text("CREATE TABLE t (a text PRIMARY KEY)"))
        connection.execute(text(f"INSERT INTO t VALUES ('{SECRET}'), ('{SECRET}')"))


def raise_from_numpy():
    np.array([SECRET], dtype=float)


@pytest.mark.parametrize(
    ("failing", "kinds"),
    [
        (raise_chain, ["ExceptionGroup", "KeyError", "TimeoutError", "TypeError"]),
        (raise_constraint, ["IntegrityError", "IntegrityError, IntegrityError"]),
        (raise_from_numpy, ["ValueError"]),
    ],
)
def test_words_of_an_exception_are_nowhere_in_the_log(failing, kinds, logger, clock):
    """A pipeline raises with a feature's value in its message, a database repeats the row that it refuses."""
    try:
        failing()
    except Exception as error:
        logger.exception("it failed")
        logger.error("it failed (%s)", error)
        logger.error("it failed (%r)", error)
        logger.error("Task x raised unexpected: %(exc)s", {"exc": repr(error)}, exc_info=error)  # as Celery does
    (handler,) = (handler for handler in logger.handlers if isinstance(handler, Lines))
    assert len(handler.lines) == 4
    assert "Dupont" not in "".join(handler.lines)
    assert "3141" not in "".join(handler.lines)
    lines = entries(logger)[0]["exception"].splitlines()
    assert sorted(line for line in lines if not line.startswith("  ")) == sorted(kinds)
    assert f"in {failing.__name__}" in entries(logger)[0]["exception"]
    assert entries(logger)[1]["message"].removeprefix("it failed (") in [f"{kind})" for kind in kinds]


def test_words_of_our_own_errors_and_of_servers_that_are_away_are_kept():
    assert safe_text(ArtefactError("model.joblib is missing: copy it.")) == "model.joblib is missing: copy it."
    assert (
        safe_text(psycopg2.OperationalError("the server closed\nLINE 1: 3141")) == "OperationalError: the server closed"
    )
    wrapped = DBAPIError.instance("SELECT 3141", {}, psycopg2.OperationalError("gone"), psycopg2.Error)
    assert safe_text(wrapped) == "OperationalError: gone"
    assert safe_text(FileNotFoundError(2, "No such file or directory", "/home/dupont")) == (
        "FileNotFoundError: No such file or directory"
    )
    assert safe_text(ConnectionError(f"GET /people?name={SECRET}")) == "ConnectionError"


def test_sentence_of_ours_loses_the_words_of_what_it_was_raised_from():
    def add():
        try:
            raise_from_numpy()
        except ValueError as error:
            raise ArtefactError(f"It cannot score ({type(error).__name__}: {error}): check it.") from error

    with pytest.raises(ArtefactError, match=SECRET) as caught:  # whoever adds the model sees them
        add()
    assert without_words(caught.value.detail, caught.value) == "It cannot score (ValueError): check it."


def test_celery_which_repeats_errors_to_flower_gets_the_type_alone(monkeypatch, caplog):
    monkeypatch.setattr(process, "_runtime", SimpleNamespace(parent=None))
    with pytest.raises(process.TaskFailed) as caught, process.working():
        raise_from_numpy()
    assert str(caught.value) == "ValueError"
    assert caught.value.__suppress_context__
    assert "in raise_from_numpy" in json.loads(make_formatter("json").format(caplog.records[-1]))["exception"]


def test_endless_recursion_is_told_in_few_lines():
    def again():
        again()

    try:
        again()
    except RecursionError:
        line = make_formatter("json").format(record("it failed", exc_info=sys.exc_info()))
    assert len(json.loads(line)["exception"].splitlines()) < 50


@pytest.mark.usefixtures("_root")
def test_thread_that_ends_by_an_exception_says_so_without_its_words(capsys):
    configure_logging("INFO")
    thread = threading.Thread(target=raise_from_numpy, name="drain")
    thread.start()
    thread.join()
    [line] = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "the thread drain ended by an exception"
    assert entry["exception"].startswith("ValueError")
    assert "Dupont" not in line


@pytest.mark.usefixtures("_root")
def test_warning_of_a_library_may_quote_a_value_and_is_told_by_its_place(capsys):
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._log_warning
        warnings.warn(f"Found unknown categories ['{SECRET}']", UserWarning, stacklevel=1)
        warnings.warn("this parameter goes", FutureWarning, stacklevel=1)
    first, second = (json.loads(line)["message"] for line in capsys.readouterr().err.splitlines())
    assert first.startswith(f"UserWarning at {__file__}:")
    assert "Dupont" not in first
    assert second.endswith(": this parameter goes")


@pytest.mark.parametrize("text", ["two\nlines", 'a "quote"', "\x00\x1b[31m", "日本", "a lone surrogate: \ud800", ""])
def test_no_text_breaks_the_line_or_is_lost(text):
    """File names and library messages may hold anything; a log that fails hides why something else did."""
    line = make_formatter("json").format(record("%s", text))
    assert "\n" not in line
    assert isinstance(json.loads(line)["message"], str)


@pytest.mark.usefixtures("_root")
def test_every_logger_goes_to_standard_error_as_json(capsys):
    configure_logging("INFO")
    logging.getLogger("shared.registry.loaded_models").info("loaded %s", "credit@2")
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


def test_line_has_the_fields_that_are_bound_where_it_is_written(logger):
    logger.setLevel(logging.INFO)
    begin(request_id="r1")
    with bound(lane="bulk", job_id="j0"):
        bind(model="credit@2")
        logger.info("inside")
    bind(job_id="j1")
    logger.info("after", extra={"duration_ms": 12})
    begin(request_id="r2")
    logger.info("next request")
    assert [{key: entry[key] for key in sorted(entry.keys() - FIXED)} for entry in entries(logger)] == [
        {"job_id": "j0", "lane": "bulk", "model": "credit@2", "request_id": "r1"},
        {"duration_ms": 12, "job_id": "j1", "model": "credit@2", "request_id": "r1"},
        {"request_id": "r2"},
    ]


def test_fields_of_a_process_are_on_the_lines_of_its_threads_and_those_of_a_request_are_not(logger):
    identify(worker="host:7")
    bind(request_id="r1")
    thread = threading.Thread(target=lambda: logger.warning("in a thread"))
    thread.start()
    thread.join()
    [entry] = entries(logger)
    assert entry["worker"] == "host:7"
    assert "request_id" not in entry


def test_extra_fields_of_libraries_are_not_written(logger):
    """Celery's hold the arguments of a task, and whatever a library adds one day may hold a value."""
    logger.error("it failed", extra={"data": {"args": SECRET}, "color_message": SECRET, "features": SECRET})
    [entry] = entries(logger)
    assert entry.keys() == FIXED


def test_text_is_for_a_person_one_line_and_the_places_of_an_exception_below():
    bind(model="credit@2")
    try:
        raise_from_numpy()
    except ValueError:
        line = make_formatter("text").format(record("it failed: %s", "two\nlines \x1b[31m", exc_info=sys.exc_info()))
    first, kind, *places = line.splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \[WARNING *\] it failed: two\\nlines \\x1b\[31m \(api\.runtimes\.group_commit\) model=credit@2",  # noqa: E501
        first,
    )
    assert kind == "ValueError"
    assert all(place.startswith("  /") for place in places)
    assert "Dupont" not in line


def test_colours_are_for_terminals():
    assert "\x1b[" in make_formatter("text", colors=True).format(record("it failed"))
    assert "\x1b" not in make_formatter("text").format(record("it failed"))


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_standard_error_that_is_no_terminal_gets_json_unless_text_is_asked_for(form, is_json, capsys):
    configure_logging("INFO", form=form)
    logging.getLogger("x").info("started")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("{") == is_json


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.addFilter(Once())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(make_formatter("json").format(record))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("shared.observability.repeats.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.once")
    logger.propagate = False
    handler = Lines()
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def lines(logger: logging.Logger) -> list[str]:
    return [entry["message"] for entry in entries(logger)]


def entries(logger: logging.Logger) -> list[dict[str, str]]:
    (handler,) = (handler for handler in logger.handlers if isinstance(handler, Lines))
    return [json.loads(line) for line in handler.lines]


def test_state_is_logged_once_and_again_when_it_is_news(logger: logging.Logger, clock: list[float]) -> None:
    for _ in range(1000):
        logger.warning("Redis does not answer (%d tries)", clock[0])
        clock[0] += 0.1
    assert lines(logger) == ["Redis does not answer (1000 tries)"]
    clock[0] += 61  # it was well meanwhile
    logger.warning("Redis does not answer (%d tries)", 1)
    assert lines(logger)[1:] == ["Redis does not answer (1 tries) (and 999 times more before)"]


def test_state_that_goes_on_is_said_again_after_ten_minutes(logger: logging.Logger, clock: list[float]) -> None:
    for _ in range(14):
        logger.error("the database is away")
        clock[0] += 50
    assert lines(logger) == ["the database is away", "the database is away (and 12 times more before)"]


def test_other_names_and_other_errors_are_other_states(logger: logging.Logger, clock: list[float]) -> None:
    for name in ("a@1", "b@1", "a@1"):
        logger.warning("%s cannot be loaded", name)
    for error in (ValueError("x"), KeyError("x"), ValueError("y")):
        try:
            raise error
        except LookupError:
            logger.exception("it failed")
        except ValueError:
            logger.exception("it failed")
    assert len(lines(logger)) == 4


def test_server_that_is_away_leaves_no_traceback(logger: logging.Logger, clock: list[float]) -> None:
    try:
        raise RedisConnectionError("nobody listens\non 6379")
    except RedisConnectionError:
        logger.exception("Connection lost. Trying again in %s", "2.00 seconds (1/100)")
        logger.exception("Connection lost. Trying again in %s", "4.00 seconds (2/100)")
    message = "Connection lost. Trying again in 2.00 seconds (1/100) (ConnectionError: nobody listens)"
    assert lines(logger) == [message]
    assert "exception" not in entries(logger)[0]


def test_information_is_never_held_back(logger: logging.Logger, clock: list[float]) -> None:
    logger.setLevel(logging.INFO)
    for _ in range(3):
        logger.info("loaded %s", "a@1")
    assert len(lines(logger)) == 3
