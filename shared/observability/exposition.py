"""Metrics as Prometheus reads them: its text format, or OpenMetrics where the Accept header asks for it.

The text is written here and not by prometheus_client, whose metrics are made and checked label by label: for the
thousand lines of a scrape that took ten times as long. Which format is wanted is still for the library to tell.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.exposition import choose_encoder

from shared.observability.metrics import FAMILIES, Series

PREFIX = "guichet_"
OPEN_METRICS = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its values in one scrape."""

    name: str  # with the prefix, and without `_total`
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    series: Sequence[Series]


def counted(series: Mapping[str, Sequence[Series]]) -> Iterator[Metric]:
    """Yield every metric that processes count (shared/observability/metrics.py)."""
    for name, family in FAMILIES.items():
        kind: Literal["counter", "histogram"] = "histogram" if family.buckets else "counter"
        yield Metric(PREFIX + name, kind, family.help, family.labels, series.get(name, ()))


def gauge(name: str, description: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """Return a metric that was read just now: its values by label values."""
    series = [Series(tuple(words), value, 0.0, ()) for words, value in values]
    return Metric(PREFIX + name, "gauge", description, tuple(labels), series)


def expose(metrics: Iterable[Metric], accept: str | None) -> tuple[bytes, str]:
    """Return the text of metrics and its media type, as the Accept header likes it best."""
    _, media_type = choose_encoder(accept or "")
    is_open = media_type.startswith(OPEN_METRICS)
    lines = [line for metric in metrics for line in _lines(metric, is_open=is_open)]
    if is_open:
        lines.append("# EOF\n")
    return "".join(lines).encode(), media_type


def _lines(metric: Metric, *, is_open: bool) -> Iterator[str]:
    total = f"{metric.name}_total" if metric.kind == "counter" else metric.name
    family = metric.name if is_open else total  # OpenMetrics names the family, and the other format what is counted
    yield f"# HELP {family} {metric.help}\n# TYPE {family} {metric.kind}\n"
    for one in metric.series:
        named = sorted(zip(metric.labels, one.labels, strict=True))  # as the library writes them
        pairs = ",".join([f'{label}="{_escape(value)}"' for label, value in named])
        labels = f"{{{pairs}}}" if pairs else ""
        if metric.kind != "histogram":
            yield f"{total}{labels} {float(one.count)!r}\n"
            continue
        start = f'{metric.name}_bucket{{{pairs}{"," if pairs else ""}le="'
        for bound, count in one.buckets:
            yield f'{start}{bound}"}} {float(count)!r}\n'
        yield f"{metric.name}_count{labels} {float(one.count)!r}\n"
        yield f"{metric.name}_sum{labels} {float(one.total)!r}\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
