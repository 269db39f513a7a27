"""What contracts say of a client's words and values, on every route and both runtimes."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import joblib
import jsonschema_rs
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine, select

from shared.database.engine import reader, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import Job, ModelInput
from tests.contracts.helpers import check_problem, new_id, wait_for_job, wait_until
from tests.support.csv_jobs import file_of, read_csv

NATIVE = {"Accept": "application/vnd.guichet+json"}
Speak = Callable[..., str]


def example(client: httpx2.Client, model: str) -> dict[str, Any]:
    row: dict[str, Any] = client.get(f"/models/{model}").json()["example"]
    return row


def score_file(client: httpx2.Client, model: str, content: bytes) -> tuple[str, list[dict[str, str]]]:
    """Score a file; return the job's id and the lines of its output."""
    sent = client.post(f"/models/{model}/predict_csv", content=content, headers={"Content-Type": "text/csv"})
    assert sent.status_code == 202, sent.text
    job_id: str = sent.json()["id"]
    wait_for_job(client, job_id)
    return job_id, read_csv(client.get(f"/jobs/{job_id}/output.csv").content)


# ── numbers in other forms ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def risky(speak: Speak) -> str:
    """The credit model for a client that reads bands and percentages."""
    bands = [{"exclusive_min": 0.9, "value": "high"}, {"min": 0.000001, "value": "medium"}, {"value": "low"}]
    return speak(
        "risky",
        "credit",
        response={
            "fields": {
                "risk_level": {"source": "probability", "bands": bands},
                "probability": {"source": "probability", "times": 100, "digits": 1},
                "percent": {"source": "probability", "times": 100, "whole": True},
                "said": {"source": "probability", "times": 100, "digits": 2, "text": "{} %"},
                "confidence": "confidence",
            }
        },
    )


def check_forms(fields: dict[str, Any], chance: float) -> None:
    assert fields["risk_level"] == ("high" if chance > 0.9 else "medium" if chance >= 0.000001 else "low")
    assert float(fields["probability"]) == round(chance * 100, 1)
    assert int(fields["percent"]) == round(chance * 100)
    assert fields["said"] == f"{chance * 100:.2f} %"


def test_numbers_are_answered_in_the_forms_of_the_card_alone_in_batches_and_in_files(
    client: httpx2.Client, risky: str
) -> None:
    rows = [example(client, risky), example(client, risky) | {"bureau_score_a": 0.99, "late_payments_24m": 9}]
    native = client.post(f"/models/{risky}/predict_batch", json={"rows": rows}, headers=NATIVE).json()["items"]
    chances = [item["probability"] for item in native]
    assert len({round(chance, 3) for chance in chances}) == 2

    answers = [client.post(f"/models/{risky}/predict", json={"features": row}).json() for row in rows]
    items = client.post(f"/models/{risky}/predict_batch", json={"rows": rows}).json()["items"]
    for fields, chance, item in zip(answers, chances, native, strict=True):
        assert list(fields) == ["risk_level", "probability", "percent", "said", "confidence"]
        check_forms(fields, chance)
        assert fields["confidence"] == pytest.approx(chance if item["prediction"] == 1 else 1 - chance)
    assert items == answers

    job_id, lines = score_file(client, risky, file_of(rows))
    for line, chance in zip(lines, chances, strict=True):
        assert float(line["probability_raw"]) == pytest.approx(chance)
        check_forms(line, float(line["probability_raw"]))
    table = client.get(f"/jobs/{job_id}/output.csv", headers={"Accept": "application/vnd.apache.parquet"}).content
    for record in pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist():
        check_forms(record, record["probability_raw"])
        assert type(record["percent"]) is int


# ── values that a client does not send, or writes otherwise ──────────────────────────────────────────────────────────

CONTRACT: dict[str, Any] = {
    "inputs": [
        {"name": "weight", "type": "number", "exclusive_min": 0, "max": 400, "example": 80},
        {"name": "height", "type": "number", "min": 0, "max": 3, "example": 1.8},
    ],
    "features": [
        {"name": "age", "min": 18, "default": 50, "message": {"range": "You must be 18 or older."}},
        {"name": "bmi", "derived": "weight / height ** 2"},
        {"name": "senior", "derived": "age >= 60"},
        {"name": "group", "derived": "'young' if age < 40 else 'old'"},
        {"name": "fat", "percent": "fraction"},
    ],
    "text": "read",
    "extra": "ignore",
    "batch_wrapper": "patients",
    "refusal": {"status": 400, "body": "message"},
}
ROW = {"weight": 90.0, "height": 1.7, "age": 65, "fat": 0.25}


