"""The dashboard and the alerts use metrics and labels that /metrics has."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api.monitoring.scrape import Figures, prometheus_metrics
from api.services import Services
from shared.jobs.figures import FileFigures, QueueFigures
from shared.observability.exposition import expose
from shared.observability.metrics import FAMILIES, Series
from tests.support.stack import ROOT

MONITORING = ROOT / "deploy" / "monitoring"


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of each sample of /metrics, by its name; one series of each metric is enough."""
    series = {}
    for family in FAMILIES.values():
        buckets = tuple((bound, 1.0) for bound in (*map(repr, family.buckets), "+Inf")) if family.buckets else ()
        series[family.name] = [Series(("x",) * len(family.labels), 1.0, 1.0, buckets)]
    figures = Figures(
        series,
        [QueueFigures("m@1", "bulk", 1, 1.0)],
        [FileFigures("m@1", 1, 1)],
        {("m@1", "age", "no"): 1.0},
        {"bulk": 1},
        {"open": 1.0},
        0.0,
    )
    shadow = SimpleNamespace(stopped_at=None, lag_seconds=1.0)
    snapshot = SimpleNamespace(by_id={1: SimpleNamespace(label="m@1")}, suspended={1: None}, shadows={1: shadow})
    services = SimpleNamespace(catalog=SimpleNamespace(snapshot=snapshot), settings=SimpleNamespace(runtime="queue"))
    text, _ = expose(prometheus_metrics(figures, cast("Services", services)), None)
    families = text_string_to_metric_families(text.decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def targets(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (query, legend) of every panel."""
    if isinstance(node, dict):
        if "expr" in node:
            yield node["expr"], node.get("legendFormat", "")
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def check(expression: str, labels: dict[str, set[str]]) -> set[str]:
    """Check a query's metrics and labels; return the labels that its answer has, as far as it names them."""
    used = re.findall(r"\b(guichet_\w+)(?:\{([^}]*)\})?", expression)
    grouped = {word for names in re.findall(r"\bby \(([^)]*)\)", expression) for word in re.findall(r"\w+", names)}
    for name, selector in used:
        assert name in labels, f"{name} is no metric: {expression}"
        chosen = set(re.findall(r"(\w+)\s*(?:=|!)", re.sub(r'"[^"]*"', "", selector)))
        assert chosen | grouped <= labels[name], f"{name} has the labels {labels[name]}: {expression}"
    return grouped


def test_panels_ask_for_metrics_and_labels_that_there_are(labels: dict[str, set[str]]) -> None:
    panels = list(targets(json.loads((MONITORING / "dashboard.json").read_text())))
    assert len(panels) > 10
    for expression, legend in panels:
        assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend)) <= check(expression, labels), (expression, legend)


def test_alerts_ask_for_metrics_and_labels_that_there_are(labels: dict[str, set[str]]) -> None:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 8
    for rule in rules:
        check(rule["expr"], labels)


def test_unknown_metric_and_label_are_found(labels: dict[str, set[str]]) -> None:
    for wrong in ("sum(guichet_nothing_total)", "sum by (colour) (guichet_workers)", 'guichet_workers{colour="red"}'):
        with pytest.raises(AssertionError):
            check(wrong, labels)
