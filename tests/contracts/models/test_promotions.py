"""Which version decides, changed over HTTP on both runtimes: promoted, rolled back, archived, restored, deleted."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import joblib
import pytest
from guichet import Client, Refused, Unusable
from guichet.command import main as guichet
from sklearn.linear_model import LinearRegression
from sqlalchemy import Engine, select

from shared.database.engine import reader, session_scope
from shared.packages.sources.candidates import AddOptions
from shared.registry.adding import add
from shared.tables import AliasEvent, AuditLog
from tests.contracts.helpers import check_problem, wait_until
from tests.contracts.versions import let_a_minute_pass
from tests.support.stack import Stack

WHY = {"reason": "better on the rows of October"}
Register = Callable[..., str]


@pytest.fixture
def register(client: httpx2.Client, engine: Engine, models_dir: Path, tmp_path: Path) -> Register:
    """Register versions of a new model, of which version n answers n for every row; return its name."""

    def run(count: int = 2, name: str | None = None) -> str:
        name = name or f"steps-{uuid.uuid4().hex[:12]}"
        (tmp_path / "rows.csv").write_text("a\n1\n2\n3\n")
        listed = {item["model"]: item for item in client.get("/models").json()["items"]}.get(name, {})
        first = max([*listed.get("versions", []), *listed.get("archived", []), 0]) + 1
        for number in range(first, first + count):
            joblib.dump(LinearRegression().fit([[1.0], [2.0]], [float(number)] * 2), tmp_path / "model.joblib")
            with session_scope(engine) as session:
                options = AddOptions(reference=tmp_path / "rows.csv", name=name)
                added = add(session, tmp_path / "model.joblib", options, models_dir=models_dir)
            place = f"/models/{name}/versions/{added.version}"
            wait_until(lambda place=place: client.get(place).status_code == 200 or None)
        return name

    return run


def answers(client: httpx2.Client, reference: str) -> float:
    answer = client.post(f"/models/{reference}/predict", json={"features": {"a": 1.0}}, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200, answer.text
    return float(answer.json()["prediction"])


def test_promoted_version_decides_and_the_history_says_why(client, engine, register):
    name = register()
    assert answers(client, name) == pytest.approx(1)
    before = client.get(f"/models/{name}/aliases/champion")
    assert before.json()["version"] == 1
    moved = client.put(f"/models/{name}/aliases/champion", json={"version": 2, **WHY})
    assert moved.status_code == 200, moved.text
    assert moved.json().items() >= {"model": name, "alias": "champion", "version": 2}.items()
    assert moved.headers["etag"] != before.headers["etag"]
    assert answers(client, name) == pytest.approx(2)  # at once, in the process that was asked
    assert answers(client, f"{name}@1") == pytest.approx(1)

    same = client.put(f"/models/{name}/aliases/champion", json={"version": 2, **WHY})
    assert same.headers["etag"] == moved.headers["etag"]  # nothing was moved
    newest, oldest = client.get(f"/models/{name}/history").json()["items"]
    assert (newest["from"], newest["to"], newest["reason"]) == (1, 2, WHY["reason"])
    assert newest["actor"] == "anyone"
    assert newest["request_id"] == moved.headers["x-request-id"]
    assert (oldest["from"], oldest["to"]) == (None, 1)
    assert oldest["actor"].startswith("command:")
    with reader(engine).connect() as connection:
        entry = connection.execute(
            select(AuditLog).where(AuditLog.target == f"{name}@2", AuditLog.action == "model.promoted")
        ).one()
    assert entry.details == {"alias": "champion", "before": 1, "reason": WHY["reason"]}


def test_roll_back_goes_to_what_the_alias_meant_before(client, register):
    name = register(3)
    place = f"/models/{name}/aliases/champion"
    never = check_problem(client.post(f"{place}/rollback", json=WHY), 409, "conflict")
    assert "there is nothing to roll back to" in never["detail"]
    assert client.get(place).json()["previous"] is None
    for version in (2, 3):
        assert client.put(place, json={"version": version, **WHY}).json()["previous"] == version - 1
    assert client.post(f"{place}/rollback", json=WHY).json()["version"] == 2
    assert client.get(place).json()["previous"] == 1
    assert client.post(f"{place}/rollback", json=WHY).json()["version"] == 1  # and not forwards again
    assert client.get(place).json()["previous"] is None
    assert answers(client, name) == pytest.approx(1)
    client.put(place, json={"version": 3, **WHY})
    assert client.post(f"{place}/rollback", json=WHY).json()["version"] == 1


def test_of_two_promotions_at_once_the_second_is_refused(client, register):
    name = register(3)
    place = f"/models/{name}/aliases/champion"
    for _ in range(5):
        seen = client.get(place)
        others = [version for version in (1, 2, 3) if version != seen.json()["version"]]
        with ThreadPoolExecutor(2) as pool:
            responses = list(
                pool.map(
                    lambda version, tag=seen.headers["etag"]: client.put(
                        place, json={"version": version, **WHY}, headers={"If-Match": tag}
                    ),
                    others,
                )
            )
        assert sorted(answer.status_code for answer in responses) == [200, 412]
        lost = next(answer for answer in responses if answer.status_code == 412)
        won = next(answer for answer in responses if answer.status_code == 200)
        assert f"means version {won.json()['version']}" in check_problem(lost, 412, "precondition_failed")["detail"]
        assert client.get(place).json()["version"] == won.json()["version"]
    other = f"/models/{name}/aliases/challenger"
    body = {"version": 2, **WHY}
    assert client.put(other, json=body, headers={"If-Match": "*"}).status_code == 412  # there is none yet
    assert client.put(other, json=body, headers={"If-None-Match": "*"}).status_code == 200
    assert client.put(other, json=body, headers={"If-None-Match": "*"}).status_code == 412
    assert answers(client, f"{name}@challenger") == pytest.approx(2)
    assert client.request("DELETE", other, json=WHY, headers={"If-Match": '"1-1"'}).status_code == 412
    assert client.request("DELETE", other, json=WHY).status_code == 204
    check_problem(client.get(other), 404)
    check_problem(client.post(f"/models/{name}@challenger/predict", json={"features": {"a": 1}}), 404)
    kept = check_problem(client.request("DELETE", place, json=WHY), 409)
    assert "only moved" in kept["detail"]


def test_archived_version_takes_no_rows_and_keeps_its_own(client, register):
    name = register()
    scored = client.post(f"/models/{name}@2/predict", json={"features": {"a": 1.0}}).json()
    champion = check_problem(client.post(f"/models/{name}/versions/1/archive", json=WHY), 409)
    assert "point that to another version first" in champion["detail"]
    assert client.post(f"/models/{name}/versions/2/archive", json=WHY).json()["state"] == "archived"
    for path, body in (
        (f"/models/{name}@2/predict", {"features": {"a": 1.0}}),
        ("/predict", {"model": name, "version": 2, "features": {"a": 1.0}}),
        ("/predict_batch", {"model": f"{name}@2", "rows": [{"a": 1.0}]}),
    ):
        refused = check_problem(client.post(path, json=body), 404)
        assert f"Version 2 of {name} is archived" in refused["detail"]
    promoting = client.put(f"/models/{name}/aliases/champion", json={"version": 2, **WHY})
    assert "restore it" in check_problem(promoting, 409)["detail"]
    assert client.get(f"/models/{name}/versions/2").json()["state"] == "archived"
    listed = next(item for item in client.get("/models").json()["items"] if item["model"] == name)
    assert (listed["versions"], listed["archived"]) == ([1], [2])
    assert client.get(f"/jobs/{scored['job_id']}/result").json()["prediction"] == scored["prediction"]
    assert [job["id"] for job in client.get("/jobs", params={"model": f"{name}@2"}).json()["items"]] == [
        scored["job_id"]
    ]
    assert client.post(f"/models/{name}/versions/2/restore", json=WHY).json()["state"] == "serving"
    assert answers(client, f"{name}@2") == pytest.approx(2)


def test_only_an_unused_archived_version_is_deleted_and_its_number_is_gone(client, engine, models_dir, register):
    name = register(3)
    place = f"/models/{name}/versions"
    assert answers(client, f"{name}@2") == pytest.approx(2)
    serving = check_problem(client.request("DELETE", f"{place}/3", json=WHY), 409)
    assert "archive it first" in serving["detail"]
    for version in (2, 3):
        assert client.post(f"{place}/{version}/archive", json=WHY).status_code == 200
    fresh = client.request("DELETE", f"{place}/3", json=WHY)
    assert "on their way" in check_problem(fresh, 409)["detail"]
    assert 1 <= int(fresh.headers["retry-after"]) <= 31
    let_a_minute_pass(engine, name)
    used = check_problem(client.request("DELETE", f"{place}/2", json=WHY), 409)
    assert "it stays archived" in used["detail"]
    assert (models_dir / name / "3").is_dir()
    gone = client.request("DELETE", f"{place}/3", json=WHY).json()
    assert gone == {"model": name, "version": 3, "state": "deleted", "left": None}
    assert not (models_dir / name / "3").exists()
    check_problem(client.get(f"{place}/3"), 404)
    check_problem(client.post(f"{place}/3/restore", json=WHY), 404)
    check_problem(client.request("DELETE", f"{place}/3", json=WHY), 404)
    register(1, name)
    assert client.get(f"{place}/4").json()["card"]["version"] == 4  # and not 3 again
    assert answers(client, f"{name}@4") == pytest.approx(3)  # it was made as the third model that there is


def test_bad_changes_are_refused_with_what_to_do(client, register):
    name = register()
    place = f"/models/{name}/aliases/champion"
    for body, where in (
        ({"version": 2}, "/reason"),
        ({"version": "2", **WHY}, "/version"),
        ({"version": 0, **WHY}, "/version"),
        ({"version": 2, "reason": ""}, "/reason"),
        ({"version": 2, "reason": "x" * 1_001}, "/reason"),
        ({"version": 2, "why": "it is better", **WHY}, "/why"),
    ):
        faults = check_problem(client.put(place, json=body), 422)["errors"]
        assert [fault["pointer"] for fault in faults] == [where]
    there = check_problem(client.put(place, json={"version": 9, **WHY}), 404)
    assert "there are 1, 2" in there["detail"]
    check_problem(client.put("/models/nobody/aliases/champion", json={"version": 1, **WHY}), 404)
    check_problem(client.put(f"/models/{name}/aliases/Not%20One", json={"version": 1, **WHY}), 409)
    check_problem(client.get(f"/models/{name}/aliases/nobody"), 404)
    check_problem(client.post(f"/models/{name}/versions/9/archive", json=WHY), 404)
    check_problem(client.get("/models/nobody/history"), 404)
    assert client.get(place).json()["version"] == 1


def test_version_that_cannot_be_loaded_does_not_become_the_champion(client, register, models_dir):
    name = register()
    file = models_dir / name / "2" / "model.joblib"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    job = client.post("/jobs", json={"model": f"{name}@2", "features": {"a": 1.0}})

    def is_named() -> bool | None:
        reasons = client.get("/health").json()["reasons"]
        return any(f"{name}@2 cannot be loaded" in why for why in reasons) or None

    wait_until(is_named, seconds=60)
    place = f"/models/{name}/aliases/champion"
    problem = check_problem(client.put(place, json={"version": 2, **WHY}), 409)
    assert f"{name}@2 cannot be loaded" in problem["detail"]
    assert client.get(place).json()["version"] == 1
    assert client.put(place, json={"version": 2, "force": True, **WHY}).status_code == 200
    file.write_bytes(whole)
    assert client.put(place, json={"version": 1, **WHY}).status_code == 200
    wait_until(lambda: not is_named() or None, seconds=90)
    if job.status_code == 202:
        client.post(f"/jobs/{job.json()['id']}/cancel")


def test_history_of_one_version_holds_its_own_moves(client, register):
    name = register(3)
    for version, alias in ((2, "champion"), (3, "challenger"), (1, "champion")):
        client.put(f"/models/{name}/aliases/{alias}", json={"version": version, **WHY})
    for reference in (f"{name}@3", f"{name}@challenger"):
        moves = client.get(f"/models/{reference}/history").json()["items"]
        assert [(move["from"], move["to"]) for move in moves] == [(None, 3)]
    assert [move["to"] for move in client.get(f"/models/{name}@2/history").json()["items"]] == [1, 2]
    check_problem(client.get(f"/models/{name}@nobody/history"), 404)


def test_history_of_a_window_holds_its_moves(client, register):
    name = register(1)
    for version in (2, 3, 4):
        register(1, name)
        client.put(f"/models/{name}/aliases/champion", json={"version": version, **WHY})
    moves = client.get(f"/models/{name}/history").json()["items"]
    times = [move["created_at"] for move in moves]

    def seen(**window: str) -> list[int]:
        seen, following = [], f"/models/{name}/history?{urlencode(window | {'limit': '1'})}"
        while following:
            page = client.get(following).json()
            seen += [event["to"] for event in page["items"]]
            following = page["next"]
        return seen

    assert [move["to"] for move in moves] == seen() == [4, 3, 2, 1]
    assert seen(**{"from": times[2]}) == [4, 3, 2]
    assert seen(to=times[0]) == [3, 2, 1]  # which is not in the window
    assert seen(**{"from": times[2], "to": times[0]}) == [3, 2]
    assert seen(**{"from": times[0], "to": times[2]}) == []
    check_problem(client.get(f"/models/{name}/history", params={"from": "soon"}), 422)


def test_roll_back_to_a_version_that_is_deleted_says_so(client, engine, register):
    name = register(3)
    place = f"/models/{name}/aliases/champion"
    for version in (2, 3):
        client.put(place, json={"version": version, **WHY})
    assert client.post(f"/models/{name}/versions/2/archive", json=WHY).status_code == 200
    archived = check_problem(client.post(f"{place}/rollback", json=WHY), 409, "conflict")
    assert "restore it" in archived["detail"]
    assert client.get(place).json()["previous"] is None
    let_a_minute_pass(engine, name)
    gone = client.request("DELETE", f"/models/{name}/versions/2", json=WHY)
    assert gone.status_code == 200, gone.text
    deleted = check_problem(client.post(f"{place}/rollback", json=WHY), 409, "conflict")
    assert f"{name}@champion was version 2 before, which is deleted" in deleted["detail"]
    assert "(1)" in deleted["detail"]
    assert client.get(place).json()["version"] == 3


def test_history_is_read_page_by_page(client, engine, register):
    name = register()
    for place in range(5):
        client.put(f"/models/{name}/aliases/champion", json={"version": 2 - place % 2, **WHY})
    seen, following = [], f"/models/{name}/history?limit=2"
    while following:
        page = client.get(following).json()
        seen += [event["to"] for event in page["items"]]
        following = page["next"]
    assert seen == [2, 1, 2, 1, 2, 1]
    with reader(engine).connect() as connection:
        assert len(connection.execute(select(AliasEvent.id).where(AliasEvent.name == name)).all()) == 6


@pytest.mark.flow
def test_commands_do_the_same(client, stack: Stack, register):
    name = register()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "shared.registry", *arguments],
            env=stack.env,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("promote", f"{name}@2", "--alias", "challenger").returncode == 0
    assert run("promote", f"{name}@challenger", "--reason", "by hand").returncode == 0
    assert f"{name}@2: sound." in run("verify", f"{name}@challenger").stdout
    assert run("list", f"{name}@challenger").stdout.startswith(f"{name}@2 (challenger, champion):")
    assert run("history", f"{name}@challenger").stdout.count("1 -> 2") == 1
    assert "No version of" in run("verify", f"{name}@nobody").stderr
    assert run("rollback", name).stdout == f"{name}@1 is the champion of {name} again.\n"
    lines = run("history", name).stdout.splitlines()
    assert ["1 -> 2" in line and line.endswith(": by hand") for line in lines] == [False, True, False, False]
    refused = run("archive", f"{name}@1")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "point that to another version first" in refused.stderr
    assert run("promote", f"{name}@1", "--alias", "challenger").returncode == 0
    assert run("archive", f"{name}@2", "--reason", "worse").stdout.startswith(f"{name}@2 is archived")
    wait_until(lambda: client.get(f"/models/{name}/versions/2").json()["state"] == "archived" or None)
    assert [f"{name}@2 (archived):" in line for line in run("list", name).stdout.splitlines()] == [False, True]
    assert run("restore", f"{name}@2").stdout == f"{name}@2 serves again.\n"
    assert "archive it first" in run("delete", f"{name}@2").stderr


def test_client_and_its_command_do_the_same(stack: Stack, register, capsys: pytest.CaptureFixture[str]):
    name = register(3)
    with Client(stack.url) as service:
        seen = service.alias(name)
        assert (seen.version, seen.alias) == (1, "champion")
        moved = service.promote(f"{name}@2", reason="from a notebook", etag=seen.etag)
        assert service.promote(f"{name}@2", reason="sent again", etag=seen.etag) == moved  # as after a lost answer
        with pytest.raises(Refused) as refused:
            service.promote(f"{name}@3", reason="too late", etag=seen.etag)
        assert refused.value.status == 412
        with pytest.raises(Unusable, match="name@version"):
            service.promote(name, reason="which one?")
        service.promote(f"{name}@3", reason="aside", alias="challenger")
        assert [event.to_version for event in service.history(f"{name}@challenger")] == [3]
        service.remove_alias(name, "challenger", reason="no more")
        assert service.roll_back(name, reason="back").version == 1
        events = [(event.from_version, event.to_version, event.reason) for event in service.history(name)]
        assert events[:4] == [(2, 1, "back"), (3, None, "no more"), (None, 3, "aside"), (1, 2, "from a notebook")]
        service.archive(f"{name}@3", reason="worse")
        assert service.model(f"{name}@2").body["state"] == "serving"
        service.restore(f"{name}@3", reason="perhaps not")
    for arguments, events in (
        (("promote", f"{name}@2"), f"{name}@2 is now the champion of {name}."),
        (("rollback", name), f"{name}@1 is the champion of {name} again."),
        (("archive", f"{name}@2"), f"{name}@2 is archived: it takes no rows until it is restored."),
        (("restore", f"{name}@2"), f"{name}@2 serves again."),
    ):
        assert guichet([*arguments, "--reason", "typed", "--url", stack.url]) == 0
        assert capsys.readouterr().out == f"{events}\n"
    assert guichet(["delete", f"{name}@2", "--reason", "typed", "--url", stack.url]) == 2
    assert "archive it first" in capsys.readouterr().err
    assert guichet(["promote", f"{name}@2", "--alias", "aside", "--reason", "aside", "--url", stack.url]) == 0
    unalias = ["unalias", f"{name}@aside", "--reason", "no more", "--url", stack.url]
    assert guichet(unalias) == 0
    assert capsys.readouterr().out.endswith(f"{name} has no alias aside any more.\n")
    assert guichet(unalias) == 2
    assert guichet(["unalias", f"{name}@champion", "--reason", "no more", "--url", stack.url]) == 2
    assert guichet(["unalias", name, "--reason", "no more", "--url", stack.url]) == 2
    assert "names no alias" in capsys.readouterr().err
    assert guichet(["history", name, "--url", stack.url]) == 0
    assert capsys.readouterr().out.count("typed") == 2
    for which in (f"{name}@1", f"{name}@champion"):
        assert guichet(["list", which, "--url", stack.url]) == 0
        (_, line) = capsys.readouterr().out.splitlines()
        assert line.split() == [f"{name}@1", "regression", "champion"]
    assert guichet(["list", f"{name}@nobody", "--url", stack.url]) == 2
    assert "There is no such version or alias" in capsys.readouterr().err