@pytest.fixture(scope="module")
def original() -> Pipeline:
    """A model of features that its notebook computed from weight, height and age."""
    random = np.random.default_rng(3)
    weight, height = random.uniform(50, 120, 200).round(1), random.uniform(1.5, 2.0, 200).round(2)
    age, fat = random.integers(18, 80, 200), random.uniform(0.1, 0.4, 200).round(2)
    frame = features_of(weight, height, age, fat)
    ill = frame.bmi + frame.age / 10 + 10 * frame.fat + random.normal(0, 3, 200) > 35
    encode = ColumnTransformer([("group", OneHotEncoder(), ["group"])], remainder="passthrough")
    model = make_pipeline(encode, LogisticRegression(max_iter=3000)).fit(frame, ill.astype(int))
    model.rows = frame.assign(weight=weight, height=height)
    return model


def features_of(weight: Any, height: Any, age: Any, fat: Any) -> pd.DataFrame:
    """Return what the notebook made of its columns."""
    age = np.asarray(age)
    return pd.DataFrame(
        {
            "bmi": np.asarray(weight) / np.asarray(height) ** 2,
            "age": age,
            "senior": (age >= 60).astype(int),
            "group": np.where(age < 40, "young", "old"),
            "fat": fat,
        }
    )


def chance_of(original: Pipeline, row: dict[str, Any] = ROW) -> Any:
    """Return what the notebook's own model says of a row."""
    frame = features_of([row["weight"]], [row["height"]], [row["age"]], [row["fat"]])
    return pytest.approx(original.predict_proba(frame)[0, 1], abs=1e-9)


@pytest.fixture
def clinic(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path, original: Pipeline) -> str:
    """The model as it is served to the notebook's clients, who send weight and height."""
    if client.get("/models/clinic").status_code == 404:
        joblib.dump(original, tmp_path / "model.joblib")
        original.rows.to_csv(tmp_path / "rows.csv", index=False)
        (tmp_path / "contract.json").write_text(json.dumps(CONTRACT))
        with session_scope(engine) as session:
            add(
                session,
                tmp_path / "model.joblib",
                AddOptions(reference=tmp_path / "rows.csv", contract=tmp_path / "contract.json", name="clinic"),
                models_dir=models_dir,
            )
        wait_until(lambda: client.get("/models/clinic").status_code == 200 or None)
    return "/models/clinic"


def test_derived_features_are_computed_alone_and_in_batches(
    client: httpx2.Client, clinic: str, original: Pipeline
) -> None:
    answer = client.post(f"{clinic}/predict", json={"features": ROW})
    assert answer.status_code == 200, answer.text
    assert answer.json()["probability"] == chance_of(original)
    rows = [ROW, ROW | {"height": 2.0, "age": 30}, ROW | {"height": 0}]
    items = client.post(f"{clinic}/predict_batch", json={"patients": rows}).json()["items"]
    assert [item["probability"] for item in items[:2]] == [chance_of(original), chance_of(original, rows[1])]
    assert [fault["code"] for fault in items[2]["errors"]] == ["derived"]
    assert client.post(f"{clinic}/predict_batch", json={"rows": rows}).json()["items"] == items


def test_derived_features_are_computed_in_files(client: httpx2.Client, clinic: str, original: Pipeline) -> None:
    right = 90.0 / 1.7**2
    rows = [ROW | {"bmi": bmi} for bmi in ("", right, 31.0)] + [ROW | {"height": 0, "bmi": ""}]
    job_id, lines = score_file(client, "clinic", file_of(rows))
    assert [float(line["probability"]) for line in lines[:2]] == [chance_of(original)] * 2
    assert [line["error"] for line in lines[:2]] == ["", ""]
    assert lines[2]["error"] == "bmi must be left out, or be weight / height ** 2"
    assert lines[3]["error"].startswith("bmi, which is weight / height ** 2, cannot be computed from these values")
    errors = read_csv(client.get(f"/jobs/{job_id}/errors.csv").content)
    assert [(line["row_no"], line["column"], line["code"]) for line in errors] == [
        ("3", "bmi", "derived"),
        ("4", "weight", "derived"),
    ]
    _, [line] = score_file(client, "clinic", file_of([{key: value for key, value in ROW.items() if key != "age"}]))
    assert float(line["probability"]) == chance_of(original, ROW | {"age": 50})


def test_derived_features_are_computed_for_both_protocols(
    client: httpx2.Client, clinic: str, original: Pipeline
) -> None:
    request = {"params": {"output": "predict_proba"}, "dataframe_records": [ROW]}
    [[_, chance]] = client.post(f"{clinic}/invocations", json=request).json()["predictions"]
    assert chance == chance_of(original)
    table = client.post(f"{clinic}/invocations", content=file_of([ROW]), headers={"Content-Type": "text/csv"})
    assert table.json()["predictions"] == [int(chance >= 0.5)]
    metadata = client.get("/v2/models/clinic").json()
    names = [tensor["name"] for tensor in metadata["inputs"]]
    assert names == ["age", "fat", "weight", "height"]
    apart = [{**tensor, "shape": [1], "data": [ROW[tensor["name"]]]} for tensor in metadata["inputs"]]
    matrix = [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [float(ROW[name]) for name in names]}]
    for inputs in (apart, matrix):
        answer = client.post("/v2/models/clinic/infer", json={"inputs": inputs})
        assert answer.status_code == 200, answer.text
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert outputs["predict_proba"][1] == chance_of(original)
    matrix[0]["data"][3] = 0.0
    refused = client.post("/v2/models/clinic/infer", json={"inputs": matrix})
    assert refused.status_code == 400
    assert "row 0: bmi, which is weight / height ** 2, cannot be computed" in refused.json()["error"]


