"""The cells of a run as text: ratios first, then medians, then the machine."""

import statistics
from collections.abc import Iterable
from typing import Any

Medians = dict[str, dict[str, float]]


def medians(cells: dict[str, list[dict[str, Any]]]) -> Medians:
    """Return the median over the rounds of every number of every cell, and the spread (max / min) of its rate."""
    by_name: Medians = {}
    for name, rounds in cells.items():
        keys = [key for key, value in rounds[0].items() if isinstance(value, (int, float))]
        by_name[name] = {key: statistics.median(cell[key] for cell in rounds) for key in keys}
        for rate in ("jobs_per_s", "per_second"):
            if rate in keys:
                rates = [cell[rate] for cell in rounds]
                by_name[name]["spread"] = max(rates) / max(min(rates), 1e-9)
                break
    return by_name


def render(result: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    by_name: Medians = result["medians"]
    connections: list[int] = result["options"]["connections"]
    parts = [
        "## Ratios (Guichet to naive, medians of one run)",
        table(("what", "ratio", "Guichet", "naive"), ratios(by_name, connections)),
        "## Behind the queue: accepted, stored, queued, scored, output stored",
        table(
            (
                "cell",
                "jobs/s",
                "spread",
                "submit p50 ms",
                "p99 ms",
                "CPU us/job: API",
                "worker",
                "PostgreSQL",
                "client",
            ),
            (jobs_row(name, cell) for name, cell in by_name.items() if "/jobs/" in name),
        ),
        "## One row, low load",
        table(("design", "submit p50 ms", "result stored p50 ms", "p99 ms"), low_rows(by_name)),
        "## `/predict`",
        table(
            ("cell", "requests/s", "spread", "p50 ms", "p99 ms", "API CPU us"),
            (predict_row(name, cell) for name, cell in by_name.items() if "/predict/" in name or "/sync/" in name),
        ),
        "## Memory after load, and start",
        table(("processes", "RSS MB", "PSS MB", "API ready s"), footprint_rows(by_name)),
        machine_line(result),
    ]
    return "\n\n".join(parts)


def ratios(by_name: Medians, connections: list[int]) -> Iterable[tuple[str, ...]]:
    for count in connections:
        naive = max(by_name[f"naive/jobs/{processes}w/{count}c"]["jobs_per_s"] for processes in (1, 2))
        for processes in (1, 2):
            guichet = by_name[f"guichet/jobs/{processes}w/{count}c"]["jobs_per_s"]
            what = f"jobs/s, {count} connections, Guichet with {processes} worker process(es), naive with its better"
            yield what, f"**{guichet / naive:.1f}**", f"{guichet:,.0f}", f"{naive:,.0f}"
    for count in connections:
        guichet, naive = (by_name[f"{name}/sync/{count}c"]["per_second"] for name in ("guichet-sync", "naive"))
        what = f"`/predict` sync, {count} connections (Guichet stores every row, naive nothing)"
        yield what, f"**{guichet / naive:.1f}**", f"{guichet:,.0f}/s", f"{naive:,.0f}/s"
    guichet, naive = (by_name[f"{name}/low"]["result_p50_ms"] for name in ("guichet", "naive"))
    yield "submit to stored result, low load, p50", f"**{guichet / naive:.2f}**", f"{guichet:.1f} ms", f"{naive:.1f} ms"


def jobs_row(name: str, cell: dict[str, float]) -> tuple[str, ...]:
    times = (f"{cell['submit_p50_ms' if 'submit_p50_ms' in cell else 'p50_ms']:.1f}", f"{cell['p99_ms']:.1f}")
    costs = (cell[f"{part}_cpu_us"] for part in ("api", "worker", "postgres", "load"))
    return name, f"{cell['jobs_per_s']:,.0f}", f"{cell['spread']:.2f}", *times, *(f"{cost:,.0f}" for cost in costs)


def low_rows(by_name: Medians) -> Iterable[tuple[str, ...]]:
    for name, cell in by_name.items():
        if name.endswith("/low"):
            keys = ("submit_p50_ms", "result_p50_ms", "result_p99_ms")
            yield name.removesuffix("/low"), *(f"{cell[key]:.1f}" for key in keys)


def predict_row(name: str, cell: dict[str, float]) -> tuple[str, ...]:
    cpu = f"{cell['api_cpu_us']:,.0f}" if "api_cpu_us" in cell else ""
    rate = f"{cell['per_second']:,.0f}"
    return name, rate, f"{cell['spread']:.2f}", f"{cell['p50_ms']:.1f}", f"{cell['p99_ms']:.1f}", cpu


def footprint_rows(by_name: Medians) -> Iterable[tuple[str, ...]]:
    whose = {"guichet": "API + one worker", "guichet-sync": "API", "naive": "API + one worker"}
    for name, what in whose.items():
        memory, start = by_name[f"{name}/memory"], by_name.get(f"{name}/start", {})
        ready = f"{start['ready_s']:.2f}" if start else ""
        yield f"{name}: {what}", f"{memory['rss_mb']:.0f}", f"{memory['pss_mb']:.0f}", ready


def machine_line(result: dict[str, Any]) -> str:
    about = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpus']} CPUs ({about['cpu']}), load {about['load_before']:.1f} before the run, fdatasync"
        f" {about['fdatasync_us']:.0f} us, Python {about['python']}, {versions}."
        f" {result['options']['rounds']} rounds of {result['options']['seconds']:g} s, {result['minutes']:.1f} minutes;"
        " spread = fastest / slowest round."
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
