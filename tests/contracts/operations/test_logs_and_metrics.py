"""What operators ask: /metrics, /metrics/system and /logs, of a running service on both runtimes."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, func, select, text

from shared.tables import ErasedJob, Job, MetricSample, ModelVersion, RequestLog, ServiceSecret
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import apart, check_problem, new_id, wait_for_job, wait_until
from tests.contracts.moody import RAISES
from tests.support.stack import ROOT, Stack


def entry_of(client: httpx2.Client, request_id: str, **filters: str) -> dict[str, Any]:
    """Return the request's entry as soon as it is stored: a second later or so."""

    def look() -> dict[str, Any] | None:
        items = client.get("/logs/requests", params={"request_id": request_id, **filters}).json()["items"]
        return items[0] if items else None

    return wait_until(look)


def samples(client: httpx2.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(client: httpx2.Client, name: str, **labels: str) -> float:
    return samples(client).get((name, frozenset(labels.items())), 0.0)


# ── /logs/requests ───────────────────────────────────────────────────────────────────────────────────────────────


def test_request_is_logged_with_its_route_model_time_and_answer(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    request_id = new_id()
    answer = client.post(
        "/models/attrition/predict", json={"features": attrition_row}, headers={"X-Request-Id": request_id}
    )
    entry = entry_of(client, request_id)
    assert (entry["method"], entry["route"], entry["path"]) == (
        "POST",
        "/models/{name}/predict",
        "/models/attrition/predict",
    )
    assert (entry["status"], entry["model"], entry["size"]) == (200, "attrition@1", len(answer.content))
    assert 0 < entry["duration_ms"] < 30_000
    assert entry["owner"] is None


def test_same_input_has_the_same_hash_which_the_secret_alone_explains(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    body = json.dumps({"features": attrition_row}).encode()
    other = json.dumps({"features": {**attrition_row, "age": 31}}).encode()
    hashes = []
    for content in (body, body, other):
        request_id = new_id()
        client.post(
            "/predict", content=content, headers={"X-Request-Id": request_id, "Content-Type": "application/json"}
        )
        hashes.append(entry_of(client, request_id)["input_hash"])
    assert hashes[0] == hashes[1] != hashes[2]
    with engine.connect() as connection:
        secret = connection.scalar(select(ServiceSecret.value).where(ServiceSecret.name == "input_hash"))
    assert secret is not None
    expected = hmac.new(bytes.fromhex(secret), hashlib.sha256(body).digest(), "sha256").hexdigest()
    assert hashes[0] == expected
    same = client.get("/logs/requests", params={"input_hash": hashes[0]}).json()["items"]
    assert len(same) >= 2


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [("/nowhere/at/all", 404, "(none)"), ("/jobs/none", 404, "/jobs/{id}"), ("/docs", 200, "/docs")],
)
def test_refusals_and_pages_are_logged_too(client: httpx2.Client, path: str, status: int, route: str) -> None:
    request_id = new_id()
    client.get(path, headers={"X-Request-Id": request_id})
    entry = entry_of(client, request_id)
    assert (entry["status"], entry["route"], entry["path"]) == (status, route, path)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("DELETE", "/predict", 405), ("POST", "/v2/models/attrition/infer", 400), ("POST", "/invocations", 400)],
)
def test_refusals_by_the_framework_and_of_other_protocols_are_logged(
    client: httpx2.Client, method: str, path: str, status: int
) -> None:
    request_id = new_id()
    answer = client.request(method, path, headers={"X-Request-Id": request_id}, json={"none": "of theirs"})
    assert answer.status_code == status
    entry = entry_of(client, request_id)
    assert (entry["status"], entry["path"]) == (status, path)


def test_answered_probe_is_no_entry(client: httpx2.Client, engine: Engine) -> None:
    probe, after = new_id(), new_id()
    client.get("/livez", headers={"X-Request-Id": probe})
    client.get("/models", headers={"X-Request-Id": after})
    entry_of(client, after)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(RequestLog.request_id == probe)) == 0


