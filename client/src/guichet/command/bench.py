"""`guichet bench`: measure how fast a service answers its callers."""

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from guichet.client import Client
from guichet.command.rows import model_option, read_row
from guichet.command.terminal.console import Console
from guichet.command.terminal.outcomes import DONE
from guichet.errors import GuichetError, Unusable
from guichet.version import __version__

WARM_UP = 3  # requests of each kind that are not counted: a first one may load a model


def bench(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Send rows and batches one after the other, print how long they took, and write it as JSON."""
    if not options.n or not options.batch_size:
        raise Unusable("--n and --batch-size must be at least 1.")
    model = model_option(options.model)
    row = read_row(options.row) if options.row else _example(client, options.model)
    batch = [row] * options.batch_size
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "predict": (1, lambda: client.predict(row, **model)),
        "predict_batch": (options.batch_size, lambda: client.predict_batch(batch, **model)),
    }
    report: dict[str, Any] = {
        "url": client.url,
        "model": options.model,
        "client": f"guichet {__version__}, Python {platform.python_version()}",
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "requests": options.n,
        "batch_size": options.batch_size,
    }
    for name, (rows, call) in calls.items():
        console.tell(f"{name}: {options.n} requests of {rows} {'row' if rows == 1 else 'rows'} ...")
        report[name] = _measure(call, options.n, rows)
    path = Path(options.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.is_json:
        console.say_json(report)
    else:
        _show(console, {name: report[name] for name in calls})
        console.tell(f"Written to {path}.")
    return DONE


def _example(client: Client, reference: str | None) -> dict[str, Any]:
    """Return a row that the model takes, as the service shows one."""
    if reference is None:
        default = next((model.model for model in client.models() if model.is_default), None)
        if default is None:
            raise Unusable("The service has no default model: name one with --model, or a row with --row.")
        reference = default
    return client.model(reference).example


def _measure(call: Callable[[], object], count: int, rows: int) -> dict[str, Any]:
    """Return quantiles of the calls' milliseconds, the rows per second, and the number of failed calls."""
    for _ in range(WARM_UP):
        call()
    times = []
    errors = 0
    began = time.perf_counter()
    for _ in range(count):
        sent = time.perf_counter()
        try:
            call()
        except GuichetError:  # the first one that is not counted would have said why
            errors += 1
        else:
            times.append((time.perf_counter() - sent) * 1_000)
    seconds = time.perf_counter() - began
    times.sort()
    return {
        **{f"p{share}_ms": _quantile(times, share / 100) for share in (50, 95, 99)},
        "mean_ms": round(sum(times) / len(times), 3) if times else None,
        "rows_per_second": round(len(times) * rows / seconds, 1),
        "errors": errors,
    }


def _quantile(ordered: list[float], share: float) -> float | None:
    """Return the smallest value that a share of the values does not exceed."""
    return round(ordered[max(math.ceil(share * len(ordered)) - 1, 0)], 3) if ordered else None


def _show(console: Console, figures: dict[str, dict[str, Any]]) -> None:
    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:,.1f}"

    console.table(
        ("CALL", "P50 MS", "P95 MS", "P99 MS", "ROWS/S", "ERRORS"),
        [
            (
                name,
                *(cell(figure[key]) for key in ("p50_ms", "p95_ms", "p99_ms", "rows_per_second")),
                str(figure["errors"]),
            )
            for name, figure in figures.items()
        ],
    )
