"""Settings: safe by default, and a wrong one stops the start with a sentence."""

import pytest
from pydantic import ValidationError

from shared.config import Settings, get_settings
from tests.databases import settings_of

POSTGRES = "postgresql+psycopg2://guichet@127.0.0.1/guichet"


def settings(**values) -> Settings:
    return Settings(**({"runtime": "sync"} | values))


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


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
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    chosen = Settings()
    assert (chosen.port, chosen.database_url, chosen.redis_url, chosen.default_model) == (8123, None, None, None)


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
    ],
)
def test_value_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        settings(**{name: value})


def test_wrong_settings_stop_the_start_with_their_names_and_without_their_values():
    with settings_of(RUNTIME="queue", DATABASE_URL="mysql://user:hunter2@h/d"), pytest.raises(SystemExit) as caught:
        get_settings()
    assert "guichet: the settings do not hold" in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_settings_are_read_once():
    with settings_of(RUNTIME="sync"):
        assert get_settings() is get_settings()