def test_what_was_sent_is_stored_with_what_the_model_got(client: httpx2.Client, engine: Engine, clinic: str) -> None:
    sent = {"features": {"weight": "90", "height": "1.7", "fat": "25 %"}}
    job_id = client.post(f"{clinic}/predict", json=sent).json()["job_id"]
    with reader(engine).connect() as connection:
        query = select(ModelInput.features).join(Job, Job.id == ModelInput.job_id).where(Job.id == job_id)
        stored = connection.execute(query).scalar_one()
    assert stored == {
        "weight": 90.0,
        "height": 1.7,
        "fat": 0.25,
        "age": 50,
        "bmi": 90.0 / 1.7**2,
        "senior": 0,
        "group": "old",
    }


@pytest.mark.parametrize("batch", [False, True])
def test_texts_defaults_and_other_keys_are_taken_as_the_card_says(
    client: httpx2.Client, clinic: str, original: Pipeline, batch: bool
) -> None:
    row = {"weight": "90", "height": "1.70", "fat": "25 %", "name": new_id()}
    body = {"patients": [row]} if batch else {"features": row}
    answer = client.post(f"{clinic}/predict{'_batch' * batch}", json=body | {"source": "app"})
    assert answer.status_code == 200, answer.text
    item = answer.json()["items"][0] if batch else answer.json()
    assert item["probability"] == chance_of(original, ROW | {"age": 50})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"age": 12}, "You must be 18 or older."),
        ({"weight": "a lot"}, "weight must be a finite number greater than 0 and of at most 400"),
        (
            {"height": 0},
            "bmi, which is weight / height ** 2, cannot be computed from these values: correct weight, height",
        ),
        ({"bmi": 12}, "bmi must be left out, or be weight / height ** 2"),
    ],
)
def test_refusal_is_the_sentence_of_the_card(
    client: httpx2.Client, clinic: str, change: dict[str, Any], sentence: str
) -> None:
    answer = client.post(f"{clinic}/predict", json={"features": ROW | change})
    assert (answer.status_code, answer.json()) == (400, {"detail": sentence})
    native = client.post(f"{clinic}/predict", json={"features": ROW | change}, headers=NATIVE)
    [fault] = check_problem(native, 422, "invalid_row")["errors"]
    assert fault["message"] in sentence
    aborted = client.post(f"{clinic}/predict_batch", json={"patients": [ROW, ROW | change], "on_error": "abort"})
    assert (aborted.status_code, aborted.json()) == (400, {"detail": sentence})


def test_documents_say_what_a_caller_sends(client: httpx2.Client, clinic: str) -> None:
    card = client.get(clinic).json()
    assert list(card["example"]) == ["age", "fat", "weight", "height"]
    assert client.post(f"{clinic}/predict", json={"features": card["example"]}).status_code == 200
    described = client.get(f"{clinic}/features").json()
    assert described["names"] == ["age", "fat", "weight", "height"]
    assert described["derived"]["bmi"] == "weight / height ** 2"
    document = client.get("/openapi.json").json()
    schema = document["components"]["schemas"]["clinic_row"]
    for row in (card["example"], {"weight": "90", "height": 1.7, "fat": "25 %"}):
        jsonschema_rs.validate(schema, row)
        assert client.post(f"{clinic}/predict", json={"features": row}).status_code == 200
    batch = document["paths"]["/models/{name}/predict_batch"]["post"]["requestBody"]["content"]["application/json"]
    shown = batch["examples"]["clinic"]["value"]
    assert list(shown) == ["patients"]
    assert client.post(f"{clinic}/predict_batch", json=shown).status_code == 200
    rows = client.get(f"{clinic}/examples.csv").content
    assert all(not line["error"] for line in score_file(client, "clinic", rows)[1])


def test_batch_may_be_a_list_of_rows(client: httpx2.Client, speak: Speak) -> None:
    fastapi = {"status": 422, "body": "fastapi"}
    listing = speak("listing", "credit", batch_input="flat", refusal=fastapi, on_error="abort")
    row = example(client, "credit")
    answer = client.post(f"/models/{listing}/predict_batch", json=[row, row])
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == 2
    assert client.post(f"/models/{listing}/predict_batch", json={"rows": [row]}).status_code == 200
    refused = client.post(f"/models/{listing}/predict_batch", json=[row, row | {"loan_amount": "much"}])
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", 1, "loan_amount"]
    assert client.post(f"/models/{listing}/predict_batch", json=[]).status_code == 422
    check_problem(client.post("/models/credit/predict_batch", json=[row]), 422)
