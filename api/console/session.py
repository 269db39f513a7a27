"""Sessions of the console: a cookie that holds the reader's API key, the end of the session, and a seal of both.

Nothing is stored: the service knows a key by its SHA-256 alone, so that only who has the key can make the seal, and
whoever reads the database cannot. A revoked key ends its sessions at once, in every process. The cookie is as secret as
the key: no script reads it (HttpOnly), no other site's page sends it (SameSite=Strict), and no route but the console's
takes it (docs/decisions/0032-console.md).
"""

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.auth.callers import ANYONE, VISITOR, Scope, hash_key
from api.auth.key_format import is_key
from api.http.prefix import link
from api.services import services_of
from shared.errors import Forbidden

COOKIE = "guichet_session"
SECONDS = 12 * 3_600  # that a session lasts
SAFE_METHODS = ("GET", "HEAD")
_ADOPTED = "guichet.session_key"  # of a request's scope


@dataclass(frozen=True, slots=True)
class Session:
    """What the cookie of a request says: a key, none, or that of a session that has ended."""

    key: str = ""
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who reads a page, for what it shows: buttons that a key's scopes allow. The routes decide, not this."""

    name: str | None  # of the key; None without one
    scopes: frozenset[str]
    needs_key: bool  # whether the service asks for keys at all

    @property
    def is_signed_in(self) -> bool:
        """Whether the session's key is valid."""
        return self.name is not None

    @property
    def may_read(self) -> bool:
        """Whether models can be read."""
        return not self.scopes.isdisjoint((Scope.READ, Scope.PREDICT, Scope.ADMIN))

    @property
    def may_predict(self) -> bool:
        """Whether rows and files can be sent."""
        return not self.scopes.isdisjoint((Scope.PREDICT, Scope.ADMIN))

    @property
    def may_list(self) -> bool:
        """Whether jobs can be listed: not by a visitor, who has none but those whose id it knows."""
        return self.may_read and (self.is_signed_in or not self.needs_key)

    @property
    def may_change(self) -> bool:
        """Whether jobs can be canceled and taken up again."""
        return self.may_predict and self.may_list

    @property
    def is_admin(self) -> bool:
        """Whether models can be changed, and everyone's jobs read."""
        return Scope.ADMIN in self.scopes


def seal(key: str, *, now: float) -> str:
    """Return the value of the cookie for a session of this key that begins now."""
    end = int(now) + SECONDS
    return f"{end}.{_signature(key, end)}.{key}"


def unseal(value: str, *, now: float) -> Session:
    """Return the session of a cookie's value; one that is over, or was altered, has ended."""
    if not value:
        return Session()
    end, _, rest = value.partition(".")
    signature, _, key = rest.partition(".")
    if not (end.isascii() and end.isdigit() and len(end) < 12 and is_key(key)):
        return Session(has_ended=True)
    is_sealed = hmac.compare_digest(signature.encode(), _signature(key, int(end)).encode())
    return Session(key) if is_sealed and now < int(end) else Session(has_ended=True)


def _signature(key: str, end: int) -> str:
    return hmac.new(key.encode(), b"guichet console session until %d" % end, hashlib.sha256).hexdigest()[:32]


def read_session(request: Request) -> Session:
    """Return the session of a request; none where the service asks for no keys."""
    if services_of(request).settings.auth == "open":
        return Session()
    if _ADOPTED in request.scope:
        return Session(request.scope[_ADOPTED])
    return unseal(request.cookies.get(COOKIE, ""), now=time.time())


def adopt_key(request: Request, key: str) -> None:
    """Let the rest of this request be that of another key: its own was given a new secret meanwhile."""
    request.scope[_ADOPTED] = key


def begin_session(request: Request, response: Response, key: str) -> None:
    """Give the browser the cookie of a new session; it forgets it when it is closed."""
    response.set_cookie(COOKIE, seal(key, now=time.time()), **_attributes(request))  # type: ignore[arg-type]


def end_session(request: Request, response: Response) -> None:
    """Take the cookie away from the browser."""
    response.delete_cookie(COOKIE, **_attributes(request))  # type: ignore[arg-type]


def _attributes(request: Request) -> dict[str, object]:
    return {"path": link("/"), "secure": is_encrypted(request), "httponly": True, "samesite": "strict"}


def is_encrypted(request: Request) -> bool:
    """Tell whether the reader's browser speaks TLS, with this service or with a proxy whose word is taken."""
    if request.scope["scheme"] == "https":
        return True
    is_proxy_heard = services_of(request).settings.proxy_hops > 0
    return is_proxy_heard and request.headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https"


def viewer_of(request: Request) -> Viewer:
    """Return who reads a page."""
    services = services_of(request)
    if services.settings.auth == "open":
        return Viewer(None, ANYONE.scopes, needs_key=False)
    session = read_session(request)
    key = services.catalog.snapshot.keys.get(hash_key(session.key)) if session.key else None
    if key is not None:
        return Viewer(key.name, key.scopes, needs_key=True)
    is_visitor = services.settings.auth == "predict-open" and not session.key
    return Viewer(None, VISITOR.scopes if is_visitor else frozenset(), needs_key=True)


def check_origin(request: Request) -> None:
    """Raise Forbidden for a form that another site's page sent, or of which nobody says where it comes from.

    Browsers say it in Sec-Fetch-Site, and where the connection is not trusted enough for that, in Origin.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        raise Forbidden("This form was sent by a page of another site: open the console itself and send it there.")
    origin = request.headers.get("origin")
    if origin is None and site is not None:
        return
    if origin is None or urlsplit(origin).netloc.lower() not in _own_names(request):
        raise Forbidden(
            "This form does not come from a page of the console, by its Origin: open the console and send it there. "
            "A proxy must pass the Host header on."
        )


def host_of(request: Request) -> str:
    """Return the host, and the port where it has one, under which the reader's browser knows this service."""
    return _forwarded_host(request) or request.headers.get("host", "localhost")


def _own_names(request: Request) -> set[str]:
    return {request.headers.get("host", "").lower(), _forwarded_host(request).lower()} - {""}


def _forwarded_host(request: Request) -> str:
    if services_of(request).settings.proxy_hops == 0:
        return ""
    return request.headers.get("x-forwarded-host", "").partition(",")[0].strip()
