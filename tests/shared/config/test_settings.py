"""Settings: safe by default, and a wrong one stops the start with a sentence."""

import pytest
from pydantic import ValidationError

from scripts.generate import settings as settings_page
from shared.config.addresses import has_placeholder, without_password
from shared.config.settings import Settings, get_settings
from shared.config.typos import find_misspelt
from tests.support.databases import settings_of

pytestmark = pytest.mark.usefixtures("no_settings_of_the_caller")

POSTGRES = "postgresql+psycopg2://guichet@127.0.0.1/guichet"


def settings(**values) -> Settings:
    return Settings(**({"runtime": "sync"} | values))


def test_sync_runtime_needs_nothing(tmp_path):
    chosen = settings(data_dir=tmp_path)
    assert chosen.database == f"sqlite:///{tmp_path / 'guichet.db'}"
    assert chosen.models == tmp_path / "models"
    assert chosen.auth == "keys"
    assert chosen.host == "127.0.0.1"


def test_settings_come_from_the_environment_and_empty_ones_count_as_unset(monkeypatch, tmp_path):
    for name, value in {
        "RUNTIME": "sync",
        "PORT": "8123",
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "DEFAULT_MODEL": "",
        "MAX_GROUP": "",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    chosen = Settings()
    assert (chosen.port, chosen.database_url, chosen.redis_url, chosen.default_model) == (8123, None, None, None)


@pytest.mark.parametrize("around", [" {}", "{} ", "{}\r", "\t{}\r\n"])
def test_spaces_and_carriage_returns_around_a_value_do_not_count(around):
    values = {"AUTH": "open", "PORT": "8123", "DATA_DIR": "/srv/data", "DATABASE_URL": "sqlite:////srv/guichet.db"}
    with settings_of(RUNTIME="sync", **{name: around.format(value) for name, value in values.items()}):
        chosen = get_settings()
    assert (chosen.auth, chosen.port, str(chosen.data_dir)) == ("open", 8123, "/srv/data")
    assert chosen.database == "sqlite:////srv/guichet.db"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("DATA_DIR", "  ", "holds nothing but spaces"),
        ("HOST", " ", "holds nothing but spaces"),
        ("DATABASE_URL", "\r", "holds nothing but spaces"),
        ("MODELS_DIR", "/srv/\udcff", "is not UTF-8"),
        ("DATABASE_URL", "sqlite:////srv/\udcff.db", "is not UTF-8"),
    ],
)
def test_value_of_spaces_or_of_other_bytes_than_utf8_is_refused(name, value, reason):
    with settings_of(**({"RUNTIME": "sync"} | {name: value})), pytest.raises(SystemExit, match=f"{name}: {reason}"):
        get_settings()


def test_settings_cannot_be_changed_while_running():
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.8", "::1", "localhost"])
def test_open_service_may_listen_on_a_loopback_address(host):
    assert settings(auth="open", host=host).auth == "open"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org", "localhost.evil"]
)
def test_open_service_may_listen_nowhere_else(host):
    with pytest.raises(ValidationError, match="loopback"):
        settings(auth="open", host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org"])
def test_service_with_keys_may_listen_anywhere(host):
    assert settings(auth="keys", host=host).host == host


@pytest.mark.parametrize("url", [None, "", "sqlite:///x.db", "mysql://x/y"])
def test_queue_runtime_needs_postgresql(url):
    with pytest.raises(ValidationError, match="DATABASE_URL of PostgreSQL"):
        settings(runtime="queue", database_url=url)


@pytest.mark.parametrize("uri", ["models", "ftp://host/models", "s3://", "file://models", "hf://me"])
def test_store_of_models_has_an_address_that_can_be_one(uri):
    with pytest.raises(ValidationError, match=r"write (file|three|s3|hf)"):
        settings(models_uri=uri)
    assert settings(models_uri="s3://bucket/models/").models_uri == "s3://bucket/models"
    assert settings(models_uri="").models_uri is None


def test_queue_runtime_needs_redis_only_where_it_is_used():
    chosen = settings(runtime="queue", database_url=POSTGRES)
    with pytest.raises(SystemExit, match="REDIS_URL"):
        _ = chosen.broker
    with pytest.raises(SystemExit, match="RUNTIME=sync has no broker and no workers: set RUNTIME=queue"):
        _ = settings().broker
    assert settings(runtime="queue", database_url=POSTGRES, redis_url="redis://h/0").broker == "redis://h/0"


def test_heartbeat_that_would_lose_leases_is_refused():
    with pytest.raises(ValidationError, match="HEARTBEAT_SECONDS"):
        settings(lease_seconds=10, heartbeat_seconds=5.1)
    assert settings(lease_seconds=10, heartbeat_seconds=5).lease_seconds == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65536),
        ("runtime", "both"),
        ("auth", "none"),
        ("max_body_bytes", 10),
        ("max_batch_rows", 0),
        ("max_group", 0),
        ("max_claim_jobs", 0),
        ("max_attempts", 0),
        ("max_attempts", 40_000),  # a smallint column holds it: every submission would fail
        ("lease_seconds", 0),
        ("wait_seconds", -1),
        ("job_timeout_seconds", 0),
        ("idempotency_hours", 23),
        ("log_level", "LOUD"),
        ("lease_seconds", float("nan")),
        ("lease_seconds", float("inf")),
        ("environment", "production"),
    ],
)
def test_value_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith(("_seconds", "_hours"))])
def test_time_that_the_database_could_not_add_is_refused(name):
    with pytest.raises(ValidationError, match=f"{name}\n.*less than or equal to"):
        settings(**{name: 1e13})


