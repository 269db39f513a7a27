"""What led to a score, over HTTP and by `guichet`; and past decisions made again beside the registry."""

import csv
import io
import json

import pytest
from guichet import Client
from guichet.command import main as guichet
from sqlalchemy import select, update

from shared.database.engine import make_engine, reader
from shared.rescoring.reproduce import reproduce
from shared.tables import AuditLog, ModelInput, ModelOutput
from tests.conftest import example_rows
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import check_problem, new_id, wait_until
from tests.contracts.operations.test_keys import make
from tests.support.stack import Stack


def score(client, model: str, row: dict, **headers: str) -> str:
    answer = client.post(f"/models/{model}/predict", json={"features": row}, headers={"Prefer": "wait=30", **headers})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])


def lineage(client, job_id: str, **params: object):
    answer = client.get(f"/jobs/{job_id}/lineage", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_lineage_of_a_row_has_all_that_led_to_its_score(client, engine, attrition_row):
    request_id = new_id()
    job = score(client, "attrition", attrition_row, **{"X-Request-Id": request_id})
    client.post("/explain", json={"job_id": job}, headers={"Prefer": "wait=30"})
    outcome = client.post(f"/jobs/{job}/outcome", json={"actual": 1})
    assert outcome.status_code == 201, outcome.text
    wait_until(lambda: lineage(client, job)["request"]["method"])  # requests are logged beside the answers
    story = lineage(client, job)
    result = client.get(f"/jobs/{job}/result").json()
    model = client.get("/models/attrition").json()
    assert (story["job_id"], story["row"]) == (job, 0)
    assert story["request"].items() >= {"id": request_id, "route": "/models/{name}/predict", "status": 200}.items()
    assert len(story["request"]["input_hash"]) == 64
    assert story["attempts"].items() >= {"kind": "predict", "status": "succeeded", "count": 1, "crashes": 0}.items()
    assert story["version"]["sha256"] == model["model_sha256"]
    assert story["version"]["libraries"] == model["card"]["libraries"]
    assert (story["version"]["model"], story["version"]["version"]) == ("attrition", 1)
    assert story["input"]["features"] == attrition_row
    assert story["input"]["is_intact"] is True
    for name in ("prediction", "label", "probability", "threshold"):
        assert story["output"][name] == result[name]
    assert sum(one["contribution"] for one in story["explanation"]["contributions"]) != 0
    assert story["outcome"].items() >= {"actual": model["card"]["labels"]["1"], "revision": 1}.items()
    # The view says the same, where both speak of it.
    with reader(engine).connect() as connection:
        seen = connection.exec_driver_sql(
            f"SELECT model_sha256, request_id, probability, outcome_label FROM lineage WHERE job_id = '{job}'"
        ).one()
    assert tuple(seen) == (
        story["version"]["sha256"],
        request_id,
        story["output"]["probability"],
        story["outcome"]["actual"],
    )


def test_row_of_a_file_a_refused_row_and_no_row(client, attrition_row, stack):
    rows = [attrition_row, attrition_row | {"age": "?"}]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(attrition_row))
    writer.writeheader()
    writer.writerows(rows)
    job = check_taken(post_csv(client, text.getvalue().encode(), "/models/attrition/predict_csv"))["id"]
    wait_until(lambda: client.get(f"/jobs/{job}").json()["status"] == "succeeded" or None)
    wait_until(lambda: lineage(client, job)["request"]["method"])  # as above
    good, bad = lineage(client, job), lineage(client, job, row=1)
    assert good["input"]["is_intact"] is True
    assert good["output"]["probability"] is not None
    assert bad["input"]["faults"][0]["pointer"] == "/age"
    assert (bad["output"], bad["input"]["sha256"], bad["input"]["is_intact"]) == (None, None, None)
    assert "must be below 2" in check_problem(client.get(f"/jobs/{job}/lineage?row=2"), 422)["errors"][0]["message"]
    check_problem(client.get(f"/jobs/{job}/lineage?row=-1"), 422)
    check_problem(client.get("/jobs/0199c0de-0000-7000-8000-000000000001/lineage"), 404)
    with Client(stack.url) as ours:
        assert ours.lineage(job, row=1) == bad


