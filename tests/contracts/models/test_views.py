"""A client that reads its own tables beside the API: what was asked over HTTP, answered, and learnt from, in SQL."""

from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy import Engine

from shared.commands.registry import main
from shared.database.engine import reader
from tests.contracts.helpers import new_id
from tests.support.databases import settings_for, settings_of
from tests.support.stack import Stack

LOOK = """
    SELECT i.age, i.poste, i.revenu_mensuel, p.prediction_label, p.prediction_proba, p.model_version
    FROM staff_predictions AS p JOIN staff_inputs AS i ON i.id = p.input_id
    WHERE i.poste = '%s' AND p.created_at >= i.created_at
"""
COMPARE = "SELECT count(*), min(age), max(a_quitte_l_entreprise), avg(revenu_mensuel) FROM staff_dataset"


@pytest.fixture
def views(stack: Stack, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The views and the reference data of attrition, made as an operator makes them."""
    rows = "examples/attrition/rows.csv"
    with settings_of(**settings_for(stack.database_url)):
        assert main(["reference", "load", rows, "--model", "attrition", "--skip-bad"]) == 0
        assert "attrition: 10 rows, 2 left out, no target, from rows.csv" in capsys.readouterr().out
        assert main(["views", "attrition", "--inputs", "staff_inputs", "--predictions", "staff_predictions"]) == 0
        assert main(["views", "attrition", "--reference", "staff_dataset"]) == 0
        yield
        assert main(["views", "attrition", "--drop"]) == 0
        assert main(["reference", "drop", "attrition"]) == 0


def test_rows_sent_over_http_are_read_by_a_clients_own_sql(
    views: None, client: httpx2.Client, engine: Engine, attrition_row: dict[str, object]
) -> None:
    job_title = new_id()
    answer = client.post("/models/attrition/predict", json={"features": attrition_row | {"poste": job_title}}).json()
    with reader(engine).connect() as connection:
        [row] = connection.exec_driver_sql(LOOK % job_title).all()
        assert row == (
            attrition_row["age"],
            job_title,
            attrition_row["revenu_mensuel"],
            answer["label"],
            answer["probability"],
            answer["model_version"],
        )
        count, youngest, target, pay = connection.exec_driver_sql(COMPARE).one()
    assert (count, youngest, target) == (10, 24, None)
    assert 1_000 < pay < 10_000
