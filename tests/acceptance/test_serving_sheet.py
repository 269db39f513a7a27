"""The serving sheet: what an operator's check list asks of /health and /predict."""

from pathlib import Path

import httpx2
import pytest

from tests.acceptance import test_attrition_wrapped, test_credit
from tests.acceptance.conftest import CONTRACTS, Door
from tests.acceptance.test_attrition_flat import ROW
from tests.contracts.helpers import beside
from tests.support.stack import Stack

SHEET = CONTRACTS["serving_sheet"]


def test_health_tells_that_the_model_is_loaded_once_it_serves(front_client: httpx2.Client) -> None:
    assert SHEET["endpoints"][0] == "GET /health (model_loaded)"
    answer = front_client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["model_loaded"] is True
    assert front_client.post("/predict", json=ROW).status_code == 200


def test_health_of_every_service_tells_it_of_its_own_model(stack: Stack, front_client: httpx2.Client) -> None:
    with stack.client() as other:
        assert other.get("/health").json()["model_loaded"] is True
        assert (other.get("/health").json()["model"], front_client.get("/health").json()["model"]) == (
            "attrition",
            "turnover",
        )


@pytest.mark.long  # two more services
def test_each_wrapped_client_finds_its_model_at_plain_predict(stack: Stack, door: Door, tmp_path: Path) -> None:
    door("leavers"), door("lending")
    with beside(stack, tmp_path, DEFAULT_MODEL="leavers") as service, service.client() as client:
        test_attrition_wrapped.test_row_is_answered_with_a_prediction_and_its_probability(client)
        test_attrition_wrapped.test_every_feature_that_is_missing_once_is_named(client)
        assert client.get("/health").json()["model_loaded"] is True
    with beside(stack, tmp_path, DEFAULT_MODEL="lending") as service, service.client() as client:
        test_credit.test_row_is_answered_with_the_six_fields(client)
        test_credit.test_batch_is_answered_with_the_six_fields_of_each_row(client)
