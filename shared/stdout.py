"""The standard output of a command, whose reader may leave before its end: `list | head`."""

import os
import select
import sys
from collections.abc import Callable

UNREAD = 141  # 128 and the number of SIGPIPE: how a shell reports a program whose reader has left


def run(main: Callable[[], int]) -> int | str | None:
    """Run a command and return its exit code; it ends quietly with `UNREAD` when the reader of its output leaves.

    Commands that check something have not finished then: 0 would say that all is well. A connection to anything else
    that breaks raises BrokenPipeError as before.
    """
    try:
        try:
            code: int | str | None = main()
        except SystemExit as ended:  # argparse has printed its help, or what is wrong with the arguments
            code = ended.code
        sys.stdout.flush()  # Python would do it later, and print a warning
    except BrokenPipeError:
        if not _is_unread():
            raise
        discard()
        return UNREAD
    return code


def discard() -> None:
    """Drop what is still to be written to standard output: Python writes it when it ends, and would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_unread() -> bool:
    """Tell whether standard output is a pipe or a socket that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always reported
    return bool(poll.poll(0))
