"""The heartbeat of a worker process: it renews leases, records that the worker lives, and ends stuck work.

It beats in a thread of its own, so that leases hold while the main thread scores. A model that never returns cannot
be interrupted from Python, only ended with its process: the heartbeat gives the jobs back first (one that ran alone has
then failed by its own timeout; several are tried again one by one) and kills the process; the pool starts another.
Where native code keeps the GIL, no thread of Python runs, and this one neither: then an alarm of the kernel ends the
process a second later, and its leases run out as those of any that died.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func
from sqlalchemy.dialects.postgresql import insert

from shared.background import Background
from shared.config.settings import Settings
from shared.jobs import transitions as jobs
from shared.jobs.chunks import transitions as chunks
from shared.jobs.chunks.transitions import ChunkClaim
from shared.jobs.transitions import Claim
from shared.observability.metrics import METRICS
from shared.tables import Worker

log = logging.getLogger(__name__)

ALARM_SECONDS = 1.0  # after a deadline: the heartbeat looks five times a second, unless it cannot
GIVE_UP_SECONDS = 40.0  # for the heartbeat to give back what is stuck; a database that is silent is left after 35


class Heartbeat:
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
        alarm: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._name = name
        self._lanes = ",".join(lanes)
        self._loaded = loaded
        self._refused = refused
        self._visible = visible
        self._alarm = alarm
        self._grace = ALARM_SECONDS
        self._is_missed = False
        self._next_beat = 0.0
        self._lock = threading.Lock()
        self._held: list[HeldLease] = []
        self._thread = Background(self._run, name="heartbeat")

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def mark_ready(self) -> None:
        """Let the process be seen in the table of workers from now on: it can score."""
        self._visible = True
        self._next_beat = 0.0

    def stop(self) -> None:
        """Stop beating."""
        self._thread.stop(2)

    @contextmanager
    def hold(self, claims: Sequence[Claim]) -> "Iterator[HeldLease]":
        """Keep the leases of these claims alive while the block runs, and end the process after the least timeout."""
        held = _HeldJobs(claims)
        with self._keeping(held, min(claim.timeout_seconds for claim in claims)):
            yield held

    @contextmanager
    def hold_chunk(self, claim: ChunkClaim, *, timeout_seconds: float) -> "Iterator[HeldLease]":
        """Keep the lease of a chunk of a CSV file alive while the block runs, and end the process after the timeout."""
        held = _HeldChunk(claim)
        with self._keeping(held, timeout_seconds):
            yield held

    @contextmanager
    def loading(self, label: str, seconds: float, ending: Callable[[], None]) -> Iterator[None]:
        """End the process, after a call of `ending`, unless the block loads a model within its time limit."""
        with self._keeping(_Load(label, ending), seconds):
            yield

    @contextmanager
    def _keeping(self, held: "HeldLease", seconds: float) -> Iterator[None]:
        held.deadline = time.monotonic() + seconds
        with self._lock:
            self._held.append(held)
            self._set_alarm()
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(held)
                self._set_alarm()

    def unlimit(self, held: "HeldLease") -> None:
        """Remove the time limit of a held lease: its rows are scored, and have to be stored."""
        with self._lock:
            held.deadline = math.inf
            self._set_alarm()

    def is_holding(self) -> bool:
        """Return whether any lease is held."""
        return bool(self._held)

    def tokens(self) -> list[int]:
        """Return the tokens of all that is held."""
        with self._lock:
            return [token for held in self._held for token in held.tokens()]

    def _set_alarm(self) -> None:
        """Have the alarm go off soon after the first deadline: native code that keeps the GIL stops this thread."""
        deadline = min((held.deadline for held in self._held), default=math.inf)
        left = 0.0 if deadline == math.inf else max(deadline + self._grace - time.monotonic(), 0.001)
        self._alarm(left)

    def _run(self) -> None:
        while not self._thread.wait(0.2):
            with self._lock:
                held = list(self._held)
            now = time.monotonic()
            for one in held:
                if now > one.deadline:
                    self._kill_stuck(one)
            if now >= self._next_beat:
                self._next_beat = now + self._settings.heartbeat_seconds
                try:
                    with self._engine.connect() as connection:
                        self._beat(connection, held)
                    if self._is_missed:
                        log.info("heartbeats are stored again")
                    self._is_missed = False
                except Exception:  # without a heartbeat, leases run out and nothing ends a stuck model: it must go on
                    if not self._is_missed:
                        log.exception("a heartbeat was missed; leases last %s s", self._settings.lease_seconds)
                    self._is_missed = True
                    # As soon as the database is back, before anyone takes the leases for those of the dead.
                    self._next_beat = time.monotonic() + min(1.0, self._settings.heartbeat_seconds)
                else:
                    self._flush_metrics()
        self._flush_metrics()

    def _flush_metrics(self) -> None:
        try:
            with self._engine.connect() as connection:
                METRICS.flush(connection)
        except Exception as error:  # noqa: BLE001 - the numbers wait for the next beat, and leases matter more
            log.warning("metrics were not stored: %s", type(error).__name__)

    def _beat(self, connection: Connection, held: "Sequence[HeldLease]") -> None:
        for one in held:
            one.renew(connection, self._settings.lease_seconds)
        if not self._visible:
            return
        values = {"lanes": self._lanes, "models": self._loaded(), "refused": self._refused()}
        connection.execute(
            insert(Worker)
            .values(id=self._name, **values)
            .on_conflict_do_update(index_elements=[Worker.id], set_={"seen_at": func.now(), **values})
        )

    def _kill_stuck(self, held: "HeldLease") -> None:
        with self._lock:
            self._grace = GIVE_UP_SECONDS  # this thread runs, and needs its time to give back what is stuck
            self._set_alarm()
        try:
            with self._engine.connect() as connection:
                held.give_back(connection)
        except Exception:  # whatever it is, the process has to end
            log.exception("the claims of a stuck run could not be given back; their leases will run out")
        with self._lock:
            if held not in self._held or time.monotonic() <= held.deadline:
                self._grace = ALARM_SECONDS
                self._set_alarm()
                return  # it ended after all, in the last moment; what it stores is fenced
        log.error("%s stuck past the timeout; this process ends itself", held.name)
        os.kill(os.getpid(), signal.SIGKILL)


def arm_kernel(seconds: float) -> None:
    """Let the kernel end this process in this number of seconds, whatever it does; 0: never.

    A timer of the kernel sends a signal that this process does not handle: it ends the process without running Python.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)


