"""What contracts say of a client's words and values, on every route and both runtimes."""

import io
from collections.abc import Callable
from typing import Any

import httpx2
import pyarrow.parquet
import pytest

from tests.contracts.helpers import wait_for_job
from tests.csv_jobs import file_of, read_csv

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


def check_forms(found: dict[str, Any], chance: float) -> None:
    assert found["risk_level"] == ("high" if chance > 0.9 else "medium" if chance >= 0.000001 else "low")
    assert float(found["probability"]) == round(chance * 100, 1)
    assert int(found["percent"]) == round(chance * 100)
    assert found["said"] == f"{chance * 100:.2f} %"


def test_numbers_are_answered_in_the_forms_of_the_card_alone_in_batches_and_in_files(
    client: httpx2.Client, risky: str
) -> None:
    rows = [example(client, risky), example(client, risky) | {"bureau_score_a": 0.99, "late_payments_24m": 9}]
    native = client.post(f"/models/{risky}/predict_batch", json={"rows": rows}, headers=NATIVE).json()["items"]
    chances = [item["probability"] for item in native]
    assert len({round(chance, 3) for chance in chances}) == 2

    answers = [client.post(f"/models/{risky}/predict", json={"features": row}).json() for row in rows]
    items = client.post(f"/models/{risky}/predict_batch", json={"rows": rows}).json()["items"]
    for found, chance, item in zip(answers, chances, native, strict=True):
        assert list(found) == ["risk_level", "probability", "percent", "said", "confidence"]
        check_forms(found, chance)
        assert found["confidence"] == pytest.approx(chance if item["prediction"] == 1 else 1 - chance)
    assert items == answers

    job_id, lines = score_file(client, risky, file_of(rows))
    for line, chance in zip(lines, chances, strict=True):
        assert float(line["probability_raw"]) == pytest.approx(chance)
        check_forms(line, float(line["probability_raw"]))
    table = client.get(f"/jobs/{job_id}/output.csv", headers={"Accept": "application/vnd.apache.parquet"}).content
    for record in pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist():
        check_forms(record, record["probability_raw"])
        assert type(record["percent"]) is int
