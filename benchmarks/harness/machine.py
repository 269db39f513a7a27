"""What a reader must know about the machine before comparing figures."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("fastapi", "uvicorn", "celery", "sqlalchemy", "psycopg2-binary", "pydantic", "scikit-learn", "treelite")


def describe(folder: Path) -> dict[str, object]:
    """Return processors, load, versions, and what an fdatasync costs in `folder`."""
    return {
        "cpus": os.cpu_count(),
        "cpu": cpu_name(),
        "load_before": os.getloadavg()[0],
        "fdatasync_us": fdatasync_us(folder),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def summary(result: Mapping[str, Any]) -> str:
    """Return the last line of a report: the `machine` of a result, as `describe` gives it, and its `minutes`."""
    about = result["machine"]
    return (
        f"{about['cpus']} processors ({about['cpu']}), fdatasync {about['fdatasync_us']:.0f} us, "
        f"Python {about['python']}, {result['minutes']:.1f} minutes."
    )


def fdatasync_us(folder: Path, *, count: int = 200) -> float:
    """Return the median time of appending 512 bytes and fdatasync, in us: what every COMMIT waits for."""
    path = folder / "fdatasync"
    times = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(count):
            os.write(descriptor, bytes(512))
            started = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times) * 1e6


def cpu_name() -> str:
    """Return the processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
