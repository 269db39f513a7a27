"""Training candidate versions, for keys with the scope `admin`. Flows, as in calls.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypedDict

from guichet.records import Body


class TrainingOptions(TypedDict, total=False):
    """Options of a training; an option left out means the service's default."""

    positive: str | None  # of two classes the one whose probability is given
    leave_out: Sequence[str] | None  # columns that are no features
    estimators: Sequence[str] | None  # linear, hist_gradient_boosting, random_forest, lightgbm, xgboost
    draws: int | None
    seed: int | None
    cost_fp: float | None
    cost_fn: float | None
    target_recall: float | None


@dataclass(frozen=True, slots=True)
class TrainedVersion:
    """The candidate version of a training; `body` has the whole report."""

    model: str
    version: int
    estimator: str
    metrics: dict[str, float | None]  # of cross-validation; their intervals are in `body`
    threshold: float | None
    notes: list[str]
    body: Body = field(repr=False, compare=False)

    @classmethod
    def read(cls, body: Body) -> Self:
        """Read it from JSON."""
        return cls(
            model=str(body["model"]),
            version=int(body["version"]),
            estimator=str(body["best"]["estimator"]),
            metrics={str(name): each["value"] for name, each in body["metrics"].items()},
            threshold=body["threshold"],
            notes=[str(note) for note in body["notes"]],
            body=body,
        )


def training_query(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the query of a training on a file; columns are separated by commas."""
    return {
        name: ",".join(value) if isinstance(value, list | tuple) else str(value)
        for name, value in options.items()
        if value is not None
    }


def window_body(
    model: str, options: Mapping[str, Any], *, start: datetime | str | None, end: datetime | str | None
) -> dict[str, Any]:
    """Return the body of a training on a window; a time without an offset is local."""

    def moment(value: datetime | str | None) -> str | None:
        return value.astimezone().isoformat() if isinstance(value, datetime) else value

    body = {"model": model, "from": moment(start), "to": moment(end), **options}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in body.items() if value is not None
    }
