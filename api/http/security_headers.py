"""Security headers of every answer: no scripts, no cache, no foreign frame.

Answers of the API are never pages. The documentation is: it may load its own files, run its own script (known by its
SHA-256) and ask this service. So is the console, which has no code and no style inside its pages.
"""

import base64
import hashlib
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]

_PAGES = frozenset(["/docs", "/docs/oauth2-redirect", "/redoc"])
_FILES = ("/static-offline-docs/", "/console/static/")
_CONSOLE = "/console"
_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """The headers of each kind of answer, but for Cache-Control.

    `frame_ancestors` lists the origins that may show it in a frame, in words of a Content-Security-Policy.
    """

    def __init__(self, frame_ancestors: str) -> None:
        ancestors = " ".join(f"'{word}'" if word in ("none", "self") else word for word in frame_ancestors.split())
        self._ancestors = ancestors.encode()
        frames = {"'none'": b"DENY", "'self'": b"SAMEORIGIN"}.get(ancestors)
        self.page: RawHeaders = [  # but for its policy, which `Pages` finds
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            *([] if frames is None else [(b"x-frame-options", frames)]),  # it cannot say which others
        ]
        policy = (b"content-security-policy", b"default-src 'none'; frame-ancestors " + self._ancestors)
        self.answer: RawHeaders = [*self.page, policy]
        console = (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors " + self._ancestors
        )
        # With no-referrer, browsers would send the console's own forms with `Origin: null`, as if they were of nobody.
        kept = [header for header in self.page if header[0] != b"referrer-policy"]
        self.console: RawHeaders = [
            *kept,
            (b"referrer-policy", b"same-origin"),
            (b"content-security-policy", console),
        ]

    def of(self, path: str) -> RawHeaders:
        """Return the headers of an answer at a path; `page` stands for pages whose policy is added later."""
        if path in _PAGES:
            return self.page
        return self.console if path == "/" or path.startswith(_CONSOLE) else self.answer

    def policy(self, page: bytes) -> bytes:
        """Return the Content-Security-Policy of a page."""
        digests = [base64.b64encode(hashlib.sha256(script).digest()) for script in _SCRIPT.findall(page)]
        scripts = b" ".join(b"'sha256-" + digest + b"'" for digest in digests)
        return (
            b"default-src 'none'; script-src 'self' " + scripts + b"; style-src 'self' 'unsafe-inline'; "
            b"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; "
            b"form-action 'self'; frame-ancestors " + self._ancestors
        )


def may_be_kept(path: str) -> bool:
    """Return whether a browser may cache an answer: files of pages, and never data of a caller."""
    return path.startswith(_FILES) or path in _PAGES


class Pages:
    """Gives each page of the documentation the policy that lets its own script run, and no other."""

    def __init__(self, app: ASGIApp, headers: SecurityHeaders) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        start: Message = {}

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            if start:  # pages are small: they come in one piece
                policy = (b"content-security-policy", self._headers.policy(message.get("body", b"")))
                await send({**start, "headers": [*start["headers"], policy]})
                start.clear()
            await send(message)

        await self._app(scope, receive, send_with_policy)
