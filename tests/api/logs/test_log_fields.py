"""The lines that are logged while a request is handled say which request, job and model it is."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api.http.middleware import RequestContext
from api.http.prefix import Prefix
from api.http.security_headers import SecurityHeaders
from api.jobs.requests import SubmitOptions
from api.jobs.submissions import new_submission
from shared.broker.names import Lane
from shared.tables import JobKind
from tests.support.log_lines import written


def test_line_names_its_request_and_from_the_submission_on_its_job_and_model() -> None:
    log = logging.getLogger("tests.log_fields")
    services: Any = SimpleNamespace(settings=SimpleNamespace(max_attempts=3))
    caller: Any = SimpleNamespace(id="key", is_visitor=False)
    version: Any = SimpleNamespace(id=7, label="credit@2")
    ids = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        log.error("before")
        options = SubmitOptions(version, 30.0, None)
        submission = new_submission(
            services, Request(scope), caller, options, kind=JobKind.PREDICT, lane=Lane.INTERACTIVE
        )
        ids.append(submission.id)
        log.error("after")

    async def ask_twice_on_one_connection() -> None:
        context = RequestContext(app, Prefix("", proxy_hops=0), SecurityHeaders("'none'"), lambda *_: None)
        for name in (b"first", b"second"):
            scope = {"type": "http", "method": "POST", "path": "/predict", "root_path": "", "query_string": b""}
            await context(scope | {"headers": [(b"x-request-id", name)]}, None, None)  # type: ignore[arg-type]

    with written("tests.log_fields") as entries:
        asyncio.run(ask_twice_on_one_connection())
    fields = [{key: entry.get(key) for key in ("request_id", "job_id", "model")} for entry in entries]
    assert fields == [
        {"request_id": "first", "job_id": None, "model": None},
        {"request_id": "first", "job_id": ids[0], "model": "credit@2"},
        {"request_id": "second", "job_id": None, "model": None},
        {"request_id": "second", "job_id": ids[1], "model": "credit@2"},
    ]
