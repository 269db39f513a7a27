"""The worker's entry: `celery -A worker.main:app worker -Q interactive`. Each child loads its models itself."""

import logging
import os
import signal
import threading
import time
from typing import Any

from celery.signals import (
    beat_embedded_init,
    celeryd_after_setup,
    celeryd_init,
    import_modules,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
)

from shared.broker.app import make_app
from shared.broker.names import Lane
from shared.config.settings import get_settings
from shared.observability.logs import configure_logging
from shared.observability.tracing import missing_package
from shared.scoring.threads import prefer_one_thread
from shared.startup.checks import CannotStart, check_start
from worker.parent import RECONNECT_SIGNAL, Reconnection

log = logging.getLogger(__name__)

prefer_one_thread()  # before a child loads a model

app = make_app()
app.conf.update(
    include=["worker.tasks"],
    worker_pool="prefork",  # threads and gevent drop time limits
    worker_proc_alive_timeout=1_800,  # a child is up when it has loaded its models, each with a limit of its own
)
app.steps["consumer"].add(Reconnection)

_lanes: list[str] = []


@setup_logging.connect  # of a worker: Celery sets up none of its own
@import_modules.connect  # of Flower, whose own is replaced
def _set_up_logging(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    settings = get_settings()
    configure_logging(settings.log_level, form=settings.log_format)


@celeryd_init.connect
def _check_start(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    if get_settings().tracing == "otlp" and (missing := missing_package()) is not None:
        raise CannotStart(missing)
    check_start(get_settings(), needs_broker=True)


def check_lanes(lanes: list[str]) -> None:
    """Raise CannotStart for a lane that nothing is sent to: its worker would wait forever."""
    if unknown := sorted(set(lanes) - set(Lane)):
        raise CannotStart(f"there is no lane {', '.join(unknown)}: give -Q some of {','.join(Lane)}")


@celeryd_after_setup.connect
def _remember_lanes(instance: Any, **_: Any) -> None:  # noqa: ANN401 - Celery's signature
    # Read before the pool forks, so that every child knows which lanes it serves.
    _lanes[:] = sorted(instance.app.amqp.queues.consume_from)
    check_lanes(_lanes)
    log.info("this worker serves the lanes %s, in %d processes", ", ".join(_lanes), instance.concurrency)
    signal.signal(RECONNECT_SIGNAL, Reconnection.ask)


@beat_embedded_init.connect
def _end_with_parent(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    """End an unneeded beat (started with `-B`) together with its worker."""
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=look, name="parent", daemon=True).start()


@worker_process_init.connect
def _start_child(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    # After the fork: models and connections are this child's own, and its parent's handler is not.
    signal.signal(RECONNECT_SIGNAL, signal.SIG_IGN)
    from worker.process import start_child

    start_child(lanes=_lanes)


@worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:  # noqa: ANN401 - Celery's signature
    from worker.process import stop_child

    stop_child()