def test_pages_of_the_log_hold_each_entry_once_newest_first(client: httpx2.Client) -> None:
    name = new_id()
    for _ in range(5):
        client.get(f"/models/{name}")
    wait_until(
        lambda: (
            [
                item["path"]
                for item in client.get("/logs/requests", params={"route": "/models/{name}", "limit": 50}).json()[
                    "items"
                ]
            ].count(f"/models/{name}")
            == 5
            or None
        )
    )
    first = client.get("/logs/requests", params={"limit": 3, "route": "/models/{name}"}).json()
    second = client.get(first["next"]).json()
    ids = [item["id"] for item in (*first["items"], *second["items"])]
    assert ids == sorted(set(ids), reverse=True)
    assert len(first["items"]) == 3
    assert {item["route"] for item in second["items"]} == {"/models/{name}"}


@pytest.mark.parametrize(
    ("path", "parameters", "name"),
    [
        ("/logs/requests", {"cursor": "10000000000000000000"}, "cursor"),
        ("/logs/requests", {"limit": "0"}, "limit"),
        ("/logs/errors", {"status": "99"}, "status"),
        ("/logs/audit", {"from": "yesterday"}, "from"),
        ("/logs/requests", {"from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00"}, "/query/from"),
        ("/logs/audit", {"from": "2026-03-02T00:00:00Z", "to": "2026-03-02T00:30:00+01:00"}, "/query/from"),
        ("/logs/audit", {"acter": "x"}, "acter"),
        ("/logs/audit", {"actor": "key:\x00"}, "actor"),
        ("/logs/requests", {"model": "\x00"}, "model"),
        ("/alerts", {"model": "\x00"}, "model"),
    ],
)
def test_filter_that_cannot_hold_is_refused_by_name(
    client: httpx2.Client, path: str, parameters: dict[str, str], name: str
) -> None:
    problem = check_problem(client.get(path, params=parameters), 422)
    assert name in json.dumps(problem)


def test_errors_are_listed_by_request(client: httpx2.Client) -> None:
    request_id = new_id()
    client.post("/predict", json={"features": {}}, headers={"X-Request-Id": request_id})

    def look() -> list[dict[str, Any]] | None:
        return client.get("/logs/errors", params={"request_id": request_id}).json()["items"] or None

    (entry,) = wait_until(look)
    assert (entry["status"], entry["code"]) == (422, "invalid_row")
    assert (entry["type"], entry["stack"]) == (None, None)


def test_failure_is_listed_with_its_type_and_places_and_without_values(client: httpx2.Client, moody: str) -> None:
    request_id = new_id()
    answer = client.post(
        f"/models/{moody}/predict", json={"features": {"mood": RAISES}}, headers={"X-Request-Id": request_id}
    )
    assert answer.status_code == 500, answer.text

    def look() -> dict[str, Any] | None:
        items = client.get("/logs/errors", params={"request_id": request_id, "status": "500"}).json()["items"]
        return items[0] if items else None

    entry = wait_until(look)
    assert entry["type"] == "ModelFailed"
    assert re.search(r"^  \S+\.py:\d+ in \w+$", entry["stack"], re.MULTILINE), entry["stack"]
    assert "CANARY" not in json.dumps(entry)
    assert str(int(RAISES)) not in json.dumps(entry)


