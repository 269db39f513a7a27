"""The one Celery app, and the names of its tasks, keys and channels."""

from celery import Celery
from kombu.entity import Exchange, Queue
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.broker.names import Lane
from shared.config.settings import get_settings


class TaskName:
    """Names under which tasks are sent, so that the API need not import the worker."""

    SCORE = "guichet.score"
    RECOVER = "guichet.recover"
    FORGET = "guichet.forget_idempotency_keys"


NEW_MODELS = "new models"  # the title of a wake-up for uploads and trainings, which have no version yet

# How long Redis may be silent. A worker's connection blocks for a second in BRPOP by design.
PUBLISHER_SECONDS = 0.5
WORKER_SECONDS = 5.0

DONE_CHANNEL = "guichet:done"  # finished job ids, one JSON list a message
INTERACTIVE_KEY = "guichet:interactive"  # stands while single predictions are asked for: files then step back
INTERACTIVE_SECONDS = 2  # and for so long after the last one


def wake_key(lane: str, model_version_id: int) -> str:
    """Return the Redis key of a pending wake-up for this lane and version."""
    return f"guichet:wake:{lane}:{model_version_id}"


def sending_key(lane: str, model_version_id: int) -> str:
    """Return the Redis key that marks a wake-up for this lane and version as being sent."""
    return f"guichet:sending:{lane}:{model_version_id}"


def drained_key(lane: str, model_version_id: int) -> str:
    """Return the Redis key that counts the jobs drained for this lane and version."""
    return f"guichet:drained:{lane}:{model_version_id}"


def make_redis() -> Redis:
    """Return a client that fails at once when Redis is gone, and in half a second when it is silent."""
    return Redis.from_url(
        get_settings().broker,
        socket_timeout=PUBLISHER_SECONDS,
        socket_connect_timeout=PUBLISHER_SECONDS,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def _queue(name: str) -> Queue:
    """Return a queue as Celery makes one by its name alone."""
    return Queue(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]  # kombu has no types


def make_app(*, publisher: bool = False) -> Celery:
    """Return the Celery app; a `publisher` (the API) fails fast when Redis is gone."""
    settings = get_settings()
    app = Celery("guichet", broker=settings.broker)
    seconds = PUBLISHER_SECONDS if publisher else WORKER_SECONDS
    options = {"visibility_timeout": 3600, "socket_timeout": seconds, "socket_connect_timeout": seconds}
    options["socket_keepalive"] = True
    app.conf.update(
        task_ignore_result=True,  # the row is the truth: there is no result backend
        task_acks_late=False,  # the lease in the table does redelivery
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=Lane.INTERACTIVE.value,
        task_queues=[_queue(lane.value) for lane in Lane],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # a message in a busy worker's hands is one that a free worker does not get
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options=options,
        task_publish_retry_policy={
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
        timezone="UTC",
    )
    return app
