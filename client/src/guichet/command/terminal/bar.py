"""Progress on stderr: one line that moves on a terminal, a line now and then where it is not one."""

import time
from types import TracebackType

from guichet.command.terminal.console import Console, clean

EVERY = 0.1  # seconds between two looks of the bar
PLAIN_EVERY = 5.0  # seconds between two plain lines
CLEAR = "\r\x1b[K"


class Bar:
    """The progress of one thing after another. Use it as a context manager: it clears its line in the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moves = console.is_terminal
        self._full, self._empty = ("█", "░") if console.can_write("█░") else ("#", "-")
        self._label = ""
        self._text = ""
        self._shown_at = float("-inf")
        self._is_dirty = False

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, label: str, done: float, total: float | None, text: str, *, is_transfer: bool = False) -> None:
        """Show the progress; `text` is a sentence for it. Only a long transfer is worth a plain line."""
        now = time.monotonic()
        is_new = label != self._label
        is_full = total is not None and done >= total
        due = now - self._shown_at >= (EVERY if self._moves else PLAIN_EVERY)
        label = clean(label)
        line = f"{label}: {text}"
        if is_transfer and is_new and not self._moves:
            self._label, self._shown_at = label, now
            return
        if line == self._text or not (due or ((is_new or is_full) and (self._moves or not is_transfer))):
            return
        self._label, self._text, self._shown_at = label, line, now
        if self._moves:
            self._draw(label, done, total, text)
        else:
            self._console.tell(line)

    def clear(self) -> None:
        """Take the bar away, so that other lines can be written."""
        if self._is_dirty:
            self._console.err.write(CLEAR)
            self._console.err.flush()
            self._is_dirty = False
        self._label = self._text = ""  # what comes next is another thing, even under the same name

    def _draw(self, label: str, done: float, total: float | None, text: str) -> None:
        share = min(done / total, 1) if total else 0
        room = self._console.width - len(label) - len(text) - 10
        bar = ""
        if total and room >= 5:
            cells = min(room, 30)
            full = int(share * cells)
            bar = f" {self._full * full}{self._empty * (cells - full)}"
        percent = f"{share:4.0%}" if total else "    "
        line = f"{label} {percent}{bar} {text}"
        self._console.err.write(CLEAR + line[: self._console.width - 1])
        self._console.err.flush()
        self._is_dirty = True
