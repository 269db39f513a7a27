"""The report of a comparison: figures with their intervals, and a sentence for each figure that a task does not have.

Intervals are of 95 %: Wilson's of shares of rows, the normal one of means of paired differences, DeLong's of the
difference of ROC AUC. p-values of segments are of the G-test against all other rows, after Benjamini and Hochberg.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from shared.comparison.judged import Judged, Twice
from shared.comparison.segments import flattened
from shared.comparison.statistics import Moments, mcnemar
from shared.comparison.tally import STEPS, Disagreement, Tally
from shared.monitoring.drift.statistics import false_discovery, g_test
from shared.monitoring.quality import wilson

SHOWN = 30  # segments, and changes from class to class
LEAST_ROWS = 20  # of a segment that is shown

Report = dict[str, Any]


def make_report(tally: Tally, judged: Judged, labels: Sequence[str]) -> Report:
    """Return the report of all pairs and of those with a known outcome; `labels` are the classes in card order.

    `largest` has ids of inputs; the caller looks up their jobs.
    """
    is_number = tally.task == "regression"
    return {
        "pairs": tally.rows,
        "refused": tally.refused,
        "agreement": None if is_number or not tally.rows else share(tally.agreed, tally.rows),
        "flips": None if is_number else _flips(tally, labels),
        "score_shift": _shift(tally),
        "segments": _segments(tally),
        "cost": _cost(judged),
        "outcomes": _outcomes(judged),
        "largest": [_disagreement(each, labels) for each in tally.largest],
        "notes": _notes(tally, judged),
    }


def share(hits: int, count: int) -> dict[str, Any]:
    """Return a share of rows with Wilson's interval."""
    low, high = wilson(hits, count)
    return {"value": hits / count, "low": low, "high": high, "method": "wilson"}


