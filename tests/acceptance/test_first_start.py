"""A service that was started for the first time: the clients for which its examples were made find their words."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from examples.build import build
from shared.config.settings import get_settings
from shared.database.engine import get_engine
from shared.packages.package import Package
from tests.acceptance.conftest import CONTRACTS
from tests.acceptance.test_attrition_wrapped import BREAKING, ROW
from tests.support.brief import prove_briefly
from tests.support.stack import ROOT, Stack, environment, free_port

CREDIT: list[dict[str, Any]] = json.loads((ROOT / "examples" / "credit" / "rows.json").read_text(encoding="utf-8"))
NATIVE = {"Accept": "application/vnd.guichet+json"}


pytestmark = pytest.mark.long  # a service of its own


@pytest.fixture(scope="module")
def fresh(
    tmp_path_factory: pytest.TempPathFactory, example_package: Callable[[str], Package]
) -> Iterator[httpx2.Client]:
    """A client of a service whose examples were built as `make run` builds them, but for their training."""
    folder = tmp_path_factory.mktemp("fresh")
    url = f"sqlite:///{folder / 'guichet.db'}"
    port = free_port()
    env = environment(folder, runtime="sync", port=port, database_url=url, models=folder / "models")
    stack = Stack("sync", env, folder, port)
    stack.run("alembic", "upgrade", "head")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        prove_briefly(patch)
        get_settings.cache_clear()
        get_engine.cache_clear()
        for name in ("attrition", "credit"):
            trained = example_package(name)
            patch.setattr(f"examples.{name}.train.train", lambda trained=trained: trained)
            build(name, models_dir=folder / "models")
        get_engine().dispose()
    get_settings.cache_clear()
    get_engine.cache_clear()
    try:
        stack.start_api()
        with stack.client() as client:
            yield client
    finally:
        stack.stop_all()


def test_attrition_client_finds_its_words_at_predict(fresh: httpx2.Client) -> None:
    contract = CONTRACTS["attrition_wrapped"]
    answer = fresh.post("/predict", json={"features": ROW})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == list(contract["response"]) == ["prediction", "probability"]
    assert answer.json()["prediction"] == int(answer.json()["probability"] >= contract["threshold"])
    spoilt = [ROW | change for change in BREAKING.values()]
    spoilt += [{key: value for key, value in ROW.items() if key != "age"}, ROW | {"genre": 9}, ROW | {"ville": "Lyon"}]
    for row in spoilt:
        refused = fresh.post("/predict", json={"features": row})
        assert refused.status_code == contract["refusal"]["status"] == 400, refused.text
        assert list(refused.json()) == ["detail"]
        assert isinstance(refused.json()["detail"], str)


def test_credit_client_finds_its_six_fields_alone_and_in_batches(fresh: httpx2.Client) -> None:
    contract = CONTRACTS["credit"]
    answer = fresh.post("/models/credit/predict", json={"features": CREDIT[0]})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == contract["response"]
    assert answer.json()["threshold"] == contract["threshold"]
    batch = fresh.post("/models/credit/predict_batch", json={"rows": CREDIT})
    assert list(batch.json()) == list(contract["batch"]["response"]) == ["n_rows", "items"]
    assert batch.json()["n_rows"] == len(CREDIT)
    assert [list(item) for item in batch.json()["items"]] == [contract["response"]] * len(CREDIT)
    refused = fresh.post("/models/credit/predict", json={"features": CREDIT[0] | {"loan_purpose": 1}})
    assert refused.status_code == 422
    assert "loan_purpose" in refused.text


def test_services_own_words_are_there_for_who_asks(fresh: httpx2.Client) -> None:
    native = fresh.post("/predict", json={"features": ROW}, headers=NATIVE).json()
    assert native.keys() >= {"job_id", "model", "prediction", "label", "probability", "threshold"}
    refused = fresh.post("/predict", json={"features": {}}, headers=NATIVE)
    assert refused.status_code == 422
    assert len(refused.json()["errors"]) == len(ROW)


def test_front_door_says_whose_words_are_whose(fresh: httpx2.Client) -> None:
    door = fresh.get("/")
    assert door.is_redirect  # for programs that name no type
    assert door.headers["location"] == "/docs"
    page = fresh.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "attrition" in page.text
    front = fresh.get("/", headers={"Accept": "application/json"})
    assert front.status_code == 200
    assert front.json() == door.json()
    models = {model["model"]: model for model in front.json()["models"]}
    assert front.json()["default_model"] == "attrition"
    assert models["attrition"]["is_default"]
    for name, model in models.items():
        words = model["words"]
        row = {"attrition": ROW, "credit": CREDIT[0]}[name]
        answer = fresh.post(model["links"]["predict"], json={"features": row})
        assert list(answer.json()) == words["answer"]
        assert words["row"] == "in `features`"
        refused = fresh.post(model["links"]["predict"], json={"features": []})
        assert refused.status_code == words["refusal"]["status"]
        assert words["whose"].startswith("those of the ")
        assert fresh.get(f"/models/{name}").json()["words"] == words
        described = fresh.get("/openapi.json").json()["info"]["description"]
        assert words["whose"] in described
    assert "application/vnd.guichet+json" in front.json()["own_words"]
