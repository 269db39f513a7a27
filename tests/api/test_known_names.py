"""AUTH=open: what a web page sends through a browser of this machine is refused; what browsers are told of answers."""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from api.http.security_headers import SecurityHeaders
from api.known_names import host_of, is_local
from api.main import create_app, serve
from api.runtimes.sync.runtime import SyncRuntime
from api.services import Services
from shared.config.settings import Settings
from tests.support.databases import migrate

LOCAL = (
    *(b"127.0.0.1", b"127.0.0.1:8000", b"127.8.0.1", b"localhost:3000", b"LOCALHOST", b"localhost.", b"app.localhost"),
    *(b"[::1]", b"[::1]:8000"),
)
STRANGE = (
    *(b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"192.168.1.5:8000", b"localhost@evil"),
    *(b"[::2]", b"[::1]evil.example", b"0x7f", b"", b"."),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("names")
    url = f"sqlite:///{folder / 'guichet.db'}"
    migrate(url)
    names = "localhost,scores.lan"
    return Settings(runtime="sync", auth="open", data_dir=folder, database_url=url, allowed_hosts=names)


def ask(
    settings: Settings,
    *requests: tuple[str, str, dict[str, str]],
    content: bytes = b"",
    prepare: Callable[[Services], None] = lambda services: None,
) -> list[httpx2.Response]:
    """Return the answers of one service to (method, path, headers) each."""
    app = create_app(settings)

    async def ask_all() -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(serve(app))
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http,
        ):
            prepare(app.state.services)
            return [
                await http.request(method, path, headers=headers, content=content if method == "POST" else None)
                for method, path, headers in requests
            ]

    return asyncio.run(ask_all())


def test_names_of_this_machine_are_told_from_others():
    assert [place for place in LOCAL if not is_local(place)] == []
    assert [place for place in STRANGE if is_local(place)] == []
    assert host_of(b"Scores.LAN.:80") == "scores.lan"


def test_pages_of_others_reach_nothing_where_no_key_is_needed(settings: Settings) -> None:
    paths = ("/jobs", "/models", "/openapi.json", "/", "/health", "/livez", "/nothing")
    strange = [("GET", path, {"Host": "evil.example"}) for path in paths]
    strange += [("POST", "/jobs", {"Origin": origin}) for origin in ("https://evil.example", "null", "http://10.0.0.1")]
    known_paths = [
        ("GET", "/models", headers) for headers in ({"Host": "scores.lan:80"}, {"Origin": "http://localhost:3000"})
    ]
    answers = ask(settings, *strange, *known_paths)
    for answer in answers[: len(strange)]:
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:guichet:error:forbidden"
        assert "ALLOWED_HOSTS" in answer.json()["detail"]
        assert "evil" not in answer.text
    assert [answer.status_code for answer in answers[len(strange) :]] == [200, 200]


def test_keys_are_enough_where_they_are_needed(settings: Settings) -> None:
    [answer] = ask(settings.model_copy(update={"auth": "keys"}), ("GET", "/livez", {"Host": "scores.example"}))
    assert answer.status_code == 200


def test_form_of_a_web_page_is_never_read_as_json(settings: Settings) -> None:
    kinds: list[dict[str, str]] = [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data"},
    ]
    routes = ("/jobs", "/predict", "/predict_batch", "/models/a/predict", "/invocations")
    requests = [("POST", route, kind) for route in routes for kind in kinds]
    answers = ask(settings, *requests, content=b'{"features": {}}')
    assert {answer.status_code for answer in answers} == {415}
    assert all("Content-Type" in answer.text or "must be" in answer.text for answer in answers)


@pytest.mark.parametrize("auth", ["open", "keys", "predict-open"])
def test_who_needs_a_key_and_has_none_reads_no_paths_and_no_addresses(settings: Settings, auth: str) -> None:
    def refuse(services: Services) -> None:
        assert isinstance(services.runtime, SyncRuntime)
        services.runtime.models.refused |= {
            "m@1": "/srv/models/m is missing.",
            "s3://shelf/x": "s3://shelf/x is silent.",
        }

    guarded = settings.model_copy(update={"auth": auth, "rate_per_minute": 60.0})
    paths = [("GET", path, {}) for path in ("/health", "/readyz", "/version")]
    health, ready, version = ask(guarded, *paths, prepare=refuse)
    reasons = {*health.json()["reasons"]}
    if auth == "open":
        assert {"m@1 cannot be loaded: /srv/models/m is missing.", "s3://shelf/x is silent."} <= reasons
    else:
        assert {"m@1 cannot be loaded.", "A worker, or the store of models, is not as it should be."} <= reasons
        for answer in (health, ready, version):
            assert not re.search(r"/srv|s3:|shelf|sqlite", answer.text)


def policies(answer: httpx2.Response) -> dict[str, str]:
    """Return the directives of an answer's Content-Security-Policy."""
    directives = answer.headers["content-security-policy"].split("; ")
    return dict(directive.partition(" ")[::2] for directive in directives)


def test_answers_are_no_pages_and_are_not_kept(settings: Settings) -> None:
    paths = ("/models", "/jobs", "/livez", "/nothing", "/openapi.json")
    for answer in ask(settings, *(("GET", path, {}) for path in paths), ("HEAD", "/models", {})):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert policies(answer) == {"default-src": "'none'", "frame-ancestors": "'none'"}


@pytest.fixture
def pages(settings: Settings) -> list[httpx2.Response]:
    return ask(settings, *(("GET", path, {}) for path in ("/docs", "/redoc", "/docs/oauth2-redirect")))


def test_pages_run_their_own_script_and_no_other(pages: list[httpx2.Response]) -> None:
    for page in pages:
        assert page.status_code == 200
        inline = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline]
        allowed = policies(page)
        assert allowed["script-src"].split() == ["'self'", *(f"'sha256-{digest}'" for digest in digests)]
        assert "unsafe" not in allowed["script-src"]
        assert allowed["default-src"] == "'none'"
        assert not re.search(r'<script [^>]*src="https?:', page.text)
        assert not re.search(r"<[^>]*\son[a-z]+=", page.text)  # handlers in attributes would not run


@pytest.mark.parametrize(
    ("parents", "policy", "frames"),
    [
        ("none", b"'none'", b"DENY"),
        ("self", b"'self'", b"SAMEORIGIN"),
        ("https://huggingface.co https://*.example.org", b"https://huggingface.co https://*.example.org", None),
    ],
)
def test_operator_says_who_may_show_the_service_in_a_frame(parents: str, policy: bytes, frames: bytes | None) -> None:
    headers = SecurityHeaders(parents)
    fields: dict[bytes, Any] = dict(headers.answer)
    assert fields[b"content-security-policy"] == b"default-src 'none'; frame-ancestors " + policy
    assert fields.get(b"x-frame-options") == frames
    assert headers.policy(b"").endswith(b"frame-ancestors " + policy)
    assert dict(headers.page).get(b"x-frame-options") == frames
