"""The workflows of .github: what runs there runs on a developer's machine, with no more rights than it needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))


def read(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    return found


def steps_of(path: Path) -> list[dict[str, Any]]:
    document = read(path)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return [step for job in document["jobs"].values() for step in job.get("steps", [])]


def test_there_are_a_proof_a_deployment_and_a_release():
    assert [path.stem for path in WORKFLOWS] == ["ci", "deploy", "release"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name)
def test_every_script_is_a_make_target_that_there_is(path: Path):
    for step in steps_of(path):
        if "run" in step:
            command, *targets = step["run"].split()
            assert command == "make", step
            assert set(targets) <= TARGETS, step


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name)
def test_actions_of_others_are_pinned_by_commit_and_say_their_version(path: Path):
    text = path.read_text()
    for used in re.findall(r"uses: (.+)", text):
        if not used.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name)
def test_nothing_that_others_choose_is_pasted_into_a_script(path: Path):
    for step in steps_of(path):
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_may_only_read_unless_they_say_why(path: Path):
    document = read(path)
    assert document["permissions"] in ({}, {"contents": "read"})
    for name, job in document["jobs"].items():
        for right, level in job.get("permissions", {}).items():
            if level == "write":
                assert re.search(rf"{right}: write # \w+", path.read_text()), name
        if "uses" not in job:
            assert job["timeout-minutes"] <= 60, name
    for step in steps_of(path):
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


def test_prod_comes_after_test_and_each_environment_is_named():
    jobs = read(ROOT / ".github" / "workflows" / "deploy.yml")["jobs"]
    assert [jobs[name]["environment"]["name"] for name in ("dev", "test", "prod")] == ["dev", "test", "prod"]
    assert jobs["prod"]["needs"] == "test"
    assert jobs["test"]["needs"] == jobs["dev"]["needs"] == "ci"


def test_proof_runs_on_every_python_that_is_supported():
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_make_takes_the_python_that_the_job_has_set_up(path: Path):
    """Left alone, it takes the runner's own 3.12 in the job for 3.13."""
    assert read(path)["env"]["PYTHON"] == "python"
