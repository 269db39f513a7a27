"""`python -m api.probe`: check that the API accepts requests, for the HEALTHCHECK of the image; exit code 0 or 1."""

import http.client
import os
import sys
from collections.abc import Sequence

from shared.startup.container import end_after, note


def main(arguments: Sequence[str] = ()) -> int:
    """Call this container's own API; print any answer other than 200.

    `--end-after N`: after N checks in a row without any answer, it is ended, to be started again.
    """
    limit = end_after(arguments)
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=4)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(2_000).decode("utf-8", "replace")
    except OSError as error:
        print(f"the API does not answer: {error}")
        note(False, limit)
        return 1
    finally:
        connection.close()
    note(True, limit)
    if answer.status != 200:
        print(text)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
