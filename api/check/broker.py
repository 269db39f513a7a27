"""Checks of Redis: it answers, does not evict keys, and persists its data; and of the live workers."""

from datetime import UTC, datetime

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import Connection, select

from api.check.finding import Finding, gigabytes, milliseconds
from api.models.catalog import WORKER_ALIVE
from shared.broker.names import Lane
from shared.config.addresses import without_password
from shared.config.settings import Settings
from shared.tables import Worker

_SLOW = 20.0  # milliseconds


def examine_broker(redis: Redis, settings: Settings) -> Finding:
    """Look at Redis: latency, eviction, persistence, memory."""
    where = without_password(settings.broker)
    try:
        took = milliseconds(redis.ping)
        info = redis.info()
    except AuthenticationError as error:
        return Finding("broker", "failed", f"{where} refuses the password ({error}): correct REDIS_URL")
    except (RedisError, OSError) as error:
        return Finding("broker", "failed", f"{where} does not answer ({error}): start it, or correct REDIS_URL")
    used, most = float(info.get("used_memory", 0)), float(info.get("maxmemory", 0))
    memory = gigabytes(used) + (f" of {gigabytes(most)}" if most else "")
    summary = f"Redis {info.get('redis_version')} answers in {took:.1f} ms, {memory}: {where}"
    advice = []
    if info.get("maxmemory_policy") != "noeviction":
        advice.append(f"maxmemory-policy is {info.get('maxmemory_policy')}: set noeviction, or it forgets wake-ups")
    if not int(info.get("aof_enabled", 0)):
        advice.append("appendonly is off: set it on, or a restart forgets wake-ups, and their jobs wait for recovery")
    if most and used > 0.8 * most:
        advice.append("its memory is nearly full: raise maxmemory")
    if took > _SLOW:
        advice.append("it is slow: run it nearer")
    return Finding("broker", "warning" if advice else "ok", "; ".join([summary, *advice]))


def examine_workers(connection: Connection) -> Finding:
    """Look whether every lane is consumed."""
    oldest = datetime.now(UTC) - WORKER_ALIVE
    alive = connection.execute(select(Worker.lanes).where(Worker.seen_at > oldest)).scalars().all()
    served = {lane for lanes in alive for lane in lanes.split(",")}
    missing = [lane.value for lane in Lane if lane.value not in served]
    if missing:
        how = f"`python -m celery -A worker.main:app worker -Q {','.join(missing)}`"
        return Finding("workers", "warning", f"{len(alive)} heard of, none consumes {', '.join(missing)}: start {how}")
    return Finding("workers", "ok", f"{len(alive)} heard of lately, every lane is consumed")
