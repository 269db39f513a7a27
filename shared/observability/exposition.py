"""Metrics as Prometheus reads them: its text format, or OpenMetrics where the Accept header asks for it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shared.observability.metrics import FAMILIES, Series

PREFIX = "guichet_"


class _Once(Collector):
    """What an encoder asks for its metrics: those of one scrape."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        yield from self._metrics


def counted(series: Mapping[str, Iterable[Series]]) -> Iterator[Metric]:
    """Yield every metric that processes count (shared/observability/metrics.py)."""
    for name, family in FAMILIES.items():
        lines = series.get(name, ())
        if family.buckets:
            histogram = HistogramMetricFamily(PREFIX + name, family.help, labels=family.labels)
            for line in lines:
                histogram.add_metric(line.labels, buckets=list(line.buckets), sum_value=line.total)
            yield histogram
        else:
            counter = CounterMetricFamily(PREFIX + name, family.help, labels=family.labels)
            for line in lines:
                counter.add_metric(line.labels, line.count)
            yield counter


def gauge(name: str, description: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """Return a metric that was read just now: its values by label values."""
    metric = GaugeMetricFamily(PREFIX + name, description, labels=labels)
    for words, value in values:
        metric.add_metric(list(words), value)
    return metric


def expose(metrics: Sequence[Metric], accept: str | None) -> tuple[bytes, str]:
    """Return the text of metrics and its media type, as the Accept header likes it best."""
    encode, media_type = choose_encoder(accept or "")
    return encode(_Once(metrics)), media_type
