"""How often a caller may submit: a token bucket for each key, or for each address where no key is asked for."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import Request

from shared.errors import TooManyRequests

MAX_CALLERS = 10_000  # remembered at once: more addresses than that must not fill the memory


class Quota:
    """The buckets of one API process; with several processes, each has its own.

    A bucket is one number, the time at which it will be full again: the generic cell rate algorithm (ITU-T I.371).
    """

    def __init__(self, per_minute: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0  # seconds in which one submission is refilled
        self._burst = burst
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # by caller, the longest silent one first

    def spend(self, caller: str) -> None:
        """Count one submission of a caller; raise TooManyRequests, which says when to come back."""
        if not self._interval:
            return
        now = self._clock()
        full_at = max(now, self._full_at.get(caller, now)) + self._interval
        wait = full_at - now - self._burst * self._interval
        if wait > 1e-9:  # refused ones cost nothing: whoever comes back in time is served
            raise TooManyRequests(
                f"{60 / self._interval:g} submissions a minute are allowed, {self._burst} at once: "
                "wait as long as Retry-After says, or send several rows in one batch.",
                retry_after=math.ceil(wait),
            )
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > MAX_CALLERS:
            self._full_at.popitem(last=False)


def address_of(request: Request, *, proxy_hops: int) -> str:
    """Return the network address that a request comes from: of IPv6 the /64, which is what one customer has.

    Each proxy appends to X-Forwarded-For whom it heard the request from. Only the last `proxy_hops` entries are the
    proxies' own; what stands before them is whatever the caller wrote.
    """
    heard = [request.client.host if request.client is not None else ""]
    if proxy_hops:
        lines = request.headers.getlist("x-forwarded-for")
        heard = [entry.strip() for entry in ",".join(lines).split(",") if entry.strip()][-proxy_hops:] or heard
    # some proxies add the port: 192.0.2.1:4711, [2001:db8::1]:4711
    bare = heard[0].partition(":")[0] if heard[0].count(":") == 1 else heard[0].removeprefix("[").partition("]")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return "unknown"  # they share one bucket: whoever garbles the header gains nothing
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
