"""The metrics of a card: those that a file holds, of rows kept aside, or else those of the reference rows."""

import json
import math
from pathlib import Path
from typing import Any

from shared.cards.card import Card
from shared.errors import CardError
from shared.faults import Fault
from shared.files import read_file
from shared.monitoring.outcomes import Judged, TruthReader
from shared.monitoring.quality import judge
from shared.packages.package import Package
from shared.scoring.outputs import Output

MAX_METRICS = 100
NAME_LENGTH = 100


def read_metrics(path: Path) -> dict[str, float]:
    """Return the metrics in a JSON file, name to number; raise CardError for anything else."""
    try:
        found = json.loads(read_file(path).decode("utf-8-sig"), parse_constant=lambda _: None)
    except OSError as error:
        raise CardError(f"{path} cannot be read ({error.strerror}): name a JSON file with metrics.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not 1 <= len(found) <= MAX_METRICS:
        raise CardError(f'{path} holds no metrics: write one JSON object, e.g. {{"roc_auc": 0.81, "recall": 0.74}}.')
    for name, value in found.items():
        if not name or len(name) > NAME_LENGTH:
            raise CardError(f"{path}: the name of a metric has 1 to {NAME_LENGTH} characters.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CardError(f"{path}: the metric {name[:70]!r} must be a finite number.")
    return {name: float(value) for name, value in found.items()}


def reference_metrics(card: Card, package: Package, outputs: list[Output | Fault], target: str) -> dict[str, float]:
    """Return the metrics of a model on its reference rows (n, with their n outputs), whose answers are a column.

    Rows without an answer that the model could give, or without a score, are left out; `rows` says how many are not.
    """
    given = package.given_rows
    if given is None or package.lines is None:
        return {}
    by_line: dict[int, dict[str, Any]] = dict(zip(given.lines, given.rows, strict=True))
    reader = TruthReader(card, given.numbers)
    judged = Judged([], [], [], [])
    for line, output in zip(package.lines, outputs, strict=True):
        answer = reader.read(by_line[line].get(target))
        if isinstance(answer, Fault) or isinstance(output, Fault):
            continue
        judged.actual.append(answer[0])
        judged.prediction.append(output.prediction)
        judged.probability.append(output.probability)
        judged.probabilities.append(output.probabilities)
    if not judged.actual:
        return {}
    metrics, _ = judge(card, judged)
    known = {name: each.value for name, each in metrics.items() if each.value is not None}
    return {**known, "rows": float(len(judged.actual))}
