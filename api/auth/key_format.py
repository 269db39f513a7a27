"""The format of an API key, for code that needs no other part of the API."""

import re

KEY_PREFIX = "guichet_"


def is_key(text: str) -> bool:
    """Tell whether a text is a key as `python -m api.keys generate` makes them."""
    return re.fullmatch(re.escape(KEY_PREFIX) + r"[A-Za-z0-9_-]{43}", text) is not None
