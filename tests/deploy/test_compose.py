"""The stack of docker-compose.yml, without an engine: its secrets, its settings, and what its images carry."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import database, secrets
from deploy.compose.reload import look
from shared.config.settings import Settings, get_settings
from shared.rescoring.shadow_process import CONTAINER_SHARE
from shared.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("postgres", "redis", "nobody", "grafana")  # users that are not root in the images of others
STRONG = "4f0c1e7a9b2d4f0c1e7a9b2d"


@pytest.fixture
def volumes(tmp_path) -> tuple[Path, Path, Path, Path]:
    """The volume of the API and the workers, that of the servers, Redis' own, and Grafana's."""
    for name in ("service", "servers", "redis", "grafana"):
        (tmp_path / name).mkdir()
    return tmp_path / "service", tmp_path / "servers", tmp_path / "redis", tmp_path / "grafana"


def read(*folders: Path) -> dict[str, str]:
    return {f"{folder.name}/{file.name}": file.read_text() for folder in folders for file in folder.iterdir()}


def services() -> dict[str, Any]:
    described: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return described


def needed(described: dict[str, Any], name: str) -> set[str]:
    """Everyone that `up NAME` starts besides."""
    direct = set(described[name].get("depends_on", ()))
    return direct.union(*(needed(described, one) for one in direct))


def test_secrets_that_env_does_not_set_are_made_once_and_kept(volumes, capsys):
    assert secrets.main([], {}, *volumes) == 0
    first, output = read(*volumes), capsys.readouterr().out
    assert "made here" in output
    assert secrets.main([], {"REDIS_PASSWORD": ""}, *volumes) == 0
    assert read(*volumes) == first
    passwords = {text for name, text in first.items() if name.endswith("_password")}  # Redis' stands twice
    assert len(passwords) == 7
    assert all(secret not in output for secret in first.values())
    assert "made here" not in capsys.readouterr().out


def test_a_secret_of_env_goes_to_whoever_needs_it(volumes):
    assert secrets.main([], {"POSTGRES_PASSWORD": STRONG, "FLOWER_PASSWORD": STRONG[::-1]}, *volumes) == 0
    files = read(*volumes)
    assert files["servers/postgres_password"] == STRONG
    assert files["servers/admin_url"] == f"postgresql+psycopg2://postgres:{STRONG}@postgres:5432/postgres"
    assert files["redis/redis.conf"] == f"requirepass {files['redis/redis_password']}\n"
    assert files["service/flower.py"] == f"basic_auth = ['guichet:{STRONG[::-1]}']\n"


def test_the_api_and_the_workers_are_told_of_one_role_of_the_database(volumes):
    assert secrets.main([], {"POSTGRES_PASSWORD": STRONG}, *volumes) == 0
    files = read(*volumes)
    password = files["servers/app_password"]
    assert files["service/database_url"] == f"postgresql+psycopg2://guichet_app:{password}@postgres:5432/guichet"
    owner = files["servers/owner_password"]
    assert files["servers/database_url"] == f"postgresql+psycopg2://guichet_owner:{owner}@postgres:5432/guichet"
    seen = "".join(text for name, text in files.items() if name.startswith("service/"))
    assert not any(files[f"servers/{name}_password"] in seen for name in ("postgres", "owner", "reader"))


def test_only_our_user_reads_what_the_servers_do_not_need(volumes):
    secrets.main([], {}, *volumes)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for folder in volumes for file in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o444} == {
        "postgres_password",
        "redis_password",
        "redis.conf",
        "grafana_password",
    }
    assert set(modes.values()) == {0o400, 0o444}


@pytest.mark.parametrize(
    "value",
    ["change-me-please", "CHANGEME12345", "your-password-here", "xxxxxxxxxxxx", "<random value>", "postgres-password"],
)
def test_a_placeholder_is_refused_with_one_sentence_and_nothing_is_written(volumes, capsys, value):
    assert secrets.main([], {"POSTGRES_PASSWORD": value}, *volumes) == 1
    message = capsys.readouterr().err
    assert "POSTGRES_PASSWORD in .env is a placeholder: set another one" in message
    assert value not in message
    assert message.count("\n") == 1
    assert not read(*volumes)


@pytest.mark.parametrize(("value", "why"), [("abc123", "fewer than 12"), (STRONG + "@/'", "other than letters")])
def test_a_secret_that_would_not_do_is_refused(volumes, capsys, value, why):
    assert secrets.main([], {"FLOWER_PASSWORD": value}, *volumes) == 1
    assert why in capsys.readouterr().err


def test_another_password_than_the_databases_is_refused_until_it_is_accepted(volumes, capsys):
    secrets.main([], {}, *volumes)
    kept = read(*volumes)
    assert secrets.main([], {"POSTGRES_PASSWORD": STRONG}, *volumes) == 1
    assert "not the one that the database was made with" in capsys.readouterr().err
    assert read(*volumes) == kept
    assert secrets.main(["--accept"], {"POSTGRES_PASSWORD": STRONG}, *volumes) == 0
    assert read(*volumes)["servers/postgres_password"] == STRONG


def test_a_changed_password_comes_with_the_command_that_lets_everyone_read_it(volumes, capsys):
    secrets.main([], {"REDIS_PASSWORD": STRONG}, *volumes)
    assert "changed" not in capsys.readouterr().out
    assert secrets.main([], {"REDIS_PASSWORD": STRONG[::-1]}, *volumes) == 0
    message = capsys.readouterr().out
    assert "changed: REDIS_PASSWORD. Run `docker compose up -d --force-recreate`" in message
    assert STRONG[::-1] not in message


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path, capsys):
    assert secrets.main([], {}, *[tmp_path / "missing"] * 4) == 1
    assert f"cannot be kept in {tmp_path / 'missing'}" in capsys.readouterr().err


def test_flowers_login_is_shown_when_asked_for(volumes, capsys):
    secrets.main([], {"FLOWER_PASSWORD": STRONG}, *volumes)
    capsys.readouterr()
    assert secrets.main(["--show"], {}, *volumes) == 0
    assert capsys.readouterr().out == f"guichet:{STRONG}\n"
    assert secrets.main(["--show", "grafana"], {}, *volumes) == 0
    assert capsys.readouterr().out == f"admin:{read(*volumes)['grafana/grafana_password']}\n"


def test_settings_are_read_from_files_in_secrets_dir_and_the_environment_wins(volumes, monkeypatch):
    for name in ("RUNTIME", "DATABASE_URL", "REDIS_URL", "AUTH"):
        monkeypatch.delenv(name, raising=False)
    secrets.main([], {}, *volumes)
    monkeypatch.setenv("SECRETS_DIR", str(volumes[0]))
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/1")
    get_settings.cache_clear()
    try:
        settings = get_settings()
    finally:
        get_settings.cache_clear()
    assert settings.database == read(*volumes)["service/database_url"]
    assert settings.broker == "redis://elsewhere/1"


def test_the_database_without_its_secrets_is_refused_in_a_sentence(volumes, capsys):
    assert database.main(volumes[1]) == 1
    assert capsys.readouterr().err == (
        f"guichet: {volumes[1] / 'admin_url'} cannot be read (No such file or directory): start `secrets` first.\n"
    )


def test_a_password_that_postgresql_does_not_know_is_told_with_the_way_out(volumes, capsys, monkeypatch):
    secrets.main([], {}, *volumes)
    capsys.readouterr()

    def refuse(*_: object, **__: object) -> None:
        raise database.Refused("... cannot be reached (FATAL:  password authentication failed): check ADMIN_URL")

    monkeypatch.setattr(database, "create", refuse)
    assert database.main(volumes[1]) == 1
    message = capsys.readouterr().err
    assert 'docs/operations.md, "The passwords of the stack", says how' in message
    assert "ADMIN_URL" not in message
    assert "## The passwords of the stack\n" in (ROOT / "docs" / "operations.md").read_text()


def test_models_are_made_over_http_where_env_says_so_and_nowhere_else():
    """Who serves may neither write the volume of models nor register any, but for one worker, where it is allowed."""
    mounts = {
        name: next((volume for volume in service.get("volumes", ()) if volume.startswith("models:")), None)
        for name, service in services().items()
    }
    chosen = "models:/data/models:${MODELS_ACCESS:-ro}"
    assert {name for name, mount in mounts.items() if mount == chosen} == {"worker-bulk", "worker-dev"}
    assert {name for name, mount in mounts.items() if mount == "models:/data/models"} == {"examples"}
    assert {mount for name, mount in mounts.items() if name in ("api", "worker-interactive", "api-dev")} == {
        "models:/data/models:ro"
    }
    assert services()["api"]["environment"]["MODEL_UPLOADS"] == "${MODEL_UPLOADS:-off}"
    assert not database.registers({})
    assert not database.registers({"MODELS_ACCESS": "ro", "MODEL_UPLOADS": "off", "APP_REGISTERS": ""})
    assert database.registers({"MODELS_ACCESS": "rw"})
    assert database.registers({"MODELS_ACCESS": "rw", "MODEL_UPLOADS": "on"})
    assert database.registers({"APP_REGISTERS": "yes"})


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"MODELS_ACCESS": "on"}, "MODELS_ACCESS in .env is neither rw nor ro"),
        ({"MODEL_UPLOADS": "on"}, "MODEL_UPLOADS=on in .env needs MODELS_ACCESS=rw"),
    ],
)
def test_settings_of_new_models_that_contradict_each_other_are_refused(volumes, capsys, env, why):
    secrets.main([], {}, *volumes)
    capsys.readouterr()
    assert database.main(volumes[1], env) == 1
    assert capsys.readouterr().err.startswith(f"guichet: {why}")


def test_env_example_names_every_variable_of_the_compose_file_and_no_other():
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    shown = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.M))
    assert used == set(shown)
    assert [name for name, value in shown.items() if name.endswith("PASSWORD") and value] == []


def test_a_worker_that_is_stopped_may_finish_the_longest_chunk_that_a_caller_may_ask_for():
    grace = services()["worker-bulk"]["stop_grace_period"]
    longest = Settings.model_fields["job_timeout_cap_seconds"].default
    assert int(grace.removesuffix("s")) > longest + Settings.model_fields["drain_seconds"].default


def test_redis_knows_its_own_password_and_no_other(volumes):
    secrets.main([], {}, *volumes)
    files = read(*volumes)
    password = files["servers/redis_password"]
    assert read(volumes[2]) == {"redis/redis.conf": f"requirepass {password}\n", "redis/redis_password": password}
    mounted = [volume.split(":")[0] for volume in services()["redis"]["volumes"]]
    assert mounted == ["redis", "redis-secrets"]


def test_monitoring_is_started_on_request_and_knows_one_key_and_one_password(volumes):
    described = services()
    monitoring = {name for name, service in described.items() if service.get("profiles") == ["monitoring"]}
    assert monitoring == {"prometheus-key", "prometheus", "grafana"}
    assert not any(monitoring & needed(described, name) for name in described.keys() - monitoring)
    secrets.main([], {}, *volumes)
    assert read(volumes[3]).keys() == {"grafana/grafana_password"}
    mounted = {name: [volume.split(":")[0] for volume in described[name]["volumes"]] for name in monitoring}
    assert [name for name in mounted["prometheus"] if "secrets" in name] == ["prometheus-secrets"]
    assert [name for name in mounted["grafana"] if "secrets" in name] == ["grafana-secrets"]
    for name in ("prometheus", "grafana"):
        files = [ROOT / path for path in mounted[name] if path.startswith("./")]
        assert files
        assert all(file.is_file() for file in files)


def test_prometheus_scrapes_the_api_with_the_key_that_was_made_for_it():
    config = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "guichet"  # as the rules call it
    command = services()["prometheus-key"]["command"]
    assert job["authorization"]["credentials_file"] == command[command.index("--to") + 1]
    assert job["static_configs"] == [{"targets": ["api:8000"]}]
    source = yaml.safe_load((ROOT / "deploy" / "monitoring" / "grafana" / "datasources.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_every_container_is_hardened():
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"], name
        assert "mem_limit" in service or name.endswith("-dev"), name
        assert service["image"].startswith("guichet-") or service["user"] in SERVERS, name
        sockets = {"docker.sock", "/proc", "/sys"}
        assert not any(part in volume for volume in service.get("volumes", ()) for part in sockets), name


def test_processes_of_models_fit_into_the_container_of_the_bulk_worker():
    described = services()["worker-bulk"]
    limit = int(default_of(described["mem_limit"]).removesuffix("m")) * 2**20
    environment = described["environment"]
    shadow = int(default_of(environment["SHADOW_MEMORY_MB"])) * 2**20
    worker = 450 * 2**20
    for name in ("MODEL_PROOF_BYTES", "TRAINING_BYTES"):
        assert int(default_of(environment[name])) + shadow + worker <= limit, name
    assert shadow <= limit * CONTAINER_SHARE
    example = (ROOT / ".env.example").read_text().splitlines()
    for text in (described["mem_limit"], environment["SHADOW_MEMORY_MB"], environment["TRAINING_BYTES"]):
        assert f"{text[2:].partition(':')[0]}={default_of(text)}" in example


def default_of(text: str) -> str:
    """Return the value of `${NAME:-value}`."""
    return text.removeprefix("${").removesuffix("}").partition(":-")[2]


def test_nobody_who_serves_has_a_way_out():
    """The ports of the API are published on a network that leads no packet out."""
    networks = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["networks"]
    assert networks["backend"]["internal"] is True
    assert networks["published"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    described = services()
    assert {name for name, service in described.items() if "outside" in service["networks"]} == {"examples"}
    published = {name for name, service in described.items() if "published" in service["networks"]}
    assert published == {name for name, service in described.items() if "ports" in service}


def test_who_may_make_keys_and_models_answers_no_request():
    owners = {name for name, service in services().items() if "server-secrets" in str(service.get("volumes"))}
    assert owners == {"secrets", "postgres", "migrate", "examples", "keys", "prometheus-key"}
    assert not any("ports" in services()[name] for name in owners)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_what_hangs_is_ended_by_its_health_check_and_started_again(name):
    check = re.search(r"HEALTHCHECK .*\\\n *CMD (\[.*\])", (ROOT / f"Dockerfile.{name}").read_text())
    assert check is not None
    assert f'"{name}.probe", "--end-after", "' in check[1]
    for service in services().values():
        if service["image"].startswith(f"guichet-{name}") and "healthcheck" not in service:
            assert service["restart"] == "unless-stopped"


def test_images_of_others_are_kept_by_digest_by_renovate():
    """No registry is asked here: the first run of Renovate writes the digests, and later ones bring newer ones."""
    rules = json.loads((ROOT / "renovate.json").read_text())
    assert "docker:pinDigests" in rules["extends"]
    assert {"dockerfile", "docker-compose"} <= set(rules["enabledManagers"])
    # What its managers find: `image:` of Compose, and an ARG whose default stands in FROM.
    others = {service["image"] for service in services().values() if not service["image"].startswith("guichet-")}
    assert all(re.fullmatch(r"(?:[a-z]+/)?[a-z]+:[\w.]+(@sha256:[0-9a-f]{64})?", image) for image in others)
    for file in ("Dockerfile.api", "Dockerfile.worker"):
        assert re.search(r"^ARG PYTHON_IMAGE=python:\S+$", (ROOT / file).read_text(), re.M)


def test_models_are_added_where_their_stores_can_be_reached():
    assert "outside" in services()["examples"]["networks"]


def test_every_image_of_ours_is_built_by_those_who_start_without_the_others():
    described = services()
    built = {name for name, service in described.items() if "build" in service}
    for name, service in described.items():
        if service["image"].startswith("guichet-"):
            makers = {one for one in built if described[one]["image"] == service["image"]}
            assert makers & {name, *needed(described, name)}, f"`up {name}` in a new clone finds no {service['image']}"


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_copies_its_own_side_only_and_says_its_version(name):
    text = (ROOT / f"Dockerfile.{name}").read_text()
    copied = {source.split("/")[0] for source in re.findall(r"^COPY (?!--)(\S+)", text, re.M)}
    assert {"shared", name} <= copied
    assert {"api": "worker", "worker": "api"}[name] not in copied
    assert {"tests", "client", "."}.isdisjoint(copied)
    assert f"ARG VERSION={VERSION}\n" in text
    allowed = {line[1:].split("/")[0] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied <= allowed


@pytest.mark.parametrize("name", ["api", "sync", "worker"])
def test_every_file_of_requirements_has_the_same_pins(name):
    def pins(file: Path) -> set[str]:
        return set(re.findall(r"^([\w.\[\]-]+==\S+)", file.read_text(), re.M))

    assert pins(ROOT / "requirements" / f"{name}.txt") <= pins(ROOT / "requirements.txt")


def test_a_changed_source_file_is_seen(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("")
    seen = look(tmp_path)
    (tmp_path / "package" / "other.py").write_text("")
    assert look(tmp_path) != seen
    assert look(tmp_path).items() >= seen.items()
