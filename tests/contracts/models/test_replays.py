"""Stored decisions, decided again by another version: what the job comes to, and what is refused, on both runtimes."""

import csv
import io
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
import pytest
from guichet import Client
from guichet.command import main as guichet
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine, func, select

from shared.database.engine import reader
from shared.tables import ModelOutput, ModelVersion
from tests.contracts.helpers import check_problem, wait_until
from tests.contracts.versions import COUNT, decide, fitted, register, replayed, rows_of
from tests.support.stack import Stack

_models: dict[str, str] = {}  # by the service: the model that it has


@pytest.fixture
def name(stack: Stack, client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """A model with three versions, the third of which takes one feature more; version 1 has decided 62 rows."""
    if stack.url not in _models:
        name = f"replayed-{uuid.uuid4().hex[:12]}"
        for weight, columns in ((0, ["age", "region"]), (15, ["age", "region"]), (0, ["age", "region", "income"])):
            register(engine, models_dir, tmp_path, name, *fitted(weight, columns))
        wait_until(lambda: client.get(f"/models/{name}/versions/3").status_code == 200 or None)
        job = decide(client, f"{name}@1", rows_of(COUNT))
        outcomes = "".join(f"{job},{row},{row % 2}\n" for row in range(40))
        answer = client.post(
            "/outcomes", content=f"job_id,row,actual\n{outcomes}", headers={"Content-Type": "text/csv"}
        )
        assert answer.status_code in (200, 201, 202), answer.text
        for row in rows_of(2):
            client.post(f"/models/{name}/predict", json={"features": row}, headers={"Prefer": "wait=30"})
        _models[stack.url] = name
    return _models[stack.url]


def test_same_version_decides_everything_as_it_did(client, engine, name):
    def scored() -> int:
        with reader(engine).connect() as connection:
            return connection.scalar(
                select(func.count()).select_from(ModelOutput).join(ModelVersion).where(ModelVersion.name == name)
            )

    before = scored()
    job, result = replayed(client, {"model": name, "version": 1})
    assert (job["kind"], job["counts"]["total"], job["counts"]["failed"]) == ("replay", COUNT + 2, 0)
    assert (result["model"], result["model_version"]) == (name, 1)
    assert (result["pairs"], result["refused"]) == (COUNT + 2, 0)
    assert result["agreement"]["value"] == 1.0
    assert (result["flips"]["up"], result["flips"]["down"], result["flips"]["p_value"]) == (0, 0, 1.0)
    shift = result["score_shift"]
    assert [shift[each] for each in ("value", "low", "high", "mean_absolute", "largest")] == [0.0] * 5
    assert result["largest"] == []
    assert result["outcomes"]["rows"] == 40
    assert result["outcomes"]["brier"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "method": "normal"}
    assert scored() == before  # no decision is added


def test_other_version_is_compared_row_by_row(client, name):
    job, result = replayed(client, {"model": f"{name}@2", "filter": {"version": 1}, "cost_fp": 1, "cost_fn": 5})
    lines = list(csv.DictReader(io.StringIO(client.get(f"/jobs/{job['id']}/output.csv").text)))
    assert len(lines) == result["pairs"] == COUNT + 2
    up = sum((line["decision_before"], line["decision_after"]) == ("0", "1") for line in lines)
    down = sum((line["decision_before"], line["decision_after"]) == ("1", "0") for line in lines)
    assert up > 0
    assert (result["flips"]["up"], result["flips"]["down"]) == (up, down)
    shifts = [float(line["score_after"]) - float(line["score_before"]) for line in lines]
    assert result["score_shift"]["value"] == pytest.approx(np.mean(shifts))
    most = max(range(len(lines)), key=lambda place: abs(shifts[place]))
    assert abs(result["largest"][0]["difference"]) == pytest.approx(abs(shifts[most]))
    one = result["largest"][0]
    line = next(each for each in lines if (each["job_id"], each["row"]) == (one["job_id"], str(one["row"])))
    assert float(line["score_after"]) == one["after"]
    north = next(each for each in result["segments"] if each["segment"] == "north")
    assert north["feature"] == "region"
    assert north["up"] + north["down"] == north["flips"] > 0
    assert result["versions"] == [{"version": 1, "rows": COUNT + 2}]
    cost = result["cost"]
    assert cost["weights"] == {"false_positive": 1, "false_negative": 5}
    assert cost["difference"]["value"] == pytest.approx(cost["after"]["cost"] - cost["before"]["cost"])
    assert {"accuracy", "brier", "roc_auc"} <= result["outcomes"].keys()
    assert any("Outcomes are known of 40 of 62 rows" in note for note in result["notes"])
    assert client.get(f"/jobs/{job['id']}/errors.csv").text == "row_no,column,code,message,value\n"
    assert client.get(f"/jobs/{job['id']}/output.csv", params={"format": "parquet"}).status_code == 406


def test_filter_leaves_rows_out(client, name):
    _, result = replayed(
        client, {"model": f"{name}@2", "filter": {"features": {"region": ["south", "east"], "age": 21}}}
    )
    expected = sum(row["age"] == 21 and row["region"] != "north" for row in [*rows_of(COUNT), *rows_of(2)])
    assert result["pairs"] == expected
    assert result["filter"] == {"features": {"region": ["south", "east"], "age": [21]}}


def test_client_and_command_replay(stack, client, name, tmp_path, capsys):
    with Client(stack.url) as own:
        comparison = own.replay(f"{name}@2", features={"region": "north"}, start="2020-01-01T00:00:00Z").result()
    assert comparison.pairs == 21
    assert comparison.flips == comparison.flips_up + comparison.flips_down
    arguments = ["replay", f"{name}@2", "--where", "region=north", "-o", str(tmp_path / "both.csv")]
    assert guichet(["--url", stack.url, *arguments]) == 0
    shown = capsys.readouterr().out
    assert f"{name}@2 beside what @1 decided" in shown
    assert "McNemar's exact p" in shown
    assert len((tmp_path / "both.csv").read_text().splitlines()) == 22


def test_replay_that_cannot_be_is_refused_with_advice(client, engine, models_dir, tmp_path, name):
    empty = {"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}
    problem = check_problem(client.post("/replays", json={"model": f"{name}@2"} | empty), 409, "conflict")
    assert "No decision" in problem["detail"]
    assert "choose another window" in problem["detail"]
    other = check_problem(client.post("/replays", json={"model": f"{name}@3"}), 409, "conflict")
    assert f"{name}@3 cannot decide rows of {name}@1: these rows lack income" in other["detail"]
    assert "filter.version" in other["detail"]
    check_problem(client.post("/replays", json={"model": f"{name}@9"}), 404)
    check_problem(client.post("/replays", json={"model": name}), 422)  # which version?
    check_problem(client.post("/replays", json={"model": f"{name}@2", "from": empty["to"], "to": empty["from"]}), 422)
    check_problem(client.post("/replays", json={"model": f"{name}@2", "from": "0001-01-01T00:00:00Z"}), 422)
    check_problem(client.post("/replays", json={"model": f"{name}@2", "to": "20261101"}), 422)  # no seconds since 1970
    unknown = check_problem(
        client.post("/replays", json={"model": f"{name}@2", "filter": {"features": {"regoin": "north"}}}), 422
    )
    assert "region" in unknown["errors"][0]["message"]
    check_problem(client.post("/replays", json={"model": f"{name}@2", "filter": {"version": 77}}), 422)
    check_problem(client.post("/replays", json={"model": f"{name}@2", "cost_fp": -1}), 422)
    regression = LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
    strange = f"numbers-{uuid.uuid4().hex[:12]}"
    register(engine, models_dir, tmp_path, strange, regression, pd.DataFrame({"a": [1.0, 2.0]}))
    wait_until(lambda: client.get(f"/models/{strange}").status_code == 200 or None)
    archived = client.post(f"/models/{name}/versions/3/archive", json={"reason": "of no use"})
    assert archived.status_code == 200
    gone = check_problem(client.post("/replays", json={"model": f"{name}@3"}), 404)
    assert "archived" in gone["detail"]
    client.post(f"/models/{name}/versions/3/restore", json={"reason": "of use"})
    none = check_problem(client.post("/replays", json={"model": f"{strange}@1"}), 409)
    assert "No decision" in none["detail"]


def test_regression_is_replayed_in_its_own_terms(client, engine, models_dir, tmp_path):
    name = f"amounts-{uuid.uuid4().hex[:12]}"
    for slope in (1.0, 3.0):
        model = LinearRegression().fit([[0.0], [1.0]], [0.0, slope])
        register(engine, models_dir, tmp_path, name, model, pd.DataFrame({"a": [0.5, 1.0, 2.0]}))
    wait_until(lambda: client.get(f"/models/{name}/versions/2").status_code == 200 or None)
    for value in (1.0, 2.0):
        client.post(f"/models/{name}/predict", json={"features": {"a": value}}, headers={"Prefer": "wait=30"})
    started = datetime.now(UTC)
    _, result = replayed(client, {"model": f"{name}@2", "from": (started - timedelta(hours=1)).isoformat()})
    assert (result["agreement"], result["flips"], result["cost"]) == (None, None, None)
    assert result["score_shift"]["value"] == pytest.approx(3.0)
    assert "decides nothing" in result["notes"][0]
    assert json.dumps(result).isascii()
