"""MLflow's scoring server: its requests have its answers, and what it refuses or would guess at is refused."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine

from shared.database.engine import session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from tests.contracts.helpers import (
    check_accepted,
    check_problem,
    counts,
    logged,
    new_id,
    stored_job,
    stored_rows,
    wait_for_job,
    wait_until,
)
from tests.contracts.moody import RAISES
from tests.support.stack import Stack

SAVED = Path(__file__).resolve().parents[2] / "mlflow"
ANSWERS: list[dict[str, Any]] = json.loads((SAVED / "answers.json").read_text())
VISITORS = "/models/visitors/invocations"


@pytest.fixture
def visitors(client: httpx2.Client, engine: Engine, models_dir: Path) -> str:
    """The path that serves `visitors`, which is taken in, with `tariff`, from the folder that MLflow saved."""
    if client.get("/models/tariff").status_code == 404:
        with session_scope(engine) as session:
            add(session, SAVED / "visitors", AddOptions(name="visitors"), models_dir=models_dir)
            add(
                session,
                SAVED / "tariff",
                AddOptions(name="tariff", reference=SAVED / "tariff.csv"),
                models_dir=models_dir,
            )
        wait_until(lambda: client.get("/models/tariff").status_code == 200 or None)
    return VISITORS


def check_error(answer: httpx2.Response, status: int, *messages: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()
    assert list(error) == ["error_code", "message"]
    assert error["message"].endswith("?" if "did you mean" in error["message"].rpartition("; ")[2] else ".")
    for words in messages:
        assert words in error["message"]


def visitor(**changes: Any) -> dict[str, Any]:
    return {"age": 35, "basket": 61.5, "city": "Lyon", "member": True} | changes


@pytest.mark.parametrize("case", ANSWERS, ids=lambda case: f"{case['model']}: {case['name']}")
def test_request_is_answered_as_the_real_scoring_server_answered_it(
    client: httpx2.Client, visitors: str, case: dict[str, Any]
) -> None:
    answer = client.post(
        f"/models/{case['model']}/invocations", content=case["body"], headers={"Content-Type": case["content_type"]}
    )
    if case["status"] != 200:
        check_error(answer, case["status"])
    elif case["name"].startswith("bent: "):  # MLflow makes 35 of 35.7, and false of null, without a word
        check_error(answer, 400)
    else:
        assert answer.status_code == 200, answer.text
        assert list(answer.json()) == ["predictions"]
        predictions = answer.json()["predictions"]
        if case["model"] == "tariff":
            assert predictions == pytest.approx(case["predictions"], abs=1e-9)
        else:
            assert predictions == case["predictions"]
            assert {type(value) for value in predictions} == {bool}


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_rows_of_a_request_are_one_stored_job(client: httpx2.Client, engine: Engine, visitors: str) -> None:
    rows = [visitor(), visitor(age=20, basket=None), visitor(city="Brest")]
    answer = client.post(visitors, json={"dataframe_records": rows})
    job_id = answer.headers["content-location"].removeprefix("/jobs/")
    job = stored_job(engine, job_id)
    assert (job["kind"], job["state"], job["row_count"]) == ("batch", "succeeded", 3)
    assert [row["features"] for row in stored_rows(engine, job_id)] == rows


def test_one_row_is_a_job_of_one_row(client: httpx2.Client, engine: Engine, visitors: str) -> None:
    answer = client.post(visitors, json={"inputs": visitor()})
    job = stored_job(engine, answer.headers["content-location"].removeprefix("/jobs/"))
    assert (job["kind"], job["row_count"]) == ("predict", 1)


def test_caller_that_prefers_not_to_wait_gets_a_job(client: httpx2.Client, visitors: str) -> None:
    body = {"dataframe_records": [visitor(), visitor(age=70)]}
    answer = client.post(visitors, json=body, headers={"Prefer": "respond-async"})
    job = check_accepted(answer)
    assert answer.headers["preference-applied"] == "respond-async"
    wait_for_job(client, job["id"])
    assert client.get(f"/jobs/{job['id']}/result").json()["n_rows"] == 2


def test_same_key_and_body_are_the_same_job(client: httpx2.Client, visitors: str) -> None:
    headers = {"Idempotency-Key": new_id()}
    first, again = (client.post(visitors, json={"inputs": visitor()}, headers=headers) for _ in range(2))
    assert first.headers["content-location"] == again.headers["content-location"]
    assert first.json() == again.json()
    check_error(client.post(visitors, json={"inputs": visitor(age=36)}, headers=headers), 400)


def test_plain_path_means_the_default_model(client: httpx2.Client, attrition_row: dict[str, Any]) -> None:
    answer = client.post("/invocations", json={"dataframe_records": [attrition_row]})
    native = client.post("/predict", json={"features": attrition_row}).json()
    assert answer.json() == {"predictions": [native["prediction"]]}


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_probabilities_and_labels_are_given_where_params_ask_for_them(
    client: httpx2.Client, attrition_row: dict[str, Any], energy_row: dict[str, Any]
) -> None:
    def ask(output: object, model: str = "attrition", row: dict[str, Any] = attrition_row) -> httpx2.Response:
        body = {"dataframe_records": [row, row], "params": {"output": output}}
        return client.post(f"/models/{model}/invocations", json=body)

    native = client.post("/predict", json={"features": attrition_row}).json()
    first, second = ask("predict_proba").json()["predictions"]
    assert first == second == pytest.approx([1 - native["probability"], native["probability"]], abs=1e-12)
    assert ask("label").json() == {"predictions": [native["label"]] * 2}
    assert ask("predict").json() == {"predictions": [native["prediction"]] * 2}
    check_error(ask("shap"), 400, "predict, predict_proba, label")
    check_error(ask(["label"]), 400, "predict, predict_proba, label")
    check_error(ask("predict_proba", "energy", energy_row), 400, "one of the outputs of energy@1: predict.")


def test_params_that_are_no_object_are_refused(client: httpx2.Client, visitors: str) -> None:
    check_error(client.post(visitors, json={"inputs": visitor(), "params": ["label"]}), 400, "`params`")


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_that_do_not_fit_are_told_by_row_and_column_and_nothing_is_stored(
    client: httpx2.Client, engine: Engine, visitors: str
) -> None:
    before = counts(engine)
    rows = [visitor(), visitor(age="CANARY", city=None), visitor(member=2), visitor(basket="CANARY")]
    answer = client.post(visitors, json={"dataframe_records": rows})
    check_error(
        answer, 400, "fit visitors@1: row 1: age must be an integer", "row 1: city must not be null", "; and 1 more."
    )
    assert "CANARY" not in answer.text
    assert counts(engine) == before
    entry = logged(engine, answer.headers["x-request-id"])
    assert entry["faults"][0]["pointer"] == "/dataframe_records/1/age"


def test_unknown_columns_are_refused_where_the_card_refuses_them(
    client: httpx2.Client, attrition_row: dict[str, Any]
) -> None:
    row = attrition_row | {"agee": 3}
    check_error(
        client.post("/invocations", json={"dataframe_records": [row]}), 400, "agee is not", 'did you mean "age"'
    )
    split = {"columns": list(row), "data": [list(row.values())]}
    check_error(client.post("/invocations", json={"dataframe_split": split}), 400, "agee is not")
    text = ",".join(row) + "\n" + ",".join(str(value).lower() for value in row.values()) + "\n"
    check_error(client.post("/invocations", content=text, headers={"Content-Type": "text/csv"}), 400, "agee")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_split": {"columns": ["age", 3], "data": [[1, 2]]}}, "a list of names"),
        ({"dataframe_split": {"columns": ["age"], "data": {"age": [1]}}}, "a list of rows"),
        ({"dataframe_split": {"columns": ["age"], "data": [1]}}, "row 0 is no list"),
        ({"dataframe_split": {"columns": ["x", "x"], "data": [[1, 2]]}}, "a name twice"),
        ({"dataframe_records": [3]}, "row 0: must be an object"),
        ({"inputs": 3}, "a list of rows, or an object of columns"),
        ({"inputs": {}}, "at least one row"),
        ({"inputs": {"age": [1, 2], "city": "Lyon"}}, "every column a list"),
        ({"inputs": {"age": [[1, 2]], "basket": [1], "city": ["Lyon"], "member": [True]}}, "age must be an integer"),
        ({"instances": []}, "at least one row"),
    ],
)
def test_shape_that_no_form_has_is_refused(client: httpx2.Client, visitors: str, body: object, message: str) -> None:
    check_error(client.post(visitors, json=body), 400, message)


def test_columns_may_be_tensors_of_one_column(client: httpx2.Client, visitors: str) -> None:
    columns = {name: [[value], [value]] for name, value in visitor().items()}
    assert client.post(visitors, json={"inputs": columns}).json() == {"predictions": [True, True]}


@pytest.mark.parametrize("word", ["Infinity", "-Infinity", "-NaN", "nan", "1e999"])
def test_numbers_that_json_and_pandas_do_not_have_are_refused(client: httpx2.Client, visitors: str, word: str) -> None:
    body = json.dumps({"inputs": visitor(basket="@")}).replace('"@"', word)
    check_error(client.post(visitors, content=body, headers={"Content-Type": "application/json"}), 400)


def test_nan_within_a_text_is_text(client: httpx2.Client, engine: Engine, visitors: str) -> None:
    body = json.dumps({"inputs": visitor(city='NaN "NaN\\', basket=float("nan"))})
    answer = client.post(visitors, content=body, headers={"Content-Type": "application/json"})
    row = stored_rows(engine, answer.headers["content-location"].removeprefix("/jobs/"))[0]
    assert row["features"] == visitor(city='NaN "NaN\\', basket=None)


@pytest.mark.parametrize("body", ['{"inputs": [], "inputs": []}', "[" * 100, '{"inputs": {"city": "\\u0000"}}', ""])
def test_json_that_is_no_plain_json_is_refused(client: httpx2.Client, visitors: str, body: str) -> None:
    check_error(client.post(visitors, content=body, headers={"Content-Type": "application/json"}), 400)


def test_more_rows_than_a_batch_may_have_are_refused(client: httpx2.Client, visitors: str) -> None:
    too_many = [visitor()] * 1001
    columns = {name: [value] * 1001 for name, value in visitor().items()}
    split = {"columns": list(visitor()), "data": [list(visitor().values())] * 1001}
    bodies: list[dict[str, Any]] = [
        {"dataframe_records": too_many},
        {"inputs": too_many},
        {"inputs": columns},
        {"dataframe_split": split},
    ]
    for body in bodies:
        check_error(client.post(visitors, json=body), 413, "1000 rows")
    text = "age,basket,city,member\n" + "35,61.5,Lyon,true\n" * 1001
    check_error(client.post(visitors, content=text, headers={"Content-Type": "text/csv"}), 413, "1000 rows")


def test_unknown_model_and_wrong_method_have_the_errors_of_the_protocol(client: httpx2.Client, visitors: str) -> None:
    check_error(client.post("/models/nobody/invocations", json={"inputs": visitor()}), 404, "visitors")
    answer = client.get("/invocations")
    check_error(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_path_that_is_nearly_that_of_the_protocol_has_the_errors_of_the_service(client: httpx2.Client) -> None:
    check_problem(client.post("/in%0Avocations", json={"inputs": visitor()}), 404, "not_found")


def test_row_on_which_the_model_fails_fails_the_request_and_is_named(client: httpx2.Client, moody: str) -> None:
    rows = [{"mood": 0.5}, {"mood": RAISES}]
    answer = client.post(f"/models/{moody}/invocations", json={"dataframe_records": rows})
    check_error(answer, 500, "row 1")
    assert "CANARY" not in answer.text
    check_error(client.post(f"/models/{moody}/invocations", json={"inputs": [RAISES]}), 500)


def test_list_of_values_is_the_column_of_a_model_with_one_feature(client: httpx2.Client, moody: str) -> None:
    answer = client.post(f"/models/{moody}/invocations", json={"inputs": [0.5, -0.5]})
    assert answer.json() == {"predictions": [True, False]}


def test_ping_answers_while_requests_are_welcome(stack: Stack, client: httpx2.Client) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/ping", headers={"Accept": "text/csv"}).json() == {"status": "ok"}
