"""The challenger of a model scores the same rows in the shadow, and is compared with the champion, on both runtimes."""

import uuid
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from guichet import Client, Refused
from guichet.command import main as guichet
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sqlalchemy import Engine, delete, func, select

from shared.database.engine import reader
from shared.tables import Job, ModelInput, ModelOutput, ModelVersion, ShadowScore
from tests.contracts.csv_files import check_taken, post_csv
from tests.contracts.helpers import check_problem, wait_until
from tests.contracts.versions import COLUMNS, COUNT, decide, fitted, let_a_minute_pass, register, rows_of
from tests.support.stack import Stack

pytestmark = pytest.mark.flow
WHY = {"reason": "to compare"}
JUDGED = 40
_names: dict[str, str] = {}  # by the service: the model that it has


def set_alias(client: httpx2.Client, name: str, version: int, alias: str = "challenger") -> None:
    moved = client.put(f"/models/{name}/aliases/{alias}", json={"version": version, **WHY})
    assert moved.status_code == 200, moved.text


def shadow_of(client: httpx2.Client, name: str) -> dict[str, Any] | None:
    shadow: dict[str, Any] | None = client.get(f"/models/{name}/aliases/challenger").json()["shadow"]
    return shadow


def challenge(client: httpx2.Client, name: str, version: int) -> None:
    """Let a version be the challenger, and wait until it has begun."""
    set_alias(client, name, version)
    wait_until(lambda: shadow_of(client, name))


def wait_for_rows(client: httpx2.Client, name: str, count: int) -> dict[str, Any]:
    """Wait until the challenger has scored or refused so many rows, and no more; return how it gets on."""

    def look() -> dict[str, Any] | None:
        shadow = shadow_of(client, name)
        return shadow if shadow is not None and shadow["scored"] + shadow["refused"] >= count else None

    shadow = wait_until(look, seconds=300)  # its process starts
    assert shadow["scored"] + shadow["refused"] == count
    return shadow


