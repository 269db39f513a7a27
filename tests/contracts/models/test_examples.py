"""What a model takes, and rows to try: they work as they are given."""

import csv
import io

import httpx2
import pytest

from tests.contracts.helpers import check_problem, wait_for_job

NAMES = ("attrition", "credit", "energy", "turnover")

JSON = {"Content-Type": "application/json"}


def test_features_of_the_default_model_are_listed(client: httpx2.Client) -> None:
    answer = client.get("/features")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["n_features"], body["wrapper"]) == ("attrition", 43, "features")
    assert body["names"] == [feature["name"] for feature in body["features"]]
    assert body["features"][0] == {
        **{"name": "age", "type": "integer", "required": True, "nullable": False, "min": 16, "max": 70},
        **{"unknown": "accept", "description": "Âge, en années", "example": 29},
    }
    assert len(body["rules"]) == 9
    assert body == client.get("/features?model=attrition").json() == client.get("/models/attrition/features").json()


@pytest.mark.parametrize(
    "path", ["/features?model=ghost", "/models/ghost/features", "/models/ghost/examples.csv", "/models/x/examples.json"]
)
def test_unknown_model_has_no_features_or_examples(client: httpx2.Client, path: str) -> None:
    assert "attrition" in check_problem(client.get(path), 404, "not_found")["detail"]


def test_every_model_has_an_example_that_can_be_sent_as_it_is(client: httpx2.Client) -> None:
    items = {item["model"]: item for item in client.get("/examples").json()["items"]}
    assert set(NAMES) <= items.keys()
    for name in NAMES:
        answer = client.post(items[name]["links"]["predict"], json=items[name]["request"])
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", [name for name in NAMES if name != "turnover"])  # it has words of its own
def test_example_rows_can_be_sent_as_a_batch_and_as_a_file(client: httpx2.Client, name: str) -> None:
    document = client.get(f"/models/{name}/examples.json?rows=20")
    rows = document.json()["rows"]
    assert len(rows) == 20
    assert len({str(row) for row in rows}) == 20
    answer = client.post(
        f"/models/{name}/predict_batch", content=document.content, headers=JSON | {"Prefer": "wait=20"}
    )
    batch = answer.json()
    assert (batch["n_rows"], batch["has_failures"]) == (20, False)
    file = client.get(f"/models/{name}/examples.csv?rows=20")
    assert file.headers["content-type"].startswith("text/csv")
    assert len(list(csv.DictReader(io.StringIO(file.text)))) == 20
    job = client.post(f"/models/{name}/predict_csv", content=file.content, headers={"Content-Type": "text/csv"}).json()
    wait_for_job(client, job["id"])
    scores = list(csv.DictReader(io.StringIO(client.get(f"/jobs/{job['id']}/output.csv").text)))
    for item, line in zip(batch["items"], scores, strict=True):
        key = "prediction" if name == "energy" else "probability"
        assert float(line[key]) == pytest.approx(item[key], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rows", ["0", "101", "many"])
def test_absurd_number_of_example_rows_is_refused(client: httpx2.Client, rows: str) -> None:
    check_problem(client.get(f"/models/credit/examples.json?rows={rows}"), 422, "invalid_request")
