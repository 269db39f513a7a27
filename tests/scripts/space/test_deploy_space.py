"""The Space: which files it is made of, and how they come to the hub (a stand-in that speaks its HTTP API)."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, SpaceRuntime

from api.auth.callers import make_key
from scripts.checkout import Failure
from scripts.space import deploy
from scripts.space.deploy import main
from scripts.space.folder import copied, host_of, make_dockerfile, tracked, write_space
from shared.config.settings import Settings
from tests.support.hub import TOKEN, Hub, running_hub

pytestmark = pytest.mark.long  # real processes, again and again: `make faults` runs them

ROOT = Path(__file__).resolve().parents[3]
SPACE = "acme/guichet.demo"

API = """# one file
ARG IMAGE=python
FROM ${IMAGE} AS base
# about the tools
FROM base AS tools
COPY tools.txt .
FROM base AS other
COPY secrets other/
# what serves
FROM base AS sync
COPY --from=tools /venv /venv
COPY --chown=1000 shared/ api app \\
     /srv/
"""
LAST = "FROM sync AS space\nCOPY space space\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    for name in ("ADMIN_KEY", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    with running_hub() as hub:
        hub.token = TOKEN
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
        monkeypatch.setattr(deploy, "_POLL_SECONDS", 0.01)
        yield hub


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_dockerfile_of_the_space_has_the_stages_that_it_needs_and_no_others():
    made = make_dockerfile(API, LAST)
    assert re.findall(r"^FROM .*$", made, re.M) == [
        "FROM ${IMAGE} AS base",
        "FROM base AS tools",
        "FROM base AS sync",
        "FROM sync AS space",
    ]
    assert made.index("ARG IMAGE") < made.index("FROM")
    assert "# what serves\nFROM base AS sync" in made
    assert "secrets" not in made


def test_files_of_the_build_are_those_that_the_dockerfile_copies():
    assert copied(make_dockerfile(API, LAST)) == ["api", "app", "shared", "space", "tools.txt"]


@pytest.mark.parametrize(
    ("api", "last", "words"),
    [
        ("FROM x AS queue\n", LAST, "no stage sync"),
        (API, "FROM sync AS other\n", "no stage named space"),
    ],
)
def test_dockerfile_that_has_changed_too_much_is_refused_with_a_sentence(api: str, last: str, words: str):
    with pytest.raises(Failure, match=words):
        make_dockerfile(api, last)


def test_dockerfile_that_copies_everything_is_refused():
    with pytest.raises(Failure, match="name the folders"):
        copied("FROM x\nCOPY . .\n")


def test_file_that_is_not_committed_is_not_uploaded(tmp_path: Path):
    (tmp_path / "api").mkdir()
    for name in ("main.py", ".env", "model.joblib"):
        (tmp_path / "api" / name).write_text("x")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    with pytest.raises(Failure, match="commit it first"):
        tracked(tmp_path, ["api"])
    subprocess.run([*git, "add", "api/main.py", "api/model.joblib"], check=True)
    assert tracked(tmp_path, ["api"]) == ["api/main.py"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space of this repository."""
    folder = tmp_path_factory.mktemp("space")
    write_space(folder, space=SPACE)
    return folder


def test_space_holds_what_its_image_needs_and_nothing_else(folder: Path):
    assert {path.name for path in folder.iterdir()} >= {"Dockerfile", "README.md", "api", "shared", "migrations"}
    assert not {"worker", "tests", "scripts", "client", "docs", ".git"} & {path.name for path in folder.iterdir()}
    for place in copied((folder / "Dockerfile").read_text()):
        assert (folder / place).exists(), place
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 5_000_000


def test_page_of_the_space_says_docker_and_the_port_on_which_its_image_serves(folder: Path):
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    front_matter = yaml.safe_load(front)
    assert (front_matter["sdk"], front_matter["app_port"]) == ("docker", 7860)
    assert {"title", "emoji", "colorFrom", "colorTo"} <= front_matter.keys()
    assert len(front_matter["short_description"]) <= 60
    assert f"PORT={front_matter['app_port']}" in (folder / "Dockerfile").read_text()
    assert "https://acme-guichet-demo.hf.space/" in text
    assert "OWNER" not in text
    for example in (ROOT / "examples").glob("*/rows.json"):
        assert f"`{example.parent.name}`" in text


