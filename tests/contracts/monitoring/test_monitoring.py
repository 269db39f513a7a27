"""Monitoring over HTTP: drift of what was scored, its alerts, and how wrong questions are refused."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, delete, insert, select

from shared.tables import Alert, ModelVersion
from tests.contracts.helpers import apart, check_problem, faults_of, new_id, wait_until
from tests.support.stack import Stack

DRIFT_FIELDS = {
    "model",
    "version",
    "window",
    "against",
    "rows",
    "reference_rows",
    "level",
    "advice",
    "features",
    "score",
    "decision",
    "decision_rate",
    "thresholds",
    "is_complete",
}


def drift_when_counted(client: httpx2.Client, rows: int, **params: Any) -> dict[str, Any]:
    """Return the drift as soon as so many rows are counted."""

    def look() -> dict[str, Any] | None:
        answer = client.get("/drift", params=params)
        body: dict[str, Any] = answer.json()
        # The watermark is read before the counters: it may say "not yet" of rows that are counted at that moment.
        return body if answer.status_code == 200 and body["rows"] >= rows and body["is_complete"] else None

    return wait_until(look)


def test_drift_of_scored_rows_is_told_by_feature_with_what_to_do(
    client: httpx2.Client, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("drifting", "credit")
    features = list(credit_row)
    moved = [
        credit_row | {features[0]: credit_row[features[0]] * 1000 + place, features[1]: None} for place in range(300)
    ]
    batch = {"model": name, "rows": moved}
    wait_until(lambda: client.post("/predict_batch", json=batch).status_code in (200, 202) or None)  # 503: it is loaded
    body = drift_when_counted(client, 300, model=name)
    assert body.keys() == DRIFT_FIELDS
    assert (body["model"], body["version"], body["against"], body["rows"]) == (name, 1, "reference", 300)
    assert body["reference_rows"] >= 200
    assert body["level"] == "high"
    assert body["advice"].startswith("The model sees another population")
    assert body["is_complete"] is True
    by_feature = {feature["feature"]: feature for feature in body["features"]}
    assert by_feature.keys() == set(features)
    assert by_feature[features[0]]["unseen"] == 300
    assert by_feature[features[0]]["level"] == "high"
    assert by_feature[features[1]]["missing_share"] == 1.0
    assert [each["psi"] for each in body["features"]] == sorted(
        (each["psi"] for each in body["features"]), reverse=True
    )
    assert body["score"]["feature"] == "score"
    assert sum(body["decision_rate"].values()) == pytest.approx(1.0)
    before = client.get("/drift", params={"model": name, "against": "previous"}).json()
    assert (before["level"], before["reference_rows"], before["rows"]) == ("too_few_rows", 0, 300)
    past = client.get(
        "/drift", params={"model": name, "from": "2020-01-01T00:00:00+02:00", "to": "2020-01-02T00:30:00Z"}
    )
    assert past.json()["window"] == {"from": "2019-12-31T22:00:00Z", "to": "2020-01-02T01:00:00Z"}
    assert (past.json()["rows"], past.json()["level"]) == (0, "too_few_rows")
    assert {feature["psi"] for feature in past.json()["features"]} == {0.0}


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ("model=ghost", 404, None),
        ("model=credit@99", 404, None),
        ("model=credit&version=99", 404, None),
        ("model=credit&version=0", 422, "/query/version"),
        ("model=credit&from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z", 422, "/query/from"),
        ("model=credit&from=2026-03-02T00:00:00Z&to=2026-03-02T00:00:00Z", 422, "/query/from"),
        ("model=credit&from=0001-01-01T00:00:00%2B14:00", 422, "/query/from"),
        ("model=credit&to=0001-01-01T00:00:00Z", 422, "/query/from"),
        ("model=credit&from=9999-12-31T23:30:00Z", 422, "/query/from"),
        ("model=credit&from=0001-01-01T00:00:00Z&against=previous", 422, "/query/from"),
        ("model=credit&from=1000-01-01T00:00:00Z&against=same_weekday", 422, "/query/from"),
        ("model=credit&from=2026-03-02T00:00:00", 422, "/query/from"),
        ("model=credit&from=yesterday", 422, "/query/from"),
        ("model=credit&to=20261101", 422, "/query/to"),
        ("model=credit&to=1793500000.5", 422, "/query/to"),
        ("model=credit&against=tomorrow", 422, "/query/against"),
    ],
)
def test_wrong_questions_about_drift_are_refused(
    client: httpx2.Client, query: str, status: int, pointer: str | None
) -> None:
    problem = check_problem(client.get(f"/drift?{query}"), status)
    if pointer is not None:
        assert pointer in [place for place, _ in faults_of(problem)]


def test_offset_whose_plus_became_a_space_is_refused_with_the_cure(client: httpx2.Client) -> None:
    problem = check_problem(client.get("/drift?model=credit&from=2026-03-02T00:00:00+01:00"), 422)
    assert "%2B" in problem["detail"]
    assert client.get("/metrics/kpis?model=credit&from=2026-03-02T00:00:00%2B01:00").status_code == 200


def test_alerts_are_listed_by_page(client: httpx2.Client) -> None:
    page = client.get("/alerts", params={"model": "nobody", "open": "true", "limit": 1}).json()
    assert page == {"items": [], "next": None}
    check_problem(client.get("/alerts?limit=0"), 422)
    check_problem(client.get("/alerts?before=x"), 422)


@pytest.fixture
def alert(client: httpx2.Client, engine: Engine) -> int:
    """The id of an open alert of its own."""
    subject = new_id()
    with engine.begin() as connection:
        connection.execute(
            insert(Alert).values(
                model_version_id=select(ModelVersion.id)
                .where(ModelVersion.name == "credit")
                .limit(1)
                .scalar_subquery(),
                kind="drift",
                subject=subject,
                level="moderate",
                details={"psi": 0.25},
                opened_at=datetime.now(UTC),
                seen_at=datetime.now(UTC),
            )
        )
        return connection.execute(select(Alert.id).where(Alert.subject == subject)).scalar_one()


def test_alerts_of_a_version_are_found_by_its_number_and_by_an_alias(client: httpx2.Client, alert: int) -> None:
    for model in ("credit", "credit@1", "credit@champion"):
        listed = client.get("/alerts", params={"model": model, "limit": 200}).json()["items"]
        assert alert in [each["id"] for each in listed]
    for model in ("credit@9", "credit@nobody"):
        check_problem(client.get("/alerts", params={"model": model}), 404, "not_found")


def test_alert_is_acknowledged_with_a_reason_and_audited(client: httpx2.Client, engine: Engine, alert: int) -> None:
    request_id = new_id()
    path = f"/alerts/{alert}/acknowledge"
    answer = client.post(path, json={"reason": " a new branch "}, headers={"X-Request-Id": request_id})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["id"], body["acknowledged_by"], body["reason"]) == (alert, "anyone", "a new branch")
    assert body["acknowledged_at"] is not None
    assert client.post(path, json={"reason": "a new branch"}).json() == body
    assert "already" in check_problem(client.post(path, json={"reason": "other"}), 409)["detail"]
    place = {"model": "credit", "before": alert + 1, "limit": 1}
    assert client.get("/alerts", params=place | {"acknowledged": "true"}).json()["items"] == [body]
    others = client.get("/alerts", params=place | {"acknowledged": "false"}).json()["items"]
    assert alert not in [each["id"] for each in others]
    audit = client.get("/logs/audit", params={"action": "alert.acknowledged", "limit": 1}).json()["items"]
    assert [(entry["actor"], entry["target"], entry["request_id"]) for entry in audit] == [
        ("anyone", f"alert:{alert}", request_id)
    ]
    assert audit[0]["details"]["level"] == "moderate"

    def look() -> bool | None:  # an answer of /metrics is up to two seconds old
        return 'acknowledged="yes",model="credit@1"' in client.get("/metrics").text or None

    wait_until(look)
    with engine.begin() as connection:
        connection.execute(delete(Alert).where(Alert.id == alert))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "  "}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"reason": 1}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"reason": "x", "level": "none"}, "/level"),
    ],
)
def test_acknowledgement_without_a_reason_is_refused(client: httpx2.Client, body: dict[str, Any], pointer: str) -> None:
    problem = check_problem(client.post("/alerts/1/acknowledge", json=body), 422)
    assert pointer in [place for place, _ in faults_of(problem)]


def test_alert_that_is_not_there_is_not_acknowledged(client: httpx2.Client) -> None:
    check_problem(client.post(f"/alerts/{2**61}/acknowledge", json={"reason": "x"}), 404)
    check_problem(client.post("/alerts/x/acknowledge", json={"reason": "x"}), 422)
    check_problem(client.post(f"/alerts/{2**70}/acknowledge", json={"reason": "x"}), 422)


# ── ?include=quality ─────────────────────────────────────────────────────────────────────────────────────────────


def test_result_says_on_request_how_unusual_its_row_is(
    client: httpx2.Client, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("unusual", "credit")
    first, second = list(credit_row)[:2]
    odd = credit_row | {first: credit_row[first] * 1000, second: None}
    path = f"/models/{name}/predict"

    def ask() -> dict[str, Any] | None:  # 503: it is being loaded; null: its profile is being made
        answer = client.post(path, params={"include": "quality"}, json={"features": odd}, headers={"Prefer": "wait=30"})
        body: dict[str, Any] = answer.json()
        return body if answer.status_code == 200 and body["quality"] is not None else None

    result = wait_until(ask)
    quality = result["quality"]
    assert quality["outside"] == [{"feature": first, "side": "above"}]
    missing = [feature for feature, value in odd.items() if value is None]
    assert second in missing
    assert sorted(quality["missing"]) == sorted(missing)
    assert quality["missing_share"] == pytest.approx(len(missing) / len(credit_row))
    assert quality["unseen"] == []
    assert quality["unusual"] > 0.9
    assert 0 <= quality["confidence"] <= 1
    stored = client.get(f"/jobs/{result['job_id']}/result", params={"include": "quality"}).json()
    assert stored == result
    plain = client.get(f"/jobs/{result['job_id']}/result").json()
    assert plain == {key: value for key, value in result.items() if key != "quality"}
    batch = {"rows": [odd, credit_row, {**credit_row, first: "no number"}]}
    items = client.post(
        f"/models/{name}/predict_batch?include=quality", json=batch, headers={"Prefer": "wait=30"}
    ).json()["items"]
    assert items[0]["quality"] == quality
    assert items[1]["quality"]["outside"] == []
    assert items[1]["quality"]["unusual"] < quality["unusual"]
    assert "quality" not in items[2]


def test_quality_stands_beside_the_words_of_a_card(
    client: httpx2.Client, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("worded-quality", "credit", response={"fields": {"decision": "prediction"}})
    answer = wait_until(
        lambda: (
            scored
            if (
                scored := client.post(
                    f"/models/{name}/predict?include=quality",
                    json={"features": credit_row},
                    headers={"Prefer": "wait=30"},
                )
            ).status_code
            == 200
            else None
        )
    )
    assert answer.json().keys() == {"decision", "quality"}


@pytest.mark.flow
def test_profile_comes_with_the_registration_and_needs_nobody_who_counts(
    sync: Stack, tmp_path: Path, credit_row: dict[str, Any]
) -> None:
    with apart(sync, tmp_path, models=("credit",), MONITOR_SECONDS="0") as stack, stack.client() as client:
        body = {"model": "credit", "features": credit_row}
        quality = client.post("/predict?include=quality", json=body, headers={"Prefer": "wait=30"}).json()["quality"]
        assert 0 <= quality["unusual"] <= 1
        assert 0 <= quality["confidence"] <= 1
        drift = client.get("/drift?model=credit").json()
        assert (drift["rows"], drift["level"], drift["is_complete"]) == (0, "too_few_rows", False)
        assert drift["reference_rows"] > 0
        bins = client.get("/metrics/feature-distribution?model=credit&feature=score").json()["items"][0]["bins"]
        assert sum(each["reference"] for each in bins) == drift["reference_rows"]


def test_wrong_inclusions_are_refused(client: httpx2.Client, credit_row: dict[str, Any]) -> None:
    body = {"model": "credit", "features": credit_row}
    problem = check_problem(client.post("/predict?include=everything", json=body), 422)
    assert [place for place, _ in faults_of(problem)] == ["/query/include"]
    problem = check_problem(client.post("/predict?includ=quality", json=body), 422)
    assert "did you mean `include`?" in str(problem["errors"])
    explained = client.post("/explain", json=body, headers={"Prefer": "respond-async"}).json()
    wait_until(lambda: client.get(f"/jobs/{explained['id']}").json()["status"] == "succeeded" or None)
    problem = check_problem(client.get(f"/jobs/{explained['id']}/result?include=quality"), 422)
    assert [place for place, _ in faults_of(problem)] == ["/query/include"]


def test_decisions_are_counted_by_day_and_by_another_threshold(
    client: httpx2.Client, speak: Callable[..., str], credit_row: dict[str, Any]
) -> None:
    name = speak("decided", "credit")
    first = next(iter(credit_row))
    batch = {"model": name, "rows": [credit_row | {first: credit_row[first] * (1 + n / 4)} for n in range(40)]}

    def ask() -> dict[str, Any] | None:
        answer = client.post("/predict_batch", json=batch, headers={"Prefer": "wait=30"})
        return answer.json() if answer.status_code == 200 else None  # 503: it is being loaded

    scored = wait_until(ask)
    chances = [item["probability"] for item in scored["items"]]
    actual = [n % 2 for n in range(40)]
    lines = [f"{scored['job_id']},{n},{value}" for n, value in enumerate(actual)]
    sent = client.post(
        "/outcomes", content="\n".join(["job_id,row,actual", *lines]), headers={"Content-Type": "text/csv"}
    )
    assert sent.json()["created"] == 40
    body = client.get("/metrics/kpis", params={"model": name}).json()
    days = body["days"]
    assert sum(day["rows"] for day in days) == 40
    mean = sum(day["mean_score"] * day["rows"] for day in days) / 40
    assert mean == pytest.approx(sum(chances) / 40, abs=1e-12)
    positive = sum(day["positive_rate"] * day["rows"] for day in days)
    assert positive == pytest.approx(sum(item["prediction"] for item in scored["items"]))
    threshold = sorted(chances)[20]
    params = {"model": f"{name}@1", "threshold": threshold, "cost_fp": 2, "cost_fn": 10, "margin": 0}
    body = client.get("/metrics/kpis", params=params).json()
    decisions = [chance >= threshold for chance in chances]
    counts = [
        sum(a == did and b == decision for a, b in zip(actual, decisions, strict=True))
        for did, decision in ((1, True), (0, True), (1, False), (0, False))
    ]
    assert body["versions"][0]["threshold"] == threshold
    assert body["versions"][0]["confusion"] == {
        "rows": 40,
        "true_positives": counts[0],
        "false_positives": counts[1],
        "false_negatives": counts[2],
        "true_negatives": counts[3],
        "cost": 2.0 * counts[1] + 10.0 * counts[2],
    }
    assert sum(day["near_threshold"] * day["rows"] for day in body["days"]) == pytest.approx(
        sum(chance == threshold for chance in chances)
    )


def test_features_are_spread_over_bins_page_by_page(client: httpx2.Client) -> None:
    wait_until(lambda: client.get("/metrics/feature-distribution?model=credit").status_code == 200 or None)
    url: str | None = "/metrics/feature-distribution?model=credit&limit=20"
    names: list[str] = []
    while url is not None:
        page = client.get(url).json()
        names += [item["feature"] for item in page["items"]]
        for item in page["items"]:
            assert sum(part["window"] for part in item["bins"]) == page["rows"]
            assert sum(part["reference"] for part in item["bins"]) == page["reference_rows"]
        url = page["next"]
    card = client.get("/models/credit").json()["card"]
    assert names == [*(feature["name"] for feature in card["features"]), "score", "decision"]
    one = client.get("/metrics/feature-distribution", params={"model": "credit", "feature": "decision"}).json()
    assert [item["kind"] for item in one["items"]] == ["category"]
    assert one["next"] is None
    unknown = client.get("/metrics/feature-distribution", params={"model": "credit", "feature": "loan_amont"})
    assert 'did you mean "loan_amount"?' in check_problem(unknown, 404)["detail"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("model=energy&threshold=0.5", "/query/threshold"),
        ("model=energy&cost_fn=1", "/query/cost_fn"),
        ("model=credit&threshold=1.5", "/query/threshold"),
        ("model=credit&threshold=nan", "/query/threshold"),
        ("model=credit&cost_fp=-1", "/query/cost_fp"),
        ("model=credit&cost_fp=inf", "/query/cost_fp"),
        ("model=credit&margin=2", "/query/margin"),
    ],
)
def test_wrong_questions_about_decisions_are_refused(client: httpx2.Client, query: str, pointer: str) -> None:
    assert pointer in [place for place, _ in faults_of(check_problem(client.get(f"/metrics/kpis?{query}"), 422))]
