"""`make model-cards`: write the figures of docs/model-cards from the examples' own generators; a test compares them.

Everything else on these pages is written by hand. The figures are of rows that the model was not fitted on, with the
intervals of `GET /metrics/model` (shared/monitoring/quality.py).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

import examples.attrition.train
import examples.credit.train
import examples.energy.train
import examples.turnover.train
from examples.credit.data import TARGET
from scripts.checkout import ROOT
from shared.monitoring.quality import Estimate, classification_metrics, regression_metrics
from shared.packages.package import Package
from shared.scoring.threads import one_thread

FOLDER = ROOT / "docs" / "model-cards"
BEGIN, END = "<!-- figures: written by `make model-cards` -->\n", "<!-- end of figures -->\n"
TRAINERS = {
    "attrition": examples.attrition.train.train,
    "credit": examples.credit.train.train,
    "energy": examples.energy.train.train,
    "turnover": examples.turnover.train.train,
}
_AGES = ((0, 30, "under 30"), (30, 46, "30 to 45"), (46, 200, "46 and older"))
_TITLES = {
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "bias": "bias (prediction less truth)",
    "roc_auc": "ROC AUC",
    "f1": "F1",
    "brier": "Brier score",
}


@dataclass(frozen=True, slots=True)
class Holdout:
    """Rows that a model was not fitted on, with their answers and its scores."""

    rows: pd.DataFrame
    actual: pd.Series
    prediction: pd.Series
    probability: pd.Series | None  # of the positive class; None for a regression


def score_holdout(package: Package) -> Holdout:
    """Return the hold-out rows of an example, scored by its pipeline."""
    rows, actual = _holdout(package.card.name)
    with one_thread():
        if package.card.task == "regression":
            return Holdout(rows, actual, pd.Series(package.estimator.predict(rows), rows.index), None)
        probability = pd.Series(package.estimator.predict_proba(rows)[:, 1], rows.index)
    return Holdout(rows, actual, (probability >= package.card.threshold).astype(int), probability)


def metrics_of(held: Holdout) -> dict[str, Estimate]:
    """Return the metrics of hold-out rows with their 95 % intervals."""
    if held.probability is None:
        return regression_metrics(list(held.actual), list(held.prediction))
    matrix = [[each] for each in held.probability]
    return classification_metrics(list(held.actual), list(held.prediction), matrix, 2)


def render(package: Package) -> str:
    """Return the block of figures of a card, in Markdown."""
    held = score_holdout(package)
    lines = [f"{len(held.rows):,} rows that the model was not fitted on.", "", *_figures(held), "", *_groups(held)]
    return "\n".join([*lines, ""])


def write(package: Package) -> None:
    """Put the block of figures into the page of a card."""
    file = FOLDER / f"{package.card.name}.md"
    before, _, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    file.write_text(f"{before}{BEGIN}{render(package)}{END}{after}", encoding="utf-8")


def _holdout(name: str) -> tuple[pd.DataFrame, pd.Series]:
    if name == "credit":
        frame = examples.credit.train.holdout()
        return frame.drop(columns=TARGET), frame[TARGET]
    trainer: Any = getattr(examples, name).train
    _, rows, _, actual = trainer.split()
    return rows, actual


def _figures(held: Holdout) -> Iterator[str]:
    yield "| figure | value | 95 % interval | method |"
    yield "| --- | --- | --- | --- |"
    if held.probability is not None:
        yield f"| share of the positive class | {held.actual.mean():.3f} | | |"
    for name, figure in metrics_of(held).items():
        title = _TITLES.get(name, name.replace("_", " "))
        yield f"| {title} | {_number(figure.value)} | {_interval(figure)} | {figure.method} |"


def _groups(held: Holdout) -> Iterator[str]:
    """Yield a table of the figures by group: whom the model serves worse."""
    if held.probability is None:
        yield "| use | rows | mean absolute error | bias |"
        yield "| --- | --- | --- | --- |"
    else:
        yield "| group | rows | positive | decided positive | recall | precision |"
        yield "| --- | --- | --- | --- | --- | --- |"
    for title, inside in _masks(held.rows):
        figures = metrics_of(_part(held, inside))
        count = f"{int(inside.sum()):,}"
        if held.probability is None:
            yield f"| {title} | {count} | {_both(figures['mae'])} | {_both(figures['bias'])} |"
        else:
            rates = f"{held.actual[inside].mean():.3f} | {held.prediction[inside].mean():.3f}"
            yield f"| {title} | {count} | {rates} | {_both(figures['recall'])} | {_both(figures['precision'])} |"


def _masks(rows: pd.DataFrame) -> Iterator[tuple[str, "pd.Series[bool]"]]:
    if "use" in rows:
        yield from ((use, rows["use"] == use) for use in sorted(rows["use"].unique()))
        return
    if "genre" in rows:
        titles = {0: "women", 1: "men", 2: "other", "F": "women", "M": "men"}
        yield from ((titles[value], rows["genre"] == value) for value in sorted(rows["genre"].unique()))
    age = rows["age"] if "age" in rows else rows["age_years"]
    yield from ((title, (age >= low) & (age < high)) for low, high, title in _AGES)


def _part(held: Holdout, inside: "pd.Series[bool]") -> Holdout:
    probability = None if held.probability is None else held.probability[inside]
    return Holdout(held.rows[inside], held.actual[inside], held.prediction[inside], probability)


def _both(figure: Estimate) -> str:
    return f"{_number(figure.value)} ({_interval(figure)})" if figure.value is not None else "not defined"


def _interval(figure: Estimate) -> str:
    return "" if figure.low is None else f"{_number(figure.low)} to {_number(figure.high)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def main() -> int:
    """Train each example as `make run` does, and write its figures."""
    for trainer in TRAINERS.values():
        package = trainer()
        write(package)
        print(f"written: {(FOLDER / package.card.name).relative_to(ROOT)}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
