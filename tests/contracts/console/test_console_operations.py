"""The console's logs and keys through HTTP, as a browser without scripts reads them, on both runtimes."""

import re
from collections.abc import Iterator
from html import unescape

import httpx2
import pytest
from sqlalchemy import Engine, delete, insert

from api.auth.callers import make_key
from shared.database.engine import make_engine
from shared.tables import ApiKey
from tests.contracts.console.test_console import HTML, check_page, sign_in, submit
from tests.contracts.helpers import apart, logged, new_id, wait_for_keys, wait_until
from tests.support.stack import Stack


@pytest.fixture
def browser(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_refusal_and_its_request_lead_to_each_other(
    browser: httpx2.Client, client: httpx2.Client, engine: Engine
) -> None:
    request_id = new_id()
    client.post("/predict", json={"features": {"<b>": 1}}, headers={"X-Request-Id": request_id})
    logged(engine, request_id)

    def listed(log: str) -> str | None:
        answer = browser.get(f"/console/logs/{log}?request_id={request_id}")
        check_page(answer)
        return answer.text if request_id in answer.text.partition("<table")[2] else None

    errors, requests = wait_until(lambda: listed("errors")), wait_until(lambda: listed("requests"))
    assert f'href="/console/logs/requests?request_id={request_id}"' in errors
    assert f'href="/console/logs/errors?request_id={request_id}"' in requests
    assert "POST /predict" in requests
    assert "<b>" not in errors.partition("<main")[2]
    assert f'value="{request_id}"' in errors
    other = check_page(browser.get(f"/console/logs/audit?request_id={request_id}"))
    assert "No entry matches." in other


def test_change_is_in_the_audit_log_with_its_request(
    request: pytest.FixtureRequest, browser: httpx2.Client, client: httpx2.Client
) -> None:
    request_id = new_id()
    body = {"version": 1, "reason": "to be read in the console"}
    alias = "/models/credit/aliases/read-here"
    moved = client.put(alias, json=body, headers={"X-Request-Id": request_id})
    assert moved.status_code == 200, moved.text
    leaving = {"reason": "has been read in the console"}
    request.addfinalizer(lambda: client.request("DELETE", alias, json=leaving).raise_for_status())
    entries = client.get("/logs/audit", params={"request_id": request_id}).json()["items"]
    assert [entry["request_id"] for entry in entries] == [request_id]
    answer = browser.get(f"/console/logs/audit?request_id={request_id}&action=model.promoted")
    text = check_page(answer)
    assert "model.promoted" in text
    assert "to be read in the console" in text
    assert f'href="/console/logs/requests?request_id={request_id}"' in answer.text


def test_logs_are_read_page_by_page_and_the_address_is_the_filter(
    browser: httpx2.Client, client: httpx2.Client
) -> None:
    for _ in range(55):
        client.get("/jobs/nothing")

    def first() -> httpx2.Response | None:
        answer = browser.get("/console/logs/requests?status=404&route=/jobs/{id}")
        return answer if 'rel="next"' in answer.text else None

    page = wait_until(first)
    check_page(page)
    assert page.text.count("<tr>") == 51
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page.text)
    following = browser.get(unescape(older))
    check_page(following)
    assert "status=404" in unescape(older)
    assert "Newest" in following.text
    assert browser.get("/console/logs").url.path == "/console/logs/requests"
    check_page(browser.get("/console/logs/requests?status=nonsense"), 422)
    check_page(browser.get("/console/logs/errors?from=2026-10-01&to=2026-11-01"))
    assert "must not be after" in check_page(browser.get("/console/logs/errors?from=2026-11-01&to=2026-10-01"), 422)
    check_page(browser.get("/console/logs/audit?cursor=x"), 422)
    check_page(browser.get("/console/logs/nothing"), 404)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["queue", "sync"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each runtime behind an API that wants keys."""
    folder = tmp_path_factory.mktemp("console-keys")
    with apart(request.getfixturevalue(request.param), folder, AUTH="keys") as made:
        yield made


@pytest.fixture
def secrets(guarded: Stack) -> dict[str, str]:
    """The only two keys of the service, by name."""
    made, rows = {}, []
    for name, scopes in (("root", "admin"), ("reader", "read")):
        made[name], digest = make_key()
        rows.append({"id": digest[:16], "name": name, "sha256": digest, "scopes": scopes})
    engine = make_engine(guarded.database_url)
    with engine.begin() as connection:
        connection.execute(delete(ApiKey))
        connection.execute(insert(ApiKey), rows)
    engine.dispose()
    wait_for_keys(guarded, *made.values())
    return made


@pytest.fixture
def visitor(guarded: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=guarded.url, headers=HTML, timeout=90, follow_redirects=True) as made:
        yield made


def shown_key(answer: httpx2.Response) -> str:
    (secret,) = re.findall(r"guichet_[A-Za-z0-9_-]{43}", answer.text)
    return str(secret)


def test_administrator_makes_rotates_and_revokes_a_key(
    visitor: httpx2.Client, guarded: Stack, secrets: dict[str, str]
) -> None:
    sign_in(visitor, secrets["root"])
    page = visitor.get("/console/keys")
    assert "root yours" in check_page(page)
    made = submit(visitor, "/console/keys", {"name": "<i>Ana</i>", "scope_predict": "1", "scope_read": "1"})
    assert "The key of <i>Ana</i> is made" in check_page(made)
    secret = shown_key(made)
    with guarded.client() as client:
        signed = {"Authorization": f"Bearer {secret}"}
        assert client.get("/models", headers=signed).status_code == 200
        again = visitor.get("/console/keys")
        assert secret not in again.text
        form = r'action="/console/keys/(\w+)/rotate"(?:(?!action=)[^§])*Rotate the key of &lt;i&gt;Ana'
        (key_id,) = re.findall(form, again.text)  # keys made within a second are in any order
        rotated = submit(visitor, f"/console/keys/{key_id}/rotate", {})
        assert "The old one is no longer valid." in check_page(rotated)
        assert client.get("/models", headers=signed).status_code == 401
        fresh = {"Authorization": f"Bearer {shown_key(rotated)}"}
        assert client.get("/models", headers=fresh).status_code == 200
        gone = submit(visitor, f"/console/keys/{key_id}/revoke", {})
        check_page(gone)
        assert gone.url.path == "/console/keys"
        assert client.get("/models", headers=fresh).status_code == 401
    text = check_page(visitor.get("/console/logs/audit"))
    for action in ("key.created", "key.rotated", "key.revoked"):
        assert action in text
    assert secret not in text


def test_administrator_who_rotates_the_own_key_stays_signed_in(visitor: httpx2.Client, secrets: dict[str, str]) -> None:
    sign_in(visitor, secrets["root"])
    page = visitor.get("/console/keys").text
    own = re.search(
        r'owner=(\w+)"><code>(\w+)</code></a></td>\s*<td data-label="Scopes"><span><span class="tag">admin', page
    )
    assert own is not None
    rotated = submit(visitor, f"/console/keys/{own[1]}/rotate", {})
    assert "root yours" in check_page(rotated)
    assert visitor.get("/console/keys").url.path == "/console/keys"
    refused = submit(visitor, f"/console/keys/{own[1]}/revoke", {})
    assert "make another first" in check_page(refused, 409)


def test_form_without_a_name_or_scopes_says_what_is_missing(visitor: httpx2.Client, secrets: dict[str, str]) -> None:
    sign_in(visitor, secrets["root"])
    check_page(submit(visitor, "/console/keys", {"name": " ", "scope_read": "1"}), 422)
    answer = submit(visitor, "/console/keys", {"name": "a robot"})
    check_page(answer, 422)
    assert 'value="a robot"' in answer.text


def test_key_that_only_reads_sees_neither_logs_nor_keys(visitor: httpx2.Client, secrets: dict[str, str]) -> None:
    sign_in(visitor, secrets["reader"])
    page = visitor.get("/console/models").text
    assert "/console/logs" not in page
    assert "/console/keys" not in page
    assert "/console/train" not in page
    for path in ("/console/logs/requests", "/console/keys", "/console/train", "/console/models/attrition/quality"):
        answer = visitor.get(path)
        assert "Not allowed" in check_page(answer, 403)
        assert 'method="post"' not in answer.text.partition("<main")[2]
    check_page(submit(visitor, "/console/keys", {"name": "x", "scope_admin": "1"}), 403)
    check_page(submit(visitor, "/console/keys/x/revoke", {}), 403)
    assert visitor.get("/console/models/attrition/card").status_code == 200


def test_open_service_shows_no_buttons_for_keys(browser: httpx2.Client) -> None:
    answer = browser.get("/console/keys")
    assert "asks for no keys" in check_page(answer)
    assert 'method="post"' not in answer.text.partition("<main")[2]
    check_page(submit(browser, "/console/keys", {"name": "x", "scope_admin": "1"}), 409)