def test_settings_of_the_image_hold(folder: Path, monkeypatch: pytest.MonkeyPatch):
    last = (folder / "Dockerfile").read_text().replace("\\\n", " ").rpartition("AS space")[2]
    values = dict(re.findall(r"([A-Z_]+)=(\S+)", "".join(re.findall(r"^ENV (.*)$", last, re.M))))
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert set(values) <= {name.upper() for name in Settings.model_fields}
    settings = Settings(runtime="sync", **{name.lower(): value for name, value in values.items()})
    assert (settings.auth, settings.host, settings.port) == ("predict-open", "0.0.0.0", 7860)
    assert settings.rate_per_minute > 0
    assert settings.proxy_hops == 1


def test_dry_run_writes_the_folder_and_asks_nobody(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--dry-run", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "Dockerfile").exists()
    assert hub.requests == []
    assert main(["--dry-run", str(tmp_path / "new")]) == 1
    assert "name a new or empty folder" in capsys.readouterr().err


def test_host_of_a_space_is_made_from_its_name():
    assert host_of("Acme/My_Guichet.v2") == "acme-my-guichet-v2.hf.space"


# ── the push ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_first_deployment_makes_the_space_and_replaces_what_it_held(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    key, _ = make_key()
    monkeypatch.setenv("ADMIN_KEY", key)
    assert main(["--space", SPACE]) == 0
    first, last = hub.spaces[SPACE]
    assert hub.sdks[SPACE] == "docker"
    assert hub.secrets[SPACE] == {"ADMIN_KEY": key}
    expected = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert last.files == expected | {".gitattributes": b""}
    assert last.title.startswith("Deploy Guichet ")
    shown = capsys.readouterr()
    assert last.id in shown.out
    for secret in (TOKEN, key):
        assert secret not in shown.out + shown.err
    assert (tmp_path / "output").read_text() == (
        f"former={first.id}\nrevision={last.id}\nurl=https://acme-guichet-demo.hf.space\n"
    )


def test_deployment_of_what_is_there_already_makes_no_commit(hub: Hub, capsys: pytest.CaptureFixture[str]):
    assert [main(["--space", SPACE]), main(["--space", SPACE])] == [0, 0]
    assert len(hub.spaces[SPACE]) == 2
    assert "nothing had changed" in capsys.readouterr().out


@pytest.mark.parametrize("named", [True, False])
def test_rollback_pushes_the_files_of_the_former_commit_again(hub: Hub, named: bool):
    assert main(["--space", SPACE]) == 0
    good = hub.spaces[SPACE][-1]
    hub.commit("spaces", SPACE, {"Dockerfile": b"FROM nothing\n", "new.txt": b"?", ".gitattributes": b""}, "broken")
    assert main(["--space", SPACE, "--rollback", *([good.id] if named else [])]) == 0
    assert hub.spaces[SPACE][-1].files == good.files
    assert hub.spaces[SPACE][-1].title == f"Roll back to {good.id}"


def test_rollback_to_a_commit_that_is_not_there_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]):
    assert main(["--space", SPACE]) == 0
    assert main(["--space", SPACE, "--rollback", "0" * 40]) == 1
    assert "no such revision" in capsys.readouterr().err


def test_deployment_waits_until_the_space_runs_its_commit(hub: Hub, capsys: pytest.CaptureFixture[str]):
    old = {"stage": "RUNNING", "sha": "0" * 40}  # the hub has not noticed the push yet
    hub.stages = [old, {"stage": "BUILDING"}, {"stage": "APP_STARTING"}, {"stage": "RUNNING"}]
    assert main(["--space", SPACE, "--wait", "30"]) == 0
    assert len(hub.stages) == 1
    assert f"https://acme-guichet-demo.hf.space runs {hub.spaces[SPACE][-1].id}" in capsys.readouterr().out


