"""The console under strangers: every page and form by every caller and from every site, and forms changed by chance."""

import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.console.session import COOKIE, seal
from api.http.about import api_routes
from api.main import PAGES
from tests.contracts.helpers import apart
from tests.fuzz.forms import CONSOLE, CONSOLE_PIECES
from tests.fuzz.mutate import mutant
from tests.fuzz.test_access import make_key
from tests.support.stack import Stack

pytestmark = pytest.mark.fuzz

MUTANTS = 300
SEED = 20260101
SIGN_IN = "/console/sign-in"
OWN = {"Sec-Fetch-Site": "same-origin"}
OTHERS: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:1"},
]
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NO_PAGE = ("/console/static/", "/console/nothing")  # how places begin at which there is none
FORGED = {
    "nobody": "",
    "a guess": seal("guichet_" + "a" * 43, now=time.time()),
    "a seal of zeros": f"{int(time.time()) + 600}.{'0' * 32}.guichet_{'a' * 43}",
    "no seal": "guichet_" + "a" * 43,
    "letters": "x" * 190,
}


def places(job: str) -> list[tuple[str, str]]:
    """Return method and path of everything that the console answers, about this job."""
    values = {"name": "attrition", "job_id": job, "file": "output.csv", "digest": "0" * 16, "rest:path": "nothing"}
    return sorted(
        (method, re.sub(r"\{([^}]+)\}", lambda match: values.get(match[1], "1"), route.path))
        for route in api_routes(PAGES)
        for method in route.methods
    )


def ask(client: httpx2.Client, method: str, path: str, session: str, headers: dict[str, str]) -> httpx2.Response:
    """Return the answer; what is sent without an end is not read."""
    cookies = {"Cookie": f"{COOKIE}={session}"} if session else {}
    content: dict[str, Any] = {} if method == "GET" else {"content": b"reason=a&version=1&f:age=35"}
    sent = {"Accept": "text/html"} | cookies | headers | ({} if method == "GET" else FORM)
    with client.stream(method, path, headers=sent, **content) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer.read()
    return answer


def test_every_page_and_form_is_for_its_reader_and_for_pages_of_this_service(
    stack: Stack, attrition_row: dict[str, Any], tmp_path: Path
) -> None:
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    with apart(stack, tmp_path, AUTH="keys") as guarded, guarded.client() as client:
        owner = make_key(guarded, "console-owner", "predict,read")
        answer = client.post("/jobs", json={"features": attrition_row}, headers=owner)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        sessions = dict(FORGED)
        for scope in ("read", "predict", "admin"):
            sessions[scope] = seal(
                make_key(guarded, f"console-{scope}", scope)["Authorization"].removeprefix("Bearer "), now=time.time()
            )
        everything = places(job)
        assert len(everything) > 15
        for caller, session in sessions.items():
            for method, path in everything:
                for headers in [OWN] if method == "GET" else OTHERS:
                    answer = ask(client, method, path, session, headers)
                    statuses[answer.status_code] += 1
                    if not fits(caller, method, path, job, answer):
                        wrong.append(f"{caller}: {method} {path} {headers}: {answer.status_code}")
            for method, path in everything:
                if method == "POST" and caller != "admin" and path != SIGN_IN:
                    answer = ask(client, method, path, session, OWN)
                    statuses[answer.status_code] += 1
                    if not refused(caller, path, job, answer):
                        wrong.append(f"{caller}: its own {method} {path}: {answer.status_code}")
        assert wrong == []
        assert client.get(f"/jobs/{job}", headers=owner).json()["status"] in ("queued", "running", "succeeded")
        assert client.get("/models/attrition", headers=owner).json()["model_version"] == 1
        assert "Traceback" not in guarded.logs(1_000_000)
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(
        f"\nmake fuzz: {stack.runtime}, pages and forms of the console, {statuses.total()} requests, answers {answers}"
    )


def fits(caller: str, method: str, path: str, job: str, answer: httpx2.Response) -> bool:
    """Tell whether a page may be answered so, and a form of another site."""
    if method != "GET":
        return answer.status_code == 403
    if path.startswith(NO_PAGE):
        return answer.status_code == 404
    if path == SIGN_IN:
        return answer.status_code == (200 if caller in FORGED else 303)
    if caller in FORGED:
        is_led = answer.status_code == 303 and answer.headers["location"].startswith("/console")
        return is_led or answer.status_code in (401, 403)
    if job in path and caller != "admin":
        return answer.status_code in (403, 404)
    return answer.status_code in (200, 303, 403, 404, 409, 422)


def refused(caller: str, path: str, job: str, answer: httpx2.Response) -> bool:
    """Tell whether a form of this very console does nothing for whom it is not, and never fails."""
    if caller in FORGED:
        return answer.status_code in (303, 401, 403) and "attrition" not in answer.text
    if job in path:
        return 400 <= answer.status_code < 500
    return answer.status_code < 500


def test_forms_changed_by_chance_are_answered_by_pages(stack: Stack) -> None:
    chance = random.Random(SEED)
    forms = [path for method, path in places("0199c2d1-1111-7000-8000-000000000000") if method == "POST"]
    statuses: Counter[int] = Counter()
    wrong = []
    with stack.client() as client:
        for _ in range(MUTANTS):
            path, content = chance.choice(forms), mutant(chance, CONSOLE, CONSOLE_PIECES)
            answer = client.post(path, content=content, headers=OWN | FORM | {"Accept": "text/html"})
            statuses[answer.status_code] += 1
            if not 200 <= answer.status_code < 500:
                wrong.append((answer.status_code, path, content))
        assert client.get("/livez").status_code == 200
    assert wrong == []
    assert "Traceback" not in stack.logs(lines=1_000_000)
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(f"\nmake fuzz: {stack.runtime}, {MUTANTS} mutated forms of the console, answers {answers}")
