"""Monitoring over HTTP: drift of what was scored, its alerts, and how wrong questions are refused."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.contracts.helpers import check_problem, faults_of, wait_until

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
        return body if answer.status_code == 200 and body["rows"] >= rows else None

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
    found = {feature["feature"]: feature for feature in body["features"]}
    assert found.keys() == set(features)
    assert found[features[0]]["unseen"] == 300
    assert found[features[0]]["level"] == "high"
    assert found[features[1]]["missing_share"] == 1.0
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
        ("model=credit&from=2026-03-02T00:00:00", 422, "/query/from"),
        ("model=credit&from=yesterday", 422, "/query/from"),
        ("model=credit&against=tomorrow", 422, "/query/against"),
    ],
)
def test_wrong_questions_about_drift_are_refused(
    client: httpx2.Client, query: str, status: int, pointer: str | None
) -> None:
    problem = check_problem(client.get(f"/drift?{query}"), status)
    if pointer is not None:
        assert pointer in [place for place, _ in faults_of(problem)]


def test_alerts_are_listed_by_page(client: httpx2.Client) -> None:
    page = client.get("/alerts", params={"model": "nobody", "open": "true", "limit": 1}).json()
    assert page == {"items": [], "next": None}
    check_problem(client.get("/alerts?limit=0"), 422)
    check_problem(client.get("/alerts?before=x"), 422)
