"""Cards that speak the words of existing clients: input, answers and refusals, on both runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import check_accepted, check_problem, counts, logged, new_id, wait_for_job, wait_until

NATIVE = {"Accept": "application/vnd.guichet+json"}
CREDIT = {"feature_1": 0.12, "feature_2": None}
Speak = Callable[..., str]


@pytest.fixture
def lender(speak: Speak) -> str:
    """The credit model in the words of a client of its own."""
    fields = {
        "request_id": "request_id",
        "proba_default": "probability",
        "verdict": "label",
        "kept": {"source": "probability", "label": "repaid", "digits": 2},
        "service": {"value": "lender"},
    }
    return speak(
        "lender",
        "credit",
        response={"fields": fields, "batch": {"n": "n_rows", "answers": "items"}},
        on_error="abort",
    )


@pytest.fixture
def flat(speak: Speak) -> str:
    return speak("flat", "credit", input="flat", refusal={"status": 400, "body": "detail"})


def credit_row(client: httpx2.Client) -> dict[str, Any]:
    row: dict[str, Any] = client.get("/models/credit").json()["example"]
    return row


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_result_has_the_fields_of_the_card_wherever_it_is_read(client: httpx2.Client, lender: str) -> None:
    row = credit_row(client)
    plain = client.post("/models/credit/predict", json={"features": row}).json()
    answer = client.post(f"/models/{lender}/predict", json={"features": row})
    assert answer.status_code == 200
    result = answer.json()
    assert list(result) == ["request_id", "proba_default", "verdict", "kept", "service"]
    assert result["request_id"] == answer.headers["x-request-id"]
    # The same artefact, but whichever exact way of scoring it was the fastest when it was registered.
    assert result["proba_default"] == pytest.approx(plain["probability"], abs=1e-6)
    assert result["verdict"] == plain["label"]
    assert result["kept"] == round(1 - result["proba_default"], 2)
    assert result["service"] == "lender"
    job = client.get(answer.headers["content-location"]).json()
    assert job["result"] == result
    assert client.get(job["links"]["result"]).json() == result
    assert client.get(f"/jobs?model={lender}").json()["items"][0]["result"] == result


def test_client_that_asks_for_the_services_own_words_gets_them(client: httpx2.Client, lender: str) -> None:
    body = {"model": lender, "features": credit_row(client)}
    result = client.post("/predict", json=body, headers=NATIVE).json()
    assert result.keys() >= {"job_id", "prediction", "label", "probability", "threshold"}
    job = client.get(f"/jobs/{result['job_id']}", headers=NATIVE).json()
    assert job["result"] == result
    assert "proba_default" in client.get(f"/jobs/{result['job_id']}").json()["result"]


def test_batch_has_the_fields_of_the_card(client: httpx2.Client, lender: str) -> None:
    row = credit_row(client)
    answer = client.post(f"/models/{lender}/predict_batch", json={"rows": [row, row]})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["n", "answers"]
    assert answer.json()["n"] == 2
    first, second = answer.json()["answers"]
    assert list(first) == ["request_id", "proba_default", "verdict", "kept", "service"]
    assert first == second


def test_batch_of_a_card_that_aborts_is_refused_for_one_bad_row(
    client: httpx2.Client, engine: Engine, lender: str
) -> None:
    rows = [credit_row(client), {"feature_1": "much"}]
    before = counts(engine)
    problem = check_problem(client.post(f"/models/{lender}/predict_batch", json={"rows": rows}), 422, "invalid_row")
    assert problem["errors"][0]["pointer"].startswith("/rows/1/")
    assert counts(engine) == before
    answer = client.post(f"/models/{lender}/predict_batch", json={"rows": rows, "on_error": "continue"})
    assert [item.get("status") for item in answer.json()["answers"]] == [None, "failed"]


def test_output_file_has_the_columns_of_the_card(client: httpx2.Client, lender: str) -> None:
    table = client.get(f"/models/{lender}/examples.csv").text
    job = client.post(f"/models/{lender}/predict_csv", content=table, headers={"Content-Type": "text/csv"}).json()
    wait_for_job(client, job["id"])
    output = client.get(f"/jobs/{job['id']}/output.csv").text.splitlines()
    assert output[0] == "row_no,prediction,verdict,proba_default,threshold,error"
    assert len(output) == 6


def test_invocations_are_answered_with_probabilities_where_the_card_says_so(
    client: httpx2.Client, speak: Speak
) -> None:
    name = speak("chances", "credit", invocations="predict_proba")
    rows = {"dataframe_records": [credit_row(client)]}
    [both] = client.post(f"/models/{name}/invocations", json=rows).json()["predictions"]
    assert sum(both) == pytest.approx(1)
    [decided] = client.post(f"/models/{name}/invocations", json=rows | {"params": {"output": "predict"}}).json()[
        "predictions"
    ]
    assert decided == int(both[1] >= 0.148)


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flat_body_is_the_row_itself(client: httpx2.Client, flat: str) -> None:
    row = credit_row(client)
    answer = client.post(f"/models/{flat}/predict", json=row)
    assert answer.status_code == 200, answer.text
    wrapped = client.post(f"/models/{flat}/predict", json={"features": row})
    assert wrapped.json()["probability"] == answer.json()["probability"]


def test_flat_body_may_hold_options_that_are_no_features(client: httpx2.Client, flat: str) -> None:
    row = credit_row(client) | {"expires_in": 60, "timeout": 5, "version": 1, "model": flat}
    job = check_accepted(client.post("/jobs", json={"features": credit_row(client), "model": flat}))
    wait_for_job(client, job["id"])
    answer = client.post(f"/models/{flat}/predict", json=row, headers={"Prefer": "respond-async"})
    assert check_accepted(answer)["expires_at"] is not None
    bad = client.post(f"/models/{flat}/predict", json=row | {"timeout": -1})
    assert bad.status_code == 400
    assert "/timeout must be a number of seconds" in bad.json()["detail"]


def test_wrapper_may_have_another_name(client: httpx2.Client, speak: Speak) -> None:
    name = speak("cog", "credit", wrapper="input", response={"fields": {"output": "probability"}})
    row = credit_row(client)
    answer = client.post(f"/models/{name}/predict", json={"input": row})
    assert list(answer.json()) == ["output"]
    assert client.post(f"/models/{name}/predict", json={"features": row}).json() == answer.json()
    problem = check_problem(client.post(f"/models/{name}/predict", json=row), 422, "invalid_row")
    assert '{"input": {...}}' in problem["detail"]
    both = client.post(f"/models/{name}/predict", json={"input": row, "features": row})
    assert check_problem(both, 422)["errors"][0]["pointer"] == "/features"


@pytest.fixture
def collider(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """A flat model whose features have the names of a wrapper and of a list of rows."""
    if client.get("/models/collider").status_code == 404:
        rows = pd.DataFrame({"features": np.arange(20.0), "rows": np.arange(20.0) % 7})
        joblib.dump(LogisticRegression().fit(rows, rows["features"] > 9), tmp_path / "model.joblib")
        rows.to_csv(tmp_path / "rows.csv", index=False)
        (tmp_path / "contract.json").write_text('{"input": "flat"}')
        with session_scope(engine) as session:
            add(
                session,
                tmp_path / "model.joblib",
                AddOptions(reference=tmp_path / "rows.csv", contract=tmp_path / "contract.json", name="collider"),
                models_dir=models_dir,
            )
        wait_until(lambda: client.get("/models/collider").status_code == 200 or None)
    return "collider"


def test_flat_model_may_have_a_feature_called_features(client: httpx2.Client, collider: str) -> None:
    row = {"features": 3.0, "rows": 2.0}
    own = client.post(f"/models/{collider}/predict", json=row)
    assert own.status_code == 200, own.text
    beside = client.post("/predict", json=row | {"model": collider, "timeout": 5})
    assert beside.json()["probability"] == own.json()["probability"]
    check_problem(client.post(f"/models/{collider}/predict", json={"features": row}), 422)


@pytest.mark.parametrize("path", ["/jobs", "/predict", "/models/{name}/predict", "/predict_batch"])
def test_documented_example_of_a_model_with_a_feature_called_features_is_accepted(
    client: httpx2.Client, collider: str, path: str
) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    examples = paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    answer = client.post(path.format(name=collider), json=examples[collider]["value"])
    assert answer.status_code in (200, 202), answer.text
    assert answer.json()["model"] == collider
    if path == "/jobs":
        put = paths["/jobs/{id}"]["put"]["requestBody"]["content"]["application/json"]["examples"]
        check_accepted(client.put(f"/jobs/{new_id()}", json=put[collider]["value"]))


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refusal_has_the_status_and_body_of_the_card(client: httpx2.Client, engine: Engine, flat: str) -> None:
    request_id, before = new_id(), counts(engine)
    row = credit_row(client) | {"feature_1": "much"}
    answer = client.post(f"/models/{flat}/predict", json=row, headers={"X-Request-Id": request_id})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["detail"]
    assert answer.json()["detail"].endswith(".")
    assert "much" not in answer.text
    assert counts(engine) == before
    entry = logged(engine, request_id)
    assert (entry["status"], entry["code"]) == (400, "invalid_row")
    own = client.post(f"/models/{flat}/predict", json=row, headers=NATIVE)
    assert check_problem(own, 422, "invalid_row")["errors"]


def test_refusal_may_look_like_that_of_fastapi(client: httpx2.Client, speak: Speak) -> None:
    name = speak("fast", "credit", refusal={"body": "fastapi"})
    row = credit_row(client) | {"feature_1": "much"}
    answer = client.post(f"/models/{name}/predict_batch", json={"rows": [row]})
    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert fault.keys() == {"type", "loc", "msg"}
    assert fault["loc"] == ["body", "rows", 0, "feature_1"]


@pytest.mark.parametrize("path", ["predict", "predict_batch"])
@pytest.mark.parametrize("body", [[], {"version": "1"}], ids=["no object", "bad option"])
def test_body_that_is_refused_before_its_row_is_read_is_refused_in_the_words_of_the_card(
    client: httpx2.Client, flat: str, path: str, body: object
) -> None:
    answer = client.post(f"/models/{flat}/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["detail"]


def test_body_that_is_no_object_is_told_what_the_card_wants(client: httpx2.Client, flat: str, speak: Speak) -> None:
    answer = client.post(f"/models/{flat}/predict", json=[])
    assert answer.json()["detail"] == f"The body must be an object with the features of {flat}@1."
    cog = speak("cog", "credit", wrapper="input", response={"fields": {"output": "probability"}})
    problem = check_problem(client.post(f"/models/{cog}/predict", json=[]), 422)
    assert problem["detail"] == "The body must be an object with `input`."


def test_refusal_of_a_model_that_the_body_names_is_not_that_of_another(client: httpx2.Client, flat: str) -> None:
    row = credit_row(client) | {"feature_1": "much"}
    answer = client.post("/predict", json={"model": flat, "features": row})
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])
    check_problem(client.post("/predict", json={"model": "credit", "features": row}), 422)


@pytest.mark.parametrize(
    ("accept", "is_native"),
    [
        ("Application/VND.guichet+JSON", True),
        ("text/html, application/vnd.guichet+json;q=0.5", True),
        ("application/vnd.guichet+json;q=0", False),
        ("application/vnd.guichet+json; q=0.000, */*", False),
        ("application/vnd.guichet+json5", False),
        ("*/*", False),
    ],
)
def test_services_own_words_are_for_who_accepts_them(
    client: httpx2.Client, flat: str, accept: str, is_native: bool
) -> None:
    row = credit_row(client) | {"feature_1": "much"}
    answer = client.post(f"/models/{flat}/predict", json=row, headers={"Accept": accept})
    assert answer.status_code == (422 if is_native else 400)


def test_other_errors_stay_problem_documents(client: httpx2.Client, flat: str) -> None:
    broken = client.post(f"/models/{flat}/predict", content="{", headers={"Content-Type": "application/json"})
    check_problem(broken, 400, "malformed_body")
    check_problem(client.post("/models/ghost/predict", json={}), 404, "not_found")
