"""Token buckets in this process: the remaining budget of each caller for one kind of cost."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 10_000  # remembered at once: more addresses than that must not fill the memory
MAX_DEBT = 3_600.0  # seconds: what came in one request is served whole, and keeps its caller waiting for no longer


class Bucket:
    """Remaining budget of each caller for one kind of cost, in this process.

    It stores one number, the time when the bucket is full again: the generic cell rate algorithm (ITU-T I.371).
    """

    def __init__(
        self, kind: str, per_minute: float, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.kind = kind
        self.interval = 60 / per_minute if per_minute else 0.0  # seconds in which a cost of one is refilled
        self.burst = burst
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # by caller, the longest silent one first

    def take(self, caller: str, cost: float, *, is_asking: bool = True) -> float:
        """Take a cost from a caller's bucket; return 0, or the seconds until it holds a unit again.

        A request passes as long as one unit is left, and a refused one costs nothing, so a caller that waits is served.
        A cost above the rest becomes a debt.
        """
        if not self.interval:
            return 0.0
        now = self._clock()
        full_at = max(now, self._full_at.get(caller, now))
        wait = full_at + self.interval - now - self.burst * self.interval
        if is_asking and wait > 1e-9:
            return wait
        most = now + self.burst * self.interval + MAX_DEBT
        self._full_at[caller] = min(full_at + cost * self.interval, most)
        self._full_at.move_to_end(caller)
        if len(self._full_at) > MAX_CALLERS:
            self._full_at.popitem(last=False)
        return 0.0
