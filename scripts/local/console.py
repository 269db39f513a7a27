"""The output of `make run`: its own lines, and the log lines of its children."""

import errno
import json
import os
import sys
from pathlib import Path

from scripts.servers.processes import rotate
from shared.observability.logs import make_text_renderer

_COLOURS = ("36", "32", "35", "33", "34", "31")
_AT_ONCE = 64 * 1024  # bytes of one log that are shown between two looks at everything else


class Console:
    """The terminal, or its replacement. `closed` is true after the last reader has gone."""

    def __init__(self) -> None:
        self.closed = False
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._render = make_text_renderer(colors=self._coloured)
        for stream in (sys.stdout, sys.stderr):
            # names of models and folders may hold what a terminal set to ASCII cannot show
            stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]

    def say(self, line: str = "") -> None:
        """Write a line."""
        if self.closed:
            return
        try:
            print(line, flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                return  # a full disk behind it, say: the service goes on, and has its own logs
            self.closed = True
            # or the interpreter would complain at its exit, when it flushes what could not be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def label(self, name: str, place: int) -> str:
        """Return the prefix of a child's lines: its name, in its own colour on a terminal."""
        text = f"{name:<11} |"
        return f"\033[{_COLOURS[place % len(_COLOURS)]}m{text}\033[0m" if self._coloured else text

    def readable(self, line: str) -> list[str]:
        """Return a log line for people: the service's JSON as text, other lines unchanged.

        An exception makes it several lines.
        """
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or not {"time", "level", "logger", "message"} <= entry.keys():
                return [line]
            return str(self._render(None, "", entry)).splitlines()
        except (ValueError, TypeError):  # no JSON, or JSON of somebody else
            return [line]


class Follower:
    """Shows new lines of log files."""

    def __init__(self, console: Console, logs: dict[str, Path]) -> None:
        self._console = console
        self._labels = {log: console.label(name, place) for place, (name, log) in enumerate(logs.items())}
        self._seen = {log: log.stat().st_size if log.exists() else 0 for log in logs.values()}

    def show(self) -> None:
        """Write the complete lines that were added since the last call."""
        for log, label in self._labels.items():
            if not log.exists():
                continue
            rotate(log)
            start = self._seen[log] if log.stat().st_size >= self._seen[log] else 0  # it was rotated
            with log.open("rb") as file:
                file.seek(start)
                added = file.read(_AT_ONCE)
            end = added.rfind(b"\n") + 1 or (len(added) if len(added) == _AT_ONCE else 0)
            self._seen[log] = start + end
            for line in added[:end].decode("utf-8", "replace").splitlines():
                for shown in self._console.readable(line):
                    self._console.say(f"{label} {shown}")
