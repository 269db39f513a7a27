"""Counters and histograms of all processes: each process counts in memory and regularly adds its counts to the tables.

The sums lie in `metric_samples`, so any API process can tell those of all of them, also of those that have ended.
What a process that was killed had counted since its last round (FLUSH_SECONDS) is lost, and nothing else.

Labels come from routes, registered models and enums, never from a caller: their number is bounded, and MAX_SERIES
bounds it once more.
"""

import json
import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from sqlalchemy import Connection, Text, cast, func, select
from sqlalchemy.dialects import sqlite

from shared.database.prepared import Statement, array
from shared.tables import MetricSample

FLUSH_SECONDS = 5.0
MAX_SERIES = 2_000  # of one metric in one process between two rounds; more are counted under OTHER
OTHER = "(other)"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name without the prefix `guichet_`, its description, its labels, the bounds of its buckets."""

    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()  # none: a counter
    bounds: tuple[str, ...] = field(init=False)  # of its buckets, as parts of samples

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", (*map(repr, self.buckets), "+Inf"))


HTTP_REQUESTS = Family("http_requests", "Requests that were answered.", ("method", "route", "status"))
HTTP_SECONDS = Family(
    "http_request_duration_seconds", "From a request's headers to its answer's end.", ("method", "route"), _SECONDS
)
GROUP_SIZE = Family("group_commit_size", "Submissions in one transaction.", (), _SIZES)
CLAIM_JOBS = Family("claim_jobs", "Jobs in one claim of a worker.", ("lane",), _SIZES)
SCORED_ROWS = Family("scored_rows", "Rows that were scored.", ("model", "lane"))
SCORE_SECONDS = Family("score_duration_seconds", "Scoring of one claim.", ("model", "lane"), _SECONDS)
WAIT_SECONDS = Family("job_wait_seconds", "From a job's acceptance to its first claim.", ("model", "lane"), _SECONDS)
LOST_LOG_ENTRIES = Family("lost_log_entries", "Log entries that came faster than they were stored.", ("table",))
AUDITED_ROWS = Family(
    "audited_rows", "Rows that were drawn to be scored again by the pipeline, by what came out.", ("model", "result")
)
JOBS_FINISHED = Family("jobs_finished", "Jobs that have ended.", ("model", "kind", "state"))

FAMILIES = {
    family.name: family
    for family in (
        HTTP_REQUESTS,
        HTTP_SECONDS,
        GROUP_SIZE,
        CLAIM_JOBS,
        SCORED_ROWS,
        SCORE_SECONDS,
        WAIT_SECONDS,
        LOST_LOG_ENTRIES,
        AUDITED_ROWS,
        JOBS_FINISHED,
    )
}

Sample = tuple[str, str, str]  # name, labels as a JSON list, part


class Metrics:
    """Counts of events in this process since the last transfer; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[str, ...]], float] = {}
        self._histograms: dict[tuple[str, tuple[str, ...]], list[float]] = {}  # by bucket, then the sum

    def count(self, family: Family, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        """Add to a counter."""
        with self._lock:
            key = self._key(self._counts, family, labels)
            self._counts[key] = self._counts.get(key, 0.0) + amount

    def observe(self, family: Family, value: float, labels: tuple[str, ...] = (), *, times: int = 1) -> None:
        """Add a value to a histogram, `times` times."""
        with self._lock:
            key = self._key(self._histograms, family, labels)
            numbers = self._histograms.get(key)
            if numbers is None:
                numbers = self._histograms[key] = [0.0] * (len(family.buckets) + 2)
            numbers[bisect_left(family.buckets, value)] += times
            numbers[-1] += value * times

    def take(self) -> dict[Sample, float]:
        """Return the counts since the last call, as samples, and begin anew."""
        with self._lock:
            counts, self._counts = self._counts, {}
            histograms, self._histograms = self._histograms, {}
        samples = {(name, _text(labels), "count"): value for (name, labels), value in counts.items()}
        for (name, labels), (*numbers, total) in histograms.items():
            text = _text(labels)
            bounds = FAMILIES[name].bounds
            samples |= {(name, text, bound): number for bound, number in zip(bounds, numbers, strict=True) if number}
            samples[name, text, "sum"] = total
        return samples

    def give_back(self, samples: dict[Sample, float]) -> None:
        """Take samples again that could not be stored."""
        with self._lock:
            for (name, text, part), value in samples.items():
                family, labels = FAMILIES[name], tuple(json.loads(text))
                if not family.buckets:
                    self._counts[name, labels] = self._counts.get((name, labels), 0.0) + value
                    continue
                numbers = self._histograms.setdefault((name, labels), [0.0] * (len(family.buckets) + 2))
                place = {"sum": -1, "+Inf": -2}.get(part)
                numbers[family.buckets.index(float(part)) if place is None else place] += value

    def flush(self, connection: Connection) -> None:
        """Add what happened to the tables, in the transaction that is open; after a failure nothing is lost."""
        samples = self.take()
        try:
            add(connection, samples)
        except BaseException:
            self.give_back(samples)
            raise

    @staticmethod
    def _key(
        series: dict[tuple[str, tuple[str, ...]], float] | dict[tuple[str, tuple[str, ...]], list[float]],
        family: Family,
        labels: tuple[str, ...],
    ) -> tuple[str, tuple[str, ...]]:
        key = (family.name, labels)
        if key in series or len(series) < MAX_SERIES:
            return key
        return (family.name, (OTHER,) * len(family.labels))


METRICS = Metrics()  # of this process


_ADD = Statement(
    "add_metrics",
    ("text[]", "text[]", "text[]", "float8[]"),
    """
INSERT INTO metric_samples (name, labels, part, value) SELECT * FROM unnest($1, $2, $3, $4)
ON CONFLICT (name, labels, part) DO UPDATE SET value = metric_samples.value + excluded.value
""",
)


def add(connection: Connection, samples: dict[Sample, float]) -> None:
    """Add samples to the tables, in one statement; in order, so that two processes never wait for each other.

    On PostgreSQL in arrays: SQLAlchemy takes a quarter of a millisecond for each row of a long VALUES list.
    """
    if not samples:
        return
    rows = [(*key, float(value)) for key, value in sorted(samples.items())]
    if connection.dialect.name == "postgresql":
        _ADD.run(connection, *map(array, zip(*rows, strict=True)))
        return
    stored = sqlite.insert(MetricSample)
    connection.execute(
        stored.on_conflict_do_update(
            index_elements=[MetricSample.name, MetricSample.labels, MetricSample.part],
            set_={"value": MetricSample.value + stored.excluded.value},
        ),
        [dict(zip(("name", "labels", "part", "value"), row, strict=True)) for row in rows],
    )


@dataclass(slots=True)
class Series:
    """One line of a metric: `buckets` are cumulative counts by upper bound, empty for a counter."""

    labels: tuple[str, ...]
    count: float
    total: float
    buckets: tuple[tuple[str, float], ...]


def read(connection: Connection) -> dict[str, list[Series]]:
    """Return every metric of FAMILIES as all processes have counted it, by name."""
    is_sqlite = connection.dialect.name == "sqlite"
    # A series is one row, whose parts are a JSON object: to fetch and to sort them takes a fifth of the time.
    parts = (func.json_group_object if is_sqlite else func.json_object_agg)(MetricSample.part, MetricSample.value)
    key = (MetricSample.name, MetricSample.labels)
    rows = connection.execute(select(*key, cast(parts, Text)).group_by(*key).order_by(*key))
    series_of: dict[str, list[Series]] = {name: [] for name in FAMILIES}
    for name, text, numbers in rows:
        family = FAMILIES.get(name)
        labels = tuple(json.loads(text))
        if family is None or len(labels) != len(family.labels):
            continue  # of an earlier or a later release
        series_of[name].append(_series(family, labels, json.loads(numbers)))
    return series_of


def _series(family: Family, labels: tuple[str, ...], numbers: dict[str, float]) -> Series:
    if not family.buckets:
        return Series(labels, numbers.get("count", 0.0), 0.0, ())
    bounds = family.bounds
    cumulative = tuple(zip(bounds, accumulate([numbers.get(bound, 0.0) for bound in bounds]), strict=True))
    return Series(labels, cumulative[-1][1], numbers.get("sum", 0.0), cumulative)


def quantile(buckets: Iterable[tuple[str, float]], share: float) -> float | None:
    """Return the value below which a share (0 to 1) of a histogram lies, by linear interpolation; None without values.

    In the last bucket, which has no end, it is the bucket's lower bound.
    """
    pairs = [(float(bound), count) for bound, count in buckets]
    if not pairs or not pairs[-1][1]:
        return None
    rank = share * pairs[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in pairs:
        if count >= rank:
            if bound == float("inf") or count == below:
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def sample_key(family: Family, labels: tuple[str, ...]) -> Sample:
    """Return the key of a counter's number in the table."""
    return (family.name, _text(labels), "count")


def _text(labels: tuple[str, ...]) -> str:
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
