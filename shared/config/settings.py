"""Every setting of the service, read once from the environment, each with its meaning."""

import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.config.addresses import address_fault, check_database_url, check_redis_url, has_placeholder
from shared.config.typos import find_misspelt
from shared.validation_errors import list_faults

# Segments as a URL holds them without an escape, none of which goes up or hides.
ROOT_PATH = r"(/(?!\.)[A-Za-z0-9._~-]+)+"
_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]"
_ORIGIN = r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]+)?"
_MONTH = 30 * 86_400  # seconds; what is longer was meant in other units, and would not fit the database's times


class Settings(BaseSettings):
    """What an operator can set; a wrong value stops the start with one sentence."""

    model_config = SettingsConfigDict(
        env_file=None, env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    environment: Literal["dev", "test", "prod"] = Field(
        "dev",
        description="`test` and `prod` refuse placeholders as passwords; `prod` refuses `AUTH=open`, too.",
    )
    runtime: Literal["queue", "sync"] = Field(
        "queue",
        description="`queue`: PostgreSQL, Redis and Celery workers. `sync`: one service that scores at once.",
    )
    host: str = Field("127.0.0.1", description="Address that the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port that the API listens on.")
    auth: Literal["open", "keys", "predict-open"] = Field(
        "keys",
        description="`keys`: every call needs an API key. `predict-open`: all but predicting, explaining, reading a "
        "job by its id and reading the models; needs RATE_PER_MINUTE. `open`: none does; loopback addresses only.",
    )
    allowed_hosts: str = Field(
        "localhost,127.0.0.1,[::1]",
        max_length=2_000,
        description=(
            "Host names, separated by commas, that `AUTH=open` accepts besides this machine's: the "
            "Host that a proxy sends, and the Origin of allowed pages."
        ),
    )
    frame_ancestors: str = Field(
        "none",
        max_length=2_000,
        description=(
            "Sites that may show this service's pages in a frame: `none`, `self`, or origins such as "
            "`https://huggingface.co`, separated by blanks."
        ),
    )
    rate_per_minute: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="Rows a minute that each caller may submit (an API key, else an address), over all API processes, "
        "twenty times as many in files, and twenty times as many requests that read; 0 for no limit.",
    )
    rate_burst: int = Field(20, ge=1, description="Rows at once that RATE_PER_MINUTE allows after a rest.")
    proxy_hops: int = Field(
        0,
        ge=0,
        le=10,
        description=(
            "Number of proxies in front that append the caller's address to X-Forwarded-For; 0: the header is ignored."
        ),
    )
    root_path: str = Field(
        "",
        max_length=200,
        description=(
            "Path under which a reverse proxy shows the API, e.g. `/scores`: links, Location and "
            "/docs begin with it. With PROXY_HOPS, the X-Forwarded-Prefix of a proxy takes "
            "precedence."
        ),
    )
    data_dir: Path = Field(Path(".guichet"), description="Folder for all data of the service.")
    models_dir: Path | None = Field(None, description="Folder of model packages; DATA_DIR/models when empty.")
    models_uri: str | None = Field(
        None,
        description=(
            "Store of model packages (file://, s3:// or hf://): the service fetches packages that "
            "MODELS_DIR lacks, and registers new ones. Its joblib files are programs that the service"
            " runs."
        ),
    )
    models_check_seconds: float = Field(
        30, gt=0, le=_MONTH, description="Time between two checks of MODELS_URI for new packages."
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; a SQLite file in DATA_DIR when empty (sync runtime only)."
    )
    redis_url: str | None = Field(None, description="Broker and wake-ups; needed by the queue runtime.")
    default_model: str | None = Field(
        None,
        description="Default model of `/predict` and `/jobs`; when empty, the first one.",
    )

    max_body_bytes: int = Field(10_000_000, ge=1_000, description="Largest request body, in bytes.")
    max_bodies_bytes: int = Field(
        200_000_000,
        ge=1_000,
        description=(
            "Limit of all request bodies above 50 kB in one API process until they are answered, in "
            "bytes; one caller (an API key, else an address) may use half of it. CSV files do not "
            "count."
        ),
    )
    max_connections: int = Field(
        1_000,
        ge=16,
        description=(
            "Most connections of one API process; fewer if it may not open so many files. Beyond this"
            " limit it closes idle connections, and still answers probes."
        ),
    )
    max_csv_bytes: int = Field(1_000_000_000, ge=1_000, description="Largest CSV file, in bytes, uncompressed.")
    max_csv_rows: int = Field(5_000_000, ge=1, description="Most rows in one CSV file.")
    max_csv_record_bytes: int = Field(1_000_000, ge=1_000, description="Longest record of a CSV file, in bytes.")
    max_batch_rows: int = Field(1_000, ge=1, description="Most rows in one `/predict_batch`.")
    max_queued: int = Field(
        1_000_000,
        ge=1,
        description="Most queued jobs of one model and lane; further ones are refused (503).",
    )
    max_group: int = Field(256, ge=1, description="Most submissions in one transaction.")
    max_claim_jobs: int = Field(512, ge=1, description="Most jobs in one claim of a worker.")
    max_claim_rows: int = Field(4_096, ge=1, description="Most rows in one claim of a worker.")
    interactive_rows: int = Field(
        100, ge=1, description="A batch of at most this many rows goes to the interactive lane, else to bulk."
    )
    max_waiting: int = Field(
        10_000, ge=1, description="Most requests that wait for their group commit; further ones get 503."
    )

    wait_seconds: float = Field(
        10, ge=0, le=_MONTH, description="Wait of `/predict` for its result when the request names none."
    )
    wait_cap_seconds: float = Field(60, ge=0, le=_MONTH, description="Longest wait that a request may name.")
    job_timeout_seconds: float = Field(
        30, gt=0, le=_MONTH, description="Time limit of a job when the request names none."
    )
    job_timeout_cap_seconds: float = Field(
        600, gt=0, le=_MONTH, description="Longest `timeout` that a request may name."
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description=("Worker deaths or transient errors after which a job fails.")
    )
    lease_seconds: float = Field(15, gt=0, le=_MONTH, description="Duration of a claim without a heartbeat.")
    heartbeat_seconds: float = Field(5, gt=0, le=_MONTH, description="Time between two renewals of a worker's leases.")
    recover_seconds: float = Field(
        5, gt=0, le=_MONTH, description="Time between two searches for expired leases and lost wake-ups."
    )
    monitor_seconds: float = Field(
        5,
        ge=0,
        le=_MONTH,
        description="Time between two counts of scored rows for drift; 0: never.",
    )
    job_days: float = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after which ended jobs are erased with all that was made of their rows; 0: never.",
    )
    promotion_gate: Literal["off", "replay"] = Field(
        "off",
        description="`replay`: a version replaces the champion only after a fresh replay of it (`POST /replays`) "
        "within the limits below, or with `force` and a reason.",
    )
    promotion_replay_hours: float = Field(24, gt=0, le=87_600, description="Oldest replay that counts, in hours.")
    promotion_min_pairs: int = Field(100, ge=1, description="Least decisions of the present champion in that replay.")
    promotion_max_flips: float | None = Field(
        None, ge=0, le=1, description="Largest share of decisions that flip; empty for no limit."
    )
    promotion_max_shift: float | None = Field(
        None, ge=0, description="Largest mean absolute difference of the scores; empty for no limit."
    )
    promotion_max_refused: float = Field(
        0, ge=0, le=1, description="Largest share of rows that the new version refuses."
    )
    promotion_max_auc_loss: float | None = Field(
        None, ge=0, le=1, description="Largest loss of ROC AUC, where outcomes are known; empty for no limit."
    )
    model_uploads: Literal["off", "on"] = Field(
        "off",
        description="`on`: keys with the scope `admin` may add models over HTTP (`POST /models`). A model's file is a "
        "program, which the service then runs.",
    )
    max_model_bytes: int = Field(
        500_000_000, ge=1_000, description="Largest upload of a model, all its files together, and unpacked, in bytes."
    )
    model_proof_seconds: float = Field(
        600, gt=0, le=_MONTH, description="Longest proof of an uploaded model; its process is ended then."
    )
    model_proof_bytes: int = Field(
        4_000_000_000,
        ge=200_000_000,
        description="Most memory of the process that proves an uploaded model, in bytes.",
    )
    max_training_bytes: int = Field(
        100_000_000, ge=1_000, description="Largest file of rows to train on (`POST /train`), in bytes, uncompressed."
    )
    max_training_rows: int = Field(200_000, ge=50, description="Most rows of a training.")
    training_seconds: float = Field(3_600, gt=0, le=_MONTH, description="Longest training; its process is ended then.")
    training_bytes: int = Field(
        4_000_000_000, ge=200_000_000, description="Most memory of the process of a training, in bytes."
    )
    self_audit_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of scored rows that the pipeline itself scores again, beside the requests; 0: none.",
    )
    self_audit_rows_per_second: int = Field(
        20, ge=1, le=10_000, description="How many rows a second are scored again at most."
    )
    shadow_rows_per_second: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Most rows a second that each challenger scores in the shadow; 0: challengers score nothing.",
    )
    shadow_file_share: float = Field(
        0,
        ge=0,
        le=1,
        description="Share of the rows of files that challengers score in the shadow, as far as other rows leave room; "
        "0: none.",
    )
    shadow_memory_mb: int = Field(
        2048,
        ge=256,
        le=1_000_000,
        description="Memory that the process of a challenger may take, in MB; half of the container's at most.",
    )
    shadow_niceness: int = Field(
        19,
        ge=0,
        le=19,
        description="Niceness of the process of a challenger; at 19, it uses only spare processor time.",
    )
    shadow_timeout_seconds: float = Field(
        10, gt=0, le=600, description="Longest time for a challenger to score at most 200 rows, in seconds."
    )
    drain_seconds: float = Field(
        5, gt=0, le=_MONTH, description="Longest time for which one task claims jobs before it hands over."
    )
    poll_seconds: float = Field(
        0.5,
        gt=0,
        le=_MONTH,
        description=(
            "Time between two searches of the API for finished jobs, in case that Redis does not announce them."
        ),
    )
    start_seconds: float = Field(
        30,
        ge=0,
        le=_MONTH,
        description="Longest wait of a start for the database, and of a worker's start for Redis.",
    )
    refresh_seconds: float = Field(
        2, gt=0, le=_MONTH, description=("Largest age of the API's snapshot of the registry.")
    )
    idempotency_hours: float = Field(24, ge=24, le=87_600, description="Time for which an Idempotency-Key is kept.")
    error_log_days: float = Field(30, gt=0, le=36_500, description="Days for which `error_logs` keeps refusals.")
    error_log_rows: int = Field(1_000_000, ge=1_000, description="Most entries in `error_logs`.")
    request_log_days: float = Field(30, gt=0, le=36_500, description="Days for which `request_logs` keeps requests.")
    request_log_rows: int = Field(
        10_000_000,
        ge=0,
        description="Most entries in `request_logs`; 0: requests are only counted in the metrics.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    tracing: Literal["off", "otlp"] = Field(
        "off",
        description=(
            "`otlp`: send traces to an OpenTelemetry collector, configured by its own variables "
            "(`OTEL_EXPORTER_OTLP_ENDPOINT` and others); needs requirements/tracing.txt."
        ),
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Format of log lines; `auto` is text on a terminal, and one JSON object a line elsewhere."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _trim(cls, value: object) -> object:
        # A file of variables from Windows leaves a carriage return at each end.
        if not isinstance(value, str):
            return value
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("is not UTF-8: write it in UTF-8")
        if value and not value.strip():
            raise ValueError("holds nothing but spaces: give it a value, or leave it out")
        return value.strip()

    @field_validator("database_url", "redis_url", "models_dir", "models_uri", "default_model", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("root_path")
    @classmethod
    def _is_a_prefix(cls, value: str) -> str:
        prefix = value.rstrip("/")
        if prefix and re.fullmatch(ROOT_PATH, prefix) is None:
            raise ValueError("must be a path such as /scores: a slash, then letters, digits, - . _ ~")
        return prefix

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: str) -> str:
        for host in value.split(","):
            if re.fullmatch(_HOST, host.strip(), re.IGNORECASE) is None:
                raise ValueError("must be names without scheme or port, separated by commas, e.g. localhost,scores.lan")
        return value

    @field_validator("frame_ancestors")
    @classmethod
    def _are_ancestors(cls, value: str) -> str:
        words = value.split()
        if words not in (["none"], ["self"]) and not all(re.fullmatch(_ORIGIN, word) for word in words):
            raise ValueError("must be none, self, or origins such as https://huggingface.co, separated by blanks")
        return value

    @field_validator("models_uri")
    @classmethod
    def _is_a_store(cls, value: str | None) -> str | None:
        fault = None if value is None else address_fault(value)
        if fault is not None:
            raise ValueError(fault)
        return None if value is None else value.rstrip("/")

    @field_validator("database_url")
    @classmethod
    def _name_driver(cls, value: str | None) -> str | None:
        # As most hosts write it; SQLAlchemy would look for another driver than ours.
        return None if value is None else re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", value)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.auth == "open" and not _is_loopback(self.host):
            raise ValueError(
                f"AUTH=open is for loopback addresses only, and HOST is {self.host}: "
                "set AUTH=keys and make a key with `python -m api.keys create`"
            )
        if self.auth == "open" and self.environment == "prod":
            raise ValueError("ENVIRONMENT=prod and AUTH=open contradict each other: set AUTH=keys")
        check_database_url(self.database_url, runtime=self.runtime)
        check_redis_url(self.redis_url, runtime=self.runtime)
        if self.environment != "dev":
            for name, url in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url)):
                if url is not None and has_placeholder(url):
                    raise ValueError(
                        f"the password in {name} is a placeholder: make one with `openssl rand -hex 24` "
                        "(ENVIRONMENT=dev lets it pass)"
                    )
        if self.auth == "predict-open" and not self.rate_per_minute:
            raise ValueError(
                "AUTH=predict-open lets everyone predict, so it needs a limit: set RATE_PER_MINUTE, e.g. to 60"
            )
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError("HEARTBEAT_SECONDS must be at most half of LEASE_SECONDS, or leases are lost")
        for least, most in _PAIRS:
            if getattr(self, least) > getattr(self, most):
                small, large = (  # an int of any length has digits, and no float
                    str(value) if isinstance(value, int) else f"{value:g}"
                    for value in (getattr(self, least), getattr(self, most))
                )
                raise ValueError(
                    f"{least.upper()} is {small}, and {most.upper()} is {large}: the first must not exceed the second"
                )
        return self

    @property
    def host_names(self) -> frozenset[str]:
        """The names of `allowed_hosts`, in lower case, those of IPv6 without brackets."""
        return frozenset(name.strip().lower().strip("[]") for name in self.allowed_hosts.split(","))

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'guichet.db'}"

    @property
    def broker(self) -> str:
        """The URL of Redis; commands that only touch the database can do without."""
        if self.redis_url is None:
            if self.runtime == "sync":
                raise SystemExit("guichet: RUNTIME=sync has no broker and no workers: set RUNTIME=queue for them")
            raise SystemExit("guichet: RUNTIME=queue needs REDIS_URL, e.g. redis://127.0.0.1:6379/0")
        return self.redis_url

    @property
    def models(self) -> Path:
        """The folder of model packages in force."""
        return self.models_dir or self.data_dir / "models"


# What one of them allows, the other forbids.
_PAIRS = (
    ("wait_seconds", "wait_cap_seconds"),
    ("job_timeout_seconds", "job_timeout_cap_seconds"),
    ("max_body_bytes", "max_bodies_bytes"),
    ("max_csv_record_bytes", "max_csv_bytes"),
    ("max_group", "max_waiting"),
)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read from the environment at the first call.

    A setting that the environment lacks may be in a file with its name, in the folder SECRETS_DIR.
    """
    faults = find_misspelt(os.environ, Settings.model_fields)
    folder = os.environ.get("SECRETS_DIR") or None
    if folder is not None and not os.path.isdir(folder):  # pydantic would only warn
        faults.append(f"SECRETS_DIR: {folder} is no folder: correct it, or leave it out")
        folder = None
    try:
        settings = Settings(_secrets_dir=folder)
    except ValidationError as error:
        faults += [f"{place.upper() or 'settings'}: {reason}" for place, reason in list_faults(error)]
    except SettingsError as error:
        faults.append(f"SECRETS_DIR: a file in {folder} is not readable UTF-8 ({error}): mend it, or its rights")
    if faults:
        raise SystemExit("guichet: the settings do not hold:\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings
