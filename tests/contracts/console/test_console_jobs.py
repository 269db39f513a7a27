"""Jobs in the console through HTTP: the filter box, changes of several jobs, a job's page, and the live figures."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, insert, update

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey, Job
from tests.contracts.console.test_console import HTML, check_page, sign_in, submit, text_of
from tests.contracts.helpers import apart, check_accepted, check_result, wait_for_job, wait_until
from tests.support.csv_jobs import let_go, put_file, wake
from tests.support.stack import Stack


@contextmanager
def open_browser(stack: Stack) -> Iterator[httpx2.Client]:
    """Yield a browser without scripts and without cookies."""
    with httpx2.Client(base_url=stack.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


@pytest.fixture
def reader(stack: Stack) -> Iterator[httpx2.Client]:
    with open_browser(stack) as made:
        yield made


def hidden_fields(answer: httpx2.Response) -> dict[str, str]:
    """Return what the form of a page sends by itself."""
    main = answer.text.partition("<main")[2]
    return {name: unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', main)}


# ── the filter ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_box_leads_to_the_address_that_says_the_same(reader: httpx2.Client) -> None:
    answer = reader.get("/console/jobs", params={"q": "status:failed model:credit since:1h"})
    check_page(answer)
    assert str(answer.url).endswith("/console/jobs?status=failed&model=credit&since=1h")
    assert 'value="status:failed model:credit since:1h"' in answer.text
    assert reader.get("/console/jobs?q=failed").url.query == b"status=failed"
    assert reader.get("/console/jobs?q=").url.path == "/console/jobs"
    wrong = reader.get("/console/jobs", params={"q": "statsu:<b>failed</b>"})
    assert "“statsu:<b>failed</b>” says nothing" in check_page(wrong, 422)
    assert "Did you mean status:?" in text_of(wrong)
    assert "<b>failed" not in wrong.text
    assert 'value="statsu:&lt;b&gt;failed&lt;/b&gt;"' in wrong.text  # to be corrected
    french = reader.get("/console/jobs?q=x&lang=fr")
    assert "ne correspond à aucun filtre" in check_page(french, 422)
    reader.get("/console/jobs?lang=en")


def test_id_of_a_job_in_the_box_leads_to_its_page(
    reader: httpx2.Client, client: httpx2.Client, credit_row: Any
) -> None:
    job_id = check_accepted(client.post("/jobs", json={"model": "credit", "features": credit_row}))["id"]
    answer = reader.get("/console/jobs", params={"q": job_id.upper()})
    check_page(answer)
    assert answer.url.path == f"/console/jobs/{job_id}"


def test_box_offers_states_and_models(reader: httpx2.Client) -> None:
    offers = re.findall(r'<option value="([^"]+)">', reader.get("/console/jobs").text)
    assert {"status:failed", "model:credit", "model:attrition", "since:1h"} <= set(offers)


# ── changes of several ───────────────────────────────────────────────────────────────────────────────────────────


def test_chosen_jobs_are_canceled_after_a_page_with_their_number(
    reader: httpx2.Client, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    ids = [put_file(engine, [[attrition_row]]) for _ in range(3)]
    listed = reader.get("/console/jobs?status=queued&model=attrition")
    check_page(listed)
    for job_id in ids:
        assert f'name="job:{job_id}"' in listed.text
    fields = {f"job:{job_id}": "on" for job_id in ids[:2]} | {"change": "cancel", "status": "queued"}
    question = submit(reader, "/console/jobs/change", fields)
    assert "Do you want to cancel 2 jobs?" in check_page(question)
    assert client.get(f"/jobs/{ids[0]}").json()["status"] == "queued"  # nothing is changed yet
    client.post(f"/jobs/{ids[1]}/cancel")  # in another tab
    done = submit(reader, "/console/jobs/change", hidden_fields(question))
    text = check_page(done)
    assert "1 job is canceled" in text
    assert "1 job was left as it is" in text
    assert "The job has already ended" in text
    assert f'href="/console/jobs/{ids[1]}"' in done.text
    assert 'href="/console/jobs?status=queued"' in done.text
    assert [client.get(f"/jobs/{job_id}").json()["status"] for job_id in ids] == ["canceled", "canceled", "queued"]
    client.post(f"/jobs/{ids[2]}/cancel")


def test_all_that_match_are_canceled_and_taken_up_again(
    reader: httpx2.Client, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    moment = client.get("/jobs?limit=1").json()["items"]
    begin = moment[0]["created_at"] if moment else "2020-01-01"
    time.sleep(0.01)
    ids = [put_file(engine, [[attrition_row]]) for _ in range(3)]
    filters = {"status": "queued", "model": "attrition", "since": "1h"}
    question = submit(reader, "/console/jobs/change", filters | {"change": "cancel_all"})
    text = check_page(question)
    assert re.search(r"Do you want to cancel \d+ jobs\?", text)
    assert "status:queued model:attrition since:1h" in text
    done = submit(reader, "/console/jobs/change", hidden_fields(question))
    assert re.search(r"\d+ jobs are canceled", check_page(done))
    assert {client.get(f"/jobs/{job_id}").json()["status"] for job_id in ids} == {"canceled"}
    again = submit(reader, "/console/jobs/change", {"status": "canceled", "since": begin, "change": "retry_all"})
    assert re.search(r"Do you want to take up \d+ jobs again\?", check_page(again))
    check_page(submit(reader, "/console/jobs/change", hidden_fields(again)))
    for job_id in ids:
        let_go(engine, job_id)
    wake(client, attrition_row)
    assert {wait_for_job(client, job_id)["status"] for job_id in ids} == {"succeeded"}
    nothing = submit(reader, "/console/jobs/change", {"status": "running", "since": "1s", "change": "retry_all"})
    assert "No job is chosen that could be taken up" in check_page(nothing)
    assert "No job is chosen" in check_page(submit(reader, "/console/jobs/change", {"change": "cancel"}))


def test_form_of_changes_that_is_damaged_is_refused(reader: httpx2.Client) -> None:
    for fields in (
        {"x": "y"},
        {"change": "erase"},
        {"change": "cancel_some"},
        {"change": "cancel_all", "asked_at": "now"},
    ):
        check_page(submit(reader, "/console/jobs/change", fields), 422)
    check_page(submit(reader, "/console/jobs/change", {"change": "cancel_all", "model": "nothing"}), 404)
    check_page(submit(reader, "/console/jobs/change", {"change": "cancel_all", "confirm": "x"}), 409)
    refused = reader.post(
        "/console/jobs/change", data={"change": "cancel_all"}, headers={"Origin": "https://evil.example"}
    )
    assert refused.status_code == 403


# ── the page of a job ────────────────────────────────────────────────────────────────────────────────────────────


def test_outcome_and_explanation_stand_beside_the_input(
    reader: httpx2.Client, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    own = attrition_row | {"revenu_mensuel": attrition_row["revenu_mensuel"] + 0.37}  # nobody has explained this one
    result = check_result(client.post("/predict", json={"features": own}))
    path = f"/console/jobs/{result['job_id']}"
    shown = reader.get(f"{path}?show=input")
    text = check_page(shown)
    for piece in ("How it came about", "Artefact, SHA-256", "Scored by", "Note the outcome", "Explain this score"):
        assert piece in text
    labels = re.findall(r'<option value="([^"]+)">', shown.text.partition('id="outcomes"')[2])
    assert result["label"] in [unescape(label) for label in labels]
    noted = submit(reader, f"{path}/outcome", {"actual": result["label"], "row": "0"})
    assert noted.url.query == b"show=input&row=0"
    assert f"What became of it {result['label']}" in check_page(noted)
    other = next(unescape(label) for label in labels if unescape(label) != result["label"])
    refused = submit(reader, f"{path}/outcome", {"actual": other, "row": "0"})
    assert "another outcome already" in check_page(refused, 409)
    revised = submit(reader, f"{path}/outcome", {"actual": other, "row": "0", "revise": "on"})
    assert f"What became of it {other} noted 2 times" in check_page(revised)
    check_page(submit(reader, f"{path}/outcome", {"actual": "perhaps", "row": "0"}), 422)
    check_page(submit(reader, f"{path}/outcome", {"actual": other, "row": "x"}), 422)
    explained = submit(reader, f"{path}/explain", {"row": "0"})
    check_page(explained)
    job_id = explained.url.path.rsplit("/", 1)[1]
    wait_for_job(client, job_id)
    assert "what each feature adds to it" in check_page(reader.get(f"/console/jobs/{job_id}"))
    assert "what each feature adds to it" in check_page(reader.get(f"{path}?show=input"))


def test_timeline_has_the_attempts_of_a_job_that_was_claimed_again(
    reader: httpx2.Client, client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    result = check_result(client.post("/predict", json={"features": attrition_row}))
    job_id = result["job_id"]
    assert "Attempt" not in check_page(reader.get(f"/console/jobs/{job_id}"))
    assert "claims" not in client.get(f"/jobs/{job_id}").json()
    with engine.begin() as connection:  # as a worker that died leaves it
        connection.execute(update(Job).where(Job.id == job_id).values(attempt=3, crash_count=2))
    job = client.get(f"/jobs/{job_id}").json()
    assert job["claims"] == {"crashes": 2, "last_claimed_at": job["claims"]["last_claimed_at"]}
    text = check_page(reader.get(f"/console/jobs/{job_id}"))
    assert "Attempt 3" in text
    assert "2 attempts ended with their workers." in text


# ── live figures ─────────────────────────────────────────────────────────────────────────────────────────────────


class Viewer(threading.Thread):
    """A page that is open: it collects the events of the live figures until the stream ends."""

    def __init__(self, stack: Stack, cookies: Any = None) -> None:
        super().__init__(daemon=True)
        self.events: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.status = 0
        self._client = httpx2.Client(base_url=stack.url, headers={"Accept": "text/event-stream"}, timeout=60)
        if cookies is not None:
            self._client.cookies.update(cookies)

    def run(self) -> None:
        try:
            with self._client.stream("GET", "/console/live") as answer:
                self.status, self.headers = answer.status_code, dict(answer.headers)
                kind, data = "", []
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        data.append(line.removeprefix("data: "))
                    elif not line and kind:
                        self.events.append((kind, "\n".join(data)))
                        kind, data = "", []
        except httpx2.TransportError:
            self.events.append(("broken", ""))
        finally:
            self._client.close()

    def wait_for(self, count: int) -> list[tuple[str, str]]:
        """Return the events, as soon as there are so many."""
        return wait_until(lambda: self.events if len(self.events) >= count else None, seconds=30)


def test_figures_come_to_all_viewers_from_one_reading(
    stack: Stack, client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    viewers = [Viewer(stack) for _ in range(5)]
    for viewer in viewers:
        viewer.start()
    client.post("/predict", json={"features": attrition_row})
    firsts = [viewer.wait_for(1)[0] for viewer in viewers]
    assert {viewer.status for viewer in viewers} == {200}
    assert viewers[0].headers["content-type"].startswith("text/event-stream")
    assert viewers[0].headers["cache-control"] == "no-cache"
    assert len(set(firsts)) <= 2  # of the same reading, or of two that follow each other
    seconds = [viewer.wait_for(2)[1] for viewer in viewers]
    assert {kind for kind, _ in firsts + seconds} == {"figures"}
    for piece in ("Rows per second", "Latency, p95", "<svg", 'data-part="table"', 'data-part="workers"'):
        assert piece in firsts[0][1]
    assert not re.search(r"<script|style=|\son[a-z]+=|href=", firsts[0][1])
    logged = client.get("/logs/requests?limit=50").json()["items"]
    assert "/console/live" not in {entry["path"] for entry in logged}


@pytest.mark.flow
def test_stream_ends_when_the_process_is_told_to_stop(stack: Stack, tmp_path: Path) -> None:
    with apart(stack, tmp_path) as other:
        viewer = Viewer(other)
        viewer.start()
        viewer.wait_for(1)
        began = time.monotonic()
        assert other.stop("api", sig=signal.SIGTERM) in (0, -15)
        viewer.join(5)
        assert not viewer.is_alive()
        assert time.monotonic() - began < 8
        assert ("broken", "") not in viewer.events  # it was ended, not cut off


def test_stream_ends_with_the_key_and_is_for_keys_that_may_list(keyed: Stack) -> None:
    with open_browser(keyed) as browser:
        secret, digest = make_key()
        own = make_engine(keyed.database_url)
        with own.begin() as connection:
            connection.execute(insert(ApiKey).values(id=digest[:16], name="eve", sha256=digest, scopes="read"))
        stranger = Viewer(keyed)
        stranger.start()
        assert stranger.wait_for(1) == [("ended", "")]
        wait_until(lambda: sign_in(browser, secret).status_code == 200 or None)
        viewer = Viewer(keyed, browser.cookies)
        viewer.start()
        assert viewer.wait_for(1)[0][0] == "figures"
        with own.begin() as connection:
            connection.execute(update(ApiKey).where(ApiKey.id == digest[:16]).values(revoked_at=ApiKey.created_at))
        own.dispose()
        wait_until(lambda: viewer.events[-1] == ("ended", "") or None, seconds=20)
        viewer.join(5)
        assert not viewer.is_alive()
        assert browser.get("/console").url.path == "/console/sign-in"


def test_overview_leads_failures_to_a_retry_of_all(reader: httpx2.Client, client: httpx2.Client, moody: str) -> None:
    answer = submit(reader, f"/console/models/{moody}/predict", {"f:mood": "1000000"})
    check_page(answer, 500)
    page = reader.get("/console")
    text = check_page(page)
    assert "Retry all that match" in text
    assert 'data-live="/console/live"' in page.text
    assert '<meta http-equiv="refresh" content="10">' in page.text  # for those without scripts
    question = submit(reader, "/console/jobs/change", {"status": "failed", "model": moody, "change": "retry_all"})
    assert "only files that did not succeed" in check_page(question)
