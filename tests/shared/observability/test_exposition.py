"""The text of a scrape says what prometheus_client writes of the same numbers, in both formats."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from prometheus_client import Metric as LibraryMetric
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from shared.observability.exposition import Metric, expose, gauge
from shared.observability.metrics import Series

OPEN = "application/openmetrics-text; version=1.0.0"
STRANGE = ("GET", 'a "quoted" \\ path\nof two lines, {é}')
BUCKETS = (("0.001", 0.0), ("2.5", 7.0), ("+Inf", 12_345_678.0))
OURS = [
    Metric("guichet_requests", "counter", "Requests.", ("method", "route"), [Series(STRANGE, 3.0, 0.0, ())]),
    Metric("guichet_seconds", "histogram", "Time.", ("method", "route"), [Series(STRANGE, 12_345_678.0, 0.1, BUCKETS)]),
    Metric("guichet_sizes", "histogram", "Sizes.", (), [Series((), 12_345_678.0, 1e300, BUCKETS)]),
    Metric("guichet_nothing", "counter", "Not counted yet.", ("model",), []),
    gauge("models", "Versions.", (), [((), 4)]),
    gauge("workers", "Workers.", ("lane",), [(("bulk",), 0.5), (("interactive",), 1e16)]),
]


class Theirs(Collector):
    def collect(self) -> Iterator[LibraryMetric]:
        requests = CounterMetricFamily("guichet_requests", "Requests.", labels=("method", "route"))
        requests.add_metric(STRANGE, 3.0)
        seconds = HistogramMetricFamily("guichet_seconds", "Time.", labels=("method", "route"))
        seconds.add_metric(STRANGE, buckets=list(BUCKETS), sum_value=0.1)
        sizes = HistogramMetricFamily("guichet_sizes", "Sizes.", buckets=list(BUCKETS), sum_value=1e300)
        workers = GaugeMetricFamily("guichet_workers", "Workers.", labels=("lane",))
        workers.add_metric(("bulk",), 0.5)
        workers.add_metric(("interactive",), 1e16)
        nothing = CounterMetricFamily("guichet_nothing", "Not counted yet.", labels=("model",))
        yield from (requests, seconds, sizes, nothing, GaugeMetricFamily("guichet_models", "Versions.", 4), workers)


@pytest.mark.parametrize(
    ("accept", "media_type", "library", "parse"),
    [
        (None, "text/plain; version=0.0.4", exposition.generate_latest, text_string_to_metric_families),
        (OPEN, "application/openmetrics-text", openmetrics.generate_latest, open_families),
    ],
    ids=["text", "openmetrics"],
)
def test_text_has_the_families_and_samples_of_the_library(
    accept: str | None,
    media_type: str,
    library: Callable[[Collector], bytes],
    parse: Callable[[str], Iterable[Any]],
) -> None:
    body, content_type = expose(OURS, accept)
    assert content_type.startswith(media_type)
    assert list(parse(body.decode())) == list(parse(library(Theirs()).decode()))
    # Line by line they differ in the order of labels, and in how a large number is written.
    assert names(body) == names(library(Theirs()))


def names(body: bytes) -> list[str]:
    lines = body.decode().splitlines()
    return [line if line.startswith("#") else re.split("[{ ]", line)[0] for line in lines]
