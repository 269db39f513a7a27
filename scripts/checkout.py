"""The checkout of these commands, and the error that ends a command with a sentence."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """The command cannot go on; the message says why, and what to do."""
