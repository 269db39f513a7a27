"""A training from end to end: a table and options in, a package with its report out."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance

from shared.cards.card import Card
from shared.cards.examples import with_examples
from shared.monitoring.quality import Estimate, calibration, classification_metrics, regression_metrics
from shared.packages.artefacts.libraries import library_versions
from shared.packages.package import UNHASHED, Package
from shared.packages.sample import canonical_rows
from shared.scoring.threads import one_thread
from shared.training.calibration import Calibration, calibrated_pipeline, calibrations
from shared.training.estimators import MODEL, draws, make_pipeline
from shared.training.frames import feature_of, frame_of
from shared.training.leaks import check_leaks
from shared.training.options import TrainingOptions
from shared.training.search import Folds, Tried, figure, make_folds, metric_of, search
from shared.training.table import Table
from shared.training.thresholds import best_place, curve_of, threshold_report

REPEATS = 5  # of a permuted column
IMPORTANCE_ROWS = 2_000  # of the fold on which columns are permuted

Floats = NDArray[np.float64]
Tell = Callable[[str, int, int], None]  # the stage, and how many of how many steps of it are done


@dataclass(frozen=True, slots=True)
class Trained:
    """The best model of a training, and all that is reported of it."""

    package: Package
    report: dict[str, Any]  # as JSON has it; shared/training/model_card.py writes the page


def train(table: Table, options: TrainingOptions, *, sha256: str, tell: Tell = lambda *_: None) -> Trained:
    """Search, calibrate and fit a model for the table, whose file has this SHA-256.

    The same table, options and libraries give the same predictions. Raises InvalidRequest where a column tells the
    target, or an estimator is not installed.
    """
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _train(table, options, sha256, tell)


def _train(table: Table, options: TrainingOptions, sha256: str, tell: Tell) -> Trained:
    drawn = draws(options, table.task)
    tell("checking", 0, 1)
    check_leaks(table)
    frame = frame_of(table)
    answers = np.asarray(table.answers, dtype=np.float64)
    targets: np.ndarray[Any, Any] = answers if table.task == "regression" else answers.astype(np.int64)
    folds = make_folds(answers, table.task, options.seed)
    tell("searching", 0, len(drawn))
    tried = search(
        table, frame, targets, folds, options, drawn, tell=lambda count: tell("searching", count, len(drawn))
    )
    best = tried[0]
    pipeline = make_pipeline(table, best.draw, options.seed)
    scores, report = best.scores, dict[str, Any]()
    if table.task == "binary":
        tell("calibrating", 0, 1)
        ways = calibrations(answers, scores, folds, decides=hasattr(pipeline.named_steps[MODEL], "decision_function"))
        report["calibration"] = {"tried": [each.describe() for each in ways], "applied": None}
        applied = _best_calibration(ways)
        if applied is not None:
            report["calibration"]["applied"] = applied.method
            scores = applied.scores
            pipeline = calibrated_pipeline(pipeline, applied.method, options.seed)
        curve = curve_of(answers, scores)
        place = best_place(curve, options)
        report["threshold"] = threshold_report(curve, place, options)
        report["curve"] = curve.dump(options)
        report["reliability"] = [
            {"rows": each.rows, "mean_probability": each.mean_probability, "share": each.share}
            for each in calibration(targets.tolist(), scores.tolist())
        ]
    tell("importance", 0, 1)
    report["importance"] = _importance(table, best, frame, targets, folds, options)
    tell("fitting", 0, 1)
    pipeline.fit(frame, targets)
    threshold = report["threshold"]["threshold"] if table.task == "binary" else None
    metrics = _metrics(table, answers, scores, threshold)
    report = {
        "task": table.task,
        "target": table.target,
        "labels": table.labels,
        "rows": table.row_count,
        "data_sha256": sha256,
        "options": options.dump(),
        "notes": table.notes,
        "features": [
            {"name": column.name, "type": column.kind, "missing": sum(value is None for value in column.values)}
            for column in table.columns
        ],
        "class_rows": [int((answers == place).sum()) for place in range(len(table.labels))],
        "search": {
            "metric": metric_of(table.task),
            "folds": len(folds),
            "best": _tried_body(best),
            "tried": [_tried_body(each) for each in tried],
        },
        "metrics": {name: _estimate_body(each) for name, each in metrics.items()},
        "libraries": library_versions(pipeline),
        **report,
    }
    return Trained(_package(table, pipeline, options, metrics, threshold, sha256), report)


def _best_calibration(ways: list[Calibration]) -> Calibration | None:
    worth = [each for each in ways if each.is_worth_it]
    return max(worth, key=lambda each: each.improvement, default=None)


def _importance(
    table: Table,
    best: Tried,
    frame: Any,  # noqa: ANN401 - a DataFrame
    targets: Any,  # noqa: ANN401 - an array
    folds: Folds,
    options: TrainingOptions,
) -> list[dict[str, Any]]:
    """Return by how much the figure of the search falls when a column is shuffled, on a fold that was not fitted on."""
    fit_rows, rows = folds[0]
    rows = rows[:IMPORTANCE_ROWS]
    model = clone(make_pipeline(table, best.draw, options.seed)).fit(frame.iloc[fit_rows], targets[fit_rows])

    def score(fitted: Any, features: Any, answers: Any) -> float:  # noqa: ANN401 - as scikit-learn calls it
        if table.task == "regression":
            return figure(table.task, answers, fitted.predict(features))
        probabilities = fitted.predict_proba(features)
        return figure(table.task, answers, probabilities[:, 1] if table.task == "binary" else probabilities)

    permuted = permutation_importance(
        model, frame.iloc[rows], targets[rows], scoring=score, n_repeats=REPEATS, random_state=options.seed
    )
    columns = [
        {"feature": column.name, "mean": float(mean), "deviation": float(deviation)}
        for column, mean, deviation in zip(
            table.columns, permuted.importances_mean, permuted.importances_std, strict=True
        )
    ]
    return sorted(columns, key=lambda each: -float(str(each["mean"])))


def _metrics(table: Table, answers: Floats, scores: Floats, threshold: float | None) -> dict[str, Estimate]:
    """Return the metrics of the out-of-fold scores, with their intervals."""
    if table.task == "regression":
        return regression_metrics(answers.tolist(), scores.tolist())
    actual = answers.astype(int).tolist()
    if table.task == "multiclass":
        return classification_metrics(actual, scores.argmax(axis=1).tolist(), scores.tolist(), len(table.labels))
    assert threshold is not None
    predicted = (scores >= threshold).astype(int).tolist()
    return classification_metrics(actual, predicted, scores[:, None].tolist(), 2)


def _package(
    table: Table,
    pipeline: Any,  # noqa: ANN401 - an estimator
    options: TrainingOptions,
    metrics: dict[str, Estimate],
    threshold: float | None,
    sha256: str,
) -> Package:
    figures: dict[str, float] = {"training_rows": table.row_count}
    for name, each in metrics.items():
        if each.value is not None:
            figures[name] = each.value
        if each.low is not None and each.high is not None:
            figures |= {f"{name}_low": each.low, f"{name}_high": each.high}
    if table.task == "binary":
        figures["base_rate"] = sum(table.answers) / table.row_count
    card = Card.model_validate(
        {
            "name": options.name,
            "version": 1,
            "sha256": UNHASHED,
            "task": table.task,
            "labels": {str(place): label for place, label in enumerate(table.labels)},
            "threshold": threshold,
            "decided_by": None if threshold is None else "probability",
            "features": [feature_of(column) for column in table.columns],
            "target": table.target,
            "metrics": figures,
            "trained_at": datetime.now(UTC),
            "notes": f"Trained by this service on {table.row_count:,} rows whose file has the SHA-256 {sha256}; "
            "metrics are of five-fold cross-validation, with 95 % intervals. Examples are made up.",
        }
    )
    rows = table.rows()
    return Package(with_examples(card, rows), pipeline, canonical_rows(card, rows, source="the rows.jsonl"))


def _tried_body(tried: Tried) -> dict[str, Any]:
    return tried.draw.describe() | {"mean": tried.mean, "standard_error": tried.error, "by_fold": tried.by_fold}


def _estimate_body(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}
