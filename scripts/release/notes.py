"""`python -m scripts.release.notes TAG`: check that a tag may be released, and print its section of CHANGELOG.md.

A tag is `v` and the version. It must be the one in shared/version.py, and its section must bear a date.
"""

import re
import sys
from collections.abc import Sequence

from scripts.checkout import ROOT, Failure
from shared.stdout import run
from shared.version import VERSION

_TAG = re.compile(r"v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the notes of a tag; return 0, or 1 with the reason."""
    names = sys.argv[1:] if arguments is None else arguments
    if len(names) != 1:
        print("say which tag: python -m scripts.release.notes v1.2.3", file=sys.stderr)
        return 2
    try:
        print(notes(names[0], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version=VERSION))
    except (Failure, OSError) as problem:
        print(f"guichet: {problem}", file=sys.stderr)
        return 1
    return 0


def notes(tag: str, changelog: str, *, version: str) -> str:
    """Return the changelog's section of a tag. Raises Failure if the tag must not be released."""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise Failure(f"{tag} is no version: a tag is v1.2.3, or v1.2.3-rc.1")
    if match[1] != version:
        raise Failure(f"the tag says {match[1]} and shared/version.py {version}: correct one of them")
    section = re.search(
        rf"^## {re.escape(version)} \(([^)\n]*)\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None or not section[2].strip():
        raise Failure(f"CHANGELOG.md has no section `## {version} (date)`: write what changed")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", section[1]):
        raise Failure(f"the section {version} of CHANGELOG.md says `{section[1]}`: put the day of the release there")
    return section[2].strip()


if __name__ == "__main__":
    sys.exit(run(main))
