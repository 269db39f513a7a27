"""docs/runbook.md and docs/metrics.md: no alert and no metric without its words."""

import re

import yaml

from shared.observability import metrics
from shared.observability.metrics import Family
from tests.support.stack import ROOT

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()


def test_every_alert_has_a_section_that_begins_with_its_urgency():
    groups = yaml.safe_load((ROOT / "deploy" / "monitoring" / "rules.yml").read_text())["groups"]
    severities = {rule["alert"]: rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    sections = dict(re.findall(r"^### (Guichet\w+)\n\n(\w+): ", RUNBOOK, re.M))
    assert sections == severities
    assert len(severities) > 10


def test_every_alert_is_in_the_list_of_the_reference():
    groups = yaml.safe_load((ROOT / "deploy" / "monitoring" / "rules.yml").read_text())["groups"]
    listed = set(re.findall(r"^\| \[`(Guichet\w+)`\]\(runbook\.md#", METRICS, re.M))
    assert listed == {rule["alert"] for group in groups for rule in group["rules"]}


def test_every_counter_and_histogram_has_a_line_with_its_labels():
    families = [each for each in vars(metrics).values() if isinstance(each, Family)]
    assert len(families) >= 8
    lines = dict(re.findall(r"^\| `(guichet_\w+)` \| ([\w, ]*)\| ", METRICS, re.M))
    for family in families:
        name = f"guichet_{family.name}" + ("" if family.buckets else "_total")
        assert {word for word in lines[name].replace(" ", "").split(",") if word} == set(family.labels), name
