"""This worker process: its runtime is set up after the fork, lent to tasks, and closed at the end."""

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from celery import current_app

from shared.background import ended
from shared.broker.app import make_redis
from shared.broker.names import Lane
from shared.config.settings import get_settings
from shared.database.engine import make_engine
from shared.observability.logs import identify
from shared.observability.redaction import safe_text
from shared.observability.tracing import start as start_tracing
from shared.registry.loaded_models import ModelCache
from shared.registry.watcher import ModelWatcher
from shared.rescoring.shadow_thread import ShadowThread
from worker.heartbeat import Heartbeat, arm_kernel
from worker.parent import Parent
from worker.runtime import Runtime
from worker.schedule import schedule
from worker.timer import Timer

log = logging.getLogger(__name__)


class TaskFailed(Exception):
    """A task could not do its work; the words are a type's name, and the log has the places."""


_runtime: Runtime | None = None


def start_child(*, lanes: Sequence[str]) -> Runtime:
    """Set up this process after the fork: connections, heartbeat, clock, and the models that serve by default."""
    global _runtime
    settings = get_settings()
    name = f"{socket.gethostname()}:{os.getpid()}"
    identify(worker=name)
    engine = make_engine(settings.database, pool_size=2, autocommit=True)
    claim_engine = make_engine(settings.database, pool_size=1, autocommit=True, durable=False)
    models = ModelCache(engine, settings.models, settings.models_uri)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # Celery's pool gave it a handler, which would be Python
    heartbeat = Heartbeat(
        engine,
        settings,
        name=name,
        lanes=lanes,
        loaded=models.names,
        refused=lambda: models.refused | {name: f"In a worker: {reason}" for name, reason in ended().items()},
        visible=False,
        alarm=arm_kernel,
    )
    app = current_app._get_current_object()  # the proxy would look it up at every use
    bulk_engine = make_engine(settings.database, pool_size=4)
    _runtime = Runtime(settings, name, engine, claim_engine, bulk_engine, make_redis(), app, models, heartbeat)
    if settings.tracing == "otlp":
        _runtime.tracing = start_tracing("guichet-worker")
    models.guard = heartbeat.loading
    heartbeat.start()  # first: whatever loading does, leases and timeouts have to work
    looks_after_all = not lanes or Lane.MAINTENANCE in lanes
    _runtime.timer = Timer(_runtime, schedule(settings, is_audited=looks_after_all))
    _runtime.timer.start()
    models.preload()
    # Who looks after the others also looks into the store; the rest fetch and load what is registered.
    _runtime.arrivals = ModelWatcher(models, settings, engine=bulk_engine if Lane.MAINTENANCE in lanes else None)
    _runtime.arrivals.start()
    if looks_after_all:
        _runtime.shadow = ShadowThread(bulk_engine, settings, holder=name)
        _runtime.shadow.start()
    heartbeat.mark_ready()
    if lanes:  # a child of a pool
        _runtime.parent = Parent(_runtime.redis, lanes=lanes, is_holding=heartbeat.is_holding)
        _runtime.parent.start()
    return _runtime


def stop_child() -> None:
    """Close what start_child opened."""
    global _runtime
    if _runtime is not None:
        _runtime.close()
        _runtime = None


@contextmanager
def working() -> Iterator[Runtime]:
    """Yield the state of this process, and mark it as busy while the block runs.

    What the block raises is logged by its places; Celery, which repeats an error's words to Flower, gets its type.
    """
    runtime = get_runtime()
    try:
        with nullcontext() if runtime.parent is None else runtime.parent.working():
            yield runtime
    except Exception as error:
        log.exception("a task failed; its claims are requeued when their leases expire")
        raise TaskFailed(safe_text(error)) from None


def get_runtime() -> Runtime:
    """Return the state of this process, set up on the first call where no pool did it."""
    return _runtime if _runtime is not None else start_child(lanes=())
