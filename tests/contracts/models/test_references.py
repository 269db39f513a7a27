"""`model` is `name`, `name@3` or `name@alias`, wherever a model is named: in bodies, paths and queries."""

from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import check_problem, faults_of, wait_for_job, wait_until

ROW = {"x": 1.0}
FIRST, SECOND = 1.0, 101.0  # what the two versions say of it


@pytest.fixture(scope="session")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    frame = pd.DataFrame({"x": np.arange(40.0)})
    for number, shift in ((1, 0), (2, 100)):
        joblib.dump(LinearRegression().fit(frame, frame["x"] + shift), folder / f"{number}.joblib")
    frame.to_csv(folder / "rows.csv", index=False)
    return folder / "1.joblib", folder / "2.joblib", folder / "rows.csv"


@pytest.fixture
def pair(client: httpx2.Client, engine: Engine, two_files: tuple[Path, Path, Path], models_dir: Path) -> str:
    """The name of a model with two versions: the first is its champion, the second its challenger."""
    if client.get("/models/pair").status_code == 404:
        first, second, rows = two_files
        with session_scope(engine) as session:
            add(session, first, AddOptions(reference=rows, name="pair"), models_dir=models_dir)
            add(session, second, AddOptions(reference=rows, name="pair", alias="challenger"), models_dir=models_dir)
        wait_until(lambda: client.get("/models/pair@challenger").status_code == 200 or None)
    return "pair"


def predicted(answer: httpx2.Response) -> float:
    assert answer.status_code == 200, answer.text
    return round(answer.json()["prediction"], 6)


REFERENCES = pytest.mark.parametrize(
    ("suffix", "score"), [("", FIRST), ("@1", FIRST), ("@champion", FIRST), ("@2", SECOND), ("@challenger", SECOND)]
)


@REFERENCES
def test_path_names_a_version(client: httpx2.Client, pair: str, suffix: str, score: float) -> None:
    path = f"/models/{pair}{suffix}"
    number = 1 if score == FIRST else 2
    assert predicted(client.post(f"{path}/predict", json={"features": ROW})) == score
    assert client.get(path).json()["model_version"] == number
    assert client.get(f"{path}/features").json()["model_version"] == number
    assert client.get(f"{path}/examples.json").json()["rows"]
    assert client.get(f"{path}/examples.csv").status_code == 200
    batch = client.post(f"{path}/predict_batch", json={"rows": [ROW]}).json()
    assert round(batch["items"][0]["prediction"], 6) == score
    frame = client.post(f"{path}/invocations", json={"dataframe_records": [ROW]}).json()
    assert [round(value, 6) for value in frame["predictions"]] == [score]
    tensor = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}
    inferred = client.post(f"/v2{path}/infer", json=tensor).json()
    assert inferred["model_version"] == str(number)
    assert client.get(f"/v2{path}").json()["name"] == pair
    assert client.get(f"/v2{path}/ready").status_code == 200


@REFERENCES
def test_body_or_query_names_a_version(client: httpx2.Client, pair: str, suffix: str, score: float) -> None:
    named = {"model": pair + suffix}
    assert predicted(client.post("/predict", json={**named, "features": ROW})) == score
    assert predicted(client.post(f"/models/{pair}/predict", json={**named, "features": ROW})) == score
    job = client.post("/jobs", json={**named, "features": ROW}).json()
    assert (job["model"], job["model_version"]) == (pair, 1 if score == FIRST else 2)
    assert round(wait_for_job(client, job["id"])["result"]["prediction"], 6) == score
    listed = client.get("/jobs", params=named | {"limit": "200"}).json()["items"]
    assert job["id"] in [item["id"] for item in listed]
    if suffix:
        assert {item["model_version"] for item in listed} == {job["model_version"]}
    assert client.get("/features", params=named).json()["model_version"] == job["model_version"]
    file = client.post("/predict_csv", params=named, content=b"x\n1\n", headers={"Content-Type": "text/csv"}).json()
    assert file["model_version"] == job["model_version"]


@pytest.mark.parametrize("suffix", ["@3", "@nobody", "@", "@@1", "@1@1", "@-1", "@1.0", "@99999999999"])
def test_version_or_alias_that_there_is_not_is_404_and_those_that_there_are_are_named(
    client: httpx2.Client, pair: str, suffix: str
) -> None:
    body = {"features": ROW}
    for answer in (
        client.post(f"/models/{pair}{suffix}/predict", json=body),
        client.post("/predict", json={"model": pair + suffix, **body}),
        client.get(f"/models/{pair}{suffix}"),
    ):
        detail = check_problem(answer, 404, "not_found")["detail"]
        if suffix != "@":
            assert detail.endswith("Known versions: 1, 2. Known aliases: challenger, champion.")


@pytest.mark.parametrize(
    ("path", "named", "pointer"),
    [
        ("/models/pair@1/predict", {"model": "pair@2"}, "/model"),
        ("/models/pair@1/predict", {"model": "attrition"}, "/model"),
        ("/models/pair@1/predict", {"version": 2}, "/version"),
        ("/models/pair@challenger/predict", {"version": 1}, "/version"),
        ("/predict", {"model": "pair@2", "version": 1}, "/version"),
    ],
)
def test_two_versions_in_one_request_are_refused(
    client: httpx2.Client, pair: str, path: str, named: dict[str, Any], pointer: str
) -> None:
    problem = check_problem(client.post(path, json={**named, "features": ROW}), 422)
    assert faults_of(problem) == [(pointer, "conflict")]


@pytest.mark.parametrize("more", [{}, {"version": 2}])
def test_a_version_may_be_named_twice_alike(client: httpx2.Client, pair: str, more: dict[str, Any]) -> None:
    body = {"model": f"{pair}@2", "features": ROW, **more}
    assert predicted(client.post(f"/models/{pair}/predict", json=body)) == SECOND
    assert predicted(client.post(f"/models/{pair}@2/predict", json=body)) == SECOND
