"""Wake-ups: one Celery message says "there is work for this version in this lane", and one is pending at a time.

A wake-up is a hint to look at the table. To lose, repeat or shuffle them changes latency alone: recovery sends them
again for every queue that has ready jobs.

Two things keep them from piling up. A key with a short life stands while somebody drains, or was woken a moment ago:
then nobody asks further. Whoever does looks into the lane itself before he sends, because a message may wait there for
longer than any key lives, behind the messages of other versions.
"""

import binascii
from collections.abc import Iterable

import orjson
from celery import Celery
from redis import Redis

from shared.broker.app import TaskName, sending_key, wake_key

PENDING_SECONDS = 5  # a wake-up that was lost holds back the next one no longer than this
SENDING_SECONDS = 5  # so long at most is a message on its way from one who sends it
_MOST = 1_000  # messages of a lane that are looked at; more than one for each version are none of ours


def send_wakeup(
    redis: Redis, app: Celery, *, lane: str, model_version_id: int, title: str | None = None, again: bool = False
) -> bool:
    """Wake one worker of a lane for a model version unless a wake-up is pending; return whether one was sent.

    `title` is the name that Flower shows for the task, such as churn@3; None leaves the name of every wake-up.
    With `again`, whoever drains sends one although he has been woken: for another worker, or for himself later on.
    Raises redis.RedisError or kombu.exceptions.OperationalError when the broker is not reachable.
    """
    key, sending = wake_key(lane, model_version_id), sending_key(lane, model_version_id)
    if not redis.set(key, b"1", nx=not again, ex=PENDING_SECONDS):
        return False
    pipeline = redis.pipeline(transaction=False)
    pipeline.set(sending, b"1", nx=True, ex=SENDING_SECONDS)
    pipeline.lrange(lane, 0, _MOST - 1)
    is_ours, messages = pipeline.execute()
    if not is_ours:  # somebody sends it at this moment
        return False
    try:
        if model_version_id in _versions(messages):
            return False
        app.send_task(TaskName.SCORE, args=(lane, model_version_id), queue=lane, shadow=title)
    except Exception:
        redis.delete(key)  # nothing is pending after all
        raise
    finally:
        redis.delete(sending)
    return True


def list_waiting(redis: Redis, lane: str) -> set[int]:
    """Return the model versions whose wake-ups wait in a lane for a free worker."""
    return _versions(redis.lrange(lane, 0, _MOST - 1))


def _versions(messages: Iterable[bytes | str]) -> set[int]:
    """Return the model version ids of messages as Celery writes them (its protocol 2); others hold none."""
    versions = set()
    for message in messages:
        try:
            arguments = orjson.loads(binascii.a2b_base64(orjson.loads(message)["body"]))[0]
            versions.add(arguments[1])
        except (orjson.JSONDecodeError, binascii.Error, LookupError, TypeError):
            continue
    return versions
