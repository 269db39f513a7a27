"""The Prefer header: what a caller may wish for, and what of it is applied."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from starlette.requests import Request

from api.http.prefer import Preference, read_preference

DEFAULT, CAP = 10.0, 60.0


def read(*headers: bytes) -> Preference:
    scope = {"type": "http", "headers": [(b"prefer", header) for header in headers]}
    return read_preference(Request(scope), default=DEFAULT, cap=CAP)


def test_caller_without_a_wish_waits_as_long_as_the_service_says():
    assert read() == Preference(DEFAULT, None)


@pytest.mark.parametrize(
    ("header", "wait", "applied"),
    [
        (b"respond-async", 0, "respond-async"),
        (b"Respond-Async", 0, "respond-async"),
        (b"wait=5", 5, "wait=5"),
        (b"WAIT=5", 5, "wait=5"),
        (b'wait="5"', 5, "wait=5"),
        (b"  wait = 5 ", 5, "wait=5"),
        (b"wait=0", 0, "wait=0"),
        (b"wait=600", 60, "wait=60"),
        (b"wait=" + b"9" * 400, 60, "wait=60"),
        (b"respond-async, wait=5", 5, "respond-async, wait=5"),
        (b"wait=5,respond-async", 5, "respond-async, wait=5"),
        (b"wait=5, wait=7", 5, "wait=5"),
        (b"return=minimal, wait=5", 5, "wait=5"),
    ],
)
def test_known_wish_is_applied_and_named(header, wait, applied):
    assert read(header) == Preference(wait, applied)


@pytest.mark.parametrize(
    "header",
    [b"", b",", b"return=minimal", b"wait", b"wait=", b"wait=soon", b"wait=-5", b"wait=1.5", b"waiting=5", b"=5"],
)
def test_wish_that_is_unknown_or_makes_no_sense_is_ignored(header):
    assert read(header) == Preference(DEFAULT, None)


def test_wishes_in_several_headers_count_together():
    assert read(b"respond-async", b"wait=5") == Preference(5, "respond-async, wait=5")


@pytest.mark.parametrize("header", [b"wait=5; strict", b'wait=5;a="b"', b"respond-async; x=1"])
def test_parameters_of_a_wish_do_not_hide_it(header):
    """RFC 7240, section 2: a preference may have parameters after a semicolon."""
    assert read(header).applied in ("wait=5", "respond-async")


@pytest.mark.parametrize("header", [b"wait=\xb2", b"wait=\xb9\xb2", b"wait=1\xb3"])
def test_digit_that_is_no_number_is_ignored(header):
    """'²' is a digit to Python, but no number: it must not become a 500."""
    assert read(header) == Preference(DEFAULT, None)


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_no_header_is_an_accident(headers):
    assert 0 <= read(*headers).wait <= CAP
