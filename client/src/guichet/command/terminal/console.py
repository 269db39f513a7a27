"""The output of the command: results on stdout, everything else on stderr."""

import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO


class Console:
    """The two streams of the command, and their abilities."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        for stream in (self.out, self.err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal without é still shows the rest

    def say(self, text: str) -> None:
        """Write a line of the result."""
        self.out.write(f"{clean(text)}\n")
        self.out.flush()

    def say_json(self, value: object) -> None:
        """Write the result as JSON, on one line."""
        self.out.write(json.dumps(value) + "\n")
        self.out.flush()

    def copy(self, path: Path) -> None:
        """Write the bytes of the requested file."""
        self.out.flush()
        with path.open("rb") as file:
            shutil.copyfileobj(file, self.out.buffer)
        self.out.buffer.flush()

    def tell(self, text: str) -> None:
        """Write a line about what happens."""
        self.err.write(f"{clean(text)}\n")
        self.err.flush()

    def complain(self, text: str) -> None:
        """Write a sentence about what went wrong."""
        self.tell(f"guichet: {text}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table: columns as wide as they need, numbers to the right."""
        lines = [list(header), *([clean(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        right = [all(_is_number(row[column]) for row in lines[1:]) for column in range(len(header))]
        for line in lines:
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ]
            self.out.write("  ".join(cells).rstrip() + "\n")
        self.out.flush()

    @property
    def is_terminal(self) -> bool:
        """Whether stderr can show a bar that moves."""
        return self.err.isatty() and os.environ.get("TERM", "") != "dumb"

    @property
    def width(self) -> int:
        """Columns of the terminal on stderr."""
        try:
            return os.get_terminal_size(self.err.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def can_write(self, text: str) -> bool:
        """Return whether stderr's encoding has these characters."""
        try:
            text.encode(self.err.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True


def clean(text: str) -> str:
    """Return text without what could steer a terminal: names and messages come from elsewhere."""
    return "".join(character if character.isprintable() or character == "\n" else "�" for character in text)


def count(number: float) -> str:
    """Return a number as people read it: 45,000."""
    return f"{number:,.0f}"


def rows(number: int) -> str:
    """Return a number of rows in words."""
    return "1 row" if number == 1 else f"{count(number)} rows"


def with_errors(number: int) -> str:
    """Return a number of rows that have errors in words."""
    return "1 with an error" if number == 1 else f"{count(number)} with errors"


def duration(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(number: float) -> str:
    """Return a number of bytes as people read it: 12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _is_number(cell: str) -> bool:
    return not cell.strip() or cell.replace(",", "").replace(".", "").isdigit()