def test_wrong_settings_stop_the_start_with_their_names_and_without_their_values():
    with settings_of(RUNTIME="queue", DATABASE_URL="mysql://user:hunter2@h/d"), pytest.raises(SystemExit) as caught:
        get_settings()
    assert "guichet: the settings do not hold" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"])
def test_database_url_may_be_written_as_hosts_write_it(url):
    assert settings(runtime="queue", database_url=url).database == "postgresql+psycopg2://u:p@h/d"


@pytest.mark.parametrize(
    ("runtime", "url", "reason"),
    [
        ("queue", "postgresql+asyncpg://u:hunter2@h/d", "speaks postgresql"),
        ("queue", "postgresql://u:hunter2@h", "names no database"),
        ("queue", "postgresql://u:hunter2@h:port/d", "cannot be read"),
        ("queue", "postgresql://u:p@hunter2@h/d", "cannot be read"),  # the host would be hunter2@h
        ("queue", "postgresql://u@h/d?password=hunter2", "password among the options"),
        ("sync", "mysql://u:hunter2@h/d", "speaks postgresql"),
        ("sync", "sqlite://", "must name a file"),
        ("sync", "sqlite:///:memory:", "must name a file"),
        ("sync", "nonsense", "cannot be read"),
    ],
)
def test_database_url_that_leads_nowhere_is_refused_without_its_password(runtime, url, reason):
    with settings_of(RUNTIME=runtime, DATABASE_URL=url), pytest.raises(SystemExit, match=reason) as caught:
        get_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:6379", "h:6379", "redis:///0", "amqp://h"])
def test_redis_url_of_something_else_is_refused(url):
    with pytest.raises(ValidationError, match="must begin with redis"):
        settings(runtime="queue", database_url=POSTGRES, redis_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:port/0",
        "redis://h:99999/0",
        "redis://:hunter2/x@h/0",  # the host would be the password's end
        "redis://:hunter2#x@h/0",
        "redis://:hunter2@h/zero",  # redis-py would take database 0, Celery another one
        "redis://h/0?password=hunter2",
        "redis://h/0?nonsense=1",
        "rediss://h/0?ssl_cert_reqs=hunter2",
    ],
)
def test_redis_url_that_a_client_would_misread_is_refused_without_its_password(url):
    env = {"RUNTIME": "queue", "DATABASE_URL": POSTGRES, "REDIS_URL": url}
    with settings_of(**env), pytest.raises(SystemExit, match="REDIS_URL cannot be read") as caught:
        get_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://h/", "redis://u:p@h:6379/3", "redis://:p@x@h/0", "rediss://:p@[::1]:1/0?ssl_cert_reqs=none"],
)
def test_redis_url_of_either_scheme_is_taken(url):
    assert settings(runtime="queue", database_url=POSTGRES, redis_url=url).broker == url


def test_password_of_a_client_certificate_is_not_shown():
    assert without_password("postgresql://u:hunter2@h/d?sslpassword=hunter2") == "postgresql://u:***@h/d"


def test_sync_runtime_with_a_broker_is_a_contradiction():
    with pytest.raises(ValidationError, match="contradict"):
        settings(redis_url="redis://h/0")


