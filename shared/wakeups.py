"""Wake-ups: one Celery message says "there is work for this version in this lane", and one is pending at a time.

A wake-up is a hint to look at the table. To lose, repeat or shuffle them changes latency alone: recovery sends
them again for every queue that has ready jobs.
"""

from celery import Celery
from redis import Redis

from shared.queue import TaskName, wake_key

PENDING_SECONDS = 5  # a wake-up that was lost holds back the next one no longer than this


def send_wakeup(redis: Redis, app: Celery, *, lane: str, model_version_id: int) -> bool:
    """Wake one worker of a lane for a model version unless a wake-up is pending; return whether one was sent.

    Raises redis.RedisError or kombu.exceptions.OperationalError when the broker is not reachable.
    """
    key = wake_key(lane, model_version_id)
    if not redis.set(key, b"1", nx=True, ex=PENDING_SECONDS):
        return False
    try:
        app.send_task(TaskName.SCORE, args=(lane, model_version_id), queue=lane)
    except Exception:
        redis.delete(key)  # nothing is pending after all
        raise
    return True
