"""The console for its readers: a small first view, strangers who sign in first, workbooks that say what they lack."""

import gzip
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.contracts.console.test_console import HTML, OWN, check_page, fields_of
from tests.contracts.files.test_files import workbook
from tests.support.stack import Stack

FIRST_VIEW_BYTES = 100_000
JOB = "01a22a26-30a3-730c-a9c6-b8b186ac053e"


@pytest.fixture
def reader(stack: Stack) -> Iterator[httpx2.Client]:
    """A browser that follows nothing by itself."""
    with httpx2.Client(base_url=stack.url, headers=HTML, timeout=90) as made:
        yield made


def test_first_view_is_small_as_it_is_sent(reader: httpx2.Client) -> None:
    """The page itself goes as it is; a proxy may compress it, and then it is smaller still."""
    sent = 0
    page = reader.get("/").text
    places = sorted(set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)))
    assert len(places) == 4
    for place in ["/", *places]:
        with reader.stream("GET", place, headers={"Accept-Encoding": "gzip"}) as answer:
            assert answer.status_code == 200
            sent += sum(len(piece) for piece in answer.iter_raw())
    assert sent < FIRST_VIEW_BYTES
    assert len(gzip.compress(page.encode())) < FIRST_VIEW_BYTES / 10


def test_strangers_are_led_to_the_sign_in_before_they_learn_anything(keyed: Stack) -> None:
    with httpx2.Client(base_url=keyed.url, headers=HTML, timeout=90) as stranger:
        for path in ("/console/logs/nothing", "/console/logs/audit", f"/console/jobs/{JOB}", "/console/jobs?q=a:b"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/console/sign-in"), path
        forms: dict[str, Any] = {
            "/console/jobs/change": {"change": "nonsense"},
            f"/console/jobs/{JOB}/outcome": {"row": "x"},
            f"/console/jobs/{JOB}/explain": {"row": "x"},
            f"/console/jobs/{JOB}/cancel": {},
        }
        for path, fields in forms.items():
            answer = stranger.post(path, data=fields, headers=OWN)
            assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in"), path
        stream = stranger.get("/console/live", headers={"Accept": "text/event-stream"})
        assert (stream.status_code, stream.headers["content-type"]) == (401, "text/event-stream; charset=utf-8")
        assert stream.text == "event: ended\ndata: \n\n"  # for a page whose session is over: it leads to the sign-in


def test_formulas_without_values_are_a_warning_on_the_page_of_the_check_and_of_the_job(
    reader: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    row = list(attrition_row.values())
    content = workbook([[*attrition_row, "twice"], [*row, "=A2*2"], [*row, 3]])
    for action in ("check", "upload"):
        answer = reader.post(f"/console/models/attrition/{action}", files={"file": ("rows.xlsx", content)}, headers=OWN)
        if action == "upload":
            assert answer.status_code == 303
            answer = reader.get(answer.headers["location"])
        text = check_page(answer)
        assert "1 cell has a formula without a stored value (" in text
        assert "open the workbook in a spreadsheet program, save it, and send it again" in text
        warning = answer.text.partition('<div class="notice warn">')[2].partition("</div>")[0]
        assert "How the file was read" in warning
        assert "a formula without a stored value" in warning


def test_reasons_stand_with_the_score_and_can_be_had_without_scripts(
    reader: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    scored = reader.post("/console/models/attrition/predict", data=fields_of(attrition_row), headers=OWN)
    check_page(scored)
    form = re.search(r'<form id="reasons" method="post" action="([^"]+)" hx-post="([^"]+)"', scored.text)
    assert form is not None
    assert form[1] == form[2]
    part = reader.post(form[1], data={"row": "0"}, headers=OWN | {"HX-Request": "true"})
    assert part.status_code == 200
    assert part.text.lstrip().startswith('<section id="reasons"')
    assert part.text.count('<svg class="bar"') == 8
    assert f"All {len(attrition_row)} features" in part.text
    whole = reader.post(form[1], data={"row": "0"}, headers=OWN)
    assert whole.status_code == 303
    assert "what each feature adds to it" in check_page(reader.get(whole.headers["location"]))
    refused = reader.post(form[1], data={"row": "7"}, headers=OWN | {"HX-Request": "true"})
    assert refused.status_code == 422
    assert '<p class="notice warn" lang="en">' in refused.text


def test_filter_that_cannot_be_read_leads_to_the_page_without_it(reader: httpx2.Client) -> None:
    for path in ("/console/logs/requests?status=many", "/console/models/attrition/quality?from=soon"):
        answer = reader.get(path)
        check_page(answer, 422)
        assert f'<a class="button" href="{path.partition("?")[0]}">Show all</a>' in answer.text