@pytest.mark.parametrize(
    ("least", "most"),
    [
        ("wait_seconds", "wait_cap_seconds"),
        ("job_timeout_seconds", "job_timeout_cap_seconds"),
        ("max_csv_record_bytes", "max_csv_bytes"),
        ("max_group", "max_waiting"),
    ],
)
def test_part_above_its_whole_is_refused(least, most):
    assert getattr(settings(**{least: 2000, most: 2000}), most) == 2000
    with pytest.raises(ValidationError, match=f"{least.upper()} is 3000, and {most.upper()} is 2000"):
        settings(**{least: 3000, most: 2000})


def test_part_that_no_float_can_hold_is_refused_too():
    with pytest.raises(ValidationError, match=f"MAX_BODY_BYTES is {'9' * 400}, and MAX_BODIES_BYTES is 200000000"):
        settings(max_body_bytes="9" * 400, max_bodies_bytes=200_000_000)


@pytest.mark.parametrize("environment", ["test", "prod"])
@pytest.mark.parametrize(
    "password", ["change-me", "CHANGEME_please", "%3Cpassword%3E", "your-password", "postgres", "$PGPW"]
)
def test_placeholder_as_a_password_is_refused_where_it_counts(environment, password):
    url = f"postgresql://u:{password}@h/d"
    assert settings(runtime="queue", database_url=url).environment == "dev"
    with pytest.raises(ValidationError, match="password in DATABASE_URL is a placeholder"):
        settings(runtime="queue", database_url=url, environment=environment)
    with pytest.raises(ValidationError, match="password in REDIS_URL is a placeholder"):
        settings(runtime="queue", database_url=POSTGRES, redis_url=f"redis://:{password}@h/0", environment=environment)


@pytest.mark.parametrize("url", [POSTGRES, "postgresql://u:9f8c-Kq2@h/d", "postgresql://u@/d?host=/run/pg"])
def test_real_password_and_none_at_all_are_no_placeholders(url):
    assert not has_placeholder(url)


def test_open_service_is_no_production():
    with pytest.raises(ValidationError, match="AUTH=keys"):
        settings(auth="open", environment="prod")


@pytest.mark.parametrize("name", ["none", "file"])
def test_folder_of_secrets_that_is_none_is_told(name, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / name))
    with settings_of(RUNTIME="sync"), pytest.raises(SystemExit, match=f"SECRETS_DIR: {tmp_path / name} is no folder"):
        get_settings()


def test_file_of_a_secret_that_cannot_be_read_is_told_by_its_setting(tmp_path, monkeypatch):
    (tmp_path / "database_url").write_bytes(b"\xff")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    with settings_of(RUNTIME="sync"), pytest.raises(SystemExit, match=r'SECRETS_DIR: a file .* field "database_url"'):
        get_settings()


# ── misspelt names ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("MODEL_DIR", "MODELS_DIR"),
        ("MODELS_DIRR", "MODELS_DIR"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABSAE_URL", "DATABASE_URL"),
        ("MAX_CSV_ROW", "MAX_CSV_ROWS"),
        ("LEASESECONDS", "LEASE_SECONDS"),
        ("database_ulr", "DATABASE_URL"),
        ("GUICHET_PORT", "PORT"),
        ("GUICHET_REDIS_URL", "REDIS_URL"),
    ],
)
def test_misspelt_setting_stops_the_start_with_the_right_name(name, suggestion):
    assert find_misspelt({name: "x"}, Settings.model_fields) == [
        f"{name}: is no setting; write {suggestion}, or remove it"
    ]
    with settings_of(RUNTIME="sync", **{name: "x"}), pytest.raises(SystemExit, match=f"{name}: is no setting"):
        get_settings()


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": "/", "PATH": "/bin", "HOSTNAME": "h", "POST": "1", "PORTS": "1", "REDIS_PORT": "tcp://10.0.0.1:6379"},
        {"GUICHET_PORT": "tcp://10.0.0.1:8000", "GUICHET_URL": "http://h", "GUICHET_API_KEY": "k"},
        {"REDIS_URI": "redis://other", "REDIS_URL": "redis://ours"},
        {"redis_url": "redis://ours", "OMP_NUM_THREADS": "1", "POSTGRES_PASSWORD": "x"},
        {name.upper(): "x" for name in Settings.model_fields},
    ],
)
def test_variables_of_others_are_let_alone(env):
    assert find_misspelt(env, Settings.model_fields) == []


def test_page_of_settings_is_current():
    assert settings_page.FILE.read_text() == settings_page.render(), "run `make settings`"


def test_settings_are_read_once():
    with settings_of(RUNTIME="sync"):
        assert get_settings() is get_settings()