@pytest.mark.parametrize("before", ["RUNNING", "RUNTIME_ERROR"])
def test_deployment_does_not_take_the_former_commit_for_its_own_where_the_hub_names_none(hub: Hub, before: str):
    hub.stages = [{"stage": stage, "sha": None} for stage in (before, before, "RUNNING_BUILDING", "RUNNING")]
    assert main(["--space", SPACE, "--wait", "30"]) == 0
    assert len(hub.stages) == 1
    hub.stages = [{"stage": "RUNNING", "sha": None}, {"stage": "PAUSED"}]
    assert main(["--space", SPACE, "--wait", "30"]) == 0  # nothing had changed


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"stage": "BUILD_ERROR", "errorMessage": "pip failed"}, "BUILD_ERROR: pip failed"),
        ({"stage": "RUNTIME_ERROR"}, "RUNTIME_ERROR: its log"),
        ({"stage": "BUILDING"}, "after 0.05 s: it is BUILDING"),
    ],
)
def test_space_that_does_not_come_up_fails_the_deployment(
    hub: Hub, capsys: pytest.CaptureFixture[str], stage: dict[str, str], words: str
):
    hub.stages = [stage]
    assert main(["--space", SPACE, "--wait", "0.05"]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env", "arguments", "words"),
    [
        ({"HF_TOKEN": ""}, ["--space", SPACE], "HF_TOKEN is not set"),
        ({"HF_TOKEN": "hf_wrong_secret"}, ["--space", SPACE], "refuses the token in HF_TOKEN"),
        ({}, [], "name it with --space"),
        ({}, ["--space", "guichet"], "name it with --space"),
        ({"HF_TOKEN": "hf_wrong_secret\u00e4"}, ["--space", SPACE], "holds characters that no token has"),
        ({}, ["--space", "acme/gui chet"], "is no name of a Space"),
        ({"ADMIN_KEY": "changeme"}, ["--space", SPACE], "api.keys generate"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, ["--space", SPACE], "does not answer"),
    ],
)
def test_deployment_that_cannot_be_says_what_to_do_and_never_the_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], env, arguments, words: str
):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert words in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert hub.spaces == {}
    for secret in (TOKEN, "hf_wrong_secret"):
        assert secret not in shown.out + shown.err


def test_token_with_the_line_end_of_its_file_is_taken(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    assert main(["--space", SPACE]) == 0


def test_space_of_another_kind_keeps_its_files(hub: Hub, capsys: pytest.CaptureFixture[str]):
    hub.sdks[SPACE] = "gradio"
    hub.commit("spaces", SPACE, {"app.py": b"precious"})
    assert main(["--space", SPACE]) == 1
    assert [commit.files for commit in hub.spaces[SPACE]] == [{"app.py": b"precious"}]
    assert "is a gradio Space, whose files would be replaced: name another" in capsys.readouterr().err


def test_moment_without_the_hub_does_not_end_the_waiting(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.stages = [{"stage": "BUILDING"}, {"stage": "RUNNING"}]
    assert main(["--space", SPACE]) == 0
    ask = HfApi.get_space_runtime

    def fail_once(api: HfApi, space: str) -> SpaceRuntime:
        monkeypatch.setattr(HfApi, "get_space_runtime", ask)
        hub.ails = [503]
        return ask(api, space)

    monkeypatch.setattr(HfApi, "get_space_runtime", fail_once)
    assert main(["--space", SPACE, "--wait", "30"]) == 0


@pytest.mark.parametrize(("status", "words"), [(403, "refuses the token"), (500, "answered 500")])
def test_rollback_that_the_hub_refuses_says_why(hub: Hub, capsys: pytest.CaptureFixture[str], status: int, words: str):
    hub.commit("spaces", SPACE, {"app.py": b""})
    hub.ails = [status] * 9
    assert main(["--space", SPACE, "--rollback", "0" * 40]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("what", ["folder", "output"])
def test_place_that_cannot_be_written_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "new"
    monkeypatch.setenv("GITHUB_OUTPUT", str(place))
    assert main(["--dry-run", str(place)] if what == "folder" else ["--space", SPACE]) == 1
    assert "cannot be written (Not a directory): give another place" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "words"), [(403, "refuses the token"), (412, "try again"), (418, "answered 418")])
def test_answer_of_the_hub_becomes_a_sentence(hub: Hub, capsys: pytest.CaptureFixture[str], status: int, words: str):
    hub.ails = [status] * 9
    assert main(["--space", SPACE]) == 1
    assert words in capsys.readouterr().err
