"""PROMOTION_GATE=replay over HTTP and by command: refused without a replay and over a limit, forced with a reason."""

import uuid
from pathlib import Path

import pytest
from guichet.command import main as guichet

from shared.database.engine import make_engine
from tests.contracts.helpers import apart, check_problem, wait_until
from tests.contracts.versions import COLUMNS, decide, fitted, register, replayed, rows_of
from tests.support.stack import Stack

LIMITS = {"PROMOTION_GATE": "replay", "PROMOTION_MIN_PAIRS": "20", "PROMOTION_MAX_FLIPS": "0"}


@pytest.mark.flow
def test_version_replaces_the_champion_only_by_a_replay_within_the_limits_or_by_force(
    stack: Stack, models_dir: Path, tmp_path: Path
) -> None:
    name = f"gated-{uuid.uuid4().hex[:12]}"
    place = f"/models/{name}/aliases/champion"
    with apart(stack, tmp_path, **LIMITS) as gated, gated.client() as client:
        engine = make_engine(gated.database_url)
        for weight, steps in ((0, 2_000), (15, 2_000), (0, 2_001)):  # the last one decides as the first one
            estimator, frame = fitted(weight, COLUMNS)
            estimator.set_params(logisticregression__max_iter=steps)
            register(engine, models_dir, tmp_path, name, estimator, frame)
        engine.dispose()
        wait_until(lambda: client.get(f"/models/{name}/versions/3").status_code == 200 or None)
        decide(client, name, rows_of(30))
        without = check_problem(client.put(place, json={"version": 2, "reason": "better"}), 409, "conflict")
        assert f'Make one with POST /replays {{"model": "{name}@2"}}' in without["detail"]
        replayed(client, {"model": f"{name}@2"})
        over = check_problem(client.put(place, json={"version": 2, "reason": "better"}), 409, "conflict")
        assert "of the decisions flip, and PROMOTION_MAX_FLIPS is 0.00%" in over["detail"]
        assert client.get(place).json()["version"] == 1

        check_problem(client.put(place, json={"version": 2, "force": True}), 422)
        check_problem(client.put(place, json={"version": 2, "force": True, "reason": " "}), 409)
        forced = client.put(place, json={"version": 2, "force": True, "reason": "the law changed"})
        assert (forced.status_code, forced.json()["version"]) == (200, 2)
        entry = client.get("/logs/audit", params={"action": "model.promoted"}).json()["items"][0]
        assert (entry["target"], entry["details"]["reason"]) == (f"{name}@2", "the law changed")
        assert entry["details"]["forced"] is True
        assert "PROMOTION_MAX_FLIPS" in entry["details"]["overruled"]
        assert client.post(f"{place}/rollback", json={"reason": "back"}).json()["version"] == 1
        assert guichet(["--url", gated.url, "promote", f"{name}@2", "--reason", "again"]) == 2
        assert guichet(["--url", gated.url, "promote", f"{name}@2", "--reason", "again", "--force"]) == 0
        assert guichet(["--url", gated.url, "rollback", name, "--reason", "back again"]) == 0

        # A new version is no way round the gate.
        artefact, rows = str(tmp_path / "model.joblib"), str(tmp_path / "rows.csv")
        adding = ["shared.registry", "add", artefact, "--reference", rows, "--name", name]
        same = gated.run(*adding, "--alias", "champion", check=False)
        assert (same.returncode, f"{name}@3 is not promoted" in same.stderr) == (1, True)
        register_other = gated.run(*adding, "--threshold", "0.25", "--alias", "champion", check=False)
        assert register_other.returncode == 1
        assert "Nothing was registered: add it without --alias" in register_other.stderr
        assert client.get(f"/models/{name}/versions/4").status_code == 404

        _, report = replayed(client, {"model": f"{name}@3"})
        assert report["flips"]["count"] == 0
        promoted = client.put(place, json={"version": 3, "reason": "the same, and newer"})
        assert (promoted.status_code, promoted.json()["version"]) == (200, 3)
