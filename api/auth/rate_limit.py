"""Rate limits: token buckets for each key, or for each address where no key is required.

One bucket counts rows, one the rows of files, of which twenty cost what one sent alone does, and one requests that
read; a guess (an unknown key, a job that is not there) costs as many of those as a row is worth. What a file owes thus
delays the next file, and nothing else. With Redis the buckets are those of all API processes; without it, or while it
is away, each process has its own.
"""

import ipaddress
import math
import time
from collections.abc import Callable

from starlette.requests import Request

from api.auth.buckets import Bucket
from api.auth.shared_buckets import SharedBuckets
from shared.errors import TooManyRequests

READS_PER_ROW = 20  # a job is asked for more than once
FILE_ROWS_PER_ROW = 20  # a row in a file is scored with thousands of others, behind the rows that somebody waits for


class Quota:
    """The buckets of all callers: those of every process in `shared`, else this process' own."""

    def __init__(
        self,
        per_minute: float,
        burst: int,
        *,
        shared: SharedBuckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = Bucket("rows", per_minute, burst, clock=clock)
        self._file_rows = Bucket("file-rows", per_minute * FILE_ROWS_PER_ROW, burst * FILE_ROWS_PER_ROW, clock=clock)
        self._reads = Bucket("reads", per_minute * READS_PER_ROW, burst * READS_PER_ROW, clock=clock)
        self._shared = shared

    async def spend_row(self, caller: str) -> None:
        """Count the first row of a submission; raise TooManyRequests with the time to wait."""
        wait = await self._ask(self._rows, caller, 1)
        if wait:
            raise TooManyRequests(
                f"{60 / self._rows.interval:g} rows a minute are allowed, {self._rows.burst} at once: "
                "wait as long as Retry-After says.",
                retry_after=math.ceil(wait),
            )

    async def owe_rows(self, caller: str, count: int) -> None:
        """Count the other rows of a submission that is let through."""
        if count > 0:
            await self._ask(self._rows, caller, count, is_asking=False)

    async def spend_file(self, caller: str) -> None:
        """Count the first row of a file before it is received; raise TooManyRequests while earlier ones are owed."""
        wait = await self._ask(self._file_rows, caller, 1)
        if wait:
            raise TooManyRequests(
                f"{60 / self._file_rows.interval:g} rows of files a minute are allowed, and your last file is served "
                "before the next: wait as long as Retry-After says. Single rows and batches are not counted here.",
                retry_after=math.ceil(wait),
            )

    async def owe_file_rows(self, caller: str, count: int) -> None:
        """Count the other rows of a file that was let through."""
        if count > 0:
            await self._ask(self._file_rows, caller, count, is_asking=False)

    async def spend_read(self, caller: str) -> None:
        """Count a reading request; raise TooManyRequests with the time to wait."""
        wait = await self._ask(self._reads, caller, 1)
        if wait:
            raise TooManyRequests(
                f"{60 / self._reads.interval:g} requests a minute are allowed, and unknown ids count "
                f"{READS_PER_ROW} times: wait as long as Retry-After says, or ask once with `Prefer: wait=N`.",
                retry_after=math.ceil(wait),
            )

    async def owe_guess(self, caller: str) -> None:
        """Count a request for an unknown object as a guess, besides its cost as a read."""
        await self._ask(self._reads, caller, READS_PER_ROW - 1, is_asking=False)

    async def _ask(self, bucket: Bucket, caller: str, cost: float, *, is_asking: bool = True) -> float:
        if not bucket.interval:
            return 0.0
        wait = None if self._shared is None else await self._shared.take(bucket, caller, cost, is_asking=is_asking)
        return bucket.take(caller, cost, is_asking=is_asking) if wait is None else wait


def payer(request: Request, caller: str | None, *, proxy_hops: int) -> str:
    """Return the owner of the buckets that a request takes from: the key's id, or the network address."""
    return caller or address_of(request, proxy_hops=proxy_hops)


def address_of(request: Request, *, proxy_hops: int) -> str:
    """Return the network address of a request; for IPv6 its /64, which is what one customer has.

    Each proxy appends the address of its own sender to X-Forwarded-For. Only the last `proxy_hops` entries come from
    the proxies; the caller may have written everything before them.
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
