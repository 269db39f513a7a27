"""What the console answers to its own script, which asks for parts of pages: a problem takes no page away."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import insert

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey
from tests.contracts.console.test_console import HTML, OWN, check_page, fields_of, sign_in
from tests.contracts.helpers import apart, wait_until
from tests.support.stack import Stack

PART = {"HX-Request": "true"}
PREDICT = "/console/models/attrition/predict"
OVER = f"1000000000.{'0' * 32}.{make_key()[0]}"  # a session of long ago


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """The service behind keys and a proxy."""
    with apart(stack, tmp_path, AUTH="keys", PROXY_HOPS="1") as made:
        yield made


@pytest.fixture
def browser(guarded: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, headers=HTML, timeout=90) as made:
        yield made


@pytest.fixture
def key(guarded: Stack) -> str:
    """A key that the API has seen."""
    engine = make_engine(guarded.database_url)
    secret, digest = make_key()
    with engine.begin() as connection:
        connection.execute(insert(ApiKey).values(id=digest[:16], name="Ana", sha256=digest, scopes="predict,read"))
    engine.dispose()
    headers = {"Authorization": f"Bearer {secret}"}
    with guarded.client() as client:
        wait_until(lambda: client.get("/models", headers=headers).status_code == 200 or None)
    return secret


def test_problem_of_a_part_is_a_notice_and_leaves_the_page(
    browser: httpx2.Client, key: str, attrition_row: dict[str, Any]
) -> None:
    browser.cookies.set("guichet_session", OVER)
    answer = browser.post(PREDICT, data=fields_of(attrition_row), headers=OWN | PART)
    assert answer.status_code == 401
    assert (answer.headers["hx-retarget"], answer.headers["hx-reselect"]) == ("#notice", "#problem")
    assert "what you filled in is still here" in answer.text
    assert "set-cookie" not in answer.headers  # the session that begins in another tab meanwhile is left alone
    (link,) = re.findall(r'href="([^"]+)"', answer.text)
    place = unescape(link)
    assert place == "/console/sign-in?next=%2Fconsole%2Fmodels%2Fattrition%2Fpredict&reason=ended"
    assert f'name="next" value="{PREDICT}"' in browser.get(place).text
    browser.cookies.clear()
    assert sign_in(browser, key).status_code == 303
    missing = browser.post("/console/models/nothing/predict", data={}, headers=OWN | PART)
    assert (missing.status_code, missing.headers["hx-retarget"]) == (404, "#notice")
    assert "<html" not in missing.text


def test_part_of_what_is_gone_is_not_asked_for_again(browser: httpx2.Client, key: str) -> None:
    place = f"/console/jobs/{uuid4()}"
    for signs_in, status in ((False, 303), (True, 404)):
        if signs_in:
            sign_in(browser, key)
        part = browser.get(place, headers=PART | {"HX-Target": "live"})
        assert (part.status_code, part.headers["hx-refresh"]) == (200, "true")
        assert browser.get(place).status_code == status  # which the whole page says


def test_sign_in_leads_back_to_the_page_with_its_filter(browser: httpx2.Client, key: str) -> None:
    for following in ("/console/jobs?status=failed&model=attrition%401", "/console/logs/requests?from=2026-01-01"):
        refused = browser.get(following)
        assert refused.status_code == 303
        page = browser.get(refused.headers["location"])
        (kept,) = re.findall(r'name="next" value="([^"]*)"', page.text)
        assert unescape(kept) == following
        assert sign_in(browser, key, unescape(kept)).headers["location"] == following
        browser.cookies.clear()
    for following in (
        "/console/jobs?a=\\b",
        "/console/jobs#x",
        "/console/%2e%2e/docs",
        "/console?x=é",
        "/consoles?x=1",
    ):
        assert sign_in(browser, key, following).headers["location"] == "/console"
        browser.cookies.clear()


def test_form_whose_session_is_over_leads_back_to_its_page(
    browser: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    browser.cookies.set("guichet_session", OVER)
    answer = browser.post(PREDICT, data=fields_of(attrition_row), headers=OWN)
    assert answer.status_code == 303
    assert answer.headers["location"] == (
        "/console/sign-in?next=%2Fconsole%2Fmodels%2Fattrition%2Fpredict&reason=ended"
    )


def test_call_names_the_address_that_the_reader_has(browser: httpx2.Client, key: str) -> None:
    sign_in(browser, key)
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "scores.example"}
    assert "https://scores.example/models/attrition/predict" in check_page(browser.get(PREDICT, headers=forwarded))
