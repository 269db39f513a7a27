"""The checkout of these commands, and the error that ends a command with a sentence."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """The command cannot continue; the message has the reason and the remedy."""
