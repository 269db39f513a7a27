"""The workflows of .github: what runs there runs on a developer's machine, with no more rights than it needs."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))


def read(path: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text())
    return workflow


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
    assert jobs["dev"]["needs"] == "ci"
    assert jobs["test"]["needs"] == ["ci", "tag"]
    assert jobs["tag"]["steps"][-1]["run"] == "make release-notes"


def test_one_job_at_a_time_changes_an_environment_and_comes_to_its_end():
    document = read(ROOT / ".github" / "workflows" / "deploy.yml")
    jobs = [job for job in document["jobs"].values() if "environment" in job]
    assert len(jobs) == 4
    for job in jobs:
        group = f"space-{job['environment']['name']}"
        assert job["concurrency"] == {"group": group, "cancel-in-progress": False}
        assert not document["concurrency"]["group"].startswith("space-")  # it would wait for itself


def test_job_that_deploys_has_time_to_go_back():
    minutes = [int(seconds) / 60 for seconds in re.findall(r"--wait (\d+)", (ROOT / "Makefile").read_text())]
    assert len(minutes) == 3  # deploy, rollback and smoke
    jobs = read(ROOT / ".github" / "workflows" / "deploy.yml")["jobs"]
    for name in ("dev", "test", "prod"):
        assert jobs[name]["timeout-minutes"] >= sum(minutes) + 10


def test_every_target_of_the_pipelines_stands_in_the_docs():
    text = (ROOT / "docs" / "space.md").read_text()
    targets = {word for words in re.findall(r"`make ([a-z0-9 -]+)`", text) for word in words.split()}
    for path in (*WORKFLOWS, *ACTIONS):
        for step in steps_of(path):
            assert set(step.get("run", "").split()[1:]) <= targets, step


def test_nothing_that_a_caller_of_make_sets_is_pasted_into_a_script(tmp_path: Path):
    """A tag may be called v1;id: what reads it reads a variable of the shell."""
    text = (ROOT / "Makefile").read_text()
    assert not re.search(r"\$\((TAG|REVISION|URL|DIR|m|REGISTRY\w*)\)", re.sub(r"^\w+ = .*$", "", text, flags=re.M))
    for target, name in (("images", "TAG"), ("images", "REVISION"), ("push-images", "TAG")):
        command = ["make", target, f"DOCKER=touch {tmp_path / 'asked'};", f"{name}=v1;touch {tmp_path / 'there'};"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "are made of letters" in done.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("tag", "is_early"), [("v1.2.3", False), ("v1.2.3-rc.1", True)])
def test_early_release_is_not_the_latest(tmp_path: Path, tag: str, is_early: bool):
    command = tmp_path / "gh"
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path / "asked"}\n')
    command.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TAG": tag}
    subprocess.run(["make", "publish-release"], cwd=ROOT, env=env, capture_output=True, check=True)
    arguments = (tmp_path / "asked").read_text().splitlines()
    assert arguments[:3] == ["release", "create", tag]
    assert ("--prerelease" in arguments) == is_early


def test_proof_runs_on_every_python_that_is_supported():
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_make_takes_the_python_that_the_job_has_set_up(path: Path):
    """Left alone, it takes the runner's own 3.12 in the job for 3.13."""
    assert read(path)["env"]["PYTHON"] == "python"
