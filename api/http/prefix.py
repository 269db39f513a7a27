"""The path prefix of a reverse proxy: `/scores` where callers see `/scores/jobs`.

It is ROOT_PATH, or what a proxy whose word is taken (PROXY_HOPS) says in X-Forwarded-Prefix. The proxy may cut the
prefix off or leave it on. Links, Location and the documentation bear it; everything inside knows the paths without.
"""

import re
from contextvars import ContextVar

from starlette.types import Scope

from shared.config.settings import ROOT_PATH

_CUT_OFF = re.compile(ROOT_PATH)
_current: ContextVar[str] = ContextVar("prefix", default="")


def link(path: str) -> str:
    """Return a path of the service as the caller of this request sees it."""
    return _current.get() + path


def route_path(scope: Scope) -> str:
    """Return the path of a request as the routes know it."""
    path: str = scope["path"]
    return path[len(root) :] if (root := scope["root_path"]) else path


class Prefix:
    """Finds the prefix of each request."""

    def __init__(self, root_path: str, *, proxy_hops: int) -> None:
        self._root_path = root_path
        self._is_proxy_heard = proxy_hops > 0

    def of(self, scope: Scope) -> str:
        """Return the prefix of a request, empty without one."""
        if not self._is_proxy_heard:
            return self._root_path
        for name, value in scope["headers"]:
            if name == b"x-forwarded-prefix":
                prefix: str = value.decode("latin-1").rstrip("/")
                return prefix if len(prefix) <= 200 and _CUT_OFF.fullmatch(prefix) else self._root_path
        return self._root_path

    def put_on(self, scope: Scope, prefix: str) -> Scope:
        """Return the scope of the same request below its prefix, as ASGI has it: `path` begins with `root_path`."""
        _current.set(prefix)
        path: str = scope["path"]
        whole = path if path.startswith(f"{prefix}/") else prefix + ("/" if path == prefix else path)
        return {**scope, "path": whole, "root_path": prefix}
