"""Background threads: they survive their errors, are watched by /health, and never delay the end of the process.

An unexpected error, such as an entry that cannot be written, is logged, and the thread starts again after a moment. If
a thread ends all the same, `ended` names it, and so does /health.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime

from shared.reasons import Reason

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0  # after a failure
PATIENCE_SECONDS = 3.0  # for the present round, when it is stopped


class Background:
    """A daemon thread that runs `run` until it returns, and again whenever it raises an Exception.

    `run` has to return soon after `stop`: it checks `is_stopping`, or pauses by `wait`. If it waits for something else,
    `wake` ends that wait. `stop` then waits for the thread, for a limited time.
    """

    def __init__(self, run: Callable[[], None], *, name: str, wake: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.ended_at: float | None = None  # by the clock of the system
        self._run = run
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def start(self) -> None:
        """Begin; once."""
        _started.add(self)
        self._thread.start()

    def stop(self, timeout: float = PATIENCE_SECONDS) -> None:
        """Stop the thread, and wait for its end for at most `timeout` seconds; harmless if it was not started."""
        self._stopping.set()
        self._wake()
        _started.discard(self)
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for this number of seconds, or until `stop`; return whether the thread has to stop."""
        return self._stopping.wait(seconds)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def _live(self) -> None:
        try:
            while True:
                try:
                    self._run()
                    return
                except Exception:
                    log.exception("the thread %s failed; it begins again", self.name)
                if self._stopping.wait(PAUSE_SECONDS):
                    return
        finally:
            self.ended_at = time.time()


_started: "weakref.WeakSet[Background]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_started.clear)  # the threads are the parent's


def ended() -> dict[str, str]:
    """Return a sentence by name for each thread of this process that has ended though nobody stopped it."""
    ends = {thread.name: thread.ended_at for thread in list(_started) if thread.ended_at is not None}
    return {
        name: Reason("thread_ended", thread=name, at=f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}")
        for name, at in sorted(ends.items())
    }