def comparison(client: httpx2.Client, name: str, **query: Any) -> dict[str, Any]:
    answer = client.get(f"/models/{name}/comparison", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def shadow_count(engine: Engine, name: str) -> int:
    with reader(engine).connect() as connection:
        query = select(func.count()).select_from(ShadowScore).join(ModelVersion)
        return connection.scalar(query.where(ModelVersion.name == name)) or 0


def make(client: httpx2.Client, engine: Engine, models_dir: Path, folder: Path) -> str:
    """Return the name of a new model with four versions, the last of which takes one feature more."""
    name = f"challenged-{uuid.uuid4().hex[:12]}"
    for weight, columns in ((0, COLUMNS), (15, COLUMNS), (25, COLUMNS), (0, [*COLUMNS, "income"])):
        register(engine, models_dir, folder, name, *fitted(weight, columns))
    wait_until(lambda: client.get(f"/models/{name}/versions/4").status_code == 200 or None)
    return name


@pytest.fixture
def name(stack: Stack, client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> str:
    """A model whose version 2 has scored the 62 rows that version 1 decided; 40 outcomes are known."""
    if stack.url not in _names:
        name = make(client, engine, models_dir, tmp_path)
        decide(client, name, rows_of(3))  # before there is a challenger
        challenge(client, name, 2)
        job = decide(client, name, rows_of(COUNT))
        for row in rows_of(2):
            client.post(f"/models/{name}/predict", json={"features": row}, headers={"Prefer": "wait=30"})
        decide(client, f"{name}@2", rows_of(3))  # its own decisions
        text = "age,region\n" + "".join(f"{row['age']},{row['region']}\n" for row in rows_of(5))
        file = check_taken(post_csv(client, text.encode(), f"/models/{name}/predict_csv"))["id"]
        wait_until(lambda: client.get(f"/jobs/{file}").json()["status"] == "succeeded" or None)
        outcomes = "".join(f"{job},{row},{(row // 7) % 2}\n" for row in range(JUDGED))
        answer = client.post(
            "/outcomes", content=f"job_id,row,actual\n{outcomes}", headers={"Content-Type": "text/csv"}
        )
        assert answer.status_code in (200, 201, 202), answer.text
        shadow = wait_for_rows(client, name, COUNT + 2)
        assert (shadow["state"], shadow["refused"], shadow["skipped"]) == ("scoring", 0, 0)
        _names[stack.url] = name
    return _names[stack.url]


def stored(engine: Engine, name: str, version: int) -> list[Any]:
    """Return what is stored of a challenger's pairs, by the rows."""
    query = (
        select(
            ModelInput.job_id,
            ModelInput.row_index,
            ModelInput.features,
            ModelOutput.prediction.label("decided"),
            ModelOutput.probability.label("before"),
            ShadowScore.prediction.label("decides"),
            ShadowScore.probability.label("after"),
            ShadowScore.label,
            Job.kind,
        )
        .join(ModelOutput, ModelOutput.input_id == ModelInput.id)
        .join(ShadowScore, ShadowScore.output_id == ModelOutput.id)
        .join(ModelVersion, ModelVersion.id == ShadowScore.model_version_id)
        .join(Job, Job.id == ModelInput.job_id)
        .where(ModelVersion.name == name, ModelVersion.version == version)
        .order_by(ModelInput.id)
    )
    with reader(engine).connect() as connection:
        return list(connection.execute(query))


def test_report_is_that_of_a_brute_force_over_what_is_stored(client, engine, name):
    rows = stored(engine, name, 2)
    assert [row.kind for row in rows] == ["batch"] * COUNT + ["predict"] * 2
    # What it scored in the shadow is what it answers.
    again = client.get(f"/jobs/{decide(client, f'{name}@2', [row.features for row in rows])}/result").json()["items"]
    assert [row.after for row in rows] == pytest.approx([item["probability"] for item in again], abs=1e-12)
    assert [row.label for row in rows] == [item["label"] for item in again]

    body = comparison(client, name, cost_fp=1, cost_fn=5)
    assert (body["model"], body["model_version"], body["champion"]) == (name, 2, 1)
    assert (body["pairs"], body["refused"], body["versions"]) == (COUNT + 2, 0, [{"version": 1, "rows": COUNT + 2}])
    up = sum((row.decided, row.decides) == (0, 1) for row in rows)
    down = sum((row.decided, row.decides) == (1, 0) for row in rows)
    assert up > 0
    flips = body["flips"]
    assert (flips["up"], flips["down"]) == (up, down)
    assert flips["p_value"] == pytest.approx(binomtest(up, up + down).pvalue)
    assert body["agreement"]["value"] == pytest.approx(1 - (up + down) / len(rows))
    shifts = np.array([row.after - row.before for row in rows])
    half = 1.959964 * shifts.std(ddof=1) / np.sqrt(len(rows))
    shift = body["score_shift"]
    assert [shift["value"], shift["low"], shift["high"]] == pytest.approx(
        [shifts.mean(), shifts.mean() - half, shifts.mean() + half]
    )
    north = next(each for each in body["segments"] if (each["feature"], each["segment"]) == ("region", "north"))
    inside = [row for row in rows if row.features["region"] == "north"]
    assert (north["rows"], north["flips"]) == (len(inside), sum(row.decided != row.decides for row in inside))
    assert north["share"]["low"] < north["share"]["value"] < north["share"]["high"]

    judged = rows[:JUDGED]
    truth = np.array([(row.row_index // 7) % 2 for row in judged])
    costs = []
    for side in ("decided", "decides"):
        decisions = np.array([getattr(row, side) for row in judged])
        costs.append(((decisions == 1) & (truth == 0)).sum() + 5 * ((decisions == 0) & (truth == 1)).sum())
    assert [body["cost"][side]["cost"] for side in ("before", "after")] == pytest.approx(costs)
    before, after = (np.array([getattr(row, side) for row in judged]) for side in ("before", "after"))
    areas = body["outcomes"]["roc_auc"]
    assert [areas["before"], areas["after"]] == pytest.approx([roc_auc_score(truth, each) for each in (before, after)])
    assert areas["difference"]["low"] <= areas["after"] - areas["before"] <= areas["difference"]["high"]
    squares = (after - truth) ** 2 - (before - truth) ** 2
    half = 1.959964 * squares.std(ddof=1) / np.sqrt(JUDGED)
    brier = body["outcomes"]["brier"]["difference"]
    assert [brier["value"], brier["low"], brier["high"]] == pytest.approx(
        [squares.mean(), squares.mean() - half, squares.mean() + half]
    )

    assert len(body["largest"]) == 10
    distances = sorted((abs(row.after - row.before) for row in rows), reverse=True)[:10]
    assert [abs(each["difference"]) for each in body["largest"]] == pytest.approx(distances)
    by_place = {(str(row.job_id), row.row_index): row for row in rows}
    for each in body["largest"]:
        row = by_place[each["job_id"], each["row"]]
        assert (each["before"], each["after"]) == (row.before, row.after)
    assert body["shadow"]["scored"] == COUNT + 2
    assert any(f"Outcomes are known of {JUDGED} of {COUNT + 2} rows" in note for note in body["notes"])


def test_every_row_since_the_alias_was_set_is_scored(client, engine, models_dir, tmp_path):
    name = make(client, engine, models_dir, tmp_path)
    decide(client, name, rows_of(5))
    for version, count in ((2, 7), (3, 9), (2, 11)):
        set_alias(client, name, version)
        decide(client, name, rows_of(count))  # nobody has looked for challengers meanwhile
        wait_for_rows(client, name, count)
    assert shadow_count(engine, name) == 7 + 9 + 11

    # What version 3 scored keeps it, though it never decided.
    assert client.post(f"/models/{name}/versions/3/archive", json=WHY).status_code == 200
    let_a_minute_pass(engine, name)
    kept = check_problem(client.request("DELETE", f"/models/{name}/versions/3", json=WHY), 409, "conflict")
    assert "has scores as a challenger" in kept["detail"]


def test_client_and_command_show_the_comparison(stack, client, name, capsys):
    with Client(stack.url) as own:
        shown = own.comparison(name, start="2020-01-01T00:00:00Z", cost_fn=2.0)
        assert (shown.pairs, shown.model_version) == (COUNT + 2, 2)
        assert shown.flips == shown.flips_up + shown.flips_down
        with pytest.raises(Refused) as refused:
            own.comparison(name, end="2020-01-01T00:00:00Z")
        assert refused.value.status == 409
    assert guichet(["--url", stack.url, "comparison", name, "--cost-fn", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"{name}@2 beside what @1 decided" in printed
    assert "McNemar's exact p" in printed
    assert guichet(["--url", stack.url, "comparison", f"{name}@2", "--of", "3"]) == 2
    assert "decided_by=1" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused_with_advice(client, engine, models_dir, tmp_path, name):
    past = {"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}
    none = check_problem(client.get(f"/models/{name}/comparison", params=past), 409, "conflict")
    assert "POST /replays decides earlier rows" in none["detail"]
    check_problem(client.get(f"/models/{name}/comparison", params={"from": past["to"], "to": past["from"]}), 422)
    check_problem(client.get(f"/models/{name}/comparison", params={"cost_fp": -1}), 422)
    check_problem(client.get(f"/models/{name}/comparison", params={"until": past["to"]}), 422)
    check_problem(client.get("/models/nobody/comparison"), 404)
    check_problem(client.get(f"/models/{name}/comparison", params={"decided_by": 9}), 404)
    other = make(client, engine, models_dir, tmp_path)
    missing = check_problem(client.get(f"/models/{other}/comparison"), 404)
    assert f"PUT /models/{other}/aliases/challenger" in missing["detail"]
    set_alias(client, other, 4)
    features = check_problem(client.get(f"/models/{other}/comparison"), 409, "conflict")
    assert f"{other}@4 cannot score rows of {other}@1: these rows lack income" in features["detail"]


def test_pairs_are_by_version_and_promotion_ends_the_shadow(client, engine, models_dir, tmp_path):
    name = make(client, engine, models_dir, tmp_path)
    challenge(client, name, 2)
    decide(client, name, rows_of(COUNT))
    wait_for_rows(client, name, COUNT)
    challenge(client, name, 3)
    check_problem(client.get(f"/models/{name}/comparison"), 409, "conflict")  # nothing is decided since
    gone = decide(client, name, rows_of(21))
    decide(client, name, rows_of(30))
    wait_for_rows(client, name, 51)
    assert (comparison(client, name)["pairs"], comparison(client, name)["model_version"]) == (51, 3)
    assert comparison(client, f"{name}@2")["pairs"] == COUNT
    assert shadow_count(engine, name) == COUNT + 51
    with engine.begin() as connection:  # a deleted job takes its scores along
        connection.execute(delete(Job).where(Job.id == gone))
    assert comparison(client, name)["pairs"] == 30
    assert shadow_count(engine, name) == COUNT + 30

    set_alias(client, name, 3, "champion")
    decide(client, name, rows_of(5))
    promoted = check_problem(client.get(f"/models/{name}/comparison"), 409, "conflict")
    assert "is the champion itself" in promoted["detail"]
    earlier = comparison(client, name, decided_by=1)
    assert (earlier["pairs"], earlier["champion"]) == (30, 1)
    challenge(client, name, 1)  # the champion of before: it scores, and version 3 no more
    decide(client, name, rows_of(7))
    wait_for_rows(client, name, 7)
    assert shadow_count(engine, name) == COUNT + 30 + 7
    assert comparison(client, name)["versions"] == [{"version": 3, "rows": 7}]
