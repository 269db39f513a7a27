"""The call of a page as a program makes it: for curl, and for Python."""

import json
import shlex
from pprint import pformat
from typing import Any


def curl(url: str, body: Any, *, needs_key: bool) -> str:  # noqa: ANN401 - any JSON value
    """Return a command that POSTs a body as JSON; the key is read from the environment."""
    lines = [f"curl {shlex.quote(url)}", "-H 'Content-Type: application/json'"]
    if needs_key:
        lines.append('-H "Authorization: Bearer $GUICHET_KEY"')
    lines.append(f"-d {shlex.quote(json.dumps(body, ensure_ascii=False, indent=1))}")
    return " \\\n  ".join(lines)


def curl_file(url: str, *, needs_key: bool) -> str:
    """Return a command that uploads a file."""
    key = ' \\\n  -H "Authorization: Bearer $GUICHET_KEY"' if needs_key else ""
    return f"curl {shlex.quote(url)}{key} \\\n  -F file=@rows.csv"


def python(url: str, body: Any, *, needs_key: bool) -> str:  # noqa: ANN401 - any JSON value
    """Return a program of the standard library that POSTs a body as JSON and prints the answer."""
    headers = '"Content-Type": "application/json"'
    if needs_key:
        headers += ', "Authorization": "Bearer " + os.environ["GUICHET_KEY"]'
    imports = "import json\nimport os\nimport urllib.request" if needs_key else "import json\nimport urllib.request"
    return (
        f"{imports}\n\n"
        f"body = {pformat(body, width=88, sort_dicts=False)}\n"
        "request = urllib.request.Request(\n"
        f"    {url!r},\n"
        "    json.dumps(body).encode(),\n"
        f"    {{{headers}}},\n"
        ")\n"
        "with urllib.request.urlopen(request) as answer:\n"
        "    print(json.load(answer))\n"
    )
