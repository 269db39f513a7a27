"""The address of the service and the connection settings, for both clients."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import httpx2

from guichet.errors import Unusable
from guichet.flows.calls import job_path
from guichet.records import Counts, JobError, JobInfo, Progress
from guichet.transport.wire import Request, check_key, check_url
from guichet.version import __version__

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_SECONDS = 10.0
# The names of the service's own contract, also from models whose cards give their answers other ones.
NATIVE = "application/vnd.guichet+json, application/json"


class Connection:
    """An address, a key, and how patient to be."""

    def __init__(self, url: str | None, api_key: str | None, timeout: float, retries: int) -> None:
        self.url = check_url(url or os.environ.get("GUICHET_URL") or DEFAULT_URL)
        self.timeout = timeout
        self.retries = retries
        key = check_key(api_key or os.environ.get("GUICHET_API_KEY") or "")
        self.headers = {
            "User-Agent": f"guichet-client/{__version__} python/{platform.python_version()}",
            "Accept": NATIVE,
        }
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return the parts of a request as arguments of httpx2."""
        seconds = max(self.timeout, request.wait + 10 if request.wait else 0)
        return {
            "method": request.method,
            "url": self.url + request.path,
            "params": dict(request.params),
            "headers": {**self.headers, **request.headers},
            "content": request.content if request.upload is None else request.upload,
            "timeout": httpx2.Timeout(seconds, connect=min(self.timeout, CONNECT_SECONDS)),
        }


class JobFacts:
    """What a job handle knows without asking: the job as it was in the latest answer, all of it in `info`."""

    def __init__(self, info: JobInfo) -> None:
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.kind} {self.status}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.info.id

    @property
    def kind(self) -> str:
        """`predict`, `batch`, `csv`, `explain`, `explain_batch`, `replay`, `register` or `train`."""
        return self.info.kind

    @property
    def status(self) -> str:
        """`queued`, `running`, `succeeded`, `failed`, `canceled` or `expired`."""
        return self.info.status

    @property
    def is_ended(self) -> bool:
        """Whether it had come to its end."""
        return self.info.is_ended

    @property
    def counts(self) -> Counts:
        """Its rows, by what became of them."""
        return self.info.counts

    @property
    def progress(self) -> Progress | None:
        """How far a CSV job was."""
        return self.info.progress

    @property
    def error(self) -> JobError | None:
        """Why it failed."""
        return self.info.error


def file_of(job_id: str, *, errors: bool, join: bool, partial: bool, parquet: bool) -> tuple[str, Mapping[str, str]]:
    """Return the address of a CSV job's file: path and query."""
    if errors and join:
        raise Unusable("The errors have no input columns to join: ask for errors or join, not both.")
    params = {}
    if join:
        params["join"] = "true"
    if partial:
        params["partial"] = "true"
    if parquet:
        params["format"] = "parquet"
    return f"{job_path(job_id)}/{'errors' if errors else 'output'}.csv", params
