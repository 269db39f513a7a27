"""The threshold of a binary model, from scores of rows that it was not fitted on, and the curve that it lies on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.training.options import TrainingOptions

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """Each threshold that decides the rows otherwise than the next one, from the highest to the lowest.

    A row is positive from the threshold on; the first calls no row positive, unless a probability is 1.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats
    positives: int
    negatives: int

    def costs(self, cost_fp: float, cost_fn: float) -> Floats:
        """Return the mean cost of a row at each threshold."""
        missed = self.positives - self.true_positives
        total: Floats = cost_fp * self.false_positives + cost_fn * missed
        return total / (self.positives + self.negatives)

    def dump(self, options: TrainingOptions) -> dict[str, list[float]]:
        """Return the whole curve as JSON has it."""
        return {
            "threshold": self.thresholds.tolist(),
            "true_positives": self.true_positives.tolist(),
            "false_positives": self.false_positives.tolist(),
            "mean_cost": self.costs(options.cost_fp, options.cost_fn).tolist(),
        }


def curve_of(answers: Floats, probability: Floats) -> Curve:
    """Return the curve of n rows: a point for each distinct probability, and one above them all."""
    values, places = np.unique(probability, return_inverse=True)
    positives = np.bincount(places, weights=answers)[::-1].astype(np.float64)
    counts = np.bincount(places)[::-1].astype(np.float64)
    thresholds, hits, alarms = values[::-1], np.cumsum(positives), np.cumsum(counts - positives)
    if thresholds[0] < 1:
        thresholds, hits, alarms = (
            np.concatenate([[first], rest]) for first, rest in ((1.0, thresholds), (0.0, hits), (0.0, alarms))
        )
    total = int(answers.sum())
    return Curve(thresholds, hits, alarms, total, len(answers) - total)


def best_place(curve: Curve, options: TrainingOptions) -> int:
    """Return the place of the threshold on the curve: of least cost, or with the target recall.

    Of several that are equally good it is the highest.
    """
    if options.target_recall is not None:
        return int(np.argmax(curve.true_positives >= options.target_recall * curve.positives))
    return int(np.argmin(curve.costs(options.cost_fp, options.cost_fn)))


def threshold_report(curve: Curve, place: int, options: TrainingOptions) -> dict[str, Any]:
    """Return what the threshold does to the rows of the curve, as JSON has it."""
    hits, alarms = curve.true_positives[place], curve.false_positives[place]
    chosen = (
        {"rule": "target_recall", "target_recall": options.target_recall}
        if options.target_recall is not None
        else {"rule": "least_cost", "cost_fp": options.cost_fp, "cost_fn": options.cost_fn}
    )
    return chosen | {
        "threshold": float(curve.thresholds[place]),
        "true_positives": int(hits),
        "false_positives": int(alarms),
        "false_negatives": int(curve.positives - hits),
        "true_negatives": int(curve.negatives - alarms),
        "recall": float(hits / curve.positives),
        "precision": None if hits + alarms == 0 else float(hits / (hits + alarms)),
        "mean_cost": float(curve.costs(options.cost_fp, options.cost_fn)[place]),
    }