def test_command_prints_the_lineage(client, stack, attrition_row, capsys):
    job = score(client, "attrition", attrition_row)
    assert guichet(["--url", stack.url, "lineage", job]) == 0
    output = capsys.readouterr().out
    assert "as it was accepted" in output
    assert "sha256" in output
    assert guichet(["--url", stack.url, "lineage", job, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job_id"] == job


@pytest.mark.parametrize("stack", ["sync"], indirect=True)
def test_owner_sees_no_names_of_operators_and_an_administrators_look_is_noted(keyed: Stack, attrition_row):
    with keyed.client() as door:
        engine = make_engine(keyed.database_url)
        owner, other, admin = (make(engine, scopes) for scopes in ("predict,read", "predict,read", "admin"))
        answer = door.post(
            "/models/attrition/predict", json={"features": attrition_row}, headers=owner.headers | {"Prefer": "wait=30"}
        )
        path = f"/jobs/{answer.json()['job_id']}/lineage"
        check_problem(door.get(path, headers=other.headers), 404)
        check_problem(door.get(path), 401)
        seen = door.get(path, headers=owner.headers).json()
        assert seen["request"]["caller"] == owner.id
        noted = door.get(path, headers=admin.headers)
        assert noted.status_code == 200
        for story, is_admin in ((seen, False), (noted.json(), True)):
            assert story["promotion"] is None or (story["promotion"]["by"] is not None) is is_admin
        with reader(engine).connect() as connection:
            notes = connection.execute(
                select(AuditLog.actor, AuditLog.details).where(AuditLog.target == f"job:{answer.json()['job_id']}")
            ).all()
        assert [(note.actor, note.details["what"]) for note in notes] == [(f"key:{admin.id}", "lineage")]
        engine.dispose()


@pytest.mark.flow
@pytest.mark.parametrize("model", ["attrition", "credit", "energy"])
def test_decisions_of_a_running_service_come_out_again_and_what_is_changed_is_named(
    client, engine, stack, models_dir, model
):
    """A row alone, and a file of a thousand rows; then a byte of the stored input and output."""
    rows = example_rows(model)
    single = score(client, model, rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows[place % len(rows)] for place in range(1_000))
    job = check_taken(post_csv(client, text.getvalue().encode(), f"/models/{model}/predict_csv"))["id"]
    wait_until(lambda: client.get(f"/jobs/{job}").json()["status"] == "succeeded" or None)
    with reader(engine).connect() as connection:
        for job_id, count in ((single, 1), (job, 1_000)):
            report = reproduce(connection, job_id, None, models_dir=models_dir)
            assert [finding for finding in report.findings if finding.changed] == []
            assert len(report.findings) == count
            assert report.is_equal
            assert report.libraries == []
    printed = stack.run("shared.registry", "reproduce", single, "0")
    assert "bit for bit" in printed.stdout
    name = next(name for name, value in rows[0].items() if isinstance(value, float | int))
    with engine.begin() as connection:
        place = connection.execute(
            select(ModelInput.id, ModelInput.features).where(ModelInput.job_id == job, ModelInput.row_index == 7)
        ).one()
        changed = {name: place.features[name] + 1}
        connection.execute(
            update(ModelInput).where(ModelInput.id == place.id).values(features=place.features | changed)
        )
        connection.execute(
            update(ModelOutput)
            .where(ModelOutput.input_id == select(ModelInput.id).where(ModelInput.job_id == single).scalar_subquery())
            .values(prediction=ModelOutput.prediction if model != "energy" else 1.0, probability=None)
        )
    assert lineage(client, job, row=7)["input"]["is_intact"] is False
    named = stack.run("shared.registry", "reproduce", job, "--json", check=False)
    assert named.returncode == 1
    report = {row["index"]: row["changed"] for row in json.loads(named.stdout)["rows"] if row["changed"]}
    assert report == {7: "input"}
    named = stack.run("shared.registry", "reproduce", single, check=False)
    assert named.returncode == 1
    assert "CHANGED    output" in named.stdout
