"""`make dockerfile`: write the Dockerfile for `docker build .`, the one of the Space; a test holds it current.

A newcomer wants one container that runs, with the example models in it: that is the image of the Space.
"""

import sys

from scripts.checkout import ROOT
from scripts.space.folder import make_dockerfile

FILE = ROOT / "Dockerfile"
_USE = (
    "# `docker build -t guichet . && docker run --rm -p 7860:7860 guichet`: one container, with the example models.\n"
    "# -v guichet:/data keeps what is stored. `make dockerfile` writes this file.\n"
)


def render() -> str:
    """Return the file."""
    parts = (ROOT / "Dockerfile.api", ROOT / "deploy" / "space" / "Dockerfile.stage")
    return _USE + make_dockerfile(*(path.read_text(encoding="utf-8") for path in parts))


def main() -> int:
    """Write it."""
    FILE.write_text(render(), encoding="utf-8")
    print(f"written: {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
