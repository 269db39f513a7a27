"""What a browser loads beside the pages: one stylesheet, one module, htmx, an icon. All of it comes from this service.

Addresses hold a digest of the content: a browser keeps each file for ever, and asks for a new one after an upgrade.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from api.http.prefix import link
from shared.errors import NotFound

STATIC = Path(__file__).with_name("static")
PREFIX = "/console/static/"
TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent, plain and compressed."""

    content: bytes
    compressed: bytes
    digest: str  # the first 16 digits of its SHA-256


@cache
def asset(name: str) -> Asset:
    """Return a file of TYPES, read once."""
    content = (STATIC / name).read_bytes()
    return Asset(content, gzip.compress(content, 9, mtime=0), hashlib.sha256(content).hexdigest()[:16])


def address(name: str) -> str:
    """Return the address of a file."""
    return link(f"{PREFIX}{asset(name).digest}/{name}")


def asset_response(request: Request, digest: str, name: str) -> Response:
    """Return a file; raise NotFound for another name, or for the digest of another release."""
    if name not in TYPES or asset(name).digest != digest:
        raise NotFound("There is no such file of the console: load its page again.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset(name).compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=TYPES[name])
    return Response(asset(name).content, headers=headers, media_type=TYPES[name])
