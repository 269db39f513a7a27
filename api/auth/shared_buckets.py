"""The buckets of callers (api/auth/buckets.py) in Redis, for all API processes together."""

import logging
import time

from anyio import CapacityLimiter, to_thread
from redis import Redis, RedisError

from api.auth.buckets import MAX_DEBT, Bucket

log = logging.getLogger(__name__)

_ASKING = CapacityLimiter(8)  # threads: those who wait for the database keep nobody waiting here
ALONE_SECONDS = 5.0  # how long a Redis that failed is not asked again

# What Bucket.take does, by the clock of Redis. ARGV: interval, burst, cost, debt, is_asking.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local wait = full_at + interval - now - burst * interval
if ARGV[5] == '1' and wait > 0.000001 then return tostring(wait) end
full_at = math.min(full_at + tonumber(ARGV[3]) * interval, now + burst * interval + tonumber(ARGV[4]))
redis.call('SET', KEYS[1], string.format('%.6f', full_at), 'PX', math.ceil((full_at - now) * 1000) + 1)
return '0'
"""


class SharedBuckets:
    """Takes from buckets in Redis; one that is away is left alone for some seconds."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._alone_until = 0.0

    async def take(self, bucket: Bucket, caller: str, cost: float, *, is_asking: bool) -> float | None:
        """Return the result of `bucket.take` on the bucket shared by all processes; None while Redis is away."""
        if time.monotonic() < self._alone_until:
            return None
        key = f"guichet:quota:{bucket.kind}:{caller}"
        numbers = [bucket.interval, bucket.burst, cost, MAX_DEBT, int(is_asking)]
        try:
            return float(await to_thread.run_sync(self._take, [key], numbers, limiter=_ASKING))
        except (RedisError, OSError) as error:
            log.warning("Redis does not count what callers ask for (%s): each process does", type(error).__name__)
            self._alone_until = time.monotonic() + ALONE_SECONDS
            return None
