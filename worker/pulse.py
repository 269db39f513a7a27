"""The pulse of a worker process: it renews leases, shows that it lives, and ends what is stuck.

It beats in a thread of its own, so that leases hold while the main thread scores. A model that never returns cannot
be interrupted from Python, only ended with its process: the pulse gives the jobs back first (one that ran alone has
then failed by its own timeout; several are tried again one by one) and kills the process; the pool starts another.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func
from sqlalchemy.dialects.postgresql import insert

from shared import jobs
from shared.config import Settings
from shared.jobs import Claim
from shared.tables import Worker

log = logging.getLogger(__name__)


class Pulse:
    """A thread that beats every `heartbeat_seconds`, and looks for stuck claims every fifth of a second."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        name: str,
        lanes: Sequence[str],
        loaded: Callable[[], list[str]],
        refused: Callable[[], dict[str, str]] = dict,
        visible: bool = True,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._name = name
        self._lanes = ",".join(lanes)
        self._loaded = loaded
        self._refused = refused
        self._visible = visible
        self._next_beat = 0.0
        self._lock = threading.Lock()
        self._held: Sequence[Claim] = ()
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def show(self) -> None:
        """Let the process be seen in the table of workers from now on: it can score."""
        self._visible = True
        self._next_beat = 0.0

    def stop(self) -> None:
        """Stop beating."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    @contextmanager
    def holding(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Keep the leases of these claims alive, until the shortest of their timeouts is over."""
        with self._lock:
            self._held = claims
            self._deadline = time.monotonic() + min(claim.timeout_seconds for claim in claims)
        try:
            yield
        finally:
            with self._lock:
                self._held = ()
                self._deadline = float("inf")

    def _run(self) -> None:
        while not self._stopping.wait(0.2):
            with self._lock:
                held, overdue = self._held, time.monotonic() > self._deadline
            if overdue:
                self._end(held)
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + self._settings.heartbeat_seconds
                try:
                    with self._engine.connect() as connection:
                        self._beat(connection, held)
                except Exception:  # without a pulse, leases run out and nothing ends a stuck model: it must go on
                    log.exception("a heartbeat was missed; leases last %s s", self._settings.lease_seconds)

    def _beat(self, connection: Connection, held: Sequence[Claim]) -> None:
        if held:
            jobs.heartbeat(connection, held, lease_seconds=self._settings.lease_seconds)
        if not self._visible:
            return
        told = {"lanes": self._lanes, "models": self._loaded(), "refused": self._refused()}
        connection.execute(
            insert(Worker)
            .values(id=self._name, **told)
            .on_conflict_do_update(index_elements=[Worker.id], set_={"seen_at": func.now(), **told})
        )

    def _end(self, held: Sequence[Claim]) -> None:
        try:
            with self._engine.connect() as connection:
                if len(held) == 1:
                    jobs.fail(
                        connection,
                        held[0],
                        code="timeout",
                        message=f"the job ran longer than its timeout of {held[0].timeout_seconds:g} s",
                    )
                else:
                    jobs.release(connection, held, suspect=True)
        except Exception:  # whatever it is, the process has to end
            log.exception("the claims of a stuck run could not be given back; their leases will run out")
        with self._lock:
            if self._held is not held:
                return  # it ended after all, in the last moment; what it stores is fenced
        log.error("a claim of %d jobs is stuck past its timeout; this process ends itself", len(held))
        os.kill(os.getpid(), signal.SIGKILL)
