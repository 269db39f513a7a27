"""The result of a check."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: a warning lets the service work, a failure does not."""

    name: str
    status: Status
    detail: str  # one sentence; where something is wrong, with what to do


def milliseconds(ask: Callable[[], object], *, times: int = 7) -> float:
    """Return the median duration of an answer."""
    durations = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        durations.append((time.perf_counter() - began) * 1000)
    return statistics.median(durations)


def gigabytes(count: float) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
