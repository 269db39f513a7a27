"""What a model makes of values: the same whoever is beside them, and what it does not take is the caller's."""

from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sqlalchemy import Engine
from xgboost import XGBRegressor

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import check_problem, wait_for_job, wait_until
from tests.support.csv_jobs import read_csv, send

CITIES = ["Nîmes", "Orléans", "Paris"]
Files = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="session")
def trained_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Three small models: `forest` of float32, `cities` with categories of its own, `reviews` of free text."""
    folder = tmp_path_factory.mktemp("trained")
    draw = np.random.default_rng(9)
    table = pd.DataFrame({"x": np.round(draw.normal(size=90), 3), "city": CITIES * 30})
    target = table["city"].map(CITIES.index) * 10.0 + table["x"]
    typed = table.astype({"city": "category"})
    texts = pd.DataFrame({"review": ["great, love it", "awful, broken", "fine", "love love"] * 5})
    forest = RandomForestRegressor(3, max_depth=3, random_state=1).fit(table[["x"]], target)
    trees = XGBRegressor(n_estimators=20, max_cat_to_onehot=1, enable_categorical=True, n_jobs=1).fit(typed, target)
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts["review"], [1, 0, 0, 1] * 5)
    made = {}
    for name, model, rows in (("forest", forest, table[["x"]]), ("cities", trees, table), ("reviews", words, texts)):
        made[name] = folder / f"{name}.joblib", folder / f"{name}.csv"
        joblib.dump(model, made[name][0])
        rows.to_csv(made[name][1], index=False)
    return made


@pytest.fixture
def served(client: httpx2.Client, engine: Engine, trained_files: Files, models_dir: Path) -> dict[str, Any]:
    """The three models, registered with the running service; by name, what joblib reads of them."""
    for name, (model, rows) in trained_files.items():
        if client.get(f"/models/{name}").status_code == 404:
            with session_scope(engine) as session:
                add(session, model, AddOptions(reference=rows, name=name), models_dir=models_dir)
            wait_until(lambda name=name: client.get(f"/models/{name}").status_code == 200 or None)
    return {name: joblib.load(model) for name, (model, _) in trained_files.items()}


def predict(client: httpx2.Client, model: str, row: dict[str, Any]) -> httpx2.Response:
    return client.post(f"/models/{model}/predict", json={"features": row})


def test_score_of_a_row_is_the_same_alone_and_beside_others(client: httpx2.Client, served: dict[str, Any]) -> None:
    rows = [{"x": 0.5, "city": city} for city in CITIES]
    frame = pd.DataFrame({"x": 0.5, "city": pd.Categorical(CITIES, categories=CITIES)})
    expected = served["cities"].predict(frame)
    alone = [predict(client, "cities", row).json()["prediction"] for row in rows]
    batch = client.post("/predict_batch", json={"model": "cities", "rows": rows[::-1]}).json()["items"]
    assert alone == pytest.approx(expected, abs=1e-4)
    assert [item["prediction"] for item in batch[::-1]] == alone
    assert alone[2] - alone[0] > 15


def test_text_is_read_and_not_the_name_of_its_column(client: httpx2.Client, served: dict[str, Any]) -> None:
    texts = ["great, love it", "awful, broken"]
    expected = served["reviews"].predict_proba(texts)[:, 1]
    alone = [predict(client, "reviews", {"review": text}).json()["probability"] for text in texts]
    batch = client.post("/predict_batch", json={"model": "reviews", "rows": [{"review": text} for text in texts]})
    assert alone == pytest.approx(expected, abs=1e-9)
    assert [item["probability"] for item in batch.json()["items"]] == alone
    assert expected[0] - expected[1] > 0.3


@pytest.mark.parametrize("way", ["media type", "filename", "option"])
def test_commas_of_a_text_do_not_cut_a_file_of_tabs(client: httpx2.Client, served: dict[str, Any], way: str) -> None:
    texts = ["great, love it", "awful, broken, and late"]
    content = "\n".join(["review", *texts]).encode()
    address = "/models/reviews/predict_csv"
    if way == "media type":
        answer = client.post(address, content=content, headers={"Content-Type": "text/tab-separated-values"})
    elif way == "filename":
        answer = client.post(address, files={"file": ("Reviews.TSV", content)})
    else:
        answer = client.post(
            address, content=content, params={"delimiter": "tab"}, headers={"Content-Type": "text/csv"}
        )
    job = wait_for_job(client, answer.json()["id"])
    assert job["counts"]["succeeded"] == 2
    lines = [line.split("\t") for line in client.get(f"/jobs/{job['id']}/output.csv").text.splitlines()]
    scores = [float(line[lines[0].index("probability")]) for line in lines[1:]]
    assert scores == pytest.approx(served["reviews"].predict_proba(texts)[:, 1], abs=1e-6)


@pytest.mark.usefixtures("served")
def test_unknown_category_and_null_that_the_model_does_not_know_are_the_callers(client: httpx2.Client) -> None:
    problem = check_problem(predict(client, "cities", {"x": 0.5, "city": "Oslo"}), 422, "invalid_row")
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [("/features/city", "category")]
    problem = check_problem(predict(client, "cities", {"x": None, "city": "Paris"}), 422, "invalid_row")
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [("/features/x", "null")]


@pytest.mark.usefixtures("served")
def test_value_that_only_the_model_refuses_is_the_callers_too(client: httpx2.Client) -> None:
    problem = check_problem(predict(client, "forest", {"x": 1e300}), 422, "refused_by_model")
    job = client.get(f"/jobs/{problem['job_id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "refused_by_model")
    rows = [{"x": 0.5}, {"x": 1e300}, {"x": -0.5}]
    body = client.post("/predict_batch", json={"model": "forest", "rows": rows}).json()
    assert [item["status"] for item in body["items"]] == ["succeeded", "failed", "succeeded"]
    assert body["items"][1]["errors"][0]["code"] == "refused_by_model"
    answer = client.post("/models/forest/invocations", json={"dataframe_records": rows})
    assert answer.status_code == 400, answer.text  # as MLflow's clients know it
    assert "refuses row 1" in answer.json()["message"]


@pytest.mark.usefixtures("served")
def test_value_that_only_the_model_refuses_fails_its_line_of_a_file(client: httpx2.Client) -> None:
    job_id = send(client, b"x\n0.5\n1e300\n-0.5\n", model="forest")
    wait_for_job(client, job_id)
    errors = read_csv(client.get(f"/jobs/{job_id}/errors.csv").content)
    assert [(error["row_no"], error["code"]) for error in errors] == [("2", "refused_by_model")]