class HeldLease:
    """Something that this process holds a lease on."""

    name: str
    deadline = math.inf

    def tokens(self) -> list[int]:
        """Return the tokens of the claims."""
        raise NotImplementedError

    def renew(self, connection: Connection, lease_seconds: float) -> None:
        """Renew the lease, if it is still ours."""
        raise NotImplementedError

    def give_back(self, connection: Connection) -> None:
        """Give it back because it is stuck."""
        raise NotImplementedError


class _Load(HeldLease):
    """A model that is being loaded: no job is held by it."""

    def __init__(self, label: str, ending: Callable[[], None]) -> None:
        self.name = f"{label} is being loaded, and"
        self._ending = ending

    def tokens(self) -> list[int]:
        """Return none."""
        return []

    def renew(self, connection: Connection, lease_seconds: float) -> None:
        """Have nothing to renew."""

    def give_back(self, connection: Connection) -> None:
        """Leave a note for the next process of the worker (shared/registry/load_marks.py)."""
        self._ending()


class _HeldJobs(HeldLease):
    """Jobs that are scored in one call."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = claims
        self.name = f"a claim of {len(claims)} jobs is"

    def tokens(self) -> list[int]:
        """Return the tokens of the jobs."""
        return [claim.token for claim in self._claims]

    def renew(self, connection: Connection, lease_seconds: float) -> None:
        """Renew the leases that are still ours."""
        jobs.heartbeat(connection, self._claims, lease_seconds=lease_seconds)

    def give_back(self, connection: Connection) -> None:
        """One that ran alone has failed by its own timeout; several are tried again one by one."""
        if len(self._claims) > 1:
            jobs.release(connection, self._claims, suspect=True)
            return
        seconds = self._claims[0].timeout_seconds
        message = f"the job ran longer than its timeout of {seconds:g} s"
        jobs.fail(connection, self._claims[0], code="timeout", message=message)


class _HeldChunk(HeldLease):
    """A chunk of a CSV file."""

    def __init__(self, claim: ChunkClaim) -> None:
        self._claim = claim
        self.name = f"a chunk of job {claim.job_id} is"

    def tokens(self) -> list[int]:
        """Return the token of the chunk."""
        return [self._claim.token]

    def renew(self, connection: Connection, lease_seconds: float) -> None:
        """Renew the lease if it is still ours."""
        chunks.heartbeat(connection, [self._claim], lease_seconds=lease_seconds)

    def give_back(self, connection: Connection) -> None:
        """Queue it again; after its second death it is cut into smaller ones."""
        chunks.requeue_after_crash(connection, self._claim)
