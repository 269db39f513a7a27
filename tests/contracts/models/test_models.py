"""The registered models as callers see them."""

import hashlib
import re
from pathlib import Path

import httpx2
import pytest

from tests.conftest import example_rows
from tests.contracts.helpers import check_problem, faults_of

EXAMPLES = ("attrition", "credit", "energy", "turnover")


def test_models_are_listed_with_versions_and_aliases(client: httpx2.Client) -> None:
    answer = client.get("/models")
    assert answer.status_code == 200
    items = {item["model"]: item for item in answer.json()["items"]}
    assert list(items) == sorted(items)
    assert set(EXAMPLES) <= items.keys()
    assert [name for name, item in items.items() if item["is_default"]] == ["attrition"]
    for name in EXAMPLES:
        item = items[name]
        assert item["versions"] == [1]
        assert item["aliases"] == {"champion": 1}
        assert item["description"]
        assert item["task"] == ("regression" if name == "energy" else "binary")
        assert item["links"] == {"self": f"/models/{name}", "predict": f"/models/{name}/predict"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_model_holds_its_card_with_an_example_of_each_feature(client: httpx2.Client, name: str) -> None:
    answer = client.get(f"/models/{name}")
    assert answer.status_code == 200
    model = answer.json()
    assert (model["model"], model["model_version"], model["aliases"]) == (name, 1, ["champion"])
    assert re.fullmatch(r"[0-9a-f]{64}", model["model_sha256"])
    features = model["card"]["features"]
    assert [feature["name"] for feature in features] == list(example_rows(name)[0])
    for feature in features:
        assert feature["type"] in ("integer", "number", "string", "boolean")
        assert feature["example"] is not None or feature["nullable"]
    shown = {feature["name"]: feature["example"] for feature in features if feature["example"] is not None}
    assert list(model["example"]) == [feature["name"] for feature in features]
    assert model["example"] | shown == model["example"]
    assert model["scorer"]["kind"]
    assert model["created_at"].endswith("Z")


@pytest.mark.parametrize("name", EXAMPLES)
def test_version_of_a_model_is_the_same_as_the_model_that_serves(client: httpx2.Client, name: str) -> None:
    served = client.get(f"/models/{name}").json()
    assert client.get(served["links"]["self"]).json() == served


@pytest.mark.parametrize("name", EXAMPLES)
def test_sha256_of_a_model_is_that_of_its_file(client: httpx2.Client, models_dir: Path, name: str) -> None:
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in models_dir.glob(f"{name}/*/model.joblib")}
    assert client.get(f"/models/{name}").json()["model_sha256"] in digests


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_a_model_is_scored(client: httpx2.Client, name: str) -> None:
    model = client.get(f"/models/{name}").json()
    assert client.post(model["links"]["predict"], json={"features": model["example"]}).status_code == 200


@pytest.mark.parametrize("path", ["/models/ghost", "/models/ghost/versions/1", "/models/%00", "/models/Attrition"])
def test_unknown_model_is_not_found_and_known_ones_are_named(client: httpx2.Client, path: str) -> None:
    detail = check_problem(client.get(path), 404, "not_found")["detail"]
    assert [name for name in EXAMPLES if name not in detail] == []


@pytest.mark.parametrize("version", ["2", "99", str(10**12)])
def test_unknown_version_is_not_found_and_known_ones_are_named(client: httpx2.Client, version: str) -> None:
    problem = check_problem(client.get(f"/models/attrition/versions/{version}"), 404, "not_found")
    assert problem["detail"].endswith("Known versions: 1.")


@pytest.mark.parametrize("version", ["0", "-1", "one", "1.5"])
def test_version_that_is_no_number_from_1_is_refused(client: httpx2.Client, version: str) -> None:
    problem = check_problem(client.get(f"/models/attrition/versions/{version}"), 422)
    assert [pointer for pointer, _ in faults_of(problem)] == ["/path/version"]
