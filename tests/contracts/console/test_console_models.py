"""The console's drift, comparisons, replays, trainings and cards, as a browser without scripts reads them."""

import re
import uuid
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from tests.contracts.console.test_console import HTML, OWN, check_page, submit
from tests.contracts.helpers import wait_for_job, wait_until
from tests.contracts.models.test_challenger import challenge, wait_for_rows
from tests.contracts.monitoring.test_monitoring import drift_when_counted
from tests.contracts.versions import COUNT, decide, fitted, register, rows_of
from tests.support.stack import Stack
from tests.support.trainings import TARGET, csv_of, make_rows

_names: dict[str, str] = {}  # by the service: the model that it has


@pytest.fixture
def browser(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


@pytest.fixture
def name(stack: Stack, client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """A model with two versions, the first of which has decided 60 rows; 40 outcomes are known."""
    if stack.url not in _names:
        name = f"shown-{uuid.uuid4().hex[:12]}"
        for weight in (0, 15):
            register(engine, models_dir, tmp_path, name, *fitted(weight, ["age", "region"]))
        wait_until(lambda: client.get(f"/models/{name}/versions/2").status_code == 200 or None)
        job = decide(client, f"{name}@1", rows_of(COUNT))
        outcomes = "".join(f"{job},{row},{row % 2}\n" for row in range(40))
        content = f"job_id,row,actual\n{outcomes}"
        assert client.post("/outcomes", content=content, headers={"Content-Type": "text/csv"}).status_code == 200
        _names[stack.url] = name
    return _names[stack.url]


# ── drift and quality ────────────────────────────────────────────────────────────────────────────────────────────


def test_drift_is_shown_by_level_with_the_number_of_rows(
    browser: httpx2.Client, client: httpx2.Client, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("drifting-page", "credit")
    feature = next(iter(credit_row))
    rows = [credit_row | {feature: credit_row[feature] * 1000 + place} for place in range(300)]
    batch = {"model": name, "rows": rows}
    wait_until(lambda: client.post("/predict_batch", json=batch).status_code in (200, 202) or None)
    drift = drift_when_counted(client, 300, model=name)
    answer = browser.get(f"/console/models/{name}/quality")
    text = check_page(answer)
    assert f"300 rows beside {drift['reference_rows']:,} of the reference" in text
    for level in {each["level"] for each in drift["features"]}:
        count = sum(each["level"] == level for each in drift["features"])
        assert re.search(rf"{level} {count} features?\b", text), level
    for each in drift["features"]:
        assert f">{each['feature']}</a>" in answer.text
    assert answer.text.count('class="small spark"') == len(drift["features"])
    one = browser.get(f"/console/models/{name}/quality?feature={feature}")
    assert 'id="feature"' in one.text
    assert re.search(r"n = \d+", check_page(one))
    few = check_page(browser.get(f"/console/models/{name}/quality?from=2020-01-01&to=2020-01-03"))
    assert "too few rows 0 rows beside" in few
    assert "trop peu de lignes" in check_page(
        browser.get(f"/console/models/{name}/quality?from=2020-01-01&to=2020-01-03&lang=fr")
    )
    before = check_page(browser.get(f"/console/models/{name}/quality?against=previous&lang=en"))
    assert "of the window before" in before


def test_threshold_decides_the_past_anew_with_its_cost(
    browser: httpx2.Client, client: httpx2.Client, name: str
) -> None:
    page = browser.get(f"/console/models/{name}@1/quality?threshold=0.9&cost_fp=1&cost_fn=7")
    text = check_page(page)
    query = {"model": f"{name}@1", "cost_fp": 1, "cost_fn": 7}
    as_decided = client.get("/metrics/kpis", params=query).json()["versions"][0]["confusion"]
    anew = client.get("/metrics/kpis", params=query | {"threshold": 0.9}).json()["versions"][0]["confusion"]
    assert as_decided["cost"] != anew["cost"]
    for confusion in (as_decided, anew):
        assert f"The false ones cost {confusion['cost']:,g}." in text
    assert ("more." if anew["cost"] > as_decided["cost"] else "less.") in text
    metrics = client.get("/metrics/model", params={"model": f"{name}@1"}).json()["windows"][0]
    assert f"n = {metrics['rows']} rows with an outcome" in text
    assert f"{metrics['metrics']['accuracy']['value']:.3f}".rstrip("0") in text
    assert "Calibration" in text
    assert '<svg class="plot"' in page.text
    assert 'type="range"' in page.text
    assert "At 0.9" not in check_page(browser.get(f"/console/models/{name}@1/quality"))
    for query_text in ("threshold=2", "threshold=x", "cost_fp=-1", "from=yesterday", "against=tomorrow"):
        check_page(browser.get(f"/console/models/{name}/quality?{query_text}"), 422)
    check_page(browser.get("/console/models/nothing/quality"), 404)


def test_regression_has_no_threshold_and_no_outcomes_are_said_to_be_missing(browser: httpx2.Client) -> None:
    answer = browser.get("/console/models/energy/quality?from=2020-01-01&to=2020-01-02")
    assert "No outcome of this window is known yet." in check_page(answer)
    assert 'type="range"' not in answer.text


# ── two versions ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_challenger_is_shown_beside_the_champion(browser: httpx2.Client, client: httpx2.Client, name: str) -> None:
    nothing = check_page(browser.get(f"/console/models/{name}/comparison"))
    assert "There is nothing to compare yet." in nothing
    assert "has no challenger" in nothing
    challenge(client, name, 2)
    decide(client, name, rows_of(COUNT))
    wait_for_rows(client, name, COUNT)
    report = client.get(f"/models/{name}/comparison").json()
    answer = browser.get(f"/console/models/{name}/comparison")
    text = check_page(answer)
    assert f"{name}@2 scores in the shadow." in text
    assert f"Rows compared {report['pairs']}" in text
    assert f"Other decision {report['flips']['count']}" in text
    assert f'href="/console/jobs/{report["largest"][0]["job_id"]}"' in answer.text
    check_page(browser.get(f"/console/models/{name}/comparison?cost_fp=x"), 422)
    check_page(browser.get("/console/models/nothing/comparison"), 404)


def test_replay_is_started_and_read(browser: httpx2.Client, client: httpx2.Client, name: str) -> None:
    form = browser.get(f"/console/models/{name}@2/replay")
    check_page(form)
    assert '<option value="2" selected>' in form.text
    path = f"/console/models/{name}/replay"
    started = submit(
        browser, path, {"version": "2", "decided_by": "1", "cost_fp": "1", "cost_fn": "5", "from": "", "to": ""}
    )
    check_page(started)
    job_id = started.url.path.rsplit("/", 1)[1]
    wait_for_job(client, job_id, seconds=60)
    report = client.get(f"/jobs/{job_id}/result").json()
    assert f'href="/console/replays/{job_id}"' in browser.get(f"/console/jobs/{job_id}").text
    answer = browser.get(f"/console/replays/{job_id}")
    text = check_page(answer)
    assert "hx-trigger" not in answer.text
    assert f"Rows compared {report['pairs']}" in text
    assert f"Cost (false positive 1, false negative 5) {report['cost']['before']['cost']:,g}" in text
    assert f'href="/console/jobs/{job_id}/output.csv"' in answer.text
    for note in report["notes"]:
        assert note in text
    refused = submit(browser, path, {"version": "2", "from": "2020-01-01", "to": "2020-01-02"})
    assert "The replay was not started." in check_page(refused, 409)
    wrong = submit(browser, path, {"version": "2", "cost_fp": "much"})
    check_page(wrong, 422)
    assert 'value="much"' in wrong.text
    check_page(submit(browser, path, {"cost_fp": "much"}), 422)  # the version is left out
    check_page(browser.get(f"/console/replays/{uuid.uuid4()}"), 404)
    other = decide(client, f"{name}@1", rows_of(2))
    check_page(browser.get(f"/console/replays/{other}"), 404)


# ── trainings and cards ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.flow
def test_training_is_started_followed_and_its_card_printed(browser: httpx2.Client, client: httpx2.Client) -> None:
    name = f"learned-{uuid.uuid4().hex[:12]}"
    assert "Train a model" in check_page(browser.get("/console/models"))
    empty = browser.get("/console/train")
    check_page(empty)
    assert 'type="file"' not in empty.text
    query = f"name={name}&target={TARGET}&draws=1&estimators=linear&cost_fn=3"
    form = browser.get(f"/console/train?{query}")
    check_page(form)
    (action,) = re.findall(r'enctype="multipart/form-data" action="([^"]+)"', form.text)
    file = {"file": ("rows.csv", csv_of(make_rows()), "text/csv")}
    started = browser.post(unescape(action), files=file, headers=OWN)
    check_page(started)
    job_id = started.url.path.rsplit("/", 1)[1]
    assert started.url.path == f"/console/trainings/{job_id}"
    wait_for_job(client, job_id, seconds=240)
    assert f'href="/console/trainings/{job_id}"' in browser.get(f"/console/jobs/{job_id}").text
    answer = browser.get(f"/console/trainings/{job_id}")
    text = check_page(answer)
    result = client.get(f"/jobs/{job_id}/result").json()
    assert f"{name}@1 is a candidate." in text
    assert f"{result['metrics']['roc_auc']['value']:.3f}".rstrip("0") in text
    assert answer.text.count('<svg class="plot"') == 2
    card = check_page(browser.get(f"/console/models/{name}@1/card"))
    for section in ("Data", "Metrics", "Intended use", "Limits", result["data_sha256"]):
        assert section in card
    assert "| --- |" not in card


def test_wrong_training_is_refused_beside_its_form(browser: httpx2.Client) -> None:
    file = {"file": ("rows.csv", b"a,left\n1,yes\n", "text/csv")}
    few = browser.post("/console/train?name=fresh&target=left", files=file, headers=OWN)
    assert "The training was not started." in check_page(few, 422)
    assert 'value="fresh"' in few.text
    without = browser.post("/console/train?name=fresh&target=gone", files=file, headers=OWN)
    assert "gone" in check_page(without, 422)
    ghost = submit(browser, "/console/train/again", {"model": "ghost"})
    assert "The training was not started." in check_page(ghost, 404)
    check_page(submit(browser, "/console/train/again", {"model": "credit", "from": "soon"}), 422)
    check_page(browser.get(f"/console/trainings/{uuid.uuid4()}"), 404)


def test_card_of_an_example_has_its_features_and_digest(browser: httpx2.Client, client: httpx2.Client) -> None:
    model = client.get("/models/credit").json()
    text = check_page(browser.get("/console/models/credit/card"))
    assert model["model_sha256"] in text
    for feature in model["card"]["features"]:
        assert feature["name"] in text
    check_page(browser.get("/console/models/nothing/card"), 404)
