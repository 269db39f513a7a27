"""The Cookie header of a request: only what the console has set reaches whoever parses it.

Python before 3.11.10 and 3.12.6 takes the square of their length to parse quoted cookies (CVE-2024-7592), and FastAPI
parses those of every request: 64 KB held the event loop for 7 to 17 s, without a key. The console's cookies are short
and never quoted, so the others are left out before that.
"""

import re

_OCTETS = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]"  # RFC 6265, section 4.1.1: neither quotes nor backslashes
_OWN = re.compile(rb"guichet_[a-z]{1,20}=" + _OCTETS + rb"{0,200}")

RawHeaders = list[tuple[bytes, bytes]]


def with_own_cookies(headers: RawHeaders) -> RawHeaders:
    """Return the headers of a request without cookies of others; in time linear in their length."""
    kept: RawHeaders = []
    for name, value in headers:
        if name != b"cookie":
            kept.append((name, value))
        elif own := b"; ".join(pair for pair in map(bytes.strip, value.split(b";")) if _OWN.fullmatch(pair)):
            kept.append((name, own))
    return kept
