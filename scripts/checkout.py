"""The checkout of these commands, its generated pages, and the error that ends a command with a sentence."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """The command cannot continue; the message has the reason and the remedy."""


def write_page(file: Path, text: str) -> int:
    """Write a generated page; with `--print` on the command line, only show it. Return the exit code."""
    if sys.argv[1:] == ["--print"]:
        print(text, end="")
    else:
        file.write_text(text, encoding="utf-8")
        print(f"written: {file.relative_to(ROOT)}")
    return 0
