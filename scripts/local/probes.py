"""Requests of `make run` to the service over HTTP, with the standard library only."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import Any

# never through a proxy of the environment: everything is on this machine
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, *, body: object = None, login: str | None = None, timeout: float = 5.0) -> tuple[int, bytes]:
    """Return status and body of the answer to a GET, or with a body to a POST of JSON; status 0: nobody answered.

    A POST asks for an answer at once: while we wait for one, nobody can stop us.
    """
    headers = {"Accept": "application/json"}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers |= {"Content-Type": "application/json", "Prefer": "respond-async"}
    if login is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - our own http:// addresses
    try:
        with _opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def ask_json(url: str, *, body: object = None, timeout: float = 5.0) -> tuple[int, dict[str, Any]]:
    """Send a request as `ask` does, and return status and JSON object (empty if the answer is none)."""
    status, answer = ask(url, body=body, timeout=timeout)
    try:
        content = json.loads(answer)
    except ValueError:
        return status, {}
    return status, content if isinstance(content, dict) else {}
