"""The order in which metrics are shown: the database keeps the names of a JSON object in an order of its own."""

from collections.abc import Mapping
from typing import Any

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "brier",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "average_precision",
    "mae",
    "rmse",
    "r2",
    "bias",
)


def in_order(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as `GET /metrics/model` lists them, and after these any others by name."""
    places = {name: place for place, name in enumerate(METRICS)}
    return {name: metrics[name] for name in sorted(metrics, key=lambda name: (places.get(name, len(places)), name))}
