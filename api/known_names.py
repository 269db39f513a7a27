"""Protection of AUTH=open: the port accepts everyone, so web pages of other hosts must not reach it through a browser.

A page can send requests to 127.0.0.1 (cross-site request forgery), and read the answers where its own name is made to
mean 127.0.0.1 (DNS rebinding). The browser says in Origin and Host for whom it asks: both have to be names of this
machine, or those of ALLOWED_HOSTS.
"""

import ipaddress
from collections.abc import Awaitable
from functools import lru_cache

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors.handlers import respond
from api.http.prefix import route_path
from shared.errors import Forbidden, GuichetError, UnsupportedMediaType

_ADVICE = "Call it as 127.0.0.1 or localhost, name others in ALLOWED_HOSTS, or set AUTH=keys."


class KnownNames:
    """Refuses requests with a Host or Origin other than this machine's names and `names`.

    And JSON without a Content-Type, which a page may send unasked: to say `application/json`, its browser has to ask
    first (CORS), and gets no for an answer.
    """

    def __init__(self, app: ASGIApp, owner: FastAPI, names: frozenset[str]) -> None:
        self._app = app
        self._owner = owner  # whose error handlers answer
        self._is_known = lru_cache(maxsize=64)(lambda place: is_local(place) or host_of(place) in names)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle one request. An accepted one is passed on without another layer around it."""
        error = self._fault(scope) if scope["type"] == "http" else None
        return self._app(scope, receive, send) if error is None else self._refuse(error, scope, receive, send)

    async def _refuse(self, error: GuichetError, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._owner
        request = Request(scope, receive, send)
        response = await respond(request, error)
        await response(scope, receive, send)

    def _fault(self, scope: Scope) -> GuichetError | None:
        has_body = has_type = False
        for name, value in scope["headers"]:
            if name == b"host":
                if value and not self._is_known(value):  # HTTP/1.0 may have none
                    return _forbidden("answers under names of this machine only, and the request's Host is another")
            elif name == b"origin":
                if not self._is_known(value.partition(b"//")[2]):
                    return _forbidden("takes no requests from web pages of other hosts, as the request's Origin is")
            elif name == b"content-type":
                has_type = True
            elif (name == b"content-length" and value != b"0") or name == b"transfer-encoding":
                has_body = True
        if has_body and not has_type and self._reads_json(route_path(scope)):
            return UnsupportedMediaType("The body has no Content-Type: send it with Content-Type: application/json.")
        return None

    def _reads_json(self, path: str) -> bool:
        """Return whether a body without a type would be read as JSON: no file, and no tensors, which may be bytes."""
        about = self._owner.state.paths.at(path)
        return about.sends != "file" and not (about.protocol is not None and about.protocol.has_bytes)


def _forbidden(reason: str) -> Forbidden:
    return Forbidden(f"AUTH=open {reason}. {_ADVICE}")


def is_local(place: bytes) -> bool:
    """Return whether `host` or `host:port` is a name of this machine only."""
    host = host_of(place)
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(place: bytes) -> str:
    """Return the host of `host` or `host:port`, in lower case, without the brackets of IPv6 and without a last dot."""
    host = place.decode("latin-1").lower()
    if host.startswith("["):
        host, _, port = host[1:].partition("]")
        return host if not port or port.startswith(":") else ""
    return host.partition(":")[0].removesuffix(".")