@dataclass(frozen=True)
class Keyed:
    """A service that asks for keys, with a key of each scope."""

    stack: Stack
    ids: dict[str, str]
    secrets: dict[str, str]

    def ask(self, scope: str, method: str, path: str, **more: Any) -> httpx2.Response:
        with self.stack.client(**{"X-API-Key": self.secrets[scope]}) as client:
            return client.request(method, path, **more)

    def audited(self, **filters: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("admin", "GET", "/logs/audit", params=filters).json()["items"]
        return items


@pytest.fixture(scope="module")
def keyed(sync: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with apart(sync, tmp_path_factory.mktemp("admins"), AUTH="keys") as stack:
        made = {}
        for scope in ("read", "predict", "admin"):
            output = stack.run("api.keys", "create", "--name", scope, "--scopes", scope).stdout
            made[scope] = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
        yield Keyed(
            stack,
            {scope: lines["id"].strip() for scope, lines in made.items()},
            {scope: lines["key"].strip() for scope, lines in made.items()},
        )


def test_logs_are_for_admins_alone(keyed: Keyed) -> None:
    for path in ("/logs/requests", "/logs/errors", "/logs/audit"):
        check_problem(keyed.ask("read", "GET", path), 403, "forbidden")
        assert keyed.ask("admin", "GET", path).status_code == 200
    with keyed.stack.client() as nobody:
        assert nobody.get("/metrics").status_code == 401
    assert keyed.ask("read", "GET", "/metrics").status_code == 200
    audit = keyed.audited(action="key.created")
    assert f"key:{keyed.ids['read']}" in {item["target"] for item in audit}
    assert all(item["actor"].startswith("command:") for item in audit)
    assert keyed.secrets["read"] not in json.dumps(audit)
    keyed.stack.run("api.keys", "revoke", keyed.ids["read"])
    assert [item["target"] for item in keyed.audited(action="key.revoked")] == [f"key:{keyed.ids['read']}"]


def test_administrators_look_at_jobs_of_others_is_audited_and_nobodys_at_their_own(
    keyed: Keyed, attrition_row: dict[str, Any]
) -> None:
    wait = {"Prefer": "wait=30"}
    job_id = keyed.ask("predict", "POST", "/predict", json={"features": attrition_row}, headers=wait).json()["job_id"]
    own = keyed.ask("admin", "POST", "/predict", json={"features": attrition_row}, headers=wait).json()["job_id"]
    assert keyed.ask("predict", "GET", f"/jobs/{job_id}/result").status_code == 200
    assert keyed.ask("admin", "GET", f"/jobs/{own}/result").status_code == 200
    assert keyed.audited(action="job.read") == []
    request_id = new_id()
    seen = keyed.ask("admin", "GET", f"/jobs/{job_id}/result", headers={"X-Request-Id": request_id})
    assert seen.status_code == 200
    (entry,) = keyed.audited(action="job.read")
    assert (entry["actor"], entry["target"]) == (f"key:{keyed.ids['admin']}", f"job:{job_id}")
    assert (entry["details"], entry["request_id"]) == ({"what": "result", "owner": keyed.ids["predict"]}, request_id)
    keyed.ask("admin", "POST", "/explain", json={"job_id": job_id}, headers=wait)
    assert [item["details"]["what"] for item in keyed.audited(action="job.read")] == ["explanation", "result"]


def test_revisions_of_outcomes_and_downloads_of_files_are_audited(keyed: Keyed, attrition_row: dict[str, Any]) -> None:
    names = list(attrition_row)
    lines = [",".join(names), *([",".join(str(attrition_row[name]) for name in names)] * 2)]
    sent = keyed.ask(
        "predict", "POST", "/predict_csv", content="\n".join(lines), headers={"Content-Type": "text/csv"}
    ).json()
    job_id = sent["id"]
    wait_until(lambda: keyed.ask("predict", "GET", f"/jobs/{job_id}").json()["status"] == "succeeded" or None)
    output = keyed.ask("predict", "GET", f"/jobs/{job_id}/output.csv")
    assert output.status_code == 200
    kept = {"If-None-Match": output.headers["etag"]}
    assert keyed.ask("predict", "GET", f"/jobs/{job_id}/output.csv", headers=kept).status_code == 304
    assert keyed.ask("predict", "HEAD", f"/jobs/{job_id}/output.csv").status_code == 200
    (entry,) = keyed.audited(action="job.exported")
    assert (entry["actor"], entry["target"]) == (f"key:{keyed.ids['predict']}", f"job:{job_id}")
    assert entry["details"] == {"file": "output.csv", "rows": 2, "owner": keyed.ids["predict"]}
    for file in ("errors.csv", "output.csv?format=parquet&join=true"):
        assert keyed.ask("admin", "GET", f"/jobs/{job_id}/{file}").status_code == 200
    keyed.ask("admin", "GET", f"/jobs/{job_id}/output.csv", headers={"Range": "bytes=0-9"})
    exports = [item["details"] for item in keyed.audited(action="job.exported", actor=f"key:{keyed.ids['admin']}")]
    assert [(each["file"], each.get("join"), each.get("range", "")[:10]) for each in exports] == [
        ("output.csv", None, "bytes 0-9/"),
        ("output.parquet", True, ""),
        ("errors.csv", None, ""),
    ]
    for actual in ("Part", "Reste"):
        keyed.ask("predict", "POST", f"/jobs/{job_id}/outcome?revise=true", json={"actual": actual, "row": 1})
    keyed.ask("predict", "POST", f"/jobs/{job_id}/outcome?revise=true", json={"actual": "Reste", "row": 1})
    assert [item["details"] for item in keyed.audited(action="outcome.revised")] == [{"row": 1, "revision": 2}]
    outcomes = f"job_id,row,actual\n{job_id},1,Part\n{job_id},0,Part\n"
    keyed.ask(
        "predict", "POST", "/outcomes?revise=true", content=outcomes, headers={"Content-Type": "text/csv"}
    ).raise_for_status()
    last = keyed.audited(action="outcome.revised")[0]
    assert (last["actor"], last["target"]) == (f"key:{keyed.ids['predict']}", "1 row of a file")
    assert (last["details"]["rows"], len(last["details"]["first_inputs"])) == (1, 1)


# ── lineage ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lineage_leads_from_a_score_to_its_request_version_explanation_and_outcome(
    client: httpx2.Client, engine: Engine, attrition_row: dict[str, Any]
) -> None:
    request_id = new_id()
    headers = {"X-Request-Id": request_id, "Prefer": "wait=30"}
    job_id = client.post("/predict", json={"features": attrition_row}, headers=headers).json()["job_id"]
    client.get(f"/jobs/{job_id}", headers={"X-Request-Id": request_id})  # one id for what belongs together
    hashed = entry_of(client, request_id, route="/predict")["input_hash"]
    client.post(f"/jobs/{job_id}/outcome", json={"actual": "Part"}, headers={"X-Request-Id": request_id})
    explained = client.post("/explain", json={"job_id": job_id}, headers={"Prefer": "wait=30"})
    assert explained.status_code == 200, explained.text
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM lineage WHERE job_id = :id"), {"id": job_id}).mappings().all()
        version = (
            connection.execute(select(ModelVersion.__table__).where(ModelVersion.name == "attrition")).mappings().one()
        )
    assert len(rows) == 1
    row = rows[0]
    assert (row["request_id"], row["request_method"], row["request_route"]) == (request_id, "POST", "/predict")
    assert (row["request_status"], row["request_input_hash"], row["caller"]) == (200, hashed, None)
    assert (row["job_kind"], row["job_state"], row["job_attempts"]) == ("predict", "succeeded", 1)
    assert (row["model"], row["model_version"]) == ("attrition", 1)
    assert row["model_sha256"] == client.get("/models/attrition").json()["model_sha256"] == version["sha256"]
    promoted = client.get("/logs/audit", params={"action": "model.promoted", "target": "attrition@1"}).json()["items"]
    assert row["model_promoted_by"] == (promoted[0]["actor"] if promoted else None)
    assert row["label"] in ("Part", "Reste")
    assert (row["outcome_label"], row["outcome_revision"], row["outcome_recorded_by"]) == ("Part", 1, None)
    assert row["input_id"] is not None
    assert row["output_id"] is not None


# ── /metrics ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metrics_count_requests_rows_and_jobs(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    labels = {"method": "POST", "route": "/predict_batch", "status": "200"}
    ended = {"model": "attrition@1", "kind": "batch", "state": "succeeded"}
    scored = {"model": "attrition@1", "lane": "interactive"}

    def read() -> tuple[float, float, float]:
        return (
            value(client, "guichet_http_requests_total", **labels),
            value(client, "guichet_jobs_finished_total", **ended),
            value(client, "guichet_scored_rows_total", **scored),
        )

    before = read()
    for _ in range(3):
        assert client.post("/predict_batch", json={"rows": [attrition_row] * 4}).status_code == 200

    def look() -> tuple[float, float, float] | None:
        after = read()
        return (
            after if all(now >= was + more for now, was, more in zip(after, before, (3, 3, 12), strict=True)) else None
        )

    after = wait_until(look)
    assert after[0] - before[0] == 3
    assert after[1] - before[1] == 3
    buckets = [
        (float(dict(labels)["le"]), count)
        for (name, labels), count in samples(client).items()
        if name == "guichet_http_request_duration_seconds_bucket"
        and {("route", "/predict_batch"), ("method", "POST")} <= set(labels)
    ]
    counts = [count for _, count in sorted(buckets)]
    assert counts == sorted(counts)
    assert counts[-1] >= 3


def test_rows_of_files_are_counted_once_they_are_stored_and_only_those_with_a_score(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    labels = {"model": "attrition@1", "lane": "bulk"}
    names = list(attrition_row)
    row = ",".join(str(attrition_row[name]) for name in names)
    bad = ",".join("?" for _ in names)
    before = value(client, "guichet_scored_rows_total", **labels)
    job = check_taken(post_csv(client, "\n".join([",".join(names), row, bad, row, row, bad]) + "\n"))
    wait_for_job(client, job["id"], seconds=60)
    wait_until(lambda: value(client, "guichet_scored_rows_total", **labels) > before or None)
    assert value(client, "guichet_scored_rows_total", **labels) - before == 3


def test_metrics_are_openmetrics_or_json_as_the_accept_header_says(client: httpx2.Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics.text_string_to_metric_families(answer.text)} >= {
        "guichet_http_requests",
        "guichet_queued_jobs",
    }

    def look() -> dict[str, Any] | None:  # this process has counted the request above a second later
        body: dict[str, Any] = client.get("/metrics", headers={"Accept": "application/json"}).json()
        return body if "GET /metrics" in body["requests"] else None

    body = wait_until(look)
    assert body.keys() == {
        *("version", "runtime", "requests", "jobs", "queues", "files", "workers", "database_connections"),
    }
    assert body["requests"]["GET /metrics"]["by_status"]["200"] >= 1


@pytest.mark.flow
def test_every_process_tells_what_all_of_them_counted_also_those_that_died(
    sync: Stack, tmp_path_factory: pytest.TempPathFactory, attrition_row: dict[str, Any]
) -> None:
    labels = {"method": "POST", "route": "/predict", "status": "200"}
    with apart(sync, tmp_path_factory.mktemp("counted")) as first, first.client() as one:
        for _ in range(4):
            one.post("/predict", json={"features": attrition_row})
        assert wait_until(lambda: value(one, "guichet_http_requests_total", **labels) == 4 or None)
        first.processes["api"].kill()
        first.processes["api"].wait(30)
        first.start_api()
        assert wait_until(lambda: value(one, "guichet_http_requests_total", **labels) == 4 or None)
        one.post("/predict", json={"features": attrition_row})
        assert wait_until(lambda: value(one, "guichet_http_requests_total", **labels) == 5 or None)


def test_losses_of_log_entries_are_told_from_zero_on(client: httpx2.Client) -> None:
    """An alert on an increase sees none where the counter appears with the first loss."""
    figures = samples(client)
    for table in ("error_logs", "request_logs"):
        assert figures["guichet_lost_log_entries_total", frozenset({("table", table)})] >= 0


def test_finished_jobs_are_counted_once_however_often_they_are_asked_for(client: httpx2.Client, engine: Engine) -> None:
    body = client.get("/metrics", headers={"Accept": "application/json"}).json()
    counted = sum(count for kinds in body["jobs"].values() for states in kinds.values() for count in states.values())
    with engine.connect() as connection:
        ended = connection.scalar(select(func.count()).where(Job.finished_at.is_not(None)))
        erased = connection.scalar(select(func.count()).select_from(ErasedJob))  # a counter never falls
    assert ended is not None
    assert erased is not None
    assert counted <= ended + erased


def test_labels_are_bounded_whatever_callers_send(client: httpx2.Client, engine: Engine) -> None:
    def series() -> int:
        client.get("/metrics")
        with engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(MetricSample)) or 0

    for _ in range(3):
        client.get(f"/{new_id()}")
        client.get(f"/models/{new_id()}")
        client.get(f"/jobs/{new_id()}")
        client.request("BREW", "/jobs")
    wait_until(lambda: value(client, "guichet_http_requests_total", method="GET", route="(none)", status="404") or None)
    before = series()
    for _ in range(20):
        client.get(f"/{new_id()}")
        client.get(f"/models/{new_id()}")
        client.get(f"/jobs/{new_id()}")
        client.request(f"X{new_id()[:6].upper()}", "/jobs")
    last = new_id()
    client.get("/models", headers={"X-Request-Id": last})
    entry_of(client, last)
    assert series() - before <= 60


@pytest.mark.parametrize("file", ["rules.yml", "dashboard.json"])
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(client: httpx2.Client, file: str) -> None:
    text = client.get("/metrics").text
    there = set(re.findall(r"^# TYPE (guichet_\w+) ", text, re.MULTILINE))
    metrics = set(re.findall(r"\bguichet_\w+", (ROOT / "deploy" / "monitoring" / file).read_text()))
    assert len(metrics) >= 5
    assert {re.sub(r"_(bucket|sum|count)$", "", name) if name not in there else name for name in metrics} <= there


# ── /metrics/system ──────────────────────────────────────────────────────────────────────────────────────────────


def test_system_metrics_of_a_window(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    request_id = new_id()
    client.post("/predict", json={"features": attrition_row}, headers={"X-Request-Id": request_id})
    entry_of(client, request_id)
    body = client.get("/metrics/system").json()
    requests = body["requests"]
    assert requests["count"] >= 1
    assert 0 <= requests["error_rate"] <= 1
    assert 0 < requests["p50_ms"] <= requests["p95_ms"] <= requests["p99_ms"]
    assert "POST /predict" in {route["route"] for route in requests["routes"]}
    assert body["jobs"]["finished"]["succeeded"] >= 1
    assert body["jobs"]["run"]["p50_ms"] is not None
    assert body["window"].keys() == {"from", "to"}


def test_system_metrics_of_a_model_and_of_a_version(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    request_id = new_id()
    client.post("/predict", json={"features": attrition_row}, headers={"X-Request-Id": request_id})
    label = entry_of(client, request_id)["model"]
    name = label.partition("@")[0]
    bodies = [
        client.get("/metrics/system", params={"model": model}).json() for model in (name, label, f"{name}@champion")
    ]
    for body in bodies:
        assert body["requests"]["count"] >= 1
        assert "POST /predict" in {route["route"] for route in body["requests"]["routes"]}
        assert not any("/metrics" in route["route"] for route in body["requests"]["routes"])
        assert body["jobs"]["finished"]["succeeded"] >= 1
        assert body["workers"] == bodies[0]["workers"]
    whole = client.get("/metrics/system").json()
    assert whole["requests"]["count"] > bodies[0]["requests"]["count"] >= bodies[1]["requests"]["count"]
    past = {"model": name, "from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}
    assert client.get("/metrics/system", params=past).json()["requests"]["count"] == 0
    check_problem(client.get("/metrics/system", params={"model": "nobody"}), 404)
    check_problem(client.get("/metrics/system", params={"model": f"{name}@99"}), 404)


def test_window_before_everything_is_empty_and_not_an_error(client: httpx2.Client) -> None:
    answer = client.get("/metrics/system", params={"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"})
    assert answer.status_code == 200
    assert (answer.json()["requests"]["count"], answer.json()["requests"]["p50_ms"]) == (0, None)


@pytest.mark.parametrize(
    "window",
    [
        {"from": "2020-01-02T00:00:00Z", "to": "2020-01-01T00:00:00Z"},
        {"from": "2020-01-01T00:00:00Z", "to": "2020-01-01T00:00:00Z"},
        {"from": "2019-01-01T00:00:00Z", "to": "2020-01-01T00:00:00Z"},
        {"from": "soon"},
        {"from": "0001-01-01T00:00:00+14:00", "to": "0001-01-02T00:00:00Z"},
    ],
)
def test_window_that_is_none_is_refused(client: httpx2.Client, window: dict[str, str]) -> None:
    check_problem(client.get("/metrics/system", params=window), 422)
