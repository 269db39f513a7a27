"""The format of an API key, for code that needs no other part of the API."""

import re

KEY_PREFIX = "guichet_"


def is_key(text: str) -> bool:
    """Return whether a text has the format of a key from `python -m api.keys generate`."""
    return re.fullmatch(re.escape(KEY_PREFIX) + r"[A-Za-z0-9_-]{43}", text) is not None