def _flips(tally: Tally, labels: Sequence[str]) -> dict[str, Any]:
    changed = {change: count for change, count in tally.transitions.items() if change[0] != change[1]}
    flips: dict[str, Any] = {"count": sum(changed.values()), "up": None, "down": None, "p_value": None}
    if tally.task == "binary":
        up, down = changed.get((0, 1), 0), changed.get((1, 0), 0)
        flips |= {"up": up, "down": down, "p_value": mcnemar(up, down)}
    most = sorted(changed.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    flips["transitions"] = [
        {"from": labels[before], "to": labels[after], "rows": count} for (before, after), count in most
    ]
    decided: list[dict[int, int]] = [{}, {}]
    for change, count in tally.transitions.items():
        for of_one, place in zip(decided, change, strict=True):
            of_one[place] = of_one.get(place, 0) + count
    flips["decisions"] = [
        {"label": label, "before": decided[0].get(place, 0), "after": decided[1].get(place, 0)}
        for place, label in enumerate(labels)
    ]
    return flips


def _shift(tally: Tally) -> dict[str, Any] | None:
    if not tally.shift.count:
        return None
    spread = math.sqrt(tally.shift.squares / (tally.shift.count - 1)) if tally.shift.count > 1 else None
    shift = asdict(tally.shift.estimate()) | {
        "rows": tally.shift.count,
        "before": tally.before.mean,
        "after": tally.after.mean,
        "deviation": spread,
        "mean_absolute": tally.absolute.mean,
        "largest": tally.most,
    }
    if tally.task != "regression":
        shift["moved"] = [
            {"by_more_than": step, "rows": count, "share": count / tally.shift.count}
            for step, count in zip(STEPS, tally.moved, strict=True)
        ]
    return shift


def _segments(tally: Tally) -> list[dict[str, Any]]:
    """Return the segments that changed most surely, with the interval of how much."""
    every = [each for each in flattened(tally.segments) if each[2][0] >= LEAST_ROWS]
    if tally.task == "regression":
        segments = [_shifted(*each) for each in every]
        segments.sort(key=lambda each: -_surely(each["shift"]))
        return segments[:SHOWN]
    total = sum(count for change, count in tally.transitions.items() if change[0] != change[1])
    p_values = false_discovery([_apart(sums, total, tally.rows) for _, _, sums in every])
    segments = []
    for (feature, segment, sums), p_value in zip(every, p_values, strict=True):
        rows, up, down = (int(number) for number in sums)
        directions = {"up": up, "down": down} if tally.task == "binary" else {"up": None, "down": None}
        place = {"feature": feature, "segment": segment, "rows": rows, "flips": up + down}
        segments.append(place | directions | {"share": share(up + down, rows), "p_value": p_value})
    segments.sort(key=lambda each: (-each["share"]["low"], -each["rows"], each["feature"], each["segment"]))
    return [each for each in segments if each["flips"]][:SHOWN]


def _apart(sums: Sequence[float], total: int, rows: int) -> float:
    """Return the p-value that as many rows of a segment flip as of all others."""
    inside, flips = int(sums[0]), int(sums[1] + sums[2])
    others = total - flips
    return g_test([flips, inside - flips], [others, rows - inside - others])


def _shifted(feature: str, segment: str, sums: Sequence[float]) -> dict[str, Any]:
    rows, total, squares = sums
    moments = Moments(int(rows), total / rows, max(squares - total * total / rows, 0.0))
    return {"feature": feature, "segment": segment, "rows": int(rows), "shift": asdict(moments.estimate())}


def _surely(shift: dict[str, Any]) -> float:
    """Return the smallest plausible distance of a mean from 0."""
    return float(max(shift["low"], -shift["high"], 0.0))


def _cost(judged: Judged) -> dict[str, Any] | None:
    if judged.task != "binary" or not judged.rows:
        return None
    weights = {"false_positive": judged.costs[0], "false_negative": judged.costs[1]}
    sides = {
        name: {"false_positives": positives, "false_negatives": negatives, "cost": moments.mean * judged.rows}
        for name, (positives, negatives), moments in zip(
            ("before", "after"), judged.false, (judged.cost.before, judged.cost.after), strict=True
        )
    }
    difference = judged.cost.difference.estimate(judged.rows)
    return {"rows": judged.rows, "weights": weights} | sides | {"difference": asdict(difference)}


def _outcomes(judged: Judged) -> dict[str, Any] | None:
    if not judged.rows:
        return None
    metrics: dict[str, Any] = {"rows": judged.rows}
    if judged.task == "regression":
        return metrics | {"mae": _twice(judged.errors), "mse": _twice(judged.squares)}
    accuracy = {
        "before": 1.0 - judged.errors.before.mean,
        "after": 1.0 - judged.errors.after.mean,
        "difference": asdict(judged.errors.difference.estimate(-1.0)),
        "mended": judged.mended,
        "spoilt": judged.spoilt,
        "p_value": judged.p_value(),
    }
    metrics["accuracy"] = accuracy
    if judged.task == "binary" and judged.ranked:
        auc = judged.auc()
        metrics["roc_auc"] = {
            "before": auc.before,
            "after": auc.after,
            "difference": asdict(auc.difference),
            "p_value": auc.p_value,
            "rows": judged.sampled,
        }
        metrics["brier"] = _twice(judged.squares)
    return metrics


def _twice(twice: Twice) -> dict[str, Any]:
    return {
        "before": twice.before.mean,
        "after": twice.after.mean,
        "difference": asdict(twice.difference.estimate()),
    }


def _disagreement(disagreement: Disagreement, labels: Sequence[str]) -> dict[str, Any]:
    decided = (disagreement.decided_before, disagreement.decided_after)
    before, after = (None if place is None else labels[place] for place in decided)
    return {
        "input_id": disagreement.input_id,
        "before": disagreement.before,
        "after": disagreement.after,
        "difference": disagreement.after - disagreement.before,
        "label_before": before,
        "label_after": after,
    }


def _notes(tally: Tally, judged: Judged) -> list[str]:
    """Return the omissions of the figures and their reasons, as sentences."""
    notes = []
    if tally.task == "regression":
        notes.append(
            "A regression decides nothing: there is no agreement, no flip and no cost; segments show the mean shift."
        )
    if tally.task == "multiclass":
        notes.append(
            "Of several classes no flip is up or down: transitions say which class became which. Scores are those of "
            "the class that each version decides for. There is no cost, ROC AUC or Brier score of two classes."
        )
    if tally.task != "regression" and tally.shift.count < tally.rows:
        without = tally.rows - tally.shift.count
        notes.append(f"{without} of {tally.rows} pairs have no probability of both versions, and no score shift.")
    if tally.refused:
        notes.append(
            f"{tally.refused} rows are not among the pairs: it refuses them, or failed on them, or they are erased."
        )
    if not judged.rows:
        notes.append("No outcome of these rows is known: POST /outcomes tells them, and then costs are shown.")
    elif judged.rows < tally.rows:
        notes.append(f"Outcomes are known of {judged.rows} of {tally.rows} rows: costs and quality are of these.")
    if judged.task == "binary" and judged.sampled < judged.ranked:
        notes.append(f"ROC AUC is of a random {judged.sampled} of the {judged.ranked} rows with outcome and scores.")
    return notes
